"""Answers of real models, judged by hand: the graders must agree, except on rows that say that the grader is wrong."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from seedfold.tasks.base import Example, Task
from seedfold.tasks.gsm8k import GSM8K
from seedfold.tasks.story_order import StoryOrder
from seedfold.tasks.uspto50k import USPTO50K

FOLDER = Path(__file__).parents[1] / "data" / "completions"
TASKS: dict[str, tuple[Task, int, int]] = {
    "gsm8k": (GSM8K([]), 140, 11),
    "uspto50k": (USPTO50K([]), 40, 0),
    "story-order": (StoryOrder([]), 40, 0),
}
"""The task, the fewest rows that its file may hold, and how many of them the grader is known to get wrong."""


def rows(name: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def agrees(task: Task, row: dict[str, Any]) -> bool:
    grade = task.grade(row["completion"], Example.of(row["columns"]))
    return [grade.strict, grade.lenient] == pytest.approx([row["strict"], row["lenient"]])


@pytest.mark.parametrize("name", TASKS)
def test_the_grader_agrees_with_the_hand(name: str) -> None:
    task, _, differ = TASKS[name]
    found = rows(name)
    wrong = [number for number, row in enumerate(found, 1) if not agrees(task, row)]
    # Exactly those: a mended grader must take the mark off the row, and a new fault is no excuse.
    assert wrong == [number for number, row in enumerate(found, 1) if "grader" in row]
    assert len(wrong) == differ


@pytest.mark.parametrize("name", TASKS)
def test_the_file_is_whole(name: str) -> None:
    _, fewest, _ = TASKS[name]
    found = rows(name)
    assert len(found) >= fewest
    assert {row["task"] for row in found} == {name}
    assert len({(row["completion"], Example.of(row["columns"]).id) for row in found}) == len(found)
    assert all(row["grader"] == "differs" and row["note"] for row in found if "grader" in row)


def test_the_sample_holds_every_kind_of_verdict() -> None:
    verdicts = Counter((row["strict"], row["lenient"]) for row in rows("gsm8k"))
    assert min(verdicts[kind] for kind in [(0, 0), (0, 1), (1, 1)]) >= 30
    assert len({row["lenient"] for row in rows("story-order")}) >= 4
    assert {row["lenient"] for row in rows("uspto50k")} == {0, 1}
