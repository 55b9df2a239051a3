"""The main job on a tiny model: what it writes, that its numbers follow from its journal, and that it can be repeated."""

import copy
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import small_study, write_tiny

import seedfold
from seedfold import UserError, config, evaluation, study
from seedfold.engines.base import Decoding
from seedfold.engines.transformers import TransformersEngine
from seedfold.evaluate import Evaluator
from seedfold.journal import Journal, Row
from seedfold.recipe import Recipe
from seedfold.report.record import TIMES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, Any]:
    return small_study(tmp_path_factory.mktemp("task"), model)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> seedfold.Study:
    return seedfold.run(settings, tmp_path_factory.mktemp("study") / "out")


@pytest.fixture
def journal(done: seedfold.Study) -> Iterator[Journal]:
    with Journal.read(done.folder) as opened:
        yield opened


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def test_the_folder_holds_what_is_promised(done: seedfold.Study) -> None:
    record = json.loads((done.folder / "record.json").read_text())
    assert record == done.record == study.load(done.folder).record
    assert set(record) >= {"versions", "config", "model", "evaluations", "tokens", "seconds", "results", "candidates"}
    assert set(record["model"]) >= {"name", "fingerprint"}
    fields = {"method", "split", "accuracy", "difference", "ci95", "p", "passes", "n", "strict", "lenient", "truncated"}
    assert all(set(line) >= fields for line in record["results"])
    assert [line["kind"] for line in record["results"]] == ["base", "single", "vote", "self-consistency"]
    assert all(set(line) >= {"seed", "scale", "search", "shrunk"} for line in record["candidates"])
    assert (done.folder / "report.html").stat().st_size > 1000
    named = {path for line in record["results"] for path in line["recipes"]}
    assert named
    for path in named | {line["recipe"] for line in record["candidates"] if line["recipe"]}:
        assert Recipe.load(done.folder / path).base.fingerprint == record["model"]["fingerprint"]
    assert "best single" in str(done)


def test_every_evaluation_is_there_once(done: seedfold.Study, journal: Journal) -> None:
    k = done.record["chosen_k"]
    greedy = 10 * 24 + 5 * 12 + (1 + k) * 16
    sampled = 4 * 12 + k * 16
    assert done.record["evaluations"] == journal.count() == greedy + sampled
    assert len(journal.recipes()) == 10
    assert all(Recipe.from_json(journal.recipe_text(key)).key == key for key in journal.recipes())


def of_split(journal: Journal, key: str, sizes: config.Splits, part: str, samples: range = range(1)) -> list[list[Row]]:
    """Rows of a recipe per example of a split, found by counting who answered what: an own way to the splits."""
    answered = Counter(row.example for name in journal.recipes() for row in journal.rows(name, sample=0))
    times = {"search": 10, "select": 5}
    wanted = [example for example, count in answered.items() if count == times.get(part, count)]
    if part == "test":
        wanted = [example for example, count in answered.items() if count not in times.values()]
    rows = [[row for row in journal.rows(key) if row.example == example] for example in sorted(wanted)]
    assert len(rows) == getattr(sizes, part)
    return [[row for row in line if row.sample in samples] for line in rows]


