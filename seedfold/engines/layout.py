"""Where a runtime's parameters hold the checkpoint's tensors, found by probing rather than by knowing its classes.

A serving engine fuses, shards, pads and replicates tensors as it loads them. Its own loader is fed marker tensors of the
checkpoint's names and shapes, whose values say which tensor, row and column they stand for; where the markers are found
afterwards is where the weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch

from seedfold.errors import UserError
from seedfold.noise import Segment

BASE = 256
"""Markers are digits of numbers in this base, plus one: 1 to 256, integers that every floating dtype holds exactly."""

PADDING = -1.0
"""What parameters are filled with first. Loaders pad with zeros: anything below one is no checkpoint tensor's."""

PIECES = 1024
"""A parameter in more pieces than this is no layout but a shuffle; rebuilding it would be slow."""

CHUNK = 2**24
"""Elements compared at once."""

Load = Callable[[Iterable[tuple[str, torch.Tensor]]], object]


@dataclass(frozen=True)
class Piece:
    """Weights of a checkpoint tensor that lie flat and dense in a parameter, from element `offset` on."""

    parameter: str
    offset: int
    segment: Segment


def probe(
    live: Mapping[str, torch.Tensor], plan: Mapping[str, tuple[int, ...]], load: Load, dtype: torch.dtype
) -> list[Piece]:
    """Find the checkpoint's tensors in the parameters. Their values are lost: the caller restores them.

    Args:
        live: parameter name -> the runtime's own storage, contiguous.
        plan: checkpoint name -> shape, of all tensors.
        load: the runtime's loader: takes (checkpoint name, tensor) pairs and writes into `live`. It is called once per
            digit, three to seven times, with views that occupy no more than a vector each.
        dtype: of the markers.

    Raises:
        UserError: a parameter that mixes tensors within a row, turns or changes them, or holds them in too many pieces.
    """
    readings = {name: _Reading(values) for name, values in live.items()}
    device = next(iter(live.values())).device
    sizes = [_matrix(shape) for shape in plan.values()]
    counts = {"tensor": len(plan), "row": max(rows for rows, _ in sizes), "column": max(width for _, width in sizes)}
    for kind, count in counts.items():
        for place in range(_places(count)):
            load(_markers(plan, kind, place, dtype, device))
            for reading in readings.values():
                reading.take(kind, place)
    return [piece for name, reading in readings.items() for piece in reading.pieces(name, plan)]


