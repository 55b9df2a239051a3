"""The standards of the speedrun: pinned to what is there, right without a GPU to try them on, planned without weights."""

from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_tiny

from seedfold import cli, config, plan
from seedfold.engines.stacked import SLOTS
from seedfold.errors import UserError
from seedfold.speedrun import record, standard
from seedfold.splits import deal
from seedfold.text import documents

ROOT = Path(__file__).parents[1]
STANDARDS = ROOT / "benchmarks" / "speedrun"
NAMES = ["0.5b", "1.5b", "72b", "7b", "smoke"]
PHASES = ["launch", "data", "base on search", "search", "select", "fold: linear", "test", "record", "text"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("_root")
def test_the_standards_are_all_there() -> None:
    assert sorted(path.stem for path in STANDARDS.glob("*.toml")) == NAMES


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("name", NAMES)
def test_the_standards_pin_what_is_there(name: str) -> None:
    made = standard.load(STANDARDS / f"{name}.toml")
    assert made.study.name == name
    assert made.speedrun.slices == standard.slices(deal(made.study))
    assert made.speedrun.text.digest == documents.load(made.speedrun.text).digest
    assert bool(made.speedrun.fingerprint) is (name in ("smoke", "0.5b", "1.5b"))
    sizes = made.study.splits
    assert min(sizes.search, sizes.select, sizes.gate, sizes.test) > 0
    # A stacked engine's slots have positions in steps of 256; the text must not need more than its memory was planned for.
    if made.study.engine.name == "stacked":
        assert made.speedrun.text.window + 64 <= 1024
        assert made.study.engine.at_once == SLOTS
    assert config.load(STANDARDS / f"{name}.toml") == made.study  # seedfold plan and run read them too


@pytest.mark.parametrize("name", ["0.5b", "1.5b", "smoke"])
def test_the_standards_run_small_on_a_tiny_model(
    name: str, here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their tables as they are; engines that need a GPU are exchanged, and everything is made small."""
    (here / "benchmarks").mkdir()
    (here / "benchmarks" / "gsm8k").symlink_to(ROOT / "benchmarks" / "gsm8k")
    path = here / "standard.toml"
    path.write_text((STANDARDS / f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    small = ["search=4", "select=4", "gate=4", "test=4"]
    changes = [f"splits.{size}" for size in small] + ["search.candidates=2", "search.votes=[1, 2]", "task.max_tokens=6"]
    changes += ["engine={name='transformers', batch=16}", "speedrun.repetitions=1", "stats.resamples=200"]
    changes += ["speedrun.fingerprint=''", "speedrun.slices=''", "speedrun.text.digest=''", "speedrun.text.bytes=700"]
    changes += ["speedrun.text.window=64", "speedrun.text.overlap=16"]  # the tiny model has 512 positions
    words = [word for change in changes for word in ("--set", change)]
    out = here / "out.jsonl"
    code = cli.main(["speedrun", str(path), "--model", str(model), "--out", str(out), *words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "seeds/s" in captured.out
    assert "linear fold" in captured.out
    lines = record.read(out)
    assert str(model) not in out.read_text(encoding="utf-8")  # where the model is, is nobody's business
    assert [line["phase"] for line in record.of_kind(lines, "phase")] == PHASES
    assert lines[-1]["text"]["bytes"] == 700
    assert sum(deviation.startswith("changed: ") for deviation in lines[-1]["deviations"]) == len(changes)


# Plans without the weights


def planned(name: str, gpus: str, **engine: Any) -> str:
    shape = STANDARDS / "shapes" / f"qwen2.5-{name}"
    changes = [f"model.name={shape}", *(f"engine.{field}={value}" for field, value in engine.items())]
    return plan.plan(config.load(STANDARDS / f"{name}.toml", changes), gpus=plan.imagined(gpus) if gpus else None)


@pytest.mark.usefixtures("_root")
def test_the_72b_standard_fits_eight_gpus_of_80_gb_and_not_four_of_40() -> None:
    told = planned("72b", "8x79")
    # 72,706,203,648 weights of two bytes in eight parts: 16.93 GiB, and the base once more
    assert "1 engine on 8 GPUs, 35.9 GiB on each (weights 16.9, base copy 16.9," in told
    assert "NOT" not in told
    assert "time: not measured, since those GPUs are not here" in told
    assert "does NOT fit: lower" in planned("72b", "4x40", tensor_parallel=4)
    assert "engine.tensor_parallel is 8, GPUs here: 4" in planned("72b", "4x80")
    assert "135.4 GiB of weights; --gpus COUNTxGIB" in planned("72b", "")
    assert told.partition("\n")[2] in (ROOT / "docs" / "speedrun.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("_root")
def test_a_plan_of_a_standard_says_what_the_speedrun_adds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(STANDARDS / "smoke.toml"), "--no-probe", "--set", "speedrun.repetitions=2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("speedrun: all of that 2 times, ")
    assert printed[-1].endswith("scored by up to 6 models")
    assert cli.main(["plan", "--no-probe", "--set", "splits.test=20"]) == 0
    assert "speedrun" not in capsys.readouterr().out


@pytest.mark.usefixtures("_root")
def test_the_7b_standard_fits_one_h100() -> None:
    told = planned("7b", "1x79")
    assert "(base copy 14.2, 2 perturbed 28.4," in told  # 7,615,616,512 weights
    assert "NOT" not in told
    assert "does NOT fit" in planned("7b", "1x40")


def test_shapes_are_read_without_weights_only_where_there_are_none(model: Path, tmp_path: Path) -> None:
    from seedfold.engines import memory

    assert plan.shaped(config.Model(name=str(model))) is None
    assert plan.shaped(config.Model(name="owner/name")) is None
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    assert plan.shaped(config.Model(name=str(tmp_path))) == memory.checkpoint(config.Model(name=str(model)))
    (tmp_path / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(UserError, match="describes no causal language model"):
        plan.shaped(config.Model(name=str(tmp_path)))
    for text in ("80", "0x80", "8x", "eight"):
        with pytest.raises(UserError, match="COUNTxGIB"):
            plan.imagined(text)
