"""Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) on torch tensors.

Every 32-bit word lives in an int64, because torch has no 32 x 32 -> 64 bit product. The products wrap modulo 2**64, and
the mask cuts what an arithmetic shift smears, so the sign bit does no harm. Runs on any device. On a CPU, words come from
`seedfold.noise.compiled`, and on a GPU from `seedfold.noise.triton_words` where there is Triton, which are faster.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[torch.Tensor, ...], key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Four output words for each of n counters under one key.

    Args:
        counter: four int64 tensors of shape (n,) with values in [0, 2**32). They are overwritten.
        key: two ints in [0, 2**32).

    Returns:
        Four int64 tensors of shape (n,); the words are their low 32 bits, the high ones are junk.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    p0, p1 = torch.empty_like(c0), torch.empty_like(c0)
    for _ in range(_ROUNDS):
        torch.mul(c0, _MULTIPLIERS[0], out=p0)
        torch.mul(c2, _MULTIPLIERS[1], out=p1)
        torch.bitwise_right_shift(p1, 32, out=c0)
        torch.bitwise_right_shift(p0, 32, out=c2)
        c0.bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2.bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        # The low halves of the products are the next c1 and c3. Only c0 and c2 are ever multiplied, so only they
        # need clean high bits.
        c1, p1 = p1, c1
        c3, p0 = p0, c3
        k0 = (k0 + _WEYL[0]) & _MASK
        k1 = (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def words(
    seed: int, tensor_key: int, first: int, stride: int, rows: int, columns: int, device: torch.device
) -> torch.Tensor:
    """Philox words of a grid of blocks: the block in row r and column c is number first + r * stride + c.

    Returns:
        int32, shape (rows * columns, 4): the four words of each block, row after row, as bit patterns.
    """
    if device.type == "cpu":
        from seedfold.noise import compiled  # which loads a compiler

        return compiled.words(seed, tensor_key, first, stride, rows, columns)
    if device.type == "cuda" and (kernel := _kernel()) is not None:
        return kernel.words(seed, tensor_key, first, stride, rows, columns, device)
    return words_by_torch(seed, tensor_key, first, stride, rows, columns, device)


@cache
def _kernel() -> ModuleType | None:
    """`seedfold.noise.triton_words`, if Triton is there and compiles for the GPU."""
    try:
        from seedfold.noise import triton, triton_words  # which load Triton, and import this module
    except ImportError:
        return None
    return triton_words if triton.COMPILED else None


def words_by_torch(
    seed: int, tensor_key: int, first: int, stride: int, rows: int, columns: int, device: torch.device
) -> torch.Tensor:
    """`words` on any device."""
    starts = torch.arange(rows, dtype=torch.int64, device=device).mul_(stride).add_(first)
    blocks = (starts[:, None] + torch.arange(columns, dtype=torch.int64, device=device)).view(-1)
    counter = (
        blocks & _MASK,
        blocks >> 32,
        torch.full_like(blocks, tensor_key & _MASK),
        torch.full_like(blocks, tensor_key >> 32),
    )
    out = torch.empty(len(blocks), 4, dtype=torch.int32, device=device)
    for column, word in enumerate(philox(counter, (seed & _MASK, seed >> 32))):
        out[:, column].copy_(word)  # the cast keeps the low 32 bits
    return out


def halves(
    seed: int, tensor_key: int, first: int, stride: int, rows: int, columns: int, device: torch.device
) -> torch.Tensor:
    """Uniform 16-bit draws, eight per block: draw j is the low (j even) or high (j odd) half of word j // 2.

    Returns:
        int32 in [0, 65536), shape (rows * columns * 8,).
    """
    packed = words(seed, tensor_key, first, stride, rows, columns, device)
    return packed.view(torch.int16).view(-1).to(torch.int32).bitwise_and_(0xFFFF)