def test_numbers_follow_from_the_journal(done: seedfold.Study, journal: Journal) -> None:
    record = done.record
    if record["chosen_k"] == 4:
        pytest.skip("select and test cannot be told apart by counts when all members vote")
    sizes = config.from_dict(record["config"]).splits
    base = next(key for key in journal.recipes() if not Recipe.from_json(journal.recipe_text(key)).terms)
    rewards = np.array([line[0].reward for line in of_split(journal, base, sizes, "test")])
    lines = {line["kind"]: line for line in record["results"]}
    assert lines["base"]["accuracy"] == pytest.approx(rewards.mean())
    members = [Recipe.load(done.folder / path).key for path in lines["vote"]["recipes"]]
    single = np.array([line[0].reward for line in of_split(journal, members[0], sizes, "test")])
    assert lines["single"]["difference"] == pytest.approx((single - rewards).mean())
    assert lines["single"]["fixed"] == int((single > rewards).sum())
    voters = [of_split(journal, key, sizes, "test") for key in members]
    votes = []
    for answers in zip(*voters, strict=True):
        rows = [line[0] for line in answers]
        counts = Counter(row.answer for row in rows if row.answer is not None)
        best = max(counts.values(), default=0)
        winner = next((row for row in rows if row.answer is not None and counts[row.answer] == best), rows[0])
        votes.append(winner.reward)
    assert lines["vote"]["accuracy"] == pytest.approx(np.mean(votes))
    for line in record["candidates"]:
        found = [row[0].reward for row in of_split(journal, line["key"], sizes, "search")]
        assert line["search"] == pytest.approx(np.mean(found))


def test_ranks_are_by_shrunken_score_and_k_by_select(done: seedfold.Study) -> None:
    by_rank = sorted(done.record["candidates"], key=lambda line: line["rank"])
    assert [line["shrunk"] for line in by_rank] == sorted((line["shrunk"] for line in by_rank), reverse=True)
    assert done.recipe().terms[0].seed == by_rank[0]["seed"]
    best = max(line["vote"] for line in done.record["votes"])
    assert done.record["chosen_k"] == min(line["k"] for line in done.record["votes"] if line["vote"] == best)


def test_again_is_the_same_and_costs_nothing(
    done: seedfold.Study, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluator, "_fresh", None)  # answering anything would raise
    again = seedfold.run(settings, done.folder)
    assert timeless(again.record) == timeless(done.record)


def test_in_another_folder_and_other_batches_it_is_the_same(
    done: seedfold.Study, settings: dict[str, Any], tmp_path: Path
) -> None:
    other = copy.deepcopy(settings)
    other["engine"]["batch"] = 48
    record = seedfold.run(other, tmp_path / "other").record
    assert [line for line in record["results"]] == done.record["results"]
    assert record["candidates"] == done.record["candidates"]


def test_vote_of_one_is_the_best_single(settings: dict[str, Any], tmp_path: Path) -> None:
    alone = copy.deepcopy(settings)
    alone["search"] |= {"candidates": 1, "votes": [1]}
    record = seedfold.run(alone, tmp_path / "one").record
    single, vote = record["results"][1:3]
    assert single["accuracy"] == vote["accuracy"]
    assert single["passes"] == vote["passes"] == 1


def test_racing_spends_what_it_says(settings: dict[str, Any], tmp_path: Path) -> None:
    raced = copy.deepcopy(settings)
    raced["search"] |= {"racing": True, "block": 6, "votes": [2]}
    record = seedfold.run(raced, tmp_path / "raced").record
    rounds = [(line["candidates"], line["examples"]) for line in record["racing"]["rounds"]]
    assert rounds == [(9, 6), (5, 12), (3, 24)]
    spent = 9 * 6 + 5 * 6 + 3 * 12
    assert record["racing"]["evaluated"] == spent == sum(line["examples"] for line in record["candidates"])
    assert record["racing"]["saved"] == pytest.approx(1 - spent / (9 * 24))
    assert sorted(line["examples"] for line in record["candidates"]) == [6] * 4 + [12] * 2 + [24] * 3


def test_another_config_is_refused_by_field(done: seedfold.Study, settings: dict[str, Any]) -> None:
    changed = copy.deepcopy(settings)
    changed["search"]["candidates"] = 10
    with pytest.raises(UserError, match=r"search\.candidates.*10.*9"):
        seedfold.run(changed, done.folder)


def test_another_model_under_the_same_name_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    mine = copy.deepcopy(settings)
    mine["model"]["name"] = str(write_tiny(tmp_path / "model"))
    mine["search"] |= {"candidates": 2, "votes": [1]}
    seedfold.run(mine, tmp_path / "out")
    write_tiny(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match="the model changed since folder"):
        seedfold.run(mine, tmp_path / "out")


