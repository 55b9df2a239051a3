"""Where a weight is: the tensor's key and the part of it that a buffer holds."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from seedfold.errors import UserError

if TYPE_CHECKING:
    import torch

LAST_INDEX = 2**64 - 1


def tensor_key(name: str) -> int:
    """The counter key of a tensor: the first 8 bytes, little-endian, of the name's 64-byte BLAKE2b digest (UTF-8)."""
    return int.from_bytes(blake2b(name.encode(), digest_size=64).digest()[:8], "little")


@dataclass(frozen=True)
class Segment:
    """A part of a checkpoint tensor, in flat row-major coordinates of the full tensor.

    Row r covers flat indices [start + r * row_stride, start + r * row_stride + row_length). The weights themselves lie
    densely, row after row, in whatever buffer the segment describes. A whole tensor or a shard of its rows is one row;
    a shard of its columns has as many rows as the tensor, with the tensor's width as stride.

    Attributes:
        tensor: the tensor's name in the checkpoint.
        start: flat index of the first weight.
        rows, row_length: extent of the segment, in rows and in weights per row.
        row_stride: distance between row starts, in weights; ignored when there is one row.
        shape: the full tensor's shape, for families that depend on it: low-rank, lora.

    Raises:
        UserError: an empty name, a negative number, overlapping rows, or an end beyond 64 bits.
    """

    tensor: str
    start: int
    rows: int
    row_length: int
    row_stride: int
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.tensor:
            raise UserError("tensor is ''; give the tensor's name in the checkpoint")
        for field in ("start", "rows", "row_length", "row_stride"):
            value = getattr(self, field)
            if value < 0:
                raise UserError(f"{field} of {self.tensor} is {value}; give a number that is not negative")
        if self.rows > 1 and self.row_stride < self.row_length:
            raise UserError(
                f"row_stride of {self.tensor} is {self.row_stride}; give at least row_length, {self.row_length}"
            )
        end = self.start + max(self.rows - 1, 0) * self.row_stride + self.row_length
        if end > LAST_INDEX + 1:
            raise UserError(f"the end of the segment of {self.tensor} is {end}; give one of at most 2**64")

    @classmethod
    def whole(cls, tensor: str, numel: int, shape: tuple[int, ...] | None = None) -> Segment:
        """All ``numel`` weights of a tensor."""
        return cls(tensor, start=0, rows=1, row_length=numel, row_stride=numel, shape=shape)

    @property
    def numel(self) -> int:
        """Number of weights in the segment."""
        return self.rows * self.row_length

    def view(self, whole: torch.Tensor) -> torch.Tensor:
        """The segment's weights, (rows, row_length), as a view of the full tensor, given flat."""
        return whole.as_strided((self.rows, self.row_length), (self.row_stride, 1), whole.storage_offset() + self.start)
