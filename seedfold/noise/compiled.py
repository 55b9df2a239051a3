"""Rademacher and Gaussian noise on a CPU, compiled: terms of a tile in one pass, to the bit what their families fill.

The families' own `fill` launches some hundred operations of torch a term; here sixteen generator calls at a time stay in
registers and their noise in the first cache. Measured by `benchmarks/rebuild.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from seedfold.noise import gaussian, rademacher
from seedfold.noise.segment import tensor_key

CALLS = 16
"""Generator calls at once: a vector of them, on processors that have vectors."""

_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_BITS = np.array([1 << bit for bit in range(32)], dtype=np.uint32)


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compiled at its first call, and kept beside this file or in the user's cache.

    Products and sums are rounded one by one, for there is no fastmath. Loops that are to become vectors are functions of
    their own, or LLVM makes none of them.
    """
    kept: Callable[..., None]
    try:
        kept = njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # nowhere to keep it
        kept = njit(nogil=True, error_model="numpy")(function)
    return kept


def add(
    out: torch.Tensor,
    family: str,
    seeds: Sequence[int],
    scales: Sequence[float],
    tensor: str,
    first: int,
    stride: int,
    fresh: bool,
) -> None:
    """Add scale * noise of each term to `out`, in their order; see `Family.fill`.

    Args:
        out: float32 on the CPU, contiguous, (rows, columns).
        family: the family's module.
        seeds, scales: of the terms.
        fresh: the first term overwrites what is there.
    """
    key, setting = tensor_key(tensor), 0 if fresh else -1  # the number of the term that overwrites
    told = (
        np.array(seeds, dtype=np.uint64),
        np.array(scales, dtype=np.float32),
        np.uint64(key & 0xFFFFFFFF),
        np.uint64(key >> 32),
    )
    if family == rademacher.__name__:
        _rademacher(out.numpy(), *told, np.uint64(first // 128), np.uint64(stride // 128), setting)
    else:
        _gaussian(out.numpy(), *told, np.uint64(first // 8), np.uint64(stride // 8), setting, _quantiles())


def words(seed: int, key: int, first: int, stride: int, rows: int, columns: int) -> torch.Tensor:
    """See `seedfold.noise.counter.words`."""
    out = torch.empty(rows, columns, 4, dtype=torch.int32)
    low, high = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    _words(out.numpy().view(np.uint32), np.uint64(seed), low, high, np.uint64(first), np.uint64(stride))
    return out.view(-1, 4)


@cache
def _quantiles() -> NDArray[np.float32]:
    return np.asarray(gaussian.table(torch.device("cpu")).numpy())


@_compiled
def _philox(first, low, high, seed, c0, c1, c2, c3):
    """Philox4x32-10 of `CALLS` counters from `first`, see `seedfold.noise.counter`; words are in the low halves."""
    k0, k1 = seed & _LOW, seed >> _HIGH
    for i in range(CALLS):
        block = first + np.uint64(i)
        c0[i], c1[i], c2[i], c3[i] = block & _LOW, block >> _HIGH, low, high
    for _ in range(10):
        for i in range(CALLS):
            p0, p1 = c0[i] * _MULTIPLIERS[0], c2[i] * _MULTIPLIERS[1]
            c0[i] = (p1 >> _HIGH) ^ c1[i] ^ k0
            c2[i] = (p0 >> _HIGH) ^ c3[i] ^ k1
            c1[i], c3[i] = p1 & _LOW, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW


@_compiled
def _words(out, seed, low, high, first, stride):
    c = np.empty((4, CALLS), np.uint64)
    for r in range(out.shape[0]):
        start = first + np.uint64(r) * stride
        for block in range(0, out.shape[1], CALLS):
            _philox(start + np.uint64(block), low, high, seed, c[0], c[1], c[2], c[3])
            for i in range(min(CALLS, out.shape[1] - block)):
                for w in range(4):
                    out[r, block + i, w] = c[w, i]


@_compiled
def _set_signs(out, word, plus, minus):
    for bit in range(32):
        out[bit] = minus if word & _BITS[bit] else plus


@_compiled
def _add_signs(out, word, plus, minus):
    for bit in range(32):
        out[bit] += minus if word & _BITS[bit] else plus


@_compiled
def _rademacher(out, seeds, scales, low, high, first, stride, setting):
    words = np.empty((4, CALLS), np.uint64)
    for r in range(out.shape[0]):
        row, start = out[r], first + np.uint64(r) * stride
        for block in range(0, len(row) // 128, CALLS):
            for term in range(len(seeds)):
                _philox(start + np.uint64(block), low, high, seeds[term], words[0], words[1], words[2], words[3])
                plus = scales[term]
                for i in range(min(CALLS, len(row) // 128 - block)):
                    for w in range(4):
                        at = (block + i) * 128 + w * 32
                        if term == setting:
                            _set_signs(row[at : at + 32], np.uint32(words[w, i]), plus, -plus)
                        else:
                            _add_signs(row[at : at + 32], np.uint32(words[w, i]), plus, -plus)


@_compiled
def _gaussian(out, seeds, scales, low, high, first, stride, setting, quantiles):
    words = np.empty((4, CALLS), np.uint64)
    half, mask = np.uint64(16), np.uint64(0xFFFF)
    for r in range(out.shape[0]):
        row, start = out[r], first + np.uint64(r) * stride
        for block in range(0, len(row) // 8, CALLS):
            for term in range(len(seeds)):
                _philox(start + np.uint64(block), low, high, seeds[term], words[0], words[1], words[2], words[3])
                scale = scales[term]
                for i in range(min(CALLS, len(row) // 8 - block)):
                    for w in range(4):
                        at = (block + i) * 8 + w * 2
                        one = quantiles[words[w, i] & mask] * scale
                        two = quantiles[(words[w, i] >> half) & mask] * scale
                        if term == setting:
                            row[at], row[at + 1] = one, two
                        else:
                            row[at] += one
                            row[at + 1] += two
