"""A table of the results of several studies with folds, a column per study.

    python benchmarks/fold/table.py RECORD.json …

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
    records = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    head = ["", *(f"{record['config']['search']['seed']}" for record in records), "mean", "answers to find"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    bases = [record["results"][0]["accuracy"] for record in records]
    print(
        row(
            "base, accuracy in percent",
            [f"{100 * base:.1f}" for base in bases],
            f"{100 * sum(bases) / len(bases):.1f}",
            "0",
        )
    )
    methods = list(dict.fromkeys(name(line) for record in records for line in record["results"][1:]))
    for method in methods:
        lines = [next((line for line in record["results"] if name(line) == method), None) for record in records]
        known = [line for line in lines if line]
        mean = sum(line["difference"] for line in known) / len(known)
        half = sum((line["ci95"][1] - line["ci95"][0]) ** 2 for line in known) ** 0.5 / 2 / len(known)
        spent = sum(line["evaluations"] for line in known) / len(known)
        print(row(method, [cell(line) for line in lines], interval(mean, mean - half, mean + half), f"{spent:,.0f}"))


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
