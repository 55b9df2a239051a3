r"""MATH-500: competition problems with answers in LaTeX (Hendrycks et al., 2021, arXiv:2103.03874; the 500 test problems
of Lightman et al., 2023, arXiv:2305.20050), zero-shot, reasoning before the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import data, latex, numbers
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.generate import hint

INSTRUCTION = (
    "Solve the problem. Reason step by step, and end with the final answer, and nothing but the answer, in \\boxed{{}}."
    "\n\nProblem: {problem}"
)
HUB = "HuggingFaceH4/MATH-500"
OPTIONS = ("levels", "subjects")


class Math500(Task):
    r"""Strict: the last complete `\boxed{}` equals the reference. Lenient: that, or what follows "answer is", or else
    the last formula or number. See `latex` for what equals."""

    name = "math500"
    max_tokens = 1024

    def __init__(self, examples: list[Example]) -> None:
        super().__init__(examples)
        self._judge = latex.Judge()

    def messages(self, example: Example) -> list[Message]:
        return self.ask(INSTRUCTION.format(problem=example.columns["problem"]))

    def grade(self, completion: str, example: Example) -> Grade:
        return grade(self._judge, completion, latex.Reference(example.columns["answer"]))


def grade(judge: latex.Judge, completion: str, reference: latex.Reference) -> Grade:
    """The grade of an answer in a box; OlympiadBench has the same."""
    text = completion[-numbers.MAX_TEXT :]
    box = latex.boxed(text)
    formal = None if box is None else judge(box, reference)
    if formal is not None and formal.equal:
        return Grade(1.0, 1.0, formal.key)
    # A second reading costs at most what the first did; a text that exhausted its time is not tried again.
    lenient = 0.0
    if formal is None or not formal.exhausted:
        other = latex.substance(text)
        lenient = float(other is not None and other != box and judge(other, reference).equal)
    return Grade(0.0, lenient, None if formal is None else formal.key)


def load(settings: Settings, count: int) -> Math500:
    latex.need_package(settings.name)
    levels, subjects = chosen(settings.options)
    path = settings.path or HUB
    examples = []
    seen: dict[str, None] = {}
    for number, row in data.published(settings, HUB, "test"):
        problem, answer = row.get("problem"), row.get("answer")
        if not isinstance(problem, str) or not isinstance(answer, str) or not latex.readable(answer):
            raise UserError(
                f'"{path}" row {number} is no MATH row (columns {", ".join(row) or "none"}); it needs "problem" and an '
                '"answer" in LaTeX'
            )
        seen[str(row.get("subject"))] = None
        if (not levels or row.get("level") in levels) and (not subjects or row.get("subject") in subjects):
            columns = {key: row.get(key) for key in ("problem", "answer", "level", "subject", "unique_id")}
            examples.append(Example.of(columns))
    for subject in subjects:
        if subject not in seen:
            raise UserError(f'"{path}" has no subject "{subject}"; {hint(subject, seen)}')
    return Math500(examples)


def chosen(options: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """The levels and subjects to keep; empty: all."""
    for key, value in options.items():
        if key not in OPTIONS:
            raise UserError(f'task "math500" has no option "{key}" = {value!r} in "task.options"; {hint(key, OPTIONS)}')
    levels, subjects = options.get("levels", []), options.get("subjects", [])
    if not isinstance(levels, list | tuple) or not all(type(level) is int and 1 <= level <= 5 for level in levels):
        raise UserError(f'"task.options.levels" is {levels!r}; use a list of whole numbers from 1 to 5, as [4, 5]')
    if not isinstance(subjects, list | tuple) or not all(isinstance(subject, str) for subject in subjects):
        raise UserError(f'"task.options.subjects" is {subjects!r}; use a list of subjects, as ["Algebra"]')
    return list(levels), list(subjects)
