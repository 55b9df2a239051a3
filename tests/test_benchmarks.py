"""The benchmarks' configs load, and what runs many studies resumes, leaves out what is finished, and keeps to its time."""

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from checkpoints import small_study, write_tiny

from seedfold import config

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "fold"


@pytest.fixture
def run() -> ModuleType:
    return script("run")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fold_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_odd_and_even_parts_are_told_from_each_other_and_from_chance() -> None:
    """Of planted variances; and where there is nothing but chance, nothing is found in about half of the cases."""
    parity, rng = script("parity"), np.random.default_rng(0)
    examples = rng.normal(0, 0.1, 192)
    odd, even = rng.normal(0, 0.04, (1000, 1)), rng.normal(0, 0.02, (1000, 1))
    plus, minus = (examples + even + side + rng.normal(0, 0.4, (1000, 192)) for side in (odd, -odd))
    found = parity.row(plus, minus)
    wanted = {"odd": 0.0016, "even": 0.0004, "chance": 0.4**2 / 192}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=0.15)
    for name, value in (("odd share", 0.8), ("pairs", (28.3 / 40.3) ** 0.5)):
        assert found[name][0] == pytest.approx(value, rel=0.05)
        assert found[name][1] < value < found[name][2]
    luck = [parity.spread(rng.normal(0, 0.4, (16, 50)))[0] for _ in range(200)]
    assert 0.35 < np.mean(np.equal(luck, 0)) < 0.65


def test_answers_of_gsm8k_in_a_box() -> None:
    boxed = runpy.run_path(str(ROOT / "benchmarks" / "gsm8k" / "boxed.py"))
    row = {"answer": "3 * 24 = <<3*24=72>>72\n#### 72"}
    cases = {
        r"So it is \boxed{72}.": (1, 1, "72"),
        r"\boxed{70}, no: \boxed{\$72.00}": (1, 1, "72"),
        r"\boxed{73}": (0, 0, "73"),
        r"\boxed{72": (0, 1, None),
        "The answer is 72.": (0, 1, None),
        "#### 72": (0, 1, None),
        "": (0, 0, None),
    }
    for text, (strict, lenient, voted) in cases.items():
        assert (boxed["reward"](text, row), boxed["lenient"](text, row), boxed["answer"](text)) == (
            strict,
            lenient,
            voted,
        )


def test_every_study_can_be_configured(run: ModuleType) -> None:
    known = run.studies((FOLDER / "studies.toml").read_text(encoding="utf-8"))
    configs = {name: config.load(path, settings) for name, (path, settings) in known.items()}
    assert len({json.dumps(each.to_dict()) for each in configs.values()}) == len(configs), "two studies are the same"
    assert configs["ablation/antithetic"].search.antithetic
    assert configs["gsm8k/qwen-0_5b"].task.prompt.endswith("final answer within \\boxed{{}}.")


def test_every_pair_of_the_comparison_has_its_records() -> None:
    command = [sys.executable, str(FOLDER / "together.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[0] == "|"]
    assert len(rows) == 2 + 6 + 4
    for cells in rows[2:8]:
        assert int(cells[1]) in (2, 3), cells
        assert all(-100 <= float(cell) <= 100 for cell in cells[2:]), cells


def test_studies_run_one_after_the_other(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small_study(tmp_path, write_tiny(tmp_path / "model"))
    (tmp_path / "own.toml").write_text(
        "\n".join(f"{section} = {inline(values)}" for section, values in settings.items()), encoding="utf-8"
    )
    (tmp_path / "studies.toml").write_text(
        'own = {config = "own.toml", studies = {plain = {}, gaussian = {"search.family" = "gaussian"}}}'
    )
    monkeypatch.setattr(run, "HERE", tmp_path)

    def told(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "--out", str(tmp_path / "runs")])
        run.main()
        return capsys.readouterr().out

    assert told("own/gaussian", "--seeds", "0", "--minutes", "0") == ""
    assert "own/gaussian 0: finished in" in told("*/gaussian", "--seeds", "0")
    assert "own/gaussian 0: finished before" in told("own/*", "--seeds", "0")
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").glob("own/*/0/record.json"))]
    assert [record["config"]["search"]["family"] for record in records] == ["gaussian", "rademacher"]
    assert [record["name"] for record in records] == ["own/gaussian", "own/plain"]
    with pytest.raises(SystemExit, match="no study is called none; there are: own/plain, own/gaussian"):
        told("none")


def inline(value: object) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)
