"""What is wrong with a task's data or its reward, found before a study spends anything on it."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from seedfold.errors import UserError
from seedfold.leakage import normal, prompt_text
from seedfold.tasks.base import Example, Grade, Task

REFERENCES = ("answer", "completion", "reference", "solution")
"""Columns that are taken for the right answer, the first one that there is."""

OWN = ("target", "label")
"""More of them in the user's own data; in those of other tasks they may mean anything."""

PROGRAMS = ("code", "canonical_solution")
"""More of them in the data of the other tasks: the programs of mbpp and humaneval."""

ODD = (
    "", " \n", "yes", "-1", "NaN", "1e999", "null", "{", '{"a": 1}', '["a"]', "[1, 2", "\\boxed{", "<answer>",
    "½ ∞ \u0000 \u2028 é", "x " * 5000,
)  # fmt: skip
"""Answers that models give and rewards stumble over."""

SECONDS = 30.0
"""Of grading, after which what was graded has to do."""

SLOW = 20.0
"""Milliseconds of a call to the reward that are worth a word."""

FEW = 12
"""Different references, at most, that are counted one by one."""

_BATCH = 16
_TRIES = 50


@dataclass
class Findings:
    """facts: numbers, for all to see. problems: to be mended. notes: to be known."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def references(task: Task, own: bool, column: str = "") -> tuple[str, dict[str, str]]:
    """The column of right answers, and the answers by example id; empty where there is none.

    own: whether the reward is the user's.
    """
    if column and not any(column in example.columns for example in task.examples):
        known = ", ".join(task.examples[0].columns)
        raise UserError(f'"--reference" is "{column}", which no row has; its columns are {known}')
    names = [column] if column else [*REFERENCES, *(OWN if own else PROGRAMS)]
    found = next((name for name in names if any(name in example.columns for example in task.examples)), "")
    values = {example.id: example.columns.get(found) for example in task.examples}
    return found, {key: _text(value) for key, value in values.items() if not _empty(value)}


def data(task: Task, own: bool, column: str, right: Mapping[str, str]) -> Findings:
    """Empty fields, prompts that stand twice, contradictions, prompts that give the answer away, and the balance."""
    found, examples = Findings(), task.examples
    prompts = {example.id: prompt_text(task.messages(example)) for example in examples}
    _fields(found, task, own, column)
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(normal(prompts[example.id]), []).append(example)
    repeated = [group for group in groups.values() if len(group) > 1]
    if repeated:
        found.notes.append(
            f"examples with the prompt of another one, up to case and white space: {len(examples) - len(groups):,}; the "
            f"splits keep one of each; the first are {place(task, repeated[0][0])} and {place(task, repeated[0][1])}"
        )
    split = [group for group in repeated if len({normal(right[e.id]) for e in group if e.id in right}) > 1]
    if split:
        one, two = split[0][:2]
        found.problems.append(
            f"prompts with more than one reference: {len(split):,}; the first is that of {place(task, one)}, "
            f"{_quote(right.get(one.id))}, and {place(task, two)}, {_quote(right.get(two.id))}; keep the right one"
        )
    _given_away(found, task, prompts, right)
    counts = Counter(map(normal, right.values()))
    if 1 < len(counts) <= FEW < len(right):
        found.facts["balance"] = dict(counts.most_common())
    if right and counts.most_common(1)[0][1] >= 0.8 * len(right) > 1:
        answer, count = counts.most_common(1)[0]
        found.notes.append(
            f"{_quote(answer)} is the reference of {count:,} in {len(right):,}: who always says that seems good"
        )
    return found


def _fields(found: Findings, task: Task, own: bool, column: str) -> None:
    blank = [example for example in task.examples if _empty(task.messages(example)[-1]["content"])]
    if blank:
        found.problems.append(f"empty prompts: {len(blank):,}; the first is {place(task, blank[0])}")
    for name in dict.fromkeys(name for example in task.examples for name in example.columns):
        empty = [example for example in task.examples if _empty(example.columns.get(name))]
        if empty and (name == column or (own and len(empty) < len(task.examples))):
            (found.problems if name == column else found.notes).append(
                f'rows with an empty or missing "{name}": {len(empty):,} of {len(task.examples):,}; the first is '
                f"{place(task, empty[0])}"
            )


def _given_away(found: Findings, task: Task, prompts: Mapping[str, str], right: Mapping[str, str]) -> None:
    """References that stand in their own prompt, and not in the next one's too, as those of a list of labels do."""
    examples, shown = task.examples, []
    for number, example in enumerate(examples):
        answer = normal(right.get(example.id, ""))
        if len(answer) < 4 or not any(map(str.isalpha, answer)):  # numbers come again by chance
            continue
        whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
        other = examples[(number + 1) % len(examples)]
        if whole.search(normal(prompts[example.id])) and not whole.search(normal(prompts[other.id])):
            shown.append(example)
    if shown:
        found.notes.append(
            f"prompts that contain their own answer word for word: {len(shown):,}; the first is "
            f"{place(task, shown[0])}, {_quote(right[shown[0].id])}; a leak, unless the task is to find it there"
        )


