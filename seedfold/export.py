"""Writing a model as an ordinary checkpoint, or a recipe as a PEFT adapter, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedfold import config
from seedfold.errors import UserError
from seedfold.noise import family
from seedfold.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from seedfold.noise.low_rank import LowRank
    from seedfold.recipe import Term
    from seedfold.weights import Weights

SHARD = "2GB"


def write(model: Any, tokenizer: Any, weights: Weights, folder: Path, card: str) -> None:
    """Write the live weights with config, generation config, tokenizer and model card to a new folder.

    The files are read back and compared with the live weights, bit for bit, before the folder gets its name.

    Raises:
        UserError: the folder exists and is not empty, or cannot be written.
    """
    with _whole(folder) as scratch:
        model.save_pretrained(scratch, max_shard_size=SHARD)
        tokenizer.save_pretrained(scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        verify(scratch, weights)


def adapter(path: Path, folder: Path, model: str = "") -> Path:
    """Write a recipe file as a PEFT adapter; `model` says where the base is, if not where the recipe says."""
    from seedfold import models
    from seedfold.weights import Weights

    check_free(folder)
    recipe = Recipe.load(path)
    base = config.Model(name=model or recipe.base.name, revision=recipe.base.revision, dtype=recipe.dtype)
    loaded = models.load(base)[0]
    write_adapter(loaded, Weights(loaded), recipe, folder)
    return folder


def write_adapter(model: Any, weights: Weights, recipe: Recipe, folder: Path) -> None:
    """Write a recipe of low-rank or LoRA noise as a LoRA adapter of PEFT to a new folder, with the recipe beside it.

    The terms' ranks are concatenated: of a linear layer, A (rank, in) has the signs Vᵀ of each term, one below the other,
    and B (out, rank) their scale * U / √r side by side, both float32; lora_alpha is the rank, so that PEFT adds B A.

    Args:
        model, weights: the recipe's base. The live weights do not matter, and stay.

    Raises:
        UserError: a recipe that is not on these weights, or that no adapter can hold: of other noise, of tensors that are
            no linear layer's weights, with dither, or that changes nothing; or the folder is taken or cannot be written.
    """
    from safetensors.torch import load_file, save_file

    if recipe.rounding != "nearest":
        raise UserError(
            f"rounding of the recipe is {recipe.rounding}, which an adapter cannot do; export without --adapter"
        )
    ranks = [_factored(term).rank for term in recipe.terms]
    tensors, modules = {}, []
    for name, terms in weights.steps(recipe).items():
        pair = _pair(name, weights.tensors[name].shape, terms)
        if pair is not None:
            modules.append(_linear(model, name))
            for letter, values in zip("AB", pair, strict=True):
                tensors[f"base_model.model.{modules[-1]}.lora_{letter}.weight"] = values
    if not tensors:
        raise UserError("the recipe changes no weight of the model, so there is nothing for an adapter to hold")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": recipe.base.name,
        "revision": recipe.base.revision or None,
        "inference_mode": True,
        "target_modules": modules,
        "r": sum(ranks),
        "lora_alpha": sum(ranks),
        "bias": "none",
        "fan_in_fan_out": False,
        "lora_dropout": 0.0,
    }
    with _whole(folder) as scratch:
        scratch.mkdir()
        (scratch / "adapter_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        save_file(tensors, scratch / "adapter_model.safetensors", metadata={"format": "pt"})
        recipe.save(scratch / "recipe.json")
        read = load_file(scratch / "adapter_model.safetensors")
        if read.keys() != tensors.keys() or not all(read[name].equal(tensors[name]) for name in tensors):
            raise OSError("the adapter was not written as it is")


def _factored(term: Term) -> LowRank:
    from seedfold.noise.low_rank import LowRank

    made = family(term.family)
    if not isinstance(made, LowRank):
        raise UserError(
            f"family of seed {term.seed} is {term.family}, whose noise is no product of thin matrices; export without "
            "--adapter, or search with a lora family"
        )
    return made


def _pair(name: str, shape: tuple[int, ...], terms: Sequence[Term]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A (rank, in) and B (out, rank) of a tensor, with zeros for terms that leave it alone; None if all do."""
    import torch

    above, beside, changed = [], [], False
    for term in terms:
        made = _factored(term)
        factors = made.factors(term.seed, name, shape)
        changed |= factors is not None
        left, right = factors or (torch.zeros(shape[0], made.rank), torch.zeros(shape[-1], made.rank))
        above.append(right.T)
        beside.append(left * term.scale)
    return (torch.cat(above), torch.cat(beside, dim=1)) if changed else None


def _linear(model: Any, tensor: str) -> str:
    """The name of the linear layer whose weight this is."""
    from torch.nn import Linear

    name, _, kind = tensor.rpartition(".")
    if kind != "weight" or not isinstance(model.get_submodule(name), Linear):
        raise UserError(
            f"tensor {tensor} is no linear layer's weight, which is all that an adapter can hold here; export without "
            "--adapter, or leave it out of the recipe by include and exclude"
        )
    return name


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A scratch folder's path, to be made and filled; it gets the name of `folder` at the end, if nothing fails."""
    from safetensors import SafetensorError  # what its writer makes of a full disk

    folder = Path(folder)
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch_name:
            scratch = Path(scratch_name) / "checkpoint"
            yield scratch
            if folder.exists():
                folder.rmdir()
            os.rename(scratch, folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f'folder "{folder}" cannot be written ({error}); free space or give another folder') from None


def check_free(folder: Path) -> None:
    """Refuse a folder that would be overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'folder "{folder}" exists and is not empty; give a new folder')


def verify(folder: Path, weights: Weights) -> None:
    """Compare the shards of a checkpoint with the live weights, bit for bit."""
    import torch
    from safetensors import safe_open

    missing = set(weights.tensors)
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                if name in missing:
                    written, live = tensors.get_tensor(name).view(-1), weights.live(name).cpu()
                    if not torch.equal(written.view(torch.uint8), live.view(torch.uint8)):
                        raise OSError(f"tensor {name} was not written as it is")
                    missing.discard(name)
    if missing:
        raise OSError(f"{len(missing)} tensors were not written, {min(missing)} among them")


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written where the folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
