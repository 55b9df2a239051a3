"""How busy each engine was, second by second; in bounded memory, however long the work."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKETS = 600
"""Stretches of time that are kept apart; when there are more, pairs of them are joined."""


@dataclass(frozen=True)
class Load:
    """What an engine did from `start` to `end` (seconds since 1970): `busy` seconds of work, in which it ended `units`."""

    engine: int
    start: float
    end: float
    busy: float
    units: int


class Loads:
    """Work noted as it is done, told as `Load` rows."""

    def __init__(self, width: float = 1.0) -> None:
        self.start, self.width = time.time(), width
        self._rows: dict[tuple[int, int], tuple[float, int]] = {}  # (bucket, engine) -> busy, units

    def add(self, engine: int, start: float, end: float, units: int) -> None:
        """Engine worked from start to end, and then had ended so many units more."""
        while end >= self.start + BUCKETS * self.width:
            self._widen()
        first, last = (max(0, int((moment - self.start) / self.width)) for moment in (start, end))
        for bucket in range(first, last + 1):
            low = self.start + bucket * self.width
            share = max(0.0, min(end, low + self.width) - max(start, low))
            busy, ended = self._rows.get((bucket, engine), (0.0, 0))
            self._rows[bucket, engine] = busy + share, ended + (units if bucket == last else 0)

    def rows(self) -> list[Load]:
        """In order of time; stretches in which an engine did nothing are left out."""
        return [
            Load(engine, self.start + bucket * self.width, self.start + (bucket + 1) * self.width, busy, units)
            for (bucket, engine), (busy, units) in sorted(self._rows.items())
        ]

    def rates(self, seconds: float) -> dict[int, float]:
        """Units per second of each engine that did any, over about the last so many seconds."""
        now = time.time()
        low = max(self.start, now - seconds)
        first = int((low - self.start) / self.width)
        covered = max(self.width, now - self.start - first * self.width)
        units: dict[int, int] = {}
        for (bucket, engine), (_, ended) in self._rows.items():
            if bucket >= first:
                units[engine] = units.get(engine, 0) + ended
        return {engine: ended / covered for engine, ended in sorted(units.items())}

    def _widen(self) -> None:
        self.width *= 2
        rows: dict[tuple[int, int], tuple[float, int]] = {}
        for (bucket, engine), (busy, units) in self._rows.items():
            before = rows.get((bucket // 2, engine), (0.0, 0))
            rows[bucket // 2, engine] = before[0] + busy, before[1] + units
        self._rows = rows


class Told:
    """A file of what engines did: JSON. "engines" maps an engine's number to its name; "rows" are lists of engine,
    start, end, busy (seconds of running time, in which a run that goes on follows at once) and units ended.

    What cannot be read is begun anew, for nothing rests on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            self._names, self._rows = dict(told["engines"]), list(told["rows"])
            self._before = max((row[2] for row in self._rows), default=0.0)
        except (OSError, ValueError, LookupError, TypeError):
            self._names, self._rows, self._before = {}, [], 0.0

    def write(self, loads: Sequence[Load], names: Mapping[int, str]) -> None:
        """Write what was there before, and what engines did since."""
        shift = self._before - min((load.start for load in loads), default=0.0)
        rows = [
            [load.engine, round(load.start + shift, 2), round(load.end + shift, 2), round(load.busy, 2), load.units]
            for load in loads
        ]
        told = {"engines": self._names | {str(n): name for n, name in sorted(names.items())}, "rows": self._rows + rows}
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(told), encoding="utf-8")
        partial.replace(self.path)
