"""Folds inside a study: on a tiny model, whose text means nothing but whose answers vary."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import small_study, write_tiny

import seedfold
from seedfold import config, dense, evaluation, folds
from seedfold.engines.transformers import TransformersEngine
from seedfold.errors import UserError
from seedfold.journal import Journal
from seedfold.plan import plan
from seedfold.recipe import Recipe
from seedfold.report.record import TIMES
from seedfold.study import planned

METHODS = ["linear", "corp", "evolution", "released_corp"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("folds")
    study: dict[str, Any] = small_study(folder, write_tiny(folder / "model"))
    study["splits"] = {"search": 20, "select": 8, "gate": 16, "test": 14}
    study["search"] |= {"candidates": 8, "votes": [2]}
    study["fold"] = {
        "methods": METHODS,
        "gate": {"level": 0.49},  # so that something is committed
        "race": {"block": 4},
        "linear": {"steps": [1.0, 2.0]},
        "corp": {"quantiles": [0.5], "betas": [1.0], "steps": [1.0]},
        "local": {"rounds": 1, "candidates": 6},
        "evolution": {"iterations": 3, "candidates": 4, "sigma": 0.03, "rate": 0.02, "batch": 6},
        "released_corp": {
            "quantiles": [0.5],
            "betas": [1.0, 5.0],
            "scales": [1.0, 2.0],
            "probe": 8,
            "rounds": 1,
            "candidates": 4,
        },
    }
    return study


@pytest.fixture(scope="module")
def done(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> seedfold.Study:
    return seedfold.run(settings, tmp_path_factory.mktemp("whole") / "out")


def test_every_method_has_a_line_and_a_recipe(done: seedfold.Study) -> None:
    lines = [line for line in done.results if line["kind"] == "fold"]
    assert [line["method"].partition(" fold")[0] for line in lines] == METHODS
    told = {fold["method"]: fold for fold in done.record["folds"]}
    base = done.results[0]
    for line, method in zip(lines, METHODS, strict=True):
        recipe = Recipe.load(done.folder / line["recipes"][0])
        assert line["passes"] == 1
        assert len(recipe.terms) == told[method]["terms"]
        assert told[method]["committed"] == bool(recipe.terms)
        if recipe.terms:
            assert recipe.source["method"] == method
        else:
            assert line["method"].endswith("fold (base)")
            assert (line["accuracy"], line["difference"]) == (base["accuracy"], 0)
        assert method in str(done)
    assert any(fold["committed"] for fold in told.values()), "nothing was committed, so this shows little"


def test_the_cost_of_a_fold_is_what_the_journal_holds(settings: dict[str, Any], tmp_path: Path) -> None:
    """One method alone: its answers, the search's and the test's are all there are, and the plan is not exceeded."""
    for method in METHODS:
        alone = copy.deepcopy(settings)
        alone["fold"]["methods"] = [method]
        study = seedfold.run(alone, tmp_path / method)
        (fold,) = study.record["folds"]
        assert 0 < fold["evaluations"] <= folds.planned(config.from_dict(alone))[method]
        line = study.results[-1]
        searched = study.results[1]["evaluations"]
        assert searched == 9 * 20
        assert line["evaluations"] == fold["evaluations"] + (0 if method == "evolution" else searched)
        assert 0 < fold["tokens"] < line["tokens"] or method == "evolution"


def test_a_fold_that_is_interrupted_goes_on_to_the_same_end(
    settings: dict[str, Any], done: seedfold.Study, tmp_path: Path
) -> None:
    expected = {name: value for name, value in done.record.items() if name not in TIMES}
    generate, left = TransformersEngine.generate, [0]

    def blow(self: TransformersEngine, *rest: Any) -> Any:
        for batch in generate(self, *rest):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            yield batch

    counts = [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersEngine, "generate", blow)
        for budget in (25, 12, 9, 14, 11):
            left[0] = budget
            with pytest.raises(KeyboardInterrupt):
                seedfold.run(settings, tmp_path / "out")
            with Journal.read(tmp_path / "out") as journal:
                counts.append(journal.count())
    assert counts == sorted(set(counts)), "an interruption lost answers, or the study stood still"
    found = seedfold.run(settings, tmp_path / "out").record
    assert {name: value for name, value in found.items() if name not in TIMES} == expected


def test_an_exported_fold_gives_the_studys_answers(
    settings: dict[str, Any], done: seedfold.Study, tmp_path: Path
) -> None:
    line = next(line for line in done.results if line["kind"] == "fold" and not line["method"].endswith("(base)"))
    file = done.folder / line["recipes"][0]
    folder = evaluation.export(file, tmp_path / "exported")
    exported = config.from_dict(settings | {"model": {"name": str(folder)}})
    found = evaluation.evaluate(exported, [], "test", tmp_path / "answers.jsonl")
    assert found["accuracy"] == line["accuracy"]
    answers = {row["example"]: row["completion"] for row in map(json.loads, (tmp_path / "answers.jsonl").open())}
    with Journal.read(done.folder) as journal:
        rows = journal.rows(Recipe.load(file).key, examples=list(answers))
    assert {row.example: row.completion for row in rows} == answers


def test_the_plan_names_what_the_folds_cost(settings: dict[str, Any]) -> None:
    chosen = config.from_dict(settings)
    lines = plan(chosen, probe=False).splitlines()
    for method in METHODS:
        assert f"{folds.planned(chosen)[method]:,}  fold: {method}, at most" in "\n".join(lines)
    counts = [int(line.split()[0].replace(",", "")) for line in lines if line.strip()[:1].isdigit()]
    assert sum(counts[:-1]) == counts[-1] == planned(chosen)


def test_methods_share_the_level_of_the_gate(settings: dict[str, Any]) -> None:
    chosen = config.from_dict(settings)
    assert chosen.fold.gated == ("linear", "corp", "evolution")
    assert folds.gate_of(chosen).level == pytest.approx(0.49 / 3)


@pytest.mark.parametrize(
    ("section", "values", "what"),
    [
        ("splits", {"gate": 0}, '"splits.gate" is 0'),
        ("search", {"racing": True}, "released_corp, which wants every candidate"),
        ("fold", {"methods": ["linar"]}, "fold.methods.*linear"),
        ("fold", {"methods": ["linear", "linear"]}, "name each once"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], section: str, values: dict[str, Any], what: str) -> None:
    wrong = copy.deepcopy(settings)
    wrong[section] |= values
    with pytest.raises(UserError, match=what):
        config.from_dict(wrong)


@pytest.mark.parametrize("score", ["reference", "advantage"])
def test_dense_scores_shape_the_fold_and_are_kept(settings: dict[str, Any], tmp_path: Path, score: str) -> None:
    mine = copy.deepcopy(settings)
    mine["fold"] |= {"methods": ["linear"], "score": score, "samples": 4, "local": {"rounds": 0}}
    study = seedfold.run(mine, tmp_path / "out")
    (fold,) = study.record["folds"]
    assert fold["attempts"][0]["forecast"] is None
    mine["fold"]["score"] = "reward"
    graded = seedfold.run(mine, tmp_path / "graded")
    assert graded.record["folds"][0]["attempts"][0]["forecast"] is not None
    with Journal.read(tmp_path / "out" / "dense") as journal:
        recipe = study.recipe(1)
        rows = journal.rows(recipe.key)
    assert len(rows) > 2
    assert all(row.reward < 0 for row in rows), "log-probabilities are negative"
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: Any) -> Any:
            raise AssertionError("log-probabilities were computed again")

        patch.setattr(dense, "Row", refuse)
        mine["fold"]["score"] = score
        (tmp_path / "out" / "record.json").unlink()
        again = seedfold.run(mine, tmp_path / "out").record
    assert {k: v for k, v in again.items() if k not in TIMES} == {
        k: v for k, v in study.record.items() if k not in TIMES
    }