def rewards(task: Task, own: bool, column: str, right: Mapping[str, str]) -> Findings:
    """What the reward gives for right, wrong, empty and odd answers, and how long it takes.

    own: whether the reward is the user's; what is said of the others' is for them to know, not to mend.
    """
    found, grader = Findings(), _Grader(task)
    _odd(found, grader)
    examples = [example for example in task.examples if example.id in right]
    graded = grader.all(examples, lambda example: right[example.id])
    wrong = _wrong(examples, right, graded)
    wrongs = grader.all([e for e in examples if e.id in wrong], lambda example: wrong[example.id])
    empties = grader.all(task.examples, lambda example: "")
    if grader.failures:
        count, first = sum(grader.failures.values()), next(iter(grader.failures))
        found.problems.append(
            f"the reward fails on {count:,} of {grader.calls:,} answers tried; the first time: {first}"
        )
    found.facts["milliseconds"] = grader.milliseconds
    found.facts["graded"] = grader.calls
    if examples and graded:
        _compared(found, task, own, column, right, graded, {"another example's reference": wrongs, "": empties})
    elif own:
        alike = f", and all earned {next(iter(grader.seen)):g}" if len(grader.seen) == 1 else ""
        found.notes.append(
            f"the reward was tried on odd and empty answers alone{alike}; name the column of right answers by --reference, "
            "if there is one"
        )
    return found


def _compared(
    found: Findings,
    task: Task,
    own: bool,
    column: str,
    right: Mapping[str, str],
    graded: Mapping[str, Grade],
    others: Mapping[str, Mapping[str, Grade]],
) -> None:
    """Right answers must earn the most, wrong and empty ones less."""
    found.facts["references"] = {
        "column": column,
        "n": len(graded),
        "strict": _mean([grade.strict for grade in graded.values()]),
        "lenient": _mean([grade.lenient for grade in graded.values()]),
    }
    for name, grades in others.items():
        found.facts[name or "empty answer"] = _mean([grade.strict for grade in grades.values()]) if grades else None
    said = found.problems if own else found.notes
    read, empties = attrgetter("strict"), others[""]
    if not any(grade.strict > empties[key].strict for key, grade in graded.items() if key in empties):
        read = attrgetter("lenient")
        if any(grade.lenient > empties[key].lenient for key, grade in graded.items() if key in empties):
            found.notes.append(
                f'the references (column "{column}") are not in the format that the strict reading asks for: it gives '
                f"{_mean([grade.strict for grade in graded.values()]):g}, the lenient one "
                f"{_mean([grade.lenient for grade in graded.values()]):.3g}"
            )
            if not own:
                return
    values = {read(grade) for grades in (graded, *others.values()) for grade in grades.values()}
    if len(values) == 1:
        said.append(
            f"right, wrong and empty answers all earn {values.pop():g}: there is nothing to search for; mend the reward, "
            f'or name the column of whole right answers by --reference (now "{column}")'
        )
        return
    examples = {example.id: example for example in task.examples}
    most = max(map(read, graded.values()))
    less = [key for key, grade in graded.items() if read(grade) < most]
    best = graded.keys() - less  # the others have been told of
    if less:
        said.append(
            f"references that earn less than the most, {most:g}: {len(less):,} of {len(graded):,}; the first is that of "
            f"{place(task, examples[less[0]])}, {_quote(right[less[0]])}, with {read(graded[less[0]]):g}"
        )
    for name, grades in others.items():
        level = [key for key, grade in grades.items() if key in best and read(grade) >= most]
        if level:
            what = name or "an empty answer"
            said.append(
                f"{what} earns no less than the right one on {len(level):,} of {len(best):,} examples; the first is "
                f"{place(task, examples[level[0]])}, {read(grades[level[0]]):g} against {most:g}"
            )
    silent = [key for key, grade in graded.items() if grade.answer is None and grade.strict >= most]
    if silent:
        found.notes.append(
            f"right answers that give nothing to vote on: {len(silent):,} of {len(graded):,}; the first is that of "
            f"{place(task, examples[silent[0]])}"
        )


