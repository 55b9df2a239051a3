"""Writing a model as an ordinary checkpoint, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedfold.errors import UserError

if TYPE_CHECKING:
    from seedfold.weights import Weights

SHARD = "2GB"


def write(model: Any, tokenizer: Any, weights: Weights, folder: Path, card: str) -> None:
    """Write the live weights with config, generation config, tokenizer and model card to a new folder.

    The files are read back and compared with the live weights, bit for bit, before the folder gets its name.

    Raises:
        UserError: the folder exists and is not empty, or cannot be written.
    """
    from safetensors import SafetensorError  # what its writer makes of a full disk

    folder = Path(folder)
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch_name:
            scratch = Path(scratch_name) / "checkpoint"
            model.save_pretrained(scratch, max_shard_size=SHARD)
            tokenizer.save_pretrained(scratch)
            (scratch / "README.md").write_text(card, encoding="utf-8")
            verify(scratch, weights)
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
