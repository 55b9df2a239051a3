"""A record, run again and compared: accuracies and bits per byte must be equal, speeds what the record leads to expect."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedfold.errors import UserError
from seedfold.speedrun import standard
from seedfold.speedrun.record import RATES, Line, finished, numbers, of_kind, read, student
from seedfold.speedrun.run import FOLDERS, run

VERIFIED = FOLDERS / "verified"
"""Where the new records are, by default: they are no records of the project."""


@dataclass(frozen=True)
class Verdict:
    """One number of the record and of the new run. good: None where the record does not say what to expect."""

    name: str
    then: Any
    now: Any
    good: bool | None
    why: str


def verify(
    path: Path, out: Path | None = None, model: str = "", commit: str = "", quiet: bool = False
) -> tuple[list[Verdict], list[str]]:
    """Run the standard of a record again, with the model, slices and text that it had; (verdicts, remarks).

    Args:
        out: the new record; by default below `VERIFIED`.
        model, commit: as for `run`.

    Raises:
        UserError: the record is not finished, or what it was made from is not there.
    """
    then = read(path)
    if not finished(then):
        raise UserError(f'record "{path}" is not finished, so there is nothing to compare; give one with a summary')
    first = then[0]
    chosen = standard.from_dict(first["config"])
    text = dataclasses.replace(chosen.speedrun.text, digest=first["text"]["digest"])
    fingerprint = of_kind(then, "repetition")[0]["fingerprint"]
    pinned = dataclasses.replace(chosen.speedrun, fingerprint=fingerprint, slices=first["slices"], text=text)
    again = dataclasses.replace(chosen, speedrun=pinned, path=first["path"], changed=tuple(first["changed"]))
    made = run(again, out, model, commit, VERIFIED, quiet)
    now = read(made)
    remarks = [f"new record: {made}"]
    if chosen.hash != first["hash"]:
        remarks.append(f"settings: this version reads them as {chosen.hash}, the record has {first['hash']}")
    here = now[0]
    if (here["commit"], here["uncommitted"]) != (first["commit"], False) or first["uncommitted"]:
        remarks.append(f"commit: the record {_commit(first)}, now {_commit(here)}")
    for name in ("hardware", "versions"):
        old, new = first[name], here[name]
        differ = [field for field in {**old, **new} if old.get(field) != new.get(field)]
        remarks += [f"{name}: {field} was {old.get(field)}, now {new.get(field)}" for field in differ]
    return compare(then[-1], now[-1]), remarks


def compare(then: Line, now: Line) -> list[Verdict]:
    """Two summaries: what must be equal, then the speeds."""
    old, new = numbers(then), numbers(now)
    verdicts = []
    for name in dict.fromkeys([*old, *new]):
        same = old.get(name) == new.get(name)
        verdicts.append(Verdict(name, old.get(name), new.get(name), same, "equal" if same else "NOT equal"))
    return verdicts + [_speed(rate, then[rate], now[rate]) for rate in RATES]


def _speed(name: str, then: Line, now: Line) -> Verdict:
    """Whether the new mean lies where n old values lead to expect one of m: mean ± t · sd · √(1/n + 1/m)."""
    old, new = then["mean"], now["mean"]
    name = name.replace("_", " ")
    if old is None or new is None or then["sd"] is None:
        return Verdict(name, old, new, None, "not compared: fewer than two timed repetitions")
    count = len(then["values"])
    half = student(count) * then["sd"] * math.sqrt(1 / count + 1 / len(now["values"]))
    good = abs(new - old) <= half
    return Verdict(name, old, new, good, f"{'within' if good else 'OUTSIDE'} [{old - half:,.4g}, {old + half:,.4g}]")


def told(verdicts: Sequence[Verdict], remarks: Sequence[str]) -> str:
    """The verdicts as a table in plain lines, then the remarks."""
    rows = [("", "record", "now", ""), *((v.name, _number(v.then), _number(v.now), v.why) for v in verdicts)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
    bad = sum(v.good is False for v in verdicts)
    end = f"{bad} of {len(verdicts)} numbers are not the record's" if bad else "the record stands"
    return "\n".join([*lines, "", *remarks, end])


def _commit(first: Line) -> str:
    return (first["commit"] or "none") + " with changes" * first["uncommitted"]


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
