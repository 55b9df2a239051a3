"""The benchmarks' configs load, and what runs many studies resumes, leaves out what is finished, and keeps to its time."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from checkpoints import small_study, write_tiny

from seedfold import config

FOLDER = Path(__file__).parents[1] / "benchmarks" / "fold"


@pytest.fixture
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fold_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_study_can_be_configured(run: ModuleType) -> None:
    known = run.studies((FOLDER / "studies.toml").read_text(encoding="utf-8"))
    configs = {name: config.load(path, settings) for name, (path, settings) in known.items()}
    assert len({json.dumps(each.to_dict()) for each in configs.values()}) == len(configs), "two studies are the same"
    assert configs["ablation/antithetic"].search.antithetic
    assert configs["gsm8k/qwen-0_5b"].task.name == "gsm8k"


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
