"""`seedfold diagnose families` as a user calls it, on a tiny model: arms, answers, folds, resuming, refusals."""

import json
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seedfold import cli, config
from seedfold.diagnose import arms, steps, trial
from seedfold.diagnose.arms import Arm
from seedfold.errors import UserError
from seedfold.fold import linear
from seedfold.fold.base import Population
from seedfold.journal import Journal
from seedfold.recipe import Base, Recipe, Term

ROOT = Path(__file__).parents[2]

ARMS = """
[families]
seeds = 8
[[families.arms]]
family = "rademacher"
[[families.arms]]
family = "low-rank-2"
scale = "rms"
sigmas = [0.1, 0.2]
"""


def toml(settings: dict[str, Any]) -> str:
    """Sections of plain values."""
    lines = [f"name = {json.dumps(settings['name'])}"]
    for section, fields in settings.items():
        if isinstance(fields, dict):
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in fields.items())]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def study(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("families") / "study.toml"
    path.write_text(toml(settings) + ARMS)
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> str:
        code = cli.main(["diagnose", "families", *map(str, arguments)])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


@pytest.fixture(scope="session")
def whole(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's folder, with folds."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert cli.main(["diagnose", "families", str(study), "--out", str(folder), "--fold"]) == 0
    return folder


def test_the_numbers_are_those_of_the_journal(call: Any, study: Path, whole: Path, monkeypatch: Any) -> None:
    """All is known: no model is loaded. Effects, the quarter and the fold, by hand from the rows."""
    monkeypatch.setattr(trial, "opened", None)
    monkeypatch.setattr(steps, "weights_of", None)
    numbers = json.loads(call(study, "--out", whole, "--fold", "--json"))
    text = call(study, "--out", whole, "--fold")
    for part in ("low-rank-2 rms", "ranked by", "p (Holm)", "folded", "sigma that search chose", "ranks left open"):
        assert part in text
    chosen = config.load(study)
    listed, seeds = arms.read(chosen)
    assert seeds == 8
    dealt = trial.deal(chosen)
    with Journal.read(whole / "families") as journal:
        base = trial.base_of(journal)
        cells = arms.drawn(listed, chosen, base.base, base.dtype, seeds)
        assert [(cell.arm, cell.sigma) for cell in cells] == [
            ("rademacher", 0.02),
            ("rademacher", 0.05),
            ("low-rank-2 rms", 0.1),
            ("low-rank-2 rms", 0.2),
        ]
        assert {r.terms[0].seed for r in cells[0].recipes} == {r.terms[0].seed for r in cells[3].recipes}
        assert cells[2].recipes[0].scale == "rms"
        # The base, 4 cells of 8 seeds, and a fold each: all rows there are.
        assert journal.count() == (1 + 32) * (24 + 12) + 4 * 12

        def rewards(recipe: Recipe, examples: Any) -> np.ndarray:
            rows = {row.example: row.reward for row in journal.rows(recipe.key, 0)}
            return np.array([rows[example.id] for example in examples])

        search, held = dealt.splits.search, dealt.splits.select
        on_search = np.array([rewards(r, search) - rewards(base, search) for r in cells[1].recipes])
        on_held = np.array([rewards(r, held) - rewards(base, held) for r in cells[1].recipes])
        row = numbers["rows"][1]
        top = np.argsort(-on_search.mean(axis=1), kind="stable")[:2]
        assert row["mean"]["value"] == pytest.approx(on_held.mean())
        assert row["gains"]["quarter"] == pytest.approx(on_held[top].mean())
        assert row["best"]["difference"] == pytest.approx(on_held[top[0]].mean())
        population = Population(
            tuple(r.terms for r in cells[1].recipes), on_search + rewards(base, search), rewards(base, search)
        )
        assert row["forecast"] == pytest.approx(linear.forecast(population, 0.05).gain)
        made = population.combine(population.slopes, 0.05)
        folds = [Recipe.from_json(journal.recipe_text(key)) for key in journal.recipes()]
        fold = next(r for r in folds if r.terms == made)
        assert row["fold"]["difference"] == pytest.approx((rewards(fold, held) - rewards(base, held)).mean())
    places = {place["arm"]: place for place in numbers["places"]}
    promised = {(r["arm"], r["sigma"]): r["promises"]["quarter"] for r in numbers["rows"]}
    assert promised["rademacher", places["rademacher"]["sigma"]] == max(
        value for (arm, _), value in promised.items() if arm == "rademacher"
    )
    assert len(numbers["pairs"]) == len(numbers["fold_pairs"]) == 1


def test_stopped_and_grown_it_is_the_same(
    call: Any, study: Path, whole: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Fewer seeds, then one arm, then a Ctrl-C: in the end as if it had been asked at once; the base once."""
    out = tmp_path / "out"
    call(study, "--out", out, "--seeds", 4, "--only", "rademacher")
    assert _count(out) == 36 + 4 * 2 * 36
    record = Journal.record
    left = iter(range(2))

    def until(self: Journal, rows: Any) -> None:
        record(self, rows)
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "record", until)
    assert cli.main(["diagnose", "families", str(study), "--out", str(out), "--fold"]) == cli.STOPPED
    monkeypatch.setattr(Journal, "record", record)
    assert 36 + 4 * 2 * 36 < _count(out) < _count(whole)
    assert call(study, "--out", out, "--fold", "--json") == call(study, "--out", whole, "--fold", "--json")
    assert _count(out) == _count(whole)


def test_a_learned_limit_is_learned_from_the_base_alone(study: Path, tmp_path: Path) -> None:
    """And holds for the other answers, of a comparison that goes on too."""
    chosen = config.load(study, ["task.limit=learned", "task.max_tokens=12"])
    listed, _ = arms.read(chosen, only=["rademacher"])
    for seeds in (4, 5):
        trial.run(chosen, tmp_path, listed, seeds)
        with Journal.read(tmp_path / "families") as journal:
            limit = journal.noted("token_limit")
            assert limit["configured"] == 12
            rows = [row for key in journal.recipes() for row in journal.rows(key)]
            assert len(rows) == (1 + 2 * seeds) * 36
            assert max(row.tokens for row in rows) <= 12


def test_the_step_of_each_family_has_the_size_that_is_stated(tiny_model: Path) -> None:
    """From the weights themselves: before and after rounding."""
    weights = steps.weights_of(config.Model(name=str(tiny_model)))
    base = torch.cat([weights.base(name).double() for name in weights.tensors])
    for family, scale, sigma, share in (
        ("rademacher", "absolute", 0.01, 1.0),
        ("gaussian", "rms", 0.05, 1.0),
        ("low-rank-4", "absolute", 0.01, 1.0),
        ("lora-4:q_proj", "absolute", 0.01, 2 * 64 * 64 / len(base)),
    ):
        recipe = Recipe(Base("m", "", weights.fingerprint), (Term(family, 5, sigma),), scale=scale)
        found = steps.measure(recipe, weights, samples=2**17)
        weights.become(recipe)
        live = torch.cat([weights.live(name).double() for name in weights.tensors])
        assert found.realised == pytest.approx(float((live - base).norm() / base.norm()), rel=0.05), family
        assert found.touched == pytest.approx(share), family
        expected = sigma if scale == "rms" else sigma * (share * len(base)) ** 0.5 / float(base.norm())
        assert found.intended == pytest.approx(expected, rel=0.06), family
    weights.become(None)
    tiny = Recipe(Base("m", "", weights.fingerprint), (Term("rademacher", 5, 1e-5),))
    swallowed = steps.measure(tiny, weights)
    assert swallowed.realised < 0.9 * swallowed.intended  # bfloat16 rounds most of it away


def test_arms_of_equal_norms_have_steps_of_equal_norms(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Whatever the family, the scale mode and the tensors; and no model is loaded for it a second time."""
    changed = ["families.norms=[0.05, 0.1]", "families.arms=[]", "families.seeds=4"]
    chosen = config.load(study, changed)
    extra = ["rademacher", "gaussian scale=rms", "lora-4", "low-rank-4 exclude=*embed*"]
    listed, seeds = arms.read(chosen, extra)
    found = trial.run(chosen, tmp_path, listed, seeds)
    for name in ("rademacher", "gaussian rms", "lora-4", "low-rank-4"):
        mine = [size for (arm, _), size in found.sizes.items() if arm == name]
        assert [size.intended for size in mine] == pytest.approx([0.05, 0.1], rel=0.02), name
    sigmas = {arm: sigma for arm, sigma in found.sizes}
    assert sigmas["lora-4"] > 1.5 * sigmas["rademacher"]
    assert sigmas["gaussian rms"] == pytest.approx(0.1, rel=0.02)
    monkeypatch.setattr(steps, "weights_of", None)
    monkeypatch.setattr(trial, "opened", None)
    assert trial.run(chosen, tmp_path, listed, seeds).told == found.told


def test_arms_are_read_from_the_command_line() -> None:
    assert arms.parse("gaussian sigmas=0.002,0.004 scale=rms rounding=dither") == Arm(
        family="gaussian", sigmas=(0.002, 0.004), scale="rms", rounding="dither"
    )
    assert arms.parse("lora-8:q_proj+v_proj name=lora exclude=*norm*,*embed*").exclude == ("*norm*", "*embed*")
    assert arms.parse("gaussian scale=rms rounding=dither").label == "gaussian rms dither"
    assert arms.parse("gaussian scale=absolute").label == "gaussian"
    search = config.Search(family="subspace", directions=("rademacher 1",), antithetic=True, candidates=8, votes=(8,))
    assert arms.parse("gaussian").search(search).directions == ()
    assert arms.parse("subspace").search(search).directions == ("rademacher 1",)
    assert arms.parse("gaussian").search(search).antithetic is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arm", "gaussian sigma=1"], "\"--arm\" has 'sigma=1'; give field=value"),
        (["--arm", "gaussian sigmas=a"], "\"--arm\" has 'sigmas=a'; give sigmas as in"),
        (["--arm", "gaussian scale=half"], "\"families.arms (gaussian half).scale\" is 'half'; use one of absolute"),
        (
            ["--arm", "gaussian sigmas=0.1"],
            'different numbers of sizes ("rademacher" 2, "low-rank-2 rms" 2, "gaussian" 1)',
        ),
        (["--arm", "gaussian sigmas=0.1,0.2 norms=0.1,0.2"], 'arm "gaussian" has sigmas and norms'),
        (["--arm", "gaussian norms=0.1,0"], '"--arm.norms" is [0.1, 0.0]; use a finite number above 0'),
        (["--arm", "rademacher"], 'two arms are called "rademacher"'),
        (["--arm", "gauss sigmas=0.1,0.2"], '"search.family" is "gauss"; use one of'),
        (["--only", "gaussian"], '"--only" has "gaussian", which is no arm; use any of rademacher'),
        (["--against", "gaussian"], '"--against" is "gaussian", which is no arm'),
        (["--seeds", "3"], '"--seeds" is 3; use at least 4'),
        (["--split", "gate"], '"--split" is gate, which has no examples'),
        (["--set", "families.seeds=2"], '"families.seeds" is 2; use a number of at least 4'),
        (["--set", 'families.arms=["gaussian"]'], '"families.arms" is '),
        (["--set", "families.arms=[]"], "there is no arm to compare"),
        (["--set", "families.arms=[{sigmas=[0.1]}]"], '"families.arms.family" is'),
        (["--set", "families.sigmas=[1.0]"], 'unknown setting "families.sigmas"'),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: list[str], message: str, study: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["diagnose", "families", str(study), "--out", str(whole), *arguments])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == cli.BAD_INPUT, error
    assert error.startswith("seedfold: ")
    assert message in error


def test_another_task_is_refused_in_the_same_folder(study: Path, whole: Path, capsys: Any) -> None:
    code = cli.main(["diagnose", "families", str(study), "--out", str(whole), "--set", "splits.seed=7"])
    assert code == cli.BAD_INPUT
    assert "splits.seed" in capsys.readouterr().err


def test_arms_do_not_bind_a_study(study: Path, settings: dict[str, Any]) -> None:
    with_arms, without = config.load(study), config.from_dict(settings)
    assert with_arms.families["seeds"] == 8
    assert with_arms.binding() == without.binding()
    with pytest.raises(UserError, match=r'"families" is 3'):
        config.from_dict({"families": 3})


def _count(folder: Path) -> int:
    with Journal.read(folder / "families") as journal:
        return journal.count()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "families").glob("*.toml")), ids=lambda path: path.stem)
