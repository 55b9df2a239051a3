"""What an engine says of itself before it may work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import IdTokenizer, tiny_model

from seedfold import config
from seedfold.engines import memory, pool_child
from seedfold.engines.stacked import StackedEngine
from seedfold.engines.transformers import TransformersEngine
from seedfold.noise import compiled


def test_engines_of_different_kinds_rebuild_the_probes_alike(tiny: Callable[..., TransformersEngine]) -> None:
    """Two kinds of engine, each with its own way to rebuild: the fingerprints are those of the same weights."""
    one = tiny("llama", torch.bfloat16)
    stacked = StackedEngine(tiny_model("llama", torch.bfloat16), IdTokenizer(), "llama", "", 2, 4, "cpu")
    facts, others = pool_child.facts_of(one, True), pool_child.facts_of(stacked, True)
    assert facts["fingerprint"] == others["fingerprint"]
    assert facts["probes"] == others["probes"]
    assert len({facts["fingerprint"], *facts["probes"]}) == 3
    assert (facts["copies"], others["copies"]) == (1, 2)
    assert one.weights.checksum() == one.fingerprint, "the probe was left in the weights"
    assert facts["switch"] > 0
    assert not pool_child.facts_of(one, False)["probes"]


def test_an_engine_that_rebuilds_wrongly_is_found(
    tiny: Callable[..., TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sign of one tensor is wrong."""
    right = pool_child.facts_of(tiny("llama"), True)
    add = compiled.add

    def wrong(out: torch.Tensor, *which: Any) -> None:
        add(out, *which)
        tensor, first = which[3:5]
        if tensor.endswith("layers.1.mlp.up_proj.weight") and first == 0:
            out.view(-1)[5] *= -1

    monkeypatch.setattr(compiled, "add", wrong)
    found = pool_child.facts_of(tiny("llama"), True)
    assert found["fingerprint"] == right["fingerprint"]
    assert all(one != other for one, other in zip(found["probes"], right["probes"], strict=True))


def test_engines_on_one_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = memory.Gpu(0, "gpu", 80 * memory.GIB, 80 * memory.GIB, "9.0")
    monkeypatch.setattr(memory, "gpus", lambda device: [gpu])
    monkeypatch.setattr(memory, "checkpoint", lambda model: memory.Checkpoint(5 * memory.GIB, 1000))
    model, engine = config.Model(), config.Engine(name="vllm")
    made = pool_child.shared(model, engine, 3)
    assert made.memory == pytest.approx(72 / 3 - 12, abs=0.1)  # two copies of 5 GiB and 2 for the rest
    assert pool_child.shared(model, config.Engine(name="vllm", memory=4.0), 3).memory == 4.0
    assert pool_child.shared(model, config.Engine(name="stacked"), 3).memory == 0.0
