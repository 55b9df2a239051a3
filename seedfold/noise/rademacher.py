"""Rademacher noise: +1 or -1 with equal probability, 128 weights per generator call.

The sign of weight i is bit i % 32 of word (i % 128) // 32 of block i // 128: 0 is +1, 1 is -1.
"""

from __future__ import annotations

from functools import cache

import torch

from seedfold.noise import counter
from seedfold.noise.segment import tensor_key

BLOCK = 128


def fill(
    out: torch.Tensor,
    *,
    seed: int,
    tensor: str,
    first: int,
    stride: int,
    scale: float,
    shape: tuple[int, ...] | None = None,
) -> None:
    """See ``Family.fill``. Scaling a sign is exact."""
    rows, columns = out.shape
    words = counter.words(seed, tensor_key(tensor), first // BLOCK, stride // BLOCK, rows, columns // BLOCK, out.device)
    # A byte of a little-endian word holds the signs of eight neighbours: one table row, one 32-byte copy. That beats
    # shifting and masking every bit.
    octets = words.view(torch.uint8).view(-1).to(torch.int32)
    torch.index_select(_signs(out.device) * scale, 0, octets, out=out.view(-1, 8))


@cache
def _signs(device: torch.device) -> torch.Tensor:
    """float32 (256, 8): the signs that the bits of each byte stand for, lowest bit first."""
    byte = torch.arange(256, device=device)[:, None]
    bit = torch.arange(8, device=device)
    return 1.0 - 2.0 * ((byte >> bit) & 1).to(torch.float32)
