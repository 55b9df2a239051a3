import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import write_tiny
from safetensors.torch import load_file

from seedfold import cli, export
from seedfold.engines.base import Decoding, Prompt
from seedfold.errors import UserError
from seedfold.recipe import Base, Recipe, Term
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


# As an adapter


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"))


def merged(base, adapter):
    """The base's weights once PEFT has loaded the adapter and merged it."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter)
    names = {name for name, _ in model.named_parameters() if "lora_" in name}
    held = load_file(adapter / "adapter_model.safetensors")
    assert {name.replace(".default", "") for name in names} == set(held)  # nothing is left as PEFT starts it
    return Weights(model.merge_and_unload()), held


def units(a, b, base):
    """How far apart, at most, in spacings of bfloat16 at the base weight or the result, whichever is larger.

    Where base and step cancel, the result's own spacing is below what is left of a sum in another order.
    """
    size = torch.stack([a, b, base]).float().abs().amax(0)
    spacing = torch.ldexp(torch.ones_like(size), size.frexp().exponent - 8)
    return float(((a.float() - b.float()).abs() / spacing).max())


@pytest.mark.parametrize(
    ("terms", "rank", "tensors"),
    [
        ([("lora-4", 1, 0.02)], 4, 14),
        ([("lora-4", 1, 0.02), ("lora-3", 2**63 + 1, -0.01), ("lora-1", 3, 0.005)], 8, 14),
        ([("lora-2:q_proj+v_proj", 1, 0.03), ("lora-4:down_proj", 2, 0.03)], 6, 6),
        ([("low-rank-4", 1, 0.02), ("lora-2:q_proj", 2, 0.01)], 6, 14),
    ],
    ids=["one", "several", "modules", "low-rank"],
)
@pytest.mark.parametrize("scale", ["absolute", "rms"])
def test_peft_merges_an_adapter_into_the_recipes_weights(tiny_folder, recipe_on, tmp_path, terms, rank, tensors, scale):
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype="auto")
    weights = Weights(base)
    recipe = recipe_on(weights, *terms, dtype="bfloat16", scale=scale, include=("*_proj.weight",))
    export.write_adapter(base, weights, recipe, tmp_path / "adapter")
    assert contents(tmp_path) == ["adapter"]
    assert contents(tmp_path / "adapter") == ["adapter_config.json", "adapter_model.safetensors", "recipe.json"]
    assert Recipe.load(tmp_path / "adapter" / "recipe.json") == recipe
    assert weights.checksum() == weights.fingerprint
    found, held = merged(tiny_folder, tmp_path / "adapter")
    assert all(rank in values.shape for values in held.values())
    weights.become(recipe)
    for name in weights.tensors:
        assert units(found.live(name), weights.live(name), weights.base(name)) <= 1, name
        # PEFT sums the terms in another order, which rounds otherwise now and then.
        assert (found.live(name) != weights.live(name)).float().mean() < 0.001, name
    changed = [name for name in weights.tensors if not torch.equal(weights.live(name), weights.base(name))]
    assert len(changed) == tensors


def test_patterns_choose_the_layers_of_an_adapter(tiny_folder, recipe_on, tmp_path):
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype="auto")
    weights = Weights(base)
    recipe = recipe_on(weights, ("lora-4", 1, 0.1), dtype="bfloat16", exclude=("*.layers.0.*",))
    export.write_adapter(base, weights, recipe, tmp_path / "adapter")
    found, held = merged(tiny_folder, tmp_path / "adapter")
    assert len(held) == 2 * 7
    names = {name for name in weights.tensors if not torch.equal(found.live(name), weights.base(name))}
    assert names == {name for name in weights.tensors if ".layers.1." in name and "_proj" in name}


def test_the_command_writes_an_adapter_that_generates_as_the_recipe(tiny_folder, tmp_path, capsys):
    """Not merged: PEFT adds B A x to each layer's result."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype="auto")
    weights = Weights(model)
    recipe = Recipe(Base(str(tiny_folder), "", weights.fingerprint), (Term("lora-8", 5, 0.05),))
    recipe.save(tmp_path / "recipe.json")
    assert cli.main(["export", str(tmp_path / "recipe.json"), str(tmp_path / "out"), "--adapter"]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'out'}\n"
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_folder
    )
    ids = torch.arange(100, 140)[None]
    before = model(ids).logits.float()
    weights.become(recipe)
    expected = model(ids).logits.float()
    loaded = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype="auto")
    seen = peft.PeftModel.from_pretrained(loaded, tmp_path / "out")(ids).logits.float()
    assert (seen - expected).norm() < 0.05 * (before - expected).norm()
    assert cli.main(["export", str(tmp_path / "recipe.json"), str(tmp_path / "out"), "--adapter"]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("terms", "fields", "said"),
    [
        ([("rademacher", 7, 0.1)], {}, "family of seed 7 is rademacher"),
        ([("lora-4", 1, 0.1), ("gaussian", 2, 0.1)], {}, "family of seed 2 is gaussian"),
        ([("low-rank-4", 1, 0.1)], {}, "tensor model.embed_tokens.weight is no linear layer's weight"),
        ([("low-rank-4", 1, 0.1)], {"include": ("*norm*",)}, "has dense noise"),
        ([("lora-4:embed_tokens", 1, 0.1)], {}, "tensor model.embed_tokens.weight is no linear layer's weight"),
        ([("lora-4", 1, 0.1)], {"rounding": "dither"}, "rounding of the recipe is dither"),
        ([("lora-4:c_attn", 1, 0.1)], {}, "every candidate would be the base"),
        ([], {}, "changes no weight"),
    ],
)
def test_what_no_adapter_can_hold_is_refused(tiny, recipe_on, tmp_path, terms, fields, said):
    engine = tiny("llama", torch.bfloat16)
    recipe = recipe_on(engine, *terms, **fields)
    with pytest.raises(UserError, match=said):
        export.write_adapter(engine.model, engine.weights, recipe, tmp_path / "adapter")
    assert contents(tmp_path) == []


def test_an_adapter_for_another_base_is_refused(tiny, recipe_on, tmp_path):
    recipe = recipe_on(tiny("qwen2").weights, ("lora-4", 1, 0.1))
    with pytest.raises(UserError, match="the recipe is on base"):
        export.write_adapter(tiny("llama").model, tiny("llama").weights, recipe, tmp_path / "adapter")


def test_a_full_disk_leaves_no_adapter(tiny, recipe_on, tmp_path, monkeypatch):
    engine = tiny("llama")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.os, "rename", full)
    with pytest.raises(UserError, match=r"adapter.*No space left"):
        export.write_adapter(engine.model, engine.weights, recipe_on(engine, ("lora-4", 1, 0.1)), tmp_path / "adapter")
    assert contents(tmp_path) == []