def partition(name: str, numel: int, segments: Sequence[Segment]) -> list[int]:
    """Numbers of segments that together hold every weight of a tensor exactly once; copies are left out.

    Raises:
        UserError: some weights are nowhere, or segments overlap without being alike.
    """
    for number, segment in enumerate(segments):
        if segment.numel == numel:
            return [number]
    seen, chosen = torch.zeros(numel, dtype=torch.bool), []
    for number, segment in enumerate(segments):
        window = segment.view(seen)
        known = int(window.sum())
        if known == 0:
            window.fill_(True)
            chosen.append(number)
        elif known < segment.numel:
            raise UserError(f"tensor {name} is held in pieces that overlap in part, which cannot be rebuilt in place")
    missing = numel - sum(segments[number].numel for number in chosen)
    if missing:
        raise UserError(
            f"{missing:,} of the {numel:,} weights of tensor {name} are not found in the engine's parameters: it leaves "
            "them out, changes them as it loads them or holds them in a form of its own; use the transformers engine"
        )
    return chosen


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns: the last dimension are the columns. A vector is one column, so that its parts are runs of rows."""
    width = shape[-1] if len(shape) > 1 else 1
    return (prod(shape) // width if width else 0), width


def _places(count: int) -> int:
    """Digits of the numbers below `count`."""
    places = 1
    while BASE**places < count:
        places += 1
    return places


def _markers(
    plan: Mapping[str, tuple[int, ...]], kind: str, place: int, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """A digit of each weight's tensor number, row or column."""
    for number, (name, shape) in enumerate(plan.items()):
        rows, width = _matrix(shape)
        if kind == "tensor":
            numbers = torch.full((1, 1), number, device=device)
        elif kind == "row":
            numbers = torch.arange(rows, device=device)[:, None]
        else:
            numbers = torch.arange(width, device=device)[None]
        yield name, (numbers // BASE**place % BASE + 1).to(dtype).expand(rows, width).view(shape)


class _Reading:
    """What the markers say about one parameter, seen as rows of its last dimension.

    Rows must hold one row of one tensor each, or part of it; `sound` says whether all do, so far.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.matrix = values.view(_matrix(values.shape))
        self.matrix.fill_(PADDING)
        self.sound = True
        self.tensors = torch.zeros(len(self.matrix), dtype=torch.long)
        """(rows,) the tensor's number; negative for padding."""
        self.rows = torch.zeros(len(self.matrix), dtype=torch.long)
        """(rows,) the row in the tensor."""
        self.columns: list[torch.Tensor] = []
        """Of each run: (width,) the columns in the tensor."""

    def take(self, kind: str, place: int) -> None:
        """Read a digit."""
        if kind == "column":
            self._columns(place)
            return
        first = self.matrix[:, :1]
        step = max(1, CHUNK // self.matrix.shape[1])
        parts = zip(self.matrix.split(step), first.split(step), strict=True)
        self.sound &= all(bool((part == head).all()) for part, head in parts)
        digits = _digits(first[:, 0])
        if kind == "tensor":
            self.tensors += torch.where(digits < 0, -(BASE**4), digits * BASE**place)
        else:
            self.sound &= not bool(((digits < 0) & (self.tensors >= 0)).any())
            self.rows += digits * BASE**place

    def _columns(self, place: int) -> None:
        runs, width = self.runs(), self.matrix.shape[1]
        self.sound &= len(runs) <= PIECES
        if not self.sound:
            return
        self.columns = self.columns or [torch.zeros(width, dtype=torch.long) for _ in runs]
        for columns, (_, start, end) in zip(self.columns, runs, strict=True):
            rows = self.matrix[start:end]
            self.sound &= all(bool((part == rows[0]).all()) for part in rows.split(max(1, CHUNK // width)))
            columns += _digits(rows[0]) * BASE**place

    def runs(self) -> list[tuple[int, int, int]]:
        """(tensor, first row, end) of each run of rows of one tensor; padding is left out."""
        numbers, counts = torch.unique_consecutive(self.tensors, return_counts=True)
        ends = counts.cumsum(0).tolist()
        return [run for run in zip(numbers.tolist(), [0, *ends[:-1]], ends, strict=True) if run[0] >= 0]

    def pieces(self, parameter: str, plan: Mapping[str, tuple[int, ...]]) -> list[Piece]:
        """Where the parameter's weights belong."""
        names, found = list(plan), []
        runs = self.runs()
        sound = self.sound and all(number < len(names) for number, _, _ in runs)
        for columns, (number, start, end) in zip(self.columns, runs, strict=False):
            sound = sound and self._run(columns, start, end, plan[names[number]])
            if not sound:
                break
            cuts = (self.rows[start + 1 : end] != self.rows[start : end - 1] + 1).nonzero()[:, 0] + start + 1
            for low, high in pairwise([start, *cuts.tolist(), end]):
                found.append(self._piece(parameter, names[number], plan[names[number]], low, high, int(columns[0])))
        if not sound or len(found) > PIECES:
            held = ", ".join(dict.fromkeys(names[number] for number, _, _ in runs if number < len(names)))
            raise UserError(
                f"parameter {parameter} of the engine holds {held or 'something'} transposed, interleaved or changed, "
                "which cannot be rebuilt in place; use the transformers engine for this model"
            )
        return found

    def _run(self, columns: torch.Tensor, start: int, end: int, shape: tuple[int, ...]) -> bool:
        """Whether columns are consecutive, and rows and columns within the tensor."""
        rows, width = _matrix(shape)
        left, right = int(columns[0]), int(columns[0]) + len(columns)
        inside = left >= 0 and right <= width and int(self.rows[start:end].max()) < rows
        return inside and torch.equal(columns, torch.arange(left, right))

    def _piece(self, parameter: str, tensor: str, shape: tuple[int, ...], low: int, high: int, left: int) -> Piece:
        """Rows [low, high) of the parameter: consecutive rows of the tensor, from column `left` on."""
        width, whole = self.matrix.shape[1], _matrix(shape)[1]
        first, count = int(self.rows[low]) * whole + left, high - low
        if width == whole:
            rows, length, stride = 1, count * width, count * width
        else:
            rows, length, stride = count, width, whole
        return Piece(parameter, low * width, Segment(tensor, first, rows, length, stride, shape))


def _digits(values: torch.Tensor) -> torch.Tensor:
    """Markers to digits, on the CPU; -1 for padding and for what is no marker."""
    numbers = values.double().cpu()
    known = (numbers == numbers.round()) & (numbers >= 1) & (numbers <= BASE)
    return torch.where(known, numbers - 1, -1.0).long()