def test_the_benchmarks_can_be_read(path: Path) -> None:
    """Every arm can be drawn; the data of a custom task are enough for the splits, and the reward knows every label."""
    chosen = config.load(path)
    listed, seeds = arms.read(chosen)
    cells = arms.drawn([arms.sized(arm, 5.0) for arm in listed], chosen, Base("m", "", "f" * 32), "bfloat16", seeds)
    assert len(cells) == len(listed) * len(chosen.families["norms"])
    if chosen.task.name == "custom":
        rows = [json.loads(line) for line in (ROOT / chosen.task.path).read_text().splitlines()]
        assert len(rows) >= chosen.splits.search + chosen.splits.select + chosen.splits.test
    if chosen.task.reward.startswith("benchmarks/families/kinds.py"):
        module = runpy.run_path(str(ROOT / "benchmarks" / "families" / "kinds.py"))
        assert {row["label"] for row in rows} == set(module["KINDS"])
        assert module["reward"](" Tool.\n", {"label": "tool"}) == 1
        assert module["reward"]("a tool", {"label": "tool"}) == 0
        assert module["lenient"]("a tool", {"label": "tool"}) == 1


def test_the_questions_of_the_benchmarks_name_their_arms() -> None:
    text = (ROOT / "benchmarks" / "families" / "README.md").read_text()
    known = {arm.label for arm in arms.read(config.load(ROOT / "benchmarks" / "families" / "smollm2-kinds.toml"))[0]}
    asked = [shlex.split(line.split("`")[0]) for line in text.split("`--only ")[1:]]
    assert len(asked) >= 5
    for words in asked:
        assert {word for word in words if not word.startswith("--")} <= known
