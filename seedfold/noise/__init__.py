"""Noise, version 1: what a seed means.

A family gives every weight of every checkpoint tensor one number, from the seed, the tensor's name and the weight's
flat index alone. Shards, fused tensors and padding never change it. The definition to the bit is in ``docs/noise.md``.

This module imports neither torch nor numpy; they load when noise is first drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seedfold.errors import UserError
from seedfold.noise.registry import Family, check_seed, families, family, register
from seedfold.noise.segment import LAST_INDEX, Segment, tensor_key

if TYPE_CHECKING:
    import torch

__all__ = ["Family", "Segment", "families", "family", "register", "tensor_key", "values"]

register("rademacher", "seedfold.noise.rademacher")
register("gaussian", "seedfold.noise.gaussian")
register("low-rank", "seedfold.noise.low_rank", "RANK")
register("lora", "seedfold.noise.lora", "RANK[:MODULES]")


def values(
    family: str, seed: int, tensor: str, start: int, stop: int, *, shape: tuple[int, ...] | None = None
) -> torch.Tensor:
    """The noise of the named tensor at flat row-major indices [start, stop).

    Args:
        family: its name, see ``families()``.
        seed: 64-bit unsigned.
        tensor: the tensor's name in the checkpoint.
        start, stop: flat indices into the full tensor, 0 <= start <= stop <= 2**64.
        shape: the full tensor's shape, for families that depend on it: low-rank, lora.

    Returns:
        float32 CPU tensor of shape (stop - start,), of mean 0 and variance 1. Beyond it, a few MiB are used.

    Raises:
        UserError: an unknown family, a seed, name or range outside the above, or no shape where one is needed.
    """
    if not 0 <= start <= stop <= LAST_INDEX + 1:
        raise UserError(f"start, stop is {start}, {stop}; give 0 <= start <= stop <= 2**64")
    check_seed(seed)
    from seedfold.noise.torch import perturbation

    part = Segment(tensor, start, rows=1, row_length=stop - start, row_stride=stop - start, shape=shape)
    return perturbation(part, [(family, seed, 1.0)])
