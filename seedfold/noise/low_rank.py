"""Low-rank noise: a matrix is a product of two thin matrices of signs; tensors that are no matrices have dense signs.

"low-rank-8" has rank 8: noise = U Vᵀ / √8 for a tensor of shape (height, width), with U (height, 8) and V (width, 8) the
Rademacher noise of tensors of those shapes, named as the tensor + "#u" and + "#v". An entry of U Vᵀ is a sum of signs, a
small integer, so it is exact in whatever order and on whatever device it is summed, and so is the noise.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

import torch

from seedfold.errors import UserError
from seedfold.noise import rademacher

LARGEST = 1024
"""The largest rank: beyond, dense noise costs less."""

_HELD = 2**20
"""The most signs of U, and of V, that are held at once: 4 MiB each."""


class LowRank:
    """The family of one rank; see `Family`."""

    BLOCK = rademacher.BLOCK

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.factor: float = struct.unpack("f", struct.pack("f", 1 / math.sqrt(rank)))[0]

    def fill(
        self,
        out: torch.Tensor,
        *,
        seed: int,
        tensor: str,
        first: int,
        stride: int,
        scale: float,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """See ``Family.fill``."""
        if len(known(shape, tensor)) != 2:
            rademacher.fill(out, seed=seed, tensor=tensor, first=first, stride=stride, scale=scale)
            return
        for target, row, step, column in _blocks(out, first, stride, known(shape, tensor)[1]):
            _product(target, self.rank, seed, tensor, row, step, column)
        out.mul_(self.factor).mul_(scale)

    def factors(self, seed: int, tensor: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The noise of a whole matrix as a product.

        Returns:
            U / √rank, (height, rank), and V, (width, rank), float32. None: the noise is zero there.

        Raises:
            UserError: the tensor is no matrix, so that its noise is dense.
        """
        if len(shape) != 2:
            raise UserError(
                f"tensor {tensor} has dense noise, which is no product of thin matrices; leave it out of the recipe by "
                "include and exclude, or use a lora family"
            )
        left, right = (
            _signs(seed, tensor + word, 0, length * self.rank, torch.device("cpu")).view(length, self.rank)
            for word, length in (("#u", shape[0]), ("#v", shape[1]))
        )
        return left * self.factor, right


def of(argument: str) -> LowRank:
    """The family of a name's argument: "8" of "low-rank-8"."""
    return LowRank(rank_of(argument, f"low-rank-{argument}", "low-rank-8"))


def rank_of(text: str, name: str, example: str) -> int:
    """The rank that a name states. Each has one spelling: names that differ are different families.

    Raises:
        UserError: no plain decimal number from 1 to 1024.
    """
    rank = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 1 <= rank <= LARGEST or text != str(rank):
        raise UserError(
            f"family is {name!r}, but its rank is no number from 1 to {LARGEST}; give one such as {example}"
        )
    return rank


def known(shape: Sequence[int] | None, tensor: str) -> Sequence[int]:
    """The shape, or a refusal."""
    if shape is None:
        raise UserError(f"shape of {tensor} is not given, but noise of low rank depends on it; give the full tensor's")
    return shape


def _blocks(out: torch.Tensor, first: int, stride: int, width: int) -> Iterator[tuple[torch.Tensor, int, int, int]]:
    """Cut a buffer where the matrix's rows end: views (m, n) of ``out``, whose element (a, b) is the matrix's element
    (row + a * step, column + b). Yields view, row, step, column."""
    rows, columns = out.shape
    if rows > 1 and stride % width:  # each row of the buffer starts at a column of its own
        for number in range(rows):
            yield from _blocks(out[number : number + 1], first + number * stride, 0, width)
        return
    step = stride // width if rows > 1 else 1
    row, column = divmod(first, width)
    done = 0
    while done < columns:
        length = min(width - column, columns - done)
        count = (columns - done) // width if length == width else 1  # whole rows of the matrix go together
        piece = out[:, done : done + count * length].unflatten(1, (count, length))
        if count == 1:
            yield piece[:, 0], row, step, column
        else:
            for number in range(rows):
                yield piece[number], row + number * step, 1, 0
        done, row, column = done + count * length, row + count, 0


def _product(target: torch.Tensor, rank: int, seed: int, tensor: str, row: int, step: int, column: int) -> None:
    """Overwrite ``target`` with its part of U Vᵀ, see `_blocks`."""
    rows, columns = target.shape
    wide, high = max(1, _HELD // rank), max(1, _HELD // (rank * step))
    for c in range(0, columns, wide):
        n = min(wide, columns - c)
        right = _signs(seed, tensor + "#v", (column + c) * rank, n * rank, target.device).view(n, rank)
        for r in range(0, rows, high):
            m = min(high, rows - r)
            span = (m - 1) * step + 1
            left = _signs(seed, tensor + "#u", (row + r * step) * rank, span * rank, target.device).view(span, rank)
            torch.mm(left[::step], right.T, out=target[r : r + m, c : c + n])


def _signs(seed: int, tensor: str, start: int, count: int, device: torch.device) -> torch.Tensor:
    """float32 (count,): Rademacher noise from a flat index on."""
    lead = start % rademacher.BLOCK
    padded = -(-(lead + count) // rademacher.BLOCK) * rademacher.BLOCK
    out = torch.empty(1, padded, device=device)
    rademacher.fill(out, seed=seed, tensor=tensor, first=start - lead, stride=0, scale=1.0)
    return out[0, lead : lead + count]
