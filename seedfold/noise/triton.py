"""The fused rebuild: all tensors of a model in one Triton launch, bit for bit what ``seedfold.noise.torch`` makes.

    acc = sum of scale_k * noise_k in float32, in order;    W = round(float32(W0) + acc)

A table on the device says where each segment lives, and a list of tiles says which program does what, so a switch
costs one launch whatever the number of tensors. Needs a GPU, or Triton's interpreter (TRITON_INTERPRET=1, set before
Triton is imported) for tensors on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import gcd
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl

from seedfold.errors import UserError
from seedfold.noise import gaussian
from seedfold.noise.registry import check_seed, family
from seedfold.noise.segment import Segment, tensor_key
from seedfold.noise.tiles import flatten
from seedfold.noise.torch import DTYPES, ROUNDINGS, Term, _check_tensor, _float32

GROUP = 128
"""Weights that one Rademacher call serves. Work is dealt in whole groups, aligned to the tensor's flat indices."""

Tile = tuple[int, int]
"""Groups of 128 weights, and warps, per program: powers of two."""

ONE_TERM, ONE_GAUSSIAN, TERMS = (64, 8), (64, 4), (128, 4)
"""Which tile is fast for what: see `benchmarks/switch.py --sweep`. One term moves memory, many terms compute."""

_FAMILIES = {"rademacher": 0, "gaussian": 1}
_COLUMNS = 10  # of the segment table, see Rebuilder._row


def knows(terms: Sequence[Term]) -> bool:
    """Whether the kernel has all families of the terms."""
    return all(name in _FAMILIES for name, _, _ in terms)


