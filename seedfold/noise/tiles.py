"""Cut a segment into tiles of a bounded size that start where a generator block starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

from seedfold.noise.segment import Segment


@dataclass(frozen=True)
class Tile:
    """A piece of a segment, and the aligned buffer that covers it.

    Attributes:
        rows, columns: the piece, as slices of the segment's (rows, row_length) matrix.
        first: flat index of the buffer's first element, a multiple of the alignment.
        stride: distance between buffer rows in flat indices, a multiple of the alignment.
        height, width: extent of the buffer; the width is a multiple of the alignment.
        lead: the buffer column that holds the piece's first column. What lies before it is neighbours' noise.
    """

    rows: slice
    columns: slice
    first: int
    stride: int
    height: int
    width: int
    lead: int


def flatten(segment: Segment) -> Segment:
    """The same segment, as one row if its rows touch."""
    if segment.rows == 1 or segment.row_stride == segment.row_length:
        return replace(segment, rows=1, row_length=segment.numel, row_stride=0)
    return segment


def tiles(segment: Segment, align: int, size: int) -> Iterator[Tile]:
    """Tiles that cover each weight of the segment once.

    Args:
        segment: what to cover.
        align: a power of two.
        size: the most elements that a tile's buffer may have, a multiple of ``align``.
    """
    if segment.numel == 0:
        return
    # Rows whose starts differ by a multiple of the alignment can share a tile. Every period-th row does.
    period = align // gcd(align, segment.row_stride)
    stride = period * segment.row_stride
    for phase in range(min(period, segment.rows)):
        start = segment.start + phase * segment.row_stride
        lead = start % align
        end = lead + segment.row_length
        padded = -(-end // align) * align
        count = len(range(phase, segment.rows, period))
        height = max(1, size // padded)
        for r in range(0, count, height):
            n = min(height, count - r)
            for c in range(0, padded, size):
                width = min(size, padded - c)
                left, right = max(c, lead), min(c + width, end)
                yield Tile(
                    rows=slice(phase + r * period, phase + (r + n - 1) * period + 1, period),
                    columns=slice(left - lead, right - lead),
                    first=start - lead + r * stride + c,
                    stride=stride,
                    height=n,
                    width=width,
                    lead=left - c,
                )
