"""OlympiadBench (He et al., 2024, arXiv:2402.14008): its open-ended, text-only competition mathematics in English,
zero-shot, reasoning before the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import data, latex
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.generate import hint
from seedfold.tasks.math500 import grade

INSTRUCTION = (
    "Solve the problem. Reason step by step, and end with the final answer, and nothing but the answer, in \\boxed{{}}."
    "{form}\n\nProblem: {question}"
)
MANY = " Separate several answers by commas."
UNIT = " Give it in the unit {unit}, and leave the unit out."
HUB = "Hothan/OlympiadBench:OE_TO_maths_en_COMP"
OPTIONS = ("types",)
TYPES = ("Numerical", "Expression", "Tuple", "Interval")


class OlympiadBench(Task):
    r"""Strict: the last complete `\boxed{}` equals the reference: as a set where there are several answers, within the
    absolute tolerance where the data state one. Lenient: that, or what follows "answer is", or else the last formula or
    number."""

    name = "olympiadbench"
    max_tokens = 1024

    def __init__(self, examples: list[Example]) -> None:
        super().__init__(examples)
        self._judge = latex.Judge()

    def messages(self, example: Example) -> list[Message]:
        columns = example.columns
        unit = columns["unit"]
        form = (MANY if columns["is_multiple_answer"] else "") + (UNIT.format(unit=f"${unit}$") if unit else "")
        return self.ask(INSTRUCTION.format(form=form, question=columns["question"]))

    def grade(self, completion: str, example: Example) -> Grade:
        return grade(self._judge, completion, reference(example.columns))


def reference(columns: Mapping[str, Any]) -> latex.Reference:
    """What the answer is compared to."""
    return latex.Reference(
        columns["final_answer"][0],
        many=columns["is_multiple_answer"],
        tolerance=float(columns["error"] or 0),
        unit=columns["unit"] or "",
    )


def load(settings: Settings, count: int) -> OlympiadBench:
    latex.need_package(settings.name)
    types = chosen(settings.options)
    path = settings.path or HUB
    examples = []
    for number, row in data.published(settings, HUB):
        columns = {
            "question": row.get("question"),
            "final_answer": row.get("final_answer"),
            "is_multiple_answer": bool(row.get("is_multiple_answer")),
            "unit": row.get("unit"),
            "answer_type": row.get("answer_type"),
            "error": row.get("error"),
        }
        if not usable(columns):
            raise UserError(
                f'"{path}" row {number} is no OlympiadBench row (columns {", ".join(row) or "none"}); it needs '
                '"question", "final_answer" as a list of one text, and "unit" and "error" that are empty or texts, '
                "the latter a number"
            )
        if not types or columns["answer_type"] in types:
            examples.append(Example.of(columns))
    if not examples:
        raise UserError(f'"{path}" has no row of "task.options.types" = {sorted(types)}; add {", ".join(TYPES)}')
    return OlympiadBench(examples)


def usable(columns: Mapping[str, Any]) -> bool:
    """Is the row one of the dataset?"""
    answers, unit, error = columns["final_answer"], columns["unit"], columns["error"]
    if not isinstance(columns["question"], str) or not isinstance(answers, list) or len(answers) != 1:
        return False
    try:
        tolerance = float(error or 0)
    except (TypeError, ValueError):
        return False
    return isinstance(answers[0], str) and (unit is None or isinstance(unit, str)) and 0 <= tolerance < float("inf")


def chosen(options: Mapping[str, Any]) -> frozenset[str]:
    """The types of answers to keep; empty: all."""
    for key, value in options.items():
        if key not in OPTIONS:
            raise UserError(
                f'task "olympiadbench" has no option "{key}" = {value!r} in "task.options"; {hint(key, OPTIONS)}'
            )
    types = options.get("types", [])
    if not isinstance(types, list | tuple) or not all(kind in TYPES for kind in types):
        raise UserError(f'"task.options.types" is {types!r}; use a list of some of {", ".join(TYPES)}')
    return frozenset(types)
