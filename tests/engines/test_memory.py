"""What a GPU has and engines need, before anything is loaded."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoints import write_tiny

from seedfold import config
from seedfold.engines import memory, open_here
from seedfold.engines.memory import GIB, Checkpoint, Gpu
from seedfold.errors import UserError

TOLD = """0, GPU-aaaa, NVIDIA H100 80GB HBM3, 79000, 81559, 9.0
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 1000, 81559, 9.0
2, GPU-cccc, "Some, other", 500, 16000, 7.5
"""


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=TOLD))


def test_gpus_are_those_that_may_be_used(smi: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = memory.gpus()
    assert first == Gpu(0, "NVIDIA H100 80GB HBM3", 79000 * 2**20, 81559 * 2**20, "9.0")
    assert (third.name, third.capability) == ("Some, other", "7.5")
    assert memory.gpus("cpu") == []
    assert memory.gpus("cuda:1") == [second]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-bbbb")
    assert [gpu.name for gpu in memory.gpus()] == [third.name, second.name]
    assert [gpu.free for gpu in memory.gpus("cuda:1")] == [second.free]


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert memory.gpus() == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_checkpoint_s_headers_say_what_the_loaded_model_does(tmp_path: Path, dtype: str) -> None:
    model = config.Model(name=str(write_tiny(tmp_path / "model")), dtype=dtype, device="cpu")
    sizes = memory.checkpoint(model)
    assert sizes is not None
    assert {"weights": sizes.weights, "cache_bytes_per_token": sizes.cache_bytes_per_token} == open_here(
        model, config.Engine()
    ).sizes()


def test_what_is_not_here_is_not_known(tmp_path: Path) -> None:
    assert memory.checkpoint(config.Model(name="nobody/nothing-of-the-kind")) is None
    (tmp_path / "config.json").write_text("{}")
    assert memory.checkpoint(config.Model(name=str(tmp_path))) is None
    (tmp_path / "model.safetensors").write_bytes(b"\x00")
    assert memory.checkpoint(config.Model(name=str(tmp_path))) is None


def total(engine: config.Engine, sizes: Checkpoint, tokens: int) -> int:
    return sum(memory.need(engine, sizes, tokens).values()) - memory.RESERVE[engine.name]


def test_what_engines_need() -> None:
    sizes = Checkpoint(1000, 10)
    assert total(config.Engine(batch=8), sizes, 50) == 2 * 1000 + 10 * 50 * 8
    vllm: dict[str, Any] = {"name": "vllm", "memory": 2.0}
    assert total(config.Engine(**vllm), sizes, 50) == 2 * 1000 + 2 * GIB
    assert total(config.Engine(**vllm, base_copy="host"), sizes, 50) == 1000 + 2 * GIB
    assert total(config.Engine(**vllm, tensor_parallel=2), sizes, 50) == 1000 + 2 * GIB
    assert total(config.Engine(name="stacked", copies=4, batch=8), sizes, 50) == 5 * 1000 + 4 * 10 * 50 * 8


def test_engines_that_share_a_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, engine = config.Model(), config.Engine(name="vllm", count=4)
    two = [Gpu(i, "gpu", 70 * GIB, 80 * GIB, "9.0") for i in range(2)]
    monkeypatch.setattr(memory, "checkpoint", lambda model: Checkpoint(GIB, 1000))
    assert memory.crowded(model, engine, 2) == 2
    assert memory.crowded(config.Model(device="cuda:1"), engine, 1) == 4
    assert memory.cache_share(model, engine, two) == 36 - 2 * 1 - 2
    assert memory.cache_share(model, engine, two[:1]) == 18 - 2 * 1 - 2
    with pytest.raises(UserError, match=r'"engine.count" is 24: 24 engines on a GPU of 80 GiB.*do not fit'):
        memory.cache_share(model, config.Engine(name="vllm", count=24), two[:1])
    monkeypatch.setattr(memory, "checkpoint", lambda model: None)
    with pytest.raises(UserError, match=r'"engine.memory" is 0.*set "engine.memory"'):
        memory.cache_share(model, engine, two)
