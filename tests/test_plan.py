"""What a plan says: of GPUs before anything is loaded, and of engines in processes of their own."""

import re
from pathlib import Path
from typing import Any

import pytest
from checkpoints import small_study, write_tiny

from seedfold import config, plan
from seedfold.engines import memory
from seedfold.engines.memory import GIB, Checkpoint, Gpu


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return small_study(tmp_path, write_tiny(tmp_path / "model"))


def gpus(monkeypatch: pytest.MonkeyPatch, free: float, weights: float, count: int = 1) -> None:
    found = [Gpu(i, "gpu", int(free * GIB), 80 * GIB, "9.0") for i in range(count)]
    monkeypatch.setattr(memory, "gpus", lambda device: found)
    monkeypatch.setattr(memory, "checkpoint", lambda model: Checkpoint(int(weights * GIB), 1000))


def test_what_cannot_fit_is_said_before_anything_is_loaded(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, free=60, weights=5)
    monkeypatch.setattr(plan, "opened", None)  # opening anything would raise
    settings["engine"] = {"name": "vllm", "count": 4, "memory": 8}
    told = plan.plan(config.from_dict(settings))
    # 5 + 5 + 8 + 2 for the rest
    assert "4 engines on a GPU, 20.0 GiB each" in told
    assert "80.0 GiB at least, of 60.0 GiB free" in told
    assert "does NOT fit: lower engine.count or engine.memory" in told
    assert "not measured" in told


def test_what_fits_is_told_part_by_part(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, free=60, weights=5, count=2)
    settings["engine"] = {"name": "vllm", "count": 4, "memory": 8, "base_copy": "host"}
    told = plan.plan(config.from_dict(settings), probe=False)
    assert "2 engines on a GPU, 15.0 GiB each (weights 5.0, keys and values 8.0, libraries" in told
    assert "30.0 GiB at least, of 60.0 GiB free" in told
    assert "NOT" not in told
    settings["engine"]["tensor_parallel"] = 4
    assert "does NOT fit: engine.tensor_parallel is 4, GPUs here: 2" in plan.plan(config.from_dict(settings))
    monkeypatch.setattr(memory, "checkpoint", lambda model: None)
    settings["engine"]["tensor_parallel"] = 1
    assert "its size is not known" in plan.plan(config.from_dict(settings), probe=False)


def test_the_probe_of_several_engines_is_cut_off_in_time(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SECONDS", 0.5)
    settings["engine"]["count"] = 2
    settings["search"] |= {"candidates": 2000}
    told = plan.plan(config.from_dict(settings))
    found = re.search(
        r"probe: ([\d,]+) answers of candidates in \d+ s by 2 engines: ([\d.]+)/s, ([\d.]+) candidates of 24", told
    )
    assert found
    answers, rate, seeds = (float(text.replace(",", "")) for text in found.groups())
    assert 0 < answers < 24 * 2000
    assert seeds == pytest.approx(rate / 24, abs=0.01)
    assert "(2 engines, each weights" in told
