"""What engines need of a GPU, and what GPUs have, before anything is loaded: from checkpoint headers and the driver."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedfold import config, models
from seedfold.errors import UserError

GIB = 2**30
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
FLOATING = ("F64", "F32", "F16", "BF16")

RESERVE = {"transformers": GIB, "vllm": 2 * GIB, "stacked": 2 * GIB}
"""Bytes of a GPU for libraries, activations, logits and CUDA graphs of one engine: an estimate, not measured here."""

SHARE = 0.9
"""Of a GPU's memory, for all engines on it together where they choose for themselves."""


@dataclass(frozen=True)
class Gpu:
    """number: as this process counts them. free, total: bytes. capability: compute capability, such as "9.0"."""

    number: int
    name: str
    free: int
    total: int
    capability: str


@dataclass(frozen=True)
class Checkpoint:
    """weights: bytes in the dtype that they are held in. cache_bytes_per_token: keys and values, all layers, one row."""

    weights: int
    cache_bytes_per_token: int


def gpus(device: str = "auto") -> list[Gpu]:
    """The GPUs that `model.device` allows, as nvidia-smi tells. No CUDA context is made: those take memory."""
    if not device.startswith(("auto", "cuda")) or shutil.which("nvidia-smi") is None:
        return []
    fields = "index,uuid,name,memory.free,memory.total,compute_cap"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [row for row in csv.reader(told.splitlines(), skipinitialspace=True) if len(row) == 6 and row[3].isdigit()]
    if seen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        wanted = seen.split(",")
        found = [[row for row in rows if row[0] == one or row[1].startswith(one)] for one in wanted]
        rows = [match[0] for match in found if match]
    made = [Gpu(i, row[2], int(row[3]) * 2**20, int(row[4]) * 2**20, row[5]) for i, row in enumerate(rows)]
    _, colon, number = device.partition(":")
    return [gpu for gpu in made if str(gpu.number) == number] if colon else made


def checkpoint(model: config.Model) -> Checkpoint | None:
    """Sizes of a checkpoint, from its headers; None where it is not on this machine or says nothing."""
    place = Path(models.locate(model.name))
    if not place.is_dir():
        found = _downloaded(model)
        if found is None:
            return None
        place = found
    files = sorted(place.glob("*.safetensors"))
    if not files:
        return None
    try:
        weights = sum(map(_elements, files)) * BYTES[model.dtype]
        settings = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, struct.error):
        return None
    text = settings.get("text_config", settings)
    layers = _first(text, "num_hidden_layers", "n_layer")
    queries = _first(text, "num_attention_heads", "n_head")
    heads = _first(text, "num_key_value_heads") or queries
    size = _first(text, "head_dim") or _first(text, "hidden_size", "n_embd") // max(1, queries)
    return Checkpoint(weights, 2 * layers * heads * size * BYTES[model.dtype])


def need(engine: config.Engine, sizes: Checkpoint, tokens: int) -> dict[str, int]:
    """Bytes of a GPU that one engine takes, by what for; the last is an estimate.

    Args:
        tokens: of a prompt and its answer, at most.
    """
    parts = engine.tensor_parallel
    rows, held = engine.at_once, {"weights": sizes.weights // parts, "base copy": sizes.weights // parts}
    if engine.name == "vllm":
        if engine.base_copy == "host":
            del held["base copy"]
        # Its cache is paged: what it is given is what it takes. At the least, one answer must fit.
        cache = int(engine.memory * GIB) or sizes.cache_bytes_per_token * tokens // parts
    elif engine.name == "stacked":
        copies = engine.copies or 1
        held = {"base copy": sizes.weights, f"{copies} perturbed": copies * sizes.weights}
        rows = min(engine.at_once, 128) * copies
        cache = sizes.cache_bytes_per_token * tokens * rows
    else:
        cache = sizes.cache_bytes_per_token * tokens * rows
    return {**held, "keys and values": cache, "libraries, activations and graphs (estimate)": RESERVE[engine.name]}


def crowded(model: config.Model, engine: config.Engine, places: int) -> int:
    """Engines on the fullest of the places where they can be: a GPU, or `tensor_parallel` of them."""
    return -(-max(1, engine.count) // max(1, 1 if ":" in model.device else places // engine.tensor_parallel))


def cache_share(model: config.Model, engine: config.Engine, found: list[Gpu]) -> float:
    """GiB of keys and values for each of several vllm engines that share GPUs, none of which knows of the others.

    Raises:
        UserError: they do not fit, or the size of the weights is not known.
    """
    together = crowded(model, engine, len(found))
    sizes = checkpoint(model)
    if sizes is None:
        raise UserError(
            f'"engine.memory" is 0 (automatic) and "engine.count" {engine.count}, but the size of model "{model.name}" is '
            'not known before it is downloaded; set "engine.memory" to GiB of keys and values per engine'
        )
    parts = need(engine, sizes, 0)
    room = int(SHARE * min(gpu.total for gpu in found)) // together - sum(parts.values())
    if room < GIB / 4:
        raise UserError(
            f'"engine.count" is {engine.count}: {together} engines on a GPU of {found[0].total / GIB:.0f} GiB, each of '
            f"{sum(parts.values()) / GIB:.1f} GiB before keys and values, do not fit; lower it, or use "
            '"engine.base_copy" host'
        )
    return round(room / GIB, 2)


def _downloaded(model: config.Model) -> Path | None:
    """The hub's checkpoint, if it was fetched before."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(model.name, revision=model.revision or None, local_files_only=True)
        )
    except (OSError, ValueError):
        return None


def _elements(path: Path) -> int:
    """Floating-point numbers in a safetensors file: eight bytes of length, then a JSON header."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__" and tensor["dtype"] in FLOATING:
            count = 1
            for side in tensor["shape"]:
                count *= side
            total += count
    return total


def _first(settings: dict[str, Any], *names: str) -> int:
    return next((int(settings[name]) for name in names if settings.get(name)), 0)
