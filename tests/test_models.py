import json

import pytest
import torch
from safetensors.torch import load_file

from seedfold import config, models
from seedfold.errors import UserError


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_does_not_exist_is_refused_by_name(name):
    with pytest.raises(UserError, match=f'"model.name" is "{name}"'):
        models.locate(name)


def test_a_hub_name_stays_a_hub_name():
    assert models.locate("HuggingFaceTB/SmolLM2-135M") == "HuggingFaceTB/SmolLM2-135M"


def test_a_checkpoint_directory_stays_where_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert models.locate(str(tmp_path)) == str(tmp_path)


def test_a_directory_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"without config\.json"):
        models.locate(str(tmp_path))


def test_a_directory_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(UserError, match=r'"model\.name" is .*cannot be loaded'):
        models.load(config.Model(name=str(tmp_path)))


def test_a_missing_gguf_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.gguf.*no such file"):
        models.locate(str(tmp_path / "absent.gguf"))


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"GGUF\x03\x00\x00\x00" + bytes(100)], ids=["empty", "text", "cut"]
)
def test_a_broken_gguf_file_is_refused_and_leaves_nothing(tmp_path, monkeypatch, content):
    monkeypatch.setenv("SEEDFOLD_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.gguf.*cannot be read"):
        models.locate(str(path))
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SEEDFOLD_CACHE", str(tmp_path / "own"))
    assert models.cache() == tmp_path / "own"
    monkeypatch.delenv("SEEDFOLD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.cache() == tmp_path / "seedfold"


def test_the_embedded_model_becomes_an_ordinary_checkpoint(tmp_path, monkeypatch, smol):
    """The conversion itself, from the package's GGUF file; it takes half a minute."""
    monkeypatch.setenv("SEEDFOLD_CACHE", str(tmp_path))
    folder = models.locate(models.EMBEDDED)
    assert [path.name for path in tmp_path.iterdir()] == [f"{models.EMBEDDED}-{models.VERSION}"]
    state = load_file(f"{folder}/model.safetensors")
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in state
    settings = json.loads((tmp_path / f"{models.EMBEDDED}-{models.VERSION}" / "config.json").read_text())
    assert settings["tie_word_embeddings"] is True
    assert settings["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in settings
    model, tokenizer = models.load(config.Model())
    assert tokenizer.chat_template
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {name: value.shape for name, value in state.items()} == {
        name: torch.Size(tensor.shape) for name, tensor in smol.weights.tensors.items()
    }
    for name, value in state.items():
        assert torch.equal(value.view(-1), smol.weights.base(name))


def test_a_loaded_model_is_ready_to_evaluate_in_the_dtype_asked_for():
    model, _ = models.load(config.Model(dtype="float16"))
    assert model.dtype == torch.float16
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