class Rebuilder:
    """Rebuilds parts of a model again and again.

    Args:
        parts: (segment, base, live). Base and live are flat or of any shape, contiguous, of one dtype (float32,
            bfloat16, float16) and of the segment's size; they may be the same tensor. All are on one device; a base may
            also be in pinned host memory. Dtypes may differ between parts. The tensors are kept alive.
        tile: used for every recipe; None: what is fast for it.

    Raises:
        UserError: tensors that do not fit each other, their segment, or the kernel.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Segment, torch.Tensor, torch.Tensor]],
        *,
        tile: Tile | None = None,
    ) -> None:
        self._held = [(base, live) for _, base, live in parts]  # the table below has only their addresses
        self._device = parts[0][2].device if parts else torch.device("cpu")
        self._tile = tile
        names: dict[str, int] = {}
        rows: list[tuple[int, ...]] = []
        self._groups: dict[_Group, list[tuple[int, int]]] = {}
        for segment, base, live in parts:
            _check_part(segment, base, live, self._device)
            scale_row = names.setdefault(segment.tensor, len(names))
            if segment.numel == 0:
                continue
            segment = flatten(segment)
            row = _row(segment, base, live, scale_row)
            group = _Group(str(live.dtype).removeprefix("torch."), _aligned(segment, base, live))
            self._groups.setdefault(group, []).append((len(rows), row[6]))
            rows.append(row)
        self._names = list(names)
        table = np.array(rows, dtype=np.uint64).view(np.int64).reshape(-1, _COLUMNS)
        self._segments = torch.from_numpy(table).to(self._device)
        self._programs: dict[tuple[_Group, int], torch.Tensor] = {}

    def rebuild(
        self,
        terms: Sequence[Term],
        factors: Mapping[str, float] | None = None,
        *,
        rounding: str = "nearest",
        dither_seed: int = 0,
    ) -> None:
        """Overwrite every live part with the recipe's weights, on the current stream, without waiting for it.

        Args:
            terms: (family, seed, absolute scale), added in this order; families of which ``knows`` says yes. None, or
                none of a scale that is not zero: a copy.
            factors: tensor name -> factor of all scales on that tensor (the float64 product is rounded to float32).
            rounding, dither_seed: as ``seedfold.noise.torch.rebuild``.

        Raises:
            UserError: as the reference; or a family that the kernel lacks; or a tensor without a factor.
        """
        if rounding not in ROUNDINGS:
            raise UserError(f"rounding is {rounding!r}; give one of {', '.join(ROUNDINGS)}")
        check_seed(dither_seed, "dither_seed")
        drawn, scales = self._draw(terms, factors)
        seed, bits, table = 0, 0, self._segments  # what is not used may be anything
        if scales.size == 1:
            seed, bits = drawn[0][1], int(scales.view(np.int32)[0, 0])
        elif drawn:
            table = self._table(drawn, scales)
        gaussians = sum(number for number, _ in drawn)
        with torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
            units, warps = self._tile or (TERMS if len(drawn) > 1 else ONE_GAUSSIAN if gaussians else ONE_TERM)
            for group in self._groups:
                # Lanes on their own take many more registers each; such segments are rare and small.
                height = units if group.aligned else max(1, units // 4)
                programs = self._dealt(group, height)
                _rebuild[(len(programs),)](
                    programs,
                    self._segments,
                    table,
                    gaussian.table(self._device)[gaussian.LEVELS // 2 :] if gaussians else self._segments,
                    len(drawn),
                    *_halves(seed),
                    bits,
                    *_halves(dither_seed),
                    DTYPE=group.dtype,
                    ALIGNED=group.aligned,
                    RADEMACHER=gaussians < len(drawn),
                    GAUSSIAN=gaussians > 0,
                    ONE=scales.size == 1,
                    PER_TENSOR=len(scales) > 1,
                    DITHER=rounding == "dither" and group.dtype != "float32",
                    COMPILED=COMPILED,
                    UNITS=height,
                    num_warps=warps,
                    enable_fp_fusion=False,  # products are rounded before they are added
                )

    def _dealt(self, group: _Group, units: int) -> torch.Tensor:
        """The programs of a launch, made once: int32 [programs, 2] on the device."""
        if (group, units) not in self._programs:
            counts = [(number, -(-whole // units)) for number, whole in self._groups[group]]
            self._programs[group, units] = _tile_list(counts).to(self._device)
        return self._programs[group, units]

    def _draw(
        self, terms: Sequence[Term], factors: Mapping[str, float] | None
    ) -> tuple[list[tuple[int, int]], np.ndarray]:
        """(family number, seed) of the terms that do something, and their scales: float32 (1 or tensors, terms)."""
        drawn = []
        for name, seed, _ in terms:
            if name not in _FAMILIES:
                family(name)
                raise UserError(f"family is {name!r}, which has no fused kernel; give one of {', '.join(_FAMILIES)}")
            drawn.append((_FAMILIES[name], check_seed(seed)))
        if factors is None:
            scales = np.array([[_float32(scale) for _, _, scale in terms]], dtype=np.float32)
        else:
            for name in self._names:
                if name not in factors:
                    raise UserError(f"factors has no {name}; give a factor for every tensor")
            column = np.array([factors[name] for name in self._names], dtype=np.float64)[:, None]
            with np.errstate(over="ignore", invalid="ignore"):
                exact = column * np.array([scale for _, _, scale in terms], dtype=np.float64)
                scales = exact.astype(np.float32)
            for scale in exact[~np.isfinite(scales)].tolist():
                _float32(scale)  # raises
        used = (scales != 0.0).any(axis=0)
        return [term for term, use in zip(drawn, used, strict=True) if use], np.ascontiguousarray(scales[:, used])

    def _table(self, drawn: Sequence[tuple[int, int]], scales: np.ndarray) -> torch.Tensor:
        """int32 on the device: family, seed low and seed high of each term; then the bits of the scales, row by row."""
        head = [(number, *_halves(seed)) for number, seed in drawn]
        flat = np.concatenate([np.array(head, dtype=np.int32).ravel(), scales.view(np.int32).ravel()])
        table = torch.from_numpy(flat)
        if self._device.type != "cuda":
            return table
        # torch keeps the pinned block until the copy is done, so nothing has to wait.
        return table.pin_memory().to(self._device, non_blocking=True)


class _Group(NamedTuple):
    """Segments that one launch rebuilds: dtype, and whether eight weights share a mask."""

    dtype: str
    aligned: bool


def _check_part(segment: Segment, base: torch.Tensor, live: torch.Tensor, device: torch.device) -> None:
    _check_tensor("base", base, segment, DTYPES)
    _check_tensor("live", live, segment, (base.dtype,))
    if live.device != device:
        raise UserError(f"live of {segment.tensor} is on {live.device}; give all on one device, here {device}")
    if base.device != device and not (device.type == "cuda" and base.is_pinned()):
        raise UserError(f"base of {segment.tensor} is on {base.device}; give it on {device} or in pinned memory")
    if device.type != "cuda" and COMPILED:
        raise UserError(f"live of {segment.tensor} is on {device}; the fused kernel needs a CUDA device")
    if device.type == "cuda" and not COMPILED:
        raise UserError(
            f"live of {segment.tensor} is on {device}, which Triton's interpreter cannot read; unset TRITON_INTERPRET"
        )


def _row(segment: Segment, base: torch.Tensor, live: torch.Tensor, scale_row: int) -> tuple[int, ...]:
    """One row of the segment table, a column per line, each of 64 bits."""
    lead = segment.start % GROUP
    if segment.rows > 1:  # the latest that a row can start in its first group
        step = gcd(segment.row_stride, GROUP)
        lead = GROUP - step + lead % step
    groups = -(-(lead + segment.row_length) // GROUP)
    units = segment.rows * groups
    if units >= 2**31 - 2**16:
        raise UserError(f"segment of {segment.tensor} has {units} groups of {GROUP}; cut it into segments below 2**31")
    return (
        live.data_ptr(),
        base.data_ptr(),
        segment.start,
        segment.row_length,
        segment.row_stride,
        groups,  # that each row is dealt
        units,
        tensor_key(segment.tensor),
        tensor_key(segment.tensor + "#dither"),
        scale_row,
    )


def _aligned(segment: Segment, base: torch.Tensor, live: torch.Tensor) -> bool:
    """Whether each aligned run of eight weights is in a row or out of it as a whole, and may be read as a vector."""
    weights = (segment.start, segment.row_length, segment.row_stride)
    return all(count % 8 == 0 for count in weights) and (base.data_ptr() | live.data_ptr()) % 16 == 0


def _tile_list(counts: Sequence[tuple[int, int]]) -> torch.Tensor:
    """int32 (tiles, 2): segment and tile of the segment, from (segment, number of tiles)."""
    segments, tiles = np.array(counts).T
    first = np.repeat(np.cumsum(tiles) - tiles, tiles)
    pairs = np.stack([np.repeat(segments, tiles), np.arange(tiles.sum()) - first], axis=1)
    return torch.from_numpy(pairs.astype(np.int32))


def _halves(seed: int) -> tuple[int, int]:
    """Low and high word as signed ints: a launch argument then has one type whatever its value."""
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


@triton.jit
def _words(c0, c1, key, k0, k1):
    """Philox4x32-10 on block numbers (low, high): the four words, in a new last dimension."""
    a, b, c, d = tl.philox_impl(c0, c1, key.to(tl.uint32), (key >> 32).to(tl.uint32), k0, k1)
    pairs = tl.join(tl.join(a, c), tl.join(b, d))
    return tl.reshape(pairs, c0.shape + [4])  # noqa: RUF005 (Triton cannot unpack)


@triton.jit
def _draws(block, key, k0, k1, UNITS: tl.constexpr):
    """Uniform 16-bit draws of UNITS groups, uint32 [UNITS, 128]: one call per eight weights."""
    low = (block.to(tl.uint32) << 4)[:, None] + tl.arange(0, 16).to(tl.uint32)[None, :]
    high = tl.broadcast_to((block >> 28).to(tl.uint32)[:, None], [UNITS, 16])
    words = _words(low, high, key, k0, k1)
    half = tl.arange(0, 2).to(tl.uint32) * 16
    return tl.reshape((words[:, :, :, None] >> half[None, None, None, :]) & 0xFFFF, [UNITS, 128])


@triton.jit
def _rademacher(block, key, k0, k1, scale, UNITS: tl.constexpr):
    """scale * noise, float32 [UNITS, 128], scale as float32 bits: a sign is a flipped bit, so the product is exact."""
    # One call per group, in a one-dimensional layout of its own: only the finished words go to the threads that need
    # them, through shared memory. In the layout of the weights, sixteen threads would repeat each call; Triton keeps
    # such a long computation on the cheap side of a layout conversion (seen in its intermediate code, 3.6 and 3.9).
    words = _words(block.to(tl.uint32), (block >> 32).to(tl.uint32), key, k0, k1)
    word = tl.reshape(tl.broadcast_to(words[:, :, None], [UNITS, 4, 32]), [UNITS, 128])
    flip = (word << (31 - tl.arange(0, 128) % 32).to(tl.uint32)[None, :]) & 0x80000000
    return (flip ^ scale).to(tl.float32, bitcast=True)


@triton.jit
def _gaussian(block, key, k0, k1, scale, upper, UNITS: tl.constexpr):
    """scale * noise, float32 [UNITS, 128], scale as float32 bits.

    The table is antisymmetric; its upper half is enough, and stays in the first-level cache.
    """
    draw = _draws(block, key, k0, k1, UNITS)
    negative = (draw >> 15) - 1  # all ones in the lower half
    quantile = tl.load(upper + ((draw ^ negative) & 0x7FFF).to(tl.int32)).to(tl.uint32, bitcast=True)
    noise = (quantile ^ (negative & 0x80000000)).to(tl.float32, bitcast=True)
    return noise * scale.to(tl.float32, bitcast=True)


@triton.jit
def _float32_of(stored, DTYPE: tl.constexpr):
    if DTYPE == "bfloat16":
        return (stored.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    elif DTYPE == "float16":
        return stored.to(tl.float16, bitcast=True).to(tl.float32)
    else:
        return stored.to(tl.float32, bitcast=True)


@triton.jit
def _round(x, draw, DTYPE: tl.constexpr, DITHER: tl.constexpr, COMPILED: tl.constexpr):
    """The bits of float32 x in the dtype of the weights; see docs/noise.md for dither. NaN stays a NaN.

    Triton's interpreter truncates where a GPU rounds to bfloat16, so there it is done by hand; the GPU has an
    instruction that does it for two weights.
    """
    bits = x.to(tl.uint32, bitcast=True)
    size = bits & 0x7FFFFFFF
    if DTYPE == "bfloat16" and COMPILED and not DITHER:
        return x.to(tl.bfloat16).to(tl.int16, bitcast=True)
    elif DTYPE == "bfloat16":
        up = 0x7FFF + ((bits >> 16) & 1)
        if DITHER:
            up = tl.where(size < 0x7F7F0000, draw, up)
        return tl.where(size > 0x7F800000, 0x7FC0, (bits + up) >> 16).to(tl.int16)
    elif DTYPE == "float16":
        nearest = x.to(tl.float16).to(tl.uint16, bitcast=True).to(tl.uint32)
        if DITHER:
            normal = ((bits + (draw >> 3)) & 0xFFFFE000).to(tl.float32, bitcast=True)
            normal = normal.to(tl.float16).to(tl.uint16, bitcast=True).to(tl.uint32)
            steps = tl.minimum(size, 0x38800000).to(tl.float32, bitcast=True) * 16777216.0
            whole = steps.to(tl.int32)
            share = ((steps - whole.to(tl.float32)) * 65536.0).to(tl.uint32)
            small = (bits >> 16 & 0x8000) | (whole.to(tl.uint32) + (draw + share >> 16))
            stochastic = tl.where(size < 0x38800000, small, normal)  # 2**-14, the least normal float16
            nearest = tl.where(size < 0x477FE000, stochastic, nearest)  # 65504, the largest finite one
        return nearest.to(tl.int16)
    else:
        return bits.to(tl.int32, bitcast=True)


@triton.jit(do_not_specialize=["count", "seed_low", "seed_high", "scale_bits", "dither_low", "dither_high"])
def _rebuild(
    tiles,  # int32 [programs, 2]: segment, tile of the segment
    segments,  # int64 [segments, 10]: see _row
    terms,  # int32 [count, 3]: family, seed low, seed high; then float32 [rows, count]: scales
    upper,  # float32 [32768]: the positive quantiles
    count,
    seed_low,
    seed_high,
    scale_bits,  # these three instead of the table when there is ONE term
    dither_low,
    dither_high,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,  # every address and row boundary is a multiple of 8 weights, so eight share a mask
    RADEMACHER: tl.constexpr,
    GAUSSIAN: tl.constexpr,
    ONE: tl.constexpr,
    PER_TENSOR: tl.constexpr,  # scales differ by tensor, and some may be zero
    DITHER: tl.constexpr,
    COMPILED: tl.constexpr,  # or interpreted
    UNITS: tl.constexpr,
):
    segment = segments + tl.load(tiles + 2 * tl.program_id(0)).to(tl.int64) * 10
    first = tl.load(tiles + 2 * tl.program_id(0) + 1) * UNITS
    stored = tl.int32 if DTYPE == "float32" else tl.int16
    live = tl.load(segment).to(tl.pointer_type(stored))
    base = tl.load(segment + 1).to(tl.pointer_type(stored))
    start = tl.load(segment + 2).to(tl.uint64, bitcast=True)
    length = tl.load(segment + 3)
    stride = tl.load(segment + 4).to(tl.uint64, bitcast=True)
    groups = tl.load(segment + 5).to(tl.int32)
    units = tl.load(segment + 6).to(tl.int32)
    key = tl.load(segment + 7).to(tl.uint64, bitcast=True)

    # Which group of which row, where that is in the tensor (flat index, 64 bits unsigned) and in the buffer.
    unit = first + tl.arange(0, UNITS)
    row = tl.zeros([UNITS], tl.int32)
    if units != groups:  # several rows; division is slow
        row = unit // groups
    group = unit - row * groups
    row_start = start + row.to(tl.uint64) * stride
    block = (row_start >> 7) + group.to(tl.uint64)
    column = group.to(tl.int64) * 128 - (row_start & 127).to(tl.int64)
    offset = row.to(tl.int64) * length + column
    # The lanes of the group that are weights of the row: [low, high).
    low = tl.maximum(-column, 0).to(tl.int32)
    high = tl.maximum(tl.minimum(length - column, 128), 0).to(tl.int32)
    high = tl.where(unit < units, high, 0)
    if ALIGNED:
        live = tl.multiple_of(live, 16)
        base = tl.multiple_of(base, 16)
        offset = tl.multiple_of(offset, 8)

    # Two dimensions, so that Triton's coalescing gives neighbouring threads neighbouring runs of eight weights: with
    # more, it breaks ties between dimensions the wrong way round.
    lane = tl.arange(0, 128)
    at = offset[:, None] + lane[None, :]
    if ALIGNED:
        inside = (lane // 8 >= (low // 8)[:, None]) & (lane // 8 < (high // 8)[:, None])
    else:
        inside = (lane >= low[:, None]) & (lane < high[:, None])
    old = tl.load(base + at, inside, 0)

    if RADEMACHER or GAUSSIAN:
        if ONE:
            k0, k1 = seed_low.to(tl.uint32, bitcast=True), seed_high.to(tl.uint32, bitcast=True)
            scale = scale_bits.to(tl.uint32, bitcast=True)
            if RADEMACHER:
                acc = _rademacher(block, key, k0, k1, scale, UNITS)
            else:
                acc = _gaussian(block, key, k0, k1, scale, upper, UNITS)
        else:
            # -0.0, the identity of addition to the sign of zeros. `count` is never negative, but the compiler does not
            # know, and so keeps the sum in the layout of the loaded weights; else it spreads it over other threads,
            # and every term needs eight times the words.
            acc = (old.to(tl.uint32) & (count >> 31).to(tl.uint32) | 0x80000000).to(tl.float32, bitcast=True)
            scales = terms + 3 * count
            if PER_TENSOR:
                scales += tl.load(segment + 9) * count
            for k in range(count):
                scale = tl.load(scales + k).to(tl.uint32, bitcast=True)
                k0 = tl.load(terms + 3 * k + 1).to(tl.uint32, bitcast=True)
                k1 = tl.load(terms + 3 * k + 2).to(tl.uint32, bitcast=True)
                if (scale << 1) != 0 if PER_TENSOR else True:
                    if RADEMACHER and GAUSSIAN:
                        if tl.load(terms + 3 * k) == 0:
                            acc += _rademacher(block, key, k0, k1, scale, UNITS)
                        else:
                            acc += _gaussian(block, key, k0, k1, scale, upper, UNITS)
                    elif RADEMACHER:
                        acc += _rademacher(block, key, k0, k1, scale, UNITS)
                    else:
                        acc += _gaussian(block, key, k0, k1, scale, upper, UNITS)
        x = _float32_of(old, DTYPE) + acc
        draw = 0
        if DITHER:
            d0, d1 = dither_low.to(tl.uint32, bitcast=True), dither_high.to(tl.uint32, bitcast=True)
            dither_key = tl.load(segment + 8).to(tl.uint64, bitcast=True)
            draw = _draws(block, dither_key, d0, d1, UNITS)
        new = _round(x, draw, DTYPE, DITHER, COMPILED)
    else:
        new = old
    tl.store(live + at, new, inside)


COMPILED = isinstance(_rebuild, triton.runtime.JITFunction)
"""Whether the kernel runs on a GPU; else Triton interprets it."""
