"""`seedfold.noise.counter.words` in one Triton launch.

Needs a GPU, or Triton's interpreter for the CPU, as `seedfold.noise.triton` does.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

from seedfold.noise.triton import _halves, _words

CALLS = 256
"""Generator calls of a program."""


def words(
    seed: int, tensor_key: int, first: int, stride: int, rows: int, columns: int, device: torch.device
) -> torch.Tensor:
    """See `seedfold.noise.counter.words`."""
    count = rows * columns
    out = torch.empty(count, 4, dtype=torch.int32, device=device)
    if count:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            _fill[(-(-count // CALLS),)](
                out,
                *_halves(seed),
                *_halves(tensor_key),
                *_halves(first),
                *_halves(stride),
                count,
                columns,
                CALLS=CALLS,
                enable_fp_fusion=False,  # of no matter here, but Triton warns where it is not said
            )
    return out


@triton.jit
def _joined(low, high):
    """The unsigned number of 64 bits whose words these are, see `_halves`."""
    return high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32 | low.to(tl.uint32, bitcast=True).to(tl.uint64)


@triton.jit(
    do_not_specialize=[
        "seed_low",
        "seed_high",
        "key_low",
        "key_high",
        "first_low",
        "first_high",
        "stride_low",
        "stride_high",
        "count",
        "columns",
    ]
)
def _fill(
    out,  # int32 [count, 4]
    seed_low,
    seed_high,
    key_low,
    key_high,
    first_low,
    first_high,
    stride_low,
    stride_high,
    count,  # of blocks, in all rows
    columns,  # blocks of a row
    CALLS: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * CALLS + tl.arange(0, CALLS)
    row = tl.zeros([CALLS], tl.int64)
    if count != columns:  # several rows; division is slow
        row = at // columns
    column = at - row * columns
    block = _joined(first_low, first_high) + row.to(tl.uint64) * _joined(stride_low, stride_high)
    block += column.to(tl.uint64)
    key = _joined(key_low, key_high)
    k0, k1 = seed_low.to(tl.uint32, bitcast=True), seed_high.to(tl.uint32, bitcast=True)
    drawn = _words(block.to(tl.uint32), (block >> 32).to(tl.uint32), key, k0, k1)
    places = out + at[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(places, drawn.to(tl.int32, bitcast=True), (at < count)[:, None])
