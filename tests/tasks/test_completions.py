"""Answers of real models, judged by hand: the graders must agree, except on rows that say that the grader is wrong."""

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import code
from seedfold.tasks.arithmetic import Arithmetic
from seedfold.tasks.base import Example, Grade, Task
from seedfold.tasks.countdown import Countdown
from seedfold.tasks.gsm8k import GSM8K
from seedfold.tasks.humaneval import HumanEval
from seedfold.tasks.math500 import Math500
from seedfold.tasks.mbpp import MBPP
from seedfold.tasks.story_order import StoryOrder
from seedfold.tasks.uspto50k import USPTO50K

FOLDER = Path(__file__).parents[1] / "data" / "completions"


def sandboxed(kind: Callable[..., Task], name: str) -> Task:
    try:
        return kind([], code.opened(Settings(name=name)))
    except UserError as error:
        if "bubblewrap" not in str(error):
            raise
        pytest.skip(str(error))


def verified() -> Task:
    pytest.importorskip("math_verify", reason="the extra seedfold[tasks] is not installed")
    return Math500([])


TASKS: dict[str, tuple[Callable[[], Task], int, int]] = {
    "gsm8k": (lambda: GSM8K([]), 140, 11),
    "uspto50k": (lambda: USPTO50K([]), 40, 0),
    "story-order": (lambda: StoryOrder([]), 40, 0),
    "arithmetic": (lambda: Arithmetic([]), 32, 0),
    "countdown": (lambda: Countdown([]), 54, 0),
    "math500": (verified, 62, 1),
    "mbpp": (lambda: sandboxed(MBPP, "mbpp"), 31, 0),
    "humaneval": (lambda: sandboxed(HumanEval, "humaneval"), 20, 0),
}
"""The task, the fewest rows that its file may hold, and how many of them the grader is known to get wrong."""


def rows(name: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@cache
def grades(name: str) -> list[Grade]:
    found = rows(name)
    examples = [Example.of(row["columns"]) for row in found]
    return TASKS[name][0]().grade_many([row["completion"] for row in found], examples)


def agree(grade: Grade, row: dict[str, Any]) -> bool:
    answers = [grade.answer, row["answer"]] if "answer" in row else [None, None]
    return [grade.strict, grade.lenient] == pytest.approx([row["strict"], row["lenient"]]) and answers[0] == answers[1]


@pytest.mark.parametrize("name", TASKS)
def test_the_grader_agrees_with_the_hand(name: str) -> None:
    found = rows(name)
    wrong = [number for number, pair in enumerate(zip(grades(name), found, strict=True), 1) if not agree(*pair)]
    # Exactly those: a mended grader must take the mark off the row, and a new fault is no excuse.
    assert wrong == [number for number, row in enumerate(found, 1) if "grader" in row]
    assert len(wrong) == TASKS[name][2]


@pytest.mark.parametrize("name", TASKS)
def test_the_file_is_whole(name: str) -> None:
    found = rows(name)
    assert len(found) >= TASKS[name][1]
    assert {row["task"] for row in found} == {name}
    assert len({(row["completion"], Example.of(row["columns"]).id) for row in found}) == len(found)
    assert all(row["grader"] == "differs" and row["note"] for row in found if "grader" in row)


def test_the_sample_holds_every_kind_of_verdict() -> None:
    verdicts = Counter((row["strict"], row["lenient"]) for row in rows("gsm8k"))
    assert min(verdicts[kind] for kind in [(0, 0), (0, 1), (1, 1)]) >= 30
    assert len({row["lenient"] for row in rows("story-order")}) >= 4
    assert {row["lenient"] for row in rows("uspto50k")} == {0, 1}
    for name in ("arithmetic", "countdown", "math500", "mbpp", "humaneval"):
        assert {row["strict"] for row in rows(name)} == {0, 1}


@pytest.mark.parametrize("name", ["arithmetic", "countdown", "math500", "mbpp", "humaneval"])
def test_wrong_answers_are_read_too(name: str) -> None:
    """A grader that found nothing at all would give the right verdict on every wrong answer."""
    assert sum(row.get("answer") is not None for row in rows(name) if not row["strict"]) >= 9
