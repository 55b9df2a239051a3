"""All measured pairs of model and task in one table, and how evolution compares with the other folds, study by study.

    python benchmarks/fold/together.py

From the records beside this file. A cell is the mean over a pair's study seeds of the difference to the base on test, in
points.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from table import found

RECORDS = Path(__file__).with_name("records")
ON_A_GPU = {
    "SmolLM2-135M, sums": "pairs-smollm2-arithmetic",
    "Qwen2.5-Coder-0.5B, sums of five digits": "sums-qwen-0_5b",
    "Qwen2.5-Coder-0.5B, chain_sum": "chain_sum-qwen-0_5b",
    "Qwen2.5-Coder-0.5B, GSM8K with an example": "gsm8k-qwen-0_5b-example",
    "Qwen2.5-Coder-0.5B, mbpp": "mbpp-qwen-0_5b",
}
ON_CPUS = {"Gemma-3-270M, sums up to 30, two CPU cores": "gemma-sums"}
METHODS = (
    "best single",
    "vote",
    "self-consistency",
    "linear fold",
    "corp fold",
    "evolution fold",
    "released_corp fold",
)


def main() -> None:
    pairs = {label: studies(name) for label, name in (ON_A_GPU | ON_CPUS).items()}
    means = {label: [fmean(gains(records, method)) for method in METHODS] for label, records in pairs.items()}
    print("| " + " | ".join(["model, task", "studies", "base, %", *METHODS]) + " |")
    print("|" + "---|" * (len(METHODS) + 3))
    for label, records in pairs.items():
        base = fmean([record["results"][0]["accuracy"] for record in records])
        print(row([label, str(len(records)), f"{100 * base:.1f}"], means[label]))
    for label, chosen in ((f"mean of the first {len(ON_A_GPU)}", ON_A_GPU), ("mean of all", pairs)):
        over = [fmean([means[pair][place] for pair in chosen]) for place in range(len(METHODS))]
        print(row([label, "", ""], over))
        print(row([f"{label}, over best single", "", ""], [gain - over[0] for gain in over]))
    gaining = [records for records in pairs.values() if fmean(gains(records, "linear fold")) > 0]
    for other in ("linear fold", "corp fold", "released_corp fold"):
        lines = [zip(gains(records, "evolution fold"), gains(records, other), strict=True) for records in gaining]
        leads = [ours - theirs for studied in lines for ours, theirs in studied]
        ahead = sum(lead > 0 for lead in leads)
        print(f"evolution leads {other} in {ahead} of {len(leads)} studies of pairs that gain: {points(fmean(leads))}")


def studies(name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDS.glob(f"{name}-[0-9].json"))]


def gains(records: Sequence[dict[str, Any]], method: str) -> list[float]:
    """Differences to the base, a study each."""
    lines = [found(record, method) for record in records]
    return [line["difference"] for line in lines if line]


def row(labels: list[str], values: Sequence[float]) -> str:
    return "| " + " | ".join([*labels, *map(points, values)]) + " |"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


if __name__ == "__main__":
    main()