def test_another_reward_under_the_same_name_is_refused(settings: dict[str, Any], tmp_path: Path, model: Path) -> None:
    mine = small_study(tmp_path, model, candidates=2, votes=[1])
    seedfold.run(mine, tmp_path / "out")
    reward = tmp_path / "reward.py"
    reward.write_text(reward.read_text() + "\n# changed\n")
    with pytest.raises(UserError, match="the reward changed since folder"):
        seedfold.run(mine, tmp_path / "out")


def test_a_reward_that_breaks_loses_nothing(tmp_path: Path, model: Path) -> None:
    mine = small_study(tmp_path, model, candidates=3, votes=[1])
    reward = tmp_path / "reward.py"
    good = reward.read_text()
    fuse = tmp_path / "fuse"
    check = f"    if open({str(fuse)!r}).read(): return float('nan')\n"
    reward.write_text(good.replace("    letters", check + "    letters", 1))
    fuse.write_text("")
    calls = {"left": 3}
    answer = TransformersEngine._answer

    def blow(self: Any, *arguments: Any) -> Any:
        calls["left"] -= 1
        if calls["left"] == 0:
            fuse.write_text("blown")
        return answer(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersEngine, "_answer", blow)
        with pytest.raises(UserError, match=r"nan.*row \d+"):
            seedfold.run(mine, tmp_path / "out")
    with Journal.read(tmp_path / "out") as journal:
        kept = journal.count()
    assert kept > 0
    fuse.write_text("")
    assert seedfold.run(mine, tmp_path / "out").record["evaluations"] > kept


def test_eval_and_export_reproduce_the_study(done: seedfold.Study, settings: dict[str, Any], tmp_path: Path) -> None:
    chosen = config.from_dict(settings)
    best = done.folder / "recipes" / "rank-01.json"
    by_recipe = evaluation.evaluate(chosen, [best], "test", tmp_path / "recipe.jsonl")
    assert by_recipe["accuracy"] == done.results[1]["accuracy"]
    folder = evaluation.export(best, tmp_path / "exported")
    exported = config.from_dict(settings | {"model": {"name": str(folder)}})
    by_model = evaluation.evaluate(exported, [], "test", tmp_path / "model.jsonl")
    assert by_model["accuracy"] == by_recipe["accuracy"]

    def texts(path: Path) -> list[str]:
        return [json.loads(line)["completion"] for line in path.read_text().splitlines()]

    assert texts(tmp_path / "recipe.jsonl") == texts(tmp_path / "model.jsonl")
    assert "best single" in (folder / "README.md").read_text()
    voted = evaluation.evaluate(chosen, [done.folder / path for path in done.results[2]["recipes"]], "test")
    assert voted["accuracy"] == done.results[2]["accuracy"]


def test_no_room_for_an_answer_is_refused_before_anything_is_spent(settings: dict[str, Any], tmp_path: Path) -> None:
    long = copy.deepcopy(settings)
    long["task"]["max_tokens"] = 600
    with pytest.raises(UserError, match=r"may get 600 more, but model .* has 512 positions"):
        seedfold.run(long, tmp_path / "out")
    with Journal.read(tmp_path / "out") as journal:
        assert journal.count() == 0


