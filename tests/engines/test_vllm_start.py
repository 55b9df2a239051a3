"""What is settled before vLLM runs; none of it needs vLLM."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_model

from seedfold import config
from seedfold.engines.vllm_start import GIB, Gpu, environment, invariant, read, share, visible
from seedfold.errors import UserError
from seedfold.models import EMBEDDED, locate
from seedfold.weights import Weights

H100 = Gpu("H100", 79 * GIB, 80 * GIB, (9, 0))


@pytest.fixture(autouse=True)
def _memory(monkeypatch):
    fake = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=100 * GIB))
    monkeypatch.setitem(sys.modules, "psutil", fake)


def test_the_base_copy_is_taken_off_the_share():
    assert share("m", 8 * GIB, True, [H100], 0.9, None) == pytest.approx(0.8)
    assert share("m", 8 * GIB, False, [H100], 0.9, None) == pytest.approx(0.9)
    assert share("m", 8 * GIB, True, [H100, Gpu("smaller", 40 * GIB, 40 * GIB, (9, 0))], 0.9, None) == pytest.approx(
        0.7
    )


def test_a_given_cache_asks_for_no_more_than_it_needs():
    assert share("m", GIB, True, [H100], 0.9, 4 * GIB) == pytest.approx(7 / 80)  # weights, cache, reserve
    crowded = Gpu("H100", 9 * GIB, 80 * GIB, (9, 0))  # others have the rest
    assert share("m", GIB, True, [crowded], 0.9, 4 * GIB) == pytest.approx(7 / 80)
    with pytest.raises(UserError, match=r"at least 10\.0 GiB, but 9\.0 GiB"):
        share("m", 2 * GIB, True, [crowded], 0.9, 4 * GIB)


def test_a_model_that_does_not_fit_twice_is_refused():
    with pytest.raises(UserError, match=r"take 36\.0 GiB .* at least 74\.0 GiB, but 72\.0 GiB .*base_copy\" host"):
        share("m", 36 * GIB, True, [H100], 0.9, None)
    assert share("m", 36 * GIB, False, [H100], 0.9, None) == pytest.approx(0.9)
    with pytest.raises(UserError, match="exceed the 100"):
        share("m", 60 * GIB, False, [H100] * 2, 0.9, None)
    with pytest.raises(UserError, match="smaller model"):
        share("m", 50 * GIB, True, [], 0.9, None)
    assert share("m", GIB, True, [], 0.9, None) == 0.9


def test_batch_invariant_kernels_are_used_where_there_are_any():
    old = Gpu("V100", 30 * GIB, 32 * GIB, (7, 0))
    assert invariant([H100], None) is True
    assert invariant([H100], False) is False
    assert invariant([H100, old], None) is False
    assert invariant([], None) is False
    with pytest.raises(UserError, match="compute capability"):
        invariant([old], True)


def test_a_numbered_device_is_the_first_that_vllm_sees(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible("cuda", 2) == visible("auto", 1) == {}
    assert visible("cuda:1", 2) == {"CUDA_VISIBLE_DEVICES": "1,2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert visible("cuda:1", 2) == {"CUDA_VISIBLE_DEVICES": "5,6"}


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    before = dict(os.environ)
    with environment({"KEPT": "2", "NEW": "3"}):
        assert (os.environ["KEPT"], os.environ["NEW"]) == ("2", "3")
        os.environ["ITS_OWN"] = "4"
    assert dict(os.environ) == before


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
def test_tensors_are_named_as_the_transformers_engine_names_them(tmp_path, kind):
    import transformers

    model = tiny_model(kind, torch.bfloat16)
    model.generation_config.eos_token_id = [5, 7]
    model.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(locate(EMBEDDED))
    tokenizer.save_pretrained(tmp_path)
    plan = read(config.Model(dtype="bfloat16"), str(tmp_path))
    assert list(plan.tensors.items()) == list(Weights(model).tensors.items())
    assert plan.ends == {5, 7, tokenizer.eos_token_id}


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        read(config.Model(name="somewhere"), str(tmp_path))