def _odd(found: Findings, grader: _Grader) -> None:
    """Odd answers to a few examples: alone, again, and in a batch. The reward must be a function of the text."""
    examples = [example for example in grader.task.examples[:2] for _ in ODD]
    texts = [text for _ in grader.task.examples[:2] for text in ODD]
    first = [grader.one(text, example) for text, example in zip(texts, examples, strict=True)]
    again = [grader.one(text, example) for text, example in zip(texts, examples, strict=True)]
    if any(one != two for one, two in zip(first, again, strict=True)):
        found.problems.append("the same answer to the same example earns another reward the second time")
    elif None not in first and first != grader.many(texts, examples):
        found.problems.append("an answer earns another reward in a batch than alone: what is beside it must not count")


def _wrong(examples: Sequence[Example], right: Mapping[str, str], graded: Mapping[str, Grade]) -> dict[str, str]:
    """For each example a reference that is another answer, also by what the vote makes of it."""
    kept = [example.id for example in examples if example.id in graded]
    stride = max(1, len(kept) // _TRIES)  # all over the data, which may be in the order of its classes
    wrong = {}
    for number, key in enumerate(kept):
        for other in (kept[(number + step * stride) % len(kept)] for step in range(1, _TRIES + 1)):
            same_vote = graded[key].answer is not None and graded[key].answer == graded[other].answer
            if normal(right[key]) != normal(right[other]) and not same_vote:
                wrong[key] = right[other]
                break
    return wrong


class _Grader:
    """Grades, keeps the time, and counts what fails."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.calls = 0
        self.seconds = 0.0
        self.failures: Counter[str] = Counter()
        self.seen: set[float] = set()

    @property
    def milliseconds(self) -> float:
        return 1000 * self.seconds / max(1, self.calls)

    def all(self, examples: Sequence[Example], text: Callable[[Example], str]) -> dict[str, Grade]:
        """Grades by example id, of as many as the time allows; those that failed are not there."""
        found: dict[str, Grade] = {}
        end = self.seconds + SECONDS / 3
        for start in range(0, len(examples), _BATCH):
            if self.seconds > end:
                break
            batch = examples[start : start + _BATCH]
            grades = self.many([text(example) for example in batch], batch)
            found |= {e.id: grade for e, grade in zip(batch, grades, strict=True) if grade is not None}
        return found

    def many(self, texts: Sequence[str], examples: Sequence[Example]) -> list[Grade | None]:
        try:
            return list(self._timed(texts, examples))
        except UserError as error:
            alone = [self.one(text, example) for text, example in zip(texts, examples, strict=True)]
            if None not in alone:  # the batch is what failed
                self.failures[str(error)] += 1
            return alone

    def one(self, text: str, example: Example) -> Grade | None:
        try:
            return self._timed([text], [example])[0]
        except UserError as error:
            self.failures[str(error)] += 1
            return None

    def _timed(self, texts: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
        start = time.perf_counter()
        self.calls += len(texts)
        try:
            grades = self.task.grade_many(texts, examples)
        finally:
            self.seconds += time.perf_counter() - start
        for grade, example in zip(grades, examples, strict=True):
            if not (math.isfinite(grade.strict) and math.isfinite(grade.lenient)):
                raise UserError(f"the reward of {place(self.task, example)} is {grade.strict} or {grade.lenient}")
            self.seen.add(grade.strict)
        return grades


def place(task: Task, example: Example) -> str:
    """How a message names an example: tasks on a user's rows know their numbers, others have a place and an id."""
    item = getattr(task, "_items", {}).get(example.id)
    return item.where if item else f"example {task.examples.index(example) + 1} ({example.id})"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _empty(value: Any) -> bool:
    return value is None or (
        isinstance(value, str | list | dict) and not (value.strip() if isinstance(value, str) else value)
    )


def _quote(text: str | None) -> str:
    line = " ".join((text or "").split())
    return f'"{line[:57]}…"' if len(line) > 60 else f'"{line}"'


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
