"""A table of the results of several studies with folds, a column per study.

    python benchmarks/fold/table.py RECORD.json …
    python benchmarks/fold/table.py --studies FOLDER …     # a row per study of run.py, the folds alone; a column per seed

Every cell is the difference to the base on test in points with its 95 % interval. The interval of the mean over
the studies is for what their test examples leave open (taken for normal and independent), not for what other study seeds
might have given: that is what the columns show. The rows of one method may be of different sizes of vote.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    if sys.argv[1:2] == ["--studies"]:
        by_study([Path(name) for name in sys.argv[2:]])
    else:
        by_method([json.loads(Path(name).read_text()) for name in sys.argv[1:]])


def by_method(records: list[dict[str, Any]]) -> None:
    head([str(record["config"]["search"]["seed"]) for record in records])
    bases = [f"{100 * record['results'][0]['accuracy']:.1f}" for record in records]
    mean = sum(record["results"][0]["accuracy"] for record in records) / len(records)
    print(row("base, accuracy in percent", bases, f"{100 * mean:.1f}", "0"))
    for method in dict.fromkeys(name(line) for record in records for line in record["results"][1:]):
        print(summed(method, [found(record, method) for record in records]))


def by_study(folders: list[Path]) -> None:
    """Each folder has a folder per study seed. The label tells how many of the folds passed the gate."""
    kept = {
        folder: {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/record.json")}
        for folder in folders
    }
    seeds = sorted({seed for records in kept.values() for seed in records}, key=int)
    head(seeds)
    for folder, records in kept.items():
        for method in dict.fromkeys(fold["method"] for record in records.values() for fold in record["folds"]):
            passed = [
                fold["committed"] for record in records.values() for fold in record["folds"] if fold["method"] == method
            ]
            lines = [found(records[seed], f"{method} fold") if seed in records else None for seed in seeds]
            print(summed(f"{folder.name}, {method}: {sum(passed)} of {len(passed)}", lines))


def head(columns: list[str]) -> None:
    print("| " + " | ".join(["", *columns, "mean", "answers to find"]) + " |")
    print("|" + "---|" * (len(columns) + 3))


def found(record: dict[str, Any], method: str) -> dict[str, Any] | None:
    return next((line for line in record["results"] if name(line) == method), None)


def summed(label: str, lines: list[dict[str, Any] | None]) -> str:
    known = [line for line in lines if line]
    mean = sum(line["difference"] for line in known) / len(known)
    half = sum((line["ci95"][1] - line["ci95"][0]) ** 2 for line in known) ** 0.5 / 2 / len(known)
    spent = sum(line["evaluations"] for line in known) / len(known)
    return row(label, [cell(line) for line in lines], interval(mean, mean - half, mean + half), f"{spent:,.0f}")


def name(line: dict[str, Any]) -> str:
    return re.sub(r" of \d+| \(base\)", "", line["method"])


def cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    size = f", K = {line['k']}" if line["k"] > 1 else ""
    stands = ", base" if line["method"].endswith("(base)") else ""
    return interval(line["difference"], *line["ci95"]) + size + stands


def interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def row(label: str, cells: list[str], mean: str, spent: str) -> str:
    return "| " + " | ".join([label, *cells, mean, spent]) + " |"


if __name__ == "__main__":
    main()
