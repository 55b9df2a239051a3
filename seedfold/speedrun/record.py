"""The record of a speedrun: JSON lines, each on the disk before the next phase begins; and what they come to.

Lines, by their field "line": standard (first: what is run, where, by which commit), phase, repetition (what one gave),
resumed (a process went on where another ended), failure (and in which phase), summary (last; a record without it is not
finished).
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seedfold.errors import UserError
from seedfold.speedrun.machine import of_class

FORMAT = "seedfold.speedrun/1"
RATES = ("seeds_per_second", "tokens_per_second", "prompts_per_second")

Line = dict[str, Any]


class Record:
    """A record that is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():  # a line that was cut through is no line
                data = path.read_bytes()
                os.truncate(path, data.rfind(b"\n") + 1)
            path.open("a").close()
        except OSError as error:
            raise UserError(f'record "{path}" cannot be written ({error.strerror}); choose another --out') from None

    def add(self, line: str, **fields: Any) -> None:
        """Append a line; it is on the disk when this returns."""
        text = json.dumps({"line": line, "at": now(), **fields}, ensure_ascii=False, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())


def read(path: Path) -> list[Line]:
    """The whole lines of a record.

    Raises:
        UserError: there is no such file, or it is no record.
    """
    try:
        *texts, _ = path.read_text(encoding="utf-8").split("\n")
        lines = [json.loads(text) for text in texts]
    except (OSError, ValueError) as error:
        raise UserError(f'record "{path}" cannot be read ({error}); give a record of seedfold speedrun') from None
    if not lines or lines[0].get("format") != FORMAT:
        raise UserError(f'"{path}" is no record of format {FORMAT}; give a record of seedfold speedrun')
    return lines


def finished(lines: Sequence[Line]) -> bool:
    return lines[-1]["line"] == "summary"


def of_kind(lines: Sequence[Line], kind: str) -> list[Line]:
    return [line for line in lines if line["line"] == kind]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# What the lines come to


def summary(lines: Sequence[Line]) -> Line:
    """What stands in the last line: rates with their interval over repetitions, the first one's results, deviations."""
    runs = of_kind(lines, "repetition")
    timed = [run for run in runs if not run["resumed"]]
    numbers = {run["repetition"] for run in timed}
    first = runs[0]
    return {
        "repetitions": len(runs),
        "timed": len(timed),
        "seconds": spread([run["seconds"] for run in timed]),
        **{rate: spread([run[rate] for run in timed]) for rate in RATES},
        "phases": _phases([line for line in of_kind(lines, "phase") if line["repetition"] in numbers]),
        "results": first["results"],
        "chosen_k": first["chosen_k"],
        "best": first["best"],
        "text": first["text"],
        "repeats": _repeats(runs),
        "deviations": deviations(lines),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """values, mean, and sd and Student's 95 % interval of the mean where there are two values or more."""
    found: dict[str, Any] = {"values": list(values), "mean": None, "sd": None, "interval": None}
    if values:
        found["mean"] = float(np.mean(values))
    if len(values) > 1:
        found["sd"] = float(np.std(values, ddof=1))
        half = student(len(values)) * found["sd"] / math.sqrt(len(values))
        found["interval"] = [found["mean"] - half, found["mean"] + half]
    return found


def student(count: int, level: float = 0.95) -> float:
    """Two-sided quantile of Student's t for `count` values."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, (1 + level) / 2))


def _phases(lines: Sequence[Line]) -> dict[str, float]:
    """Mean seconds of each phase, in the order they came."""
    found: dict[str, list[float]] = {}
    for line in lines:
        found.setdefault(line["phase"], []).append(line["seconds"])
    return {phase: float(np.mean(seconds)) for phase, seconds in found.items()}


def _repeats(runs: Sequence[Line]) -> Line | None:
    """Whether all repetitions gave the same numbers, every candidate's included; None of one. differ: what did not."""
    if len(runs) < 2:
        return None
    first, differ = numbers(runs[0]), set()
    for run in runs[1:]:
        differ |= {name for name, value in numbers(run).items() if value != first.get(name)}
    return {"equal": all(run["digest"] == runs[0]["digest"] for run in runs) and not differ, "differ": sorted(differ)}


def numbers(run: Line) -> dict[str, Any]:
    """What must be equal wherever the arithmetic is: by name. `run` is a repetition's line or a summary."""
    return {
        "K": run["chosen_k"],
        "best seed": run["best"]["seed"],
        **{f"accuracy, {line['method']}": line["accuracy"] for line in run["results"]},
        **{f"bits per byte, {line['method']}": line["bits_per_byte"] for line in run["text"]["results"]},
    }


def deviations(lines: Sequence[Line]) -> list[str]:
    """In what a run was not what the standard says, or the standard says nothing."""
    first, runs = lines[0], of_kind(lines, "repetition")
    pinned = first["config"]["speedrun"]
    found = [f"changed: {setting}" for setting in first["changed"]]
    if not first["commit"]:
        found.append("no commit: not run from a checkout")
    if first["stated"]:
        found.append("the commit was stated, not read from git")
    if first["uncommitted"]:
        found.append("files differ from the commit")
    if not of_class(pinned["hardware"], first["hardware"]["gpus"]):
        found.append(f"hardware is not {pinned['hardware']}")
    if first["load"] > first["hardware"]["cores"] / 2:
        found.append(f"other work on the machine: a load of {first['load']} when the run began")
    for name, wanted in pinned["versions"].items():
        have = first["versions"].get(name, "none")
        if not have.startswith(str(wanted)):
            found.append(f"{name} is {have}, not {wanted}")
    pins = {"model": pinned["fingerprint"], "slices": pinned["slices"], "text": pinned["text"]["digest"]}
    found += [f"{name} not pinned" for name, pin in pins.items() if not pin]
    if any(run["resumed"] for run in runs):
        count = sum(run["resumed"] for run in runs)
        found.append(f"{count} of {len(runs)} repetitions resumed, their times left out")
    if any(run["engine"].get("exact") is False for run in runs):
        found.append("arithmetic not exact in every batch")
    return found
