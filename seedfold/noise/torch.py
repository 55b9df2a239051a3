"""The reference rebuild: weights of any recipe from the base, on any device, in bounded memory.

    acc = sum of scale_k * noise_k in float32, in order;    W = round(float32(base) + acc)

It goes tile by tile: on a CPU, so that a tile's noise, sum and result are made while it is in cache; on a GPU, where tiles
are much larger, only so that memory is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from math import isfinite

import torch

from seedfold.errors import UserError
from seedfold.noise import dither
from seedfold.noise.registry import Family, check_seed, family
from seedfold.noise.segment import Segment
from seedfold.noise.tiles import Tile, flatten, tiles

Term = tuple[str, int, float]
_Drawn = tuple[Family, int, float]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROUNDINGS = ("nearest", "dither")

_COMPILED = ("seedfold.noise.rademacher", "seedfold.noise.gaussian")
"""Families that `seedfold.noise.compiled` makes on a CPU."""

# Generator calls per tile. Fewer, and the cost of launching operations shows; more, and the tile leaves the cache.
_CALLS = 8192

# Weights per tile on a GPU, where a tile costs some dozens of launches whatever its size: one small enough for the cache is
# not worth them. A float32 buffer of a tile takes 64 MiB; up to four are held at once, for dither up to nine.
_GPU_TILE = 2**24


def perturbation(
    segment: Segment, terms: Sequence[Term], *, device: torch.device | str = "cpu", out: torch.Tensor | None = None
) -> torch.Tensor:
    """The intended step: the sum of scale * noise over the terms, in float32 and in their order.

    Args:
        segment: which weights.
        terms: (family, seed, absolute scale), as in a recipe.
        device: where to compute, when ``out`` is not given.
        out: float32, contiguous, ``segment.numel`` elements; overwritten.

    Returns:
        ``out``, or a new float32 tensor of shape (segment.numel,). Zeros if there are no terms.

    Raises:
        UserError: an unknown family, a seed outside [0, 2**64), a scale that is no finite float32, a bad ``out``.
    """
    drawn = _check_terms(terms)
    if out is None:
        out = torch.empty(segment.numel, dtype=torch.float32, device=device)
    _check_tensor("out", out, segment, (torch.float32,))
    if not drawn:
        return out.zero_()
    with torch.no_grad(), _one_core():
        for (target,), acc, _ in _accumulate(segment, drawn, [out], align=1):
            target.copy_(acc)
    return out


def rebuild(
    base: torch.Tensor,
    out: torch.Tensor,
    segment: Segment,
    terms: Sequence[Term],
    *,
    rounding: str = "nearest",
    dither_seed: int = 0,
) -> torch.Tensor:
    """Overwrite ``out`` with the recipe's weights.

    Args:
        base: the base's weights of the segment: float32, bfloat16 or float16, contiguous, ``segment.numel`` elements.
        out: of the same dtype, device and size, contiguous. It may be ``base`` itself.
        segment: which weights these are.
        terms: (family, seed, absolute scale), added in this order. None: a copy.
        rounding: "nearest" (ties to even) or "dither" (stochastic, see docs/noise.md; the same for float32).
        dither_seed: 64-bit unsigned; used by "dither" alone.

    Returns:
        ``out``.

    Raises:
        UserError: as ``perturbation``; or tensors that do not fit each other or the segment; or an unknown rounding.
    """
    drawn = _check_terms(terms)
    _check_tensor("base", base, segment, DTYPES)
    _check_tensor("out", out, segment, (base.dtype,))
    if base.device != out.device:
        raise UserError(f"out is on {out.device}; give one on the device of base, {base.device}")
    if rounding not in ROUNDINGS:
        raise UserError(f"rounding is {rounding!r}; give one of {', '.join(ROUNDINGS)}")
    check_seed(dither_seed, "dither_seed")
    with torch.no_grad(), _one_core():
        if not drawn:
            return out.copy_(base.view_as(out))
        stochastic = rounding == "dither" and base.dtype != torch.float32
        align = dither.BLOCK if stochastic else 1
        for (source, target), acc, tile in _accumulate(segment, drawn, [base, out], align):
            acc.add_(source)
            if stochastic:
                draw = dither.draws(
                    seed=dither_seed,
                    tensor=segment.tensor,
                    first=tile.first,
                    stride=tile.stride,
                    rows=tile.height,
                    columns=tile.width,
                    device=base.device,
                )
                target.copy_(dither.round_dither(acc, base.dtype, _piece(draw, tile)))
            else:
                target.copy_(acc)
    return out


def _accumulate(
    segment: Segment, drawn: Sequence[_Drawn], tensors: Sequence[torch.Tensor], align: int
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor, Tile]]:
    """For each tile: its part of each of ``tensors``, the sum of the terms (scratch, to be used up), and the tile."""
    blocks = [term_family.BLOCK for term_family, _, _ in drawn]
    blocks += [align] if align > 1 else []
    segment = flatten(segment)
    device = tensors[0].device
    align, size = max(blocks), _tile_size(device, min(blocks))
    matrices = [tensor.detach().view(segment.rows, segment.row_length) for tensor in tensors]
    sums, noise = _Scratch(device), _Scratch(device)
    runs = [(term_family, list(run)) for term_family, run in groupby(drawn, lambda term: term[0])]
    for tile in tiles(segment, align, size):
        acc = sums.take(tile)
        fresh = True
        for term_family, run in runs:
            if device.type == "cpu" and (module := getattr(term_family, "__name__", "")) in _COMPILED:
                from seedfold.noise import compiled  # which loads a compiler

                _, seeds, scales = zip(*run, strict=True)
                compiled.add(acc, module, seeds, scales, segment.tensor, tile.first, tile.stride, fresh)
                fresh = False
                continue
            for _, seed, scale in run:
                into = acc if fresh else noise.take(tile)
                term_family.fill(
                    into,
                    seed=seed,
                    tensor=segment.tensor,
                    first=tile.first,
                    stride=tile.stride,
                    scale=scale,
                    shape=segment.shape,
                )
                if not fresh:
                    acc.add_(into)  # not add_(noise, alpha=scale): that would fuse the product into the sum
                fresh = False
        yield [matrix[tile.rows, tile.columns] for matrix in matrices], _piece(acc, tile), tile


def _tile_size(device: torch.device, block: int) -> int:
    """The most weights of a tile, where a generator call serves so many of them."""
    return _GPU_TILE if device.type == "cuda" else block * _CALLS


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep operations on the calling thread.

    One on a tile takes microseconds. A second core gains a third when it is idle; when it is busy, each operation
    waits for it, up to a time slice: 134.5M weights took 0.18 s on one core and 10 s on two that others were using.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Scratch:
    """One float32 buffer, reused from tile to tile."""

    def __init__(self, device: torch.device) -> None:
        self.flat = torch.empty(0, dtype=torch.float32, device=device)

    def take(self, tile: Tile) -> torch.Tensor:
        """An uninitialised (height, width) buffer, valid until the next call."""
        size = tile.height * tile.width
        if len(self.flat) < size:
            self.flat = torch.empty(size, dtype=torch.float32, device=self.flat.device)
        return self.flat[:size].view(tile.height, tile.width)


def _piece(buffer: torch.Tensor, tile: Tile) -> torch.Tensor:
    width = tile.columns.stop - tile.columns.start
    return buffer[:, tile.lead : tile.lead + width]


def _check_terms(terms: Sequence[Term]) -> list[_Drawn]:
    """The terms with their families imported and their scales rounded to float32; zero scales contribute nothing."""
    drawn = []
    for name, seed, scale in terms:
        term_family, seed, rounded = family(name), check_seed(seed), _float32(scale)
        if rounded != 0.0:
            drawn.append((term_family, seed, rounded))
    return drawn


def _float32(scale: float) -> float:
    try:
        rounded: float = struct.unpack("f", struct.pack("f", scale))[0]
    except OverflowError:
        rounded = float("inf")
    if not isfinite(rounded):
        raise UserError(f"scale is {scale}; give a finite number within the range of float32")
    return rounded


def _check_tensor(field: str, tensor: torch.Tensor, segment: Segment, dtypes: Sequence[torch.dtype]) -> None:
    if tensor.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise UserError(f"dtype of {field} is {str(tensor.dtype).removeprefix('torch.')}; give {names}")
    if not tensor.is_contiguous():
        raise UserError(f"strides of {field} are {tensor.stride()}; give a contiguous tensor")
    if tensor.numel() != segment.numel:
        raise UserError(f"size of {field} is {tensor.numel()}; give {segment.numel}, as {segment.tensor} has here")