def test_the_token_limit_is_learned_from_the_base(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy.deepcopy(settings)
    mine["task"] |= {"limit": "learned", "max_tokens": 120, "stop": ["w"]}
    mine["search"] |= {"candidates": 5, "votes": [2]}
    limits: list[tuple[int, bool]] = []
    answer = TransformersEngine._answer

    def spy(self: Any, prompts: Any, numbers: Any, prefix: Any, decoding: Decoding) -> Any:
        limits.append((decoding.max_tokens, decoding.temperature > 0))
        return answer(self, prompts, numbers, prefix, decoding)

    monkeypatch.setattr(TransformersEngine, "_answer", spy)
    learned = seedfold.run(mine, tmp_path / "learned")
    limit = learned.record["token_limit"]
    with Journal.read(tmp_path / "learned") as journal:
        assert journal.noted("token_limit") == limit
        rows = [row for key in journal.recipes() for row in journal.rows(key)]
        base = next(key for key in journal.recipes() if not Recipe.from_json(journal.recipe_text(key)).terms)
    answered = Counter(row.example for row in rows)
    on_search = [row for row in rows if row.recipe == base and answered[row.example] == 6]  # base and five candidates
    assert len(on_search) == 24
    longest = max(row.tokens for row in on_search if row.finish == "stop")
    assert limit == {"configured": 120, "used": min(120, math.ceil(1.25 * longest / 16) * 16), "base_longest": longest}
    assert limit["used"] < 120
    assert max(row.tokens for row in rows if row not in on_search) <= limit["used"]
    assert limits[:2] == [(120, False)] * 2  # the base on search, in two batches
    assert set(limits[2:]) >= {(limit["used"], False), (limit["used"], True)}
    assert 120 not in {tokens for tokens, _ in limits[2:]}

    chosen, best = config.from_dict(mine), tmp_path / "learned" / "recipes" / "rank-01.json"
    assert evaluation.evaluate(chosen, [best], "test")["accuracy"] == learned.results[1]["accuracy"]
    with pytest.raises(UserError, match=r'"task.limit" is "learned".*no recipe'):
        evaluation.evaluate(chosen, [], "test")


def test_without_learning_the_limit_is_the_task_s(done: seedfold.Study) -> None:
    limit = done.record["token_limit"]
    assert (limit["configured"], limit["used"]) == (8, 8)


def rows_of(*answers: tuple[int, str]) -> list[Row]:
    return [Row("key", str(i), 0, 0.0, 0.0, None, "", 1, tokens, finish) for i, (tokens, finish) in enumerate(answers)]


@pytest.mark.parametrize(
    ("answers", "used"),
    [
        ([(10, "stop"), (64, "stop"), (500, "length")], 80),
        ([(64, "stop")], 80),
        ([(65, "stop")], 96),
        ([(1, "stop")], 16),
        ([(450, "stop")], 500),
        ([(500, "length")], 500),
        ([(500, "length"), (500, "stop")], 500),
    ],
)
def test_the_learned_limit(answers: list[tuple[int, str]], used: int) -> None:
    assert study.token_limit(rows_of(*answers), 500, "learned")["used"] == used
    assert study.token_limit(rows_of(*answers), 500, "fixed")["used"] == 500


def test_where_and_how_fast_may_change_in_the_same_folder(
    done: seedfold.Study, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluator, "_fresh", None)
    other = copy.deepcopy(settings)
    other["engine"] |= {"count": 2}
    again = seedfold.run(other, done.folder)
    assert again.results == done.results
    other["engine"] |= {"batch": 32}
    with pytest.raises(UserError, match=r"engine\.batch"):
        seedfold.run(other, done.folder)
    seedfold.run(settings, done.folder)  # the folder is others' too


def test_antithetic_and_gaussian_and_rms_run(settings: dict[str, Any], tmp_path: Path) -> None:
    other = copy.deepcopy(settings)
    other["search"] = {
        "candidates": 4,
        "sigmas": [0.1],
        "votes": [2],
        "antithetic": True,
        "family": "gaussian",
        "scale": "rms",
        "rounding": "dither",
        "exclude": ["*norm*"],
    }
    record = seedfold.run(other, tmp_path / "out").record
    assert [line["scale"] for line in record["candidates"]] == [0.1, -0.1, 0.1, -0.1]


def test_parquet_export_holds_every_row(done: seedfold.Study, journal: Journal, tmp_path: Path) -> None:
    from pyarrow import parquet

    journal.export_parquet(tmp_path / "rows.parquet")
    assert parquet.read_table(tmp_path / "rows.parquet").num_rows == done.record["evaluations"]
