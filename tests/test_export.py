import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seedfold import export
from seedfold.engines.base import Decoding, Prompt
from seedfold.errors import UserError
from seedfold.weights import Weights

CARD = "---\nlicense: apache-2.0\n---\n# A fold\nNaïve “quotes”.\n"

USE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from seedfold.weights import Weights
torch.set_num_threads(1)
folder, question = sys.argv[1:]
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)
messages = [{"role": "user", "content": question}]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
made = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1]:]
print(json.dumps({
    "weights": Weights(model).fingerprint,
    "dtype": str(model.dtype),
    "attention": model.config._attn_implementation,
    "prompt": inputs["input_ids"][0].tolist(),
    "answer": tokenizer.decode(made, skip_special_tokens=True),
}))
"""


def use(folder, question):
    """What a fresh process that knows nothing of engines makes of a checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", USE, str(folder), question]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_the_same_model_to_transformers(smol, recipe_on, tmp_path):
    recipe, question = recipe_on(smol, (1, 0.003)), "What is the capital of France?"
    folder = tmp_path / "new" / "fold"
    smol.export(recipe, folder, CARD)
    found = use(folder, question)
    assert found["weights"] == smol.weights.checksum() != smol.fingerprint
    assert found["dtype"] == "torch.bfloat16"
    assert found["attention"] == "sdpa"
    prompt = Prompt(smol.encode([{"role": "user", "content": question}]), "x")
    assert found["prompt"] == list(prompt.tokens)
    assert found["answer"] == next(smol.generate([prompt], Decoding(8)))[0].text
    assert (folder / "README.md").read_text(encoding="utf-8") == CARD
    for name in (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        assert (folder / name).is_file()
    assert "seedfold" not in (folder / "config.json").read_text()
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert contents(folder.parent) == ["fold"]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "gpt2"])
def test_large_models_are_written_in_shards(tiny, recipe_on, tmp_path, monkeypatch, kind):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(export, "SHARD", "40KB")
    engine = tiny(kind, torch.bfloat16)
    engine.export(recipe_on(engine, (1, 0.1)), tmp_path / "fold", CARD)
    assert len(list((tmp_path / "fold").glob("model-*.safetensors"))) > 2
    index = json.loads((tmp_path / "fold" / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(engine.weights.tensors) <= set(index)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fold", dtype="auto")
    assert Weights(loaded).fingerprint == engine.weights.checksum() != engine.fingerprint


def test_an_export_leaves_the_engine_as_it_was(tiny, recipe_on, tmp_path):
    engine = tiny("llama")
    recipe, prompt = recipe_on(engine, (1, 0.1)), Prompt((1, 2, 3), "x")
    engine.become(recipe)
    before = next(engine.generate([prompt], Decoding(5)))
    engine.export(recipe, tmp_path / "fold", CARD)
    assert engine.describe()["attention"] == "seedfold_sdpa"
    assert next(engine.generate([prompt], Decoding(5))) == before


def test_a_folder_with_anything_in_it_is_refused_and_kept(tiny, recipe_on, tmp_path):
    engine = tiny("llama")
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="not empty"):
            engine.export(recipe_on(engine), folder, CARD)
    assert contents(tmp_path) == ["notes.txt"]


def test_an_empty_folder_is_used(tiny, recipe_on, tmp_path):
    engine = tiny("llama")
    (tmp_path / "fold").mkdir()
    engine.export(recipe_on(engine), tmp_path / "fold", CARD)
    assert (tmp_path / "fold" / "config.json").is_file()


@pytest.mark.parametrize("place", ["safetensors", "card", "rename"])
def test_a_full_disk_leaves_nothing_behind(tiny, recipe_on, tmp_path, monkeypatch, place):
    engine = tiny("llama")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if place == "safetensors":
        save = engine.model.save_pretrained

        def partly(folder, **options):
            save(folder, **options)
            full()

        monkeypatch.setattr(engine.model, "save_pretrained", partly)
    elif place == "card":
        monkeypatch.setattr(Path, "write_text", full)
    else:
        monkeypatch.setattr(export.os, "rename", full)
    with pytest.raises(UserError, match=r"fold.*No space left"):
        engine.export(recipe_on(engine, (1, 0.1)), tmp_path / "fold", CARD)
    assert contents(tmp_path) == []


def test_a_disk_that_is_full_in_the_writer_of_the_weights_is_the_users_to_mend(tiny, recipe_on, tmp_path, monkeypatch):
    """The writer of safetensors files raises an error of its own kind."""
    from safetensors import SafetensorError

    engine = tiny("llama")

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(engine.model, "save_pretrained", full)
    with pytest.raises(UserError, match="No space left"):
        engine.export(recipe_on(engine, (1, 0.1)), tmp_path / "fold", CARD)
    assert contents(tmp_path) == []


def test_a_checkpoint_that_was_written_wrongly_is_not_kept(tiny, recipe_on, tmp_path, monkeypatch):
    engine = tiny("llama")
    save = engine.model.save_pretrained

    def flawed(folder, **options):
        save(folder, **options)
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(engine.model, "save_pretrained", flawed)
    with pytest.raises(UserError, match="not written as it is"):
        engine.export(recipe_on(engine, (1, 0.1)), tmp_path / "fold", CARD)
    assert contents(tmp_path) == []


def test_missing_tensors_are_noticed(tiny, recipe_on, tmp_path):
    engine = tiny("llama")
    engine.export(recipe_on(engine), tmp_path / "fold", CARD)
    (tmp_path / "fold" / "model.safetensors").unlink()
    with pytest.raises(OSError, match="tensors were not written"):
        export.verify(tmp_path / "fold", engine.weights)


def test_free_space_is_asked_of_the_nearest_folder_that_exists(tmp_path):
    assert export.free_bytes(tmp_path / "a" / "b" / "c") > 0
