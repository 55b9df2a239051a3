"""Any dataset of Reasoning Gym (Stojanovski et al., 2025, arXiv:2505.24760) by name, with its own scorer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import numbers
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.generate import hint, too_few
from seedfold.tasks.scorer import Scorer, generate

INSTRUCTION = (
    "Answer the question. Think step by step, then write only the final answer between <answer> and </answer>.\n\n"
    "{question}"
)
ROUNDS = 20
"""A dataset is asked for at most this many times the examples wanted before it counts as exhausted."""

_TAG = re.compile(r"<answer>((?:(?!<answer>).){0,10000}?)</answer>", re.DOTALL)


class ReasoningGym(Task):
    """Strict: the dataset's score of what stands in the last `<answer>` tag, 0 without one. Lenient: the best reading.

    Scores are the dataset's: mostly 0 or 1, for some with partial credit, 0.01 for a wrong answer in a few.
    """

    max_tokens = 512

    def __init__(self, dataset: str, entries: list[dict[str, Any]], scorer: Scorer) -> None:
        self.name = f"reasoning-gym:{dataset}"
        self._entries: dict[str, dict[str, Any]] = {}
        examples = [_example(dataset, entry) for entry in entries]
        for example, entry in zip(examples, entries, strict=True):
            self._entries.setdefault(example.id, entry)
        super().__init__(examples)
        self._scorer = scorer

    def messages(self, example: Example) -> list[Message]:
        return self.ask(INSTRUCTION.format(question=example.columns["question"]))

    def grade(self, completion: str, example: Example) -> Grade:
        entry = self._entries[example.id]
        formal = tagged(completion)
        score = 0.0 if formal is None else self._scorer(formal, entry)
        answer = " ".join(formal.split()) or None if formal is not None else None
        lenient = strict = score or 0.0
        for reading in readings(completion):
            # A text that the scorer could not bear once is not tried again: each time costs a second.
            if lenient >= 1 or score is None:
                break
            score = self._scorer(reading, entry)
            lenient = max(lenient, score or 0.0)
        return Grade(strict, lenient, answer)


def load(settings: Settings, count: int) -> ReasoningGym:
    _, _, dataset = settings.name.partition(":")
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError(
            f'task "{settings.name}" needs the package reasoning-gym; pip install "seedfold[tasks]"'
        ) from None
    if dataset not in DATASETS:
        raise UserError(
            f'"task.name" is "{settings.name}", but Reasoning Gym has no "{dataset}"; {hint(dataset, sorted(DATASETS))}'
        )
    for field in ("seed", "size"):
        if field in settings.options:
            raise UserError(f'"task.options.{field}" is given; use "task.{_OWN[field]}" for it')
    size = count
    while True:
        parameters = {**settings.options, "seed": settings.seed, "size": size}
        try:
            made = generate(dataset, parameters)
        except ValueError as error:
            raise UserError(
                f'task "{settings.name}" cannot be made with "task.options" = {dict(settings.options)!r} '
                f"({error}); see the parameters of that dataset"
            ) from None
        # Item i depends on the seed and on i alone, so a larger size only continues the list.
        entries: dict[str, dict[str, Any]] = {}
        for entry in made:
            entries.setdefault(_example(dataset, entry).id, entry)
        if len(entries) >= count:
            return ReasoningGym(dataset, list(entries.values())[:count], Scorer(dataset, parameters))
        if size >= ROUNDS * count:
            raise too_few(settings.name, len(entries), count)
        size = min(4 * size, ROUNDS * count)


_OWN = {"seed": "seed", "size": "examples"}


def tagged(completion: str) -> str | None:
    """What stands in the last `<answer>` tag, without the space around it."""
    found = _TAG.findall(completion[-numbers.MAX_TEXT :])
    return found[-1].strip() if found else None


def readings(completion: str) -> list[str]:
    """What else may be meant as the answer: the box, what follows "answer is", the last line and what follows its last
    `=`, the whole text; each also without a full stop at its end."""
    text = completion[-numbers.MAX_TEXT :].strip()
    last = (text.splitlines() or [""])[-1]
    found = [numbers.boxed(text), numbers.after_answer(text), last, last.rpartition("=")[2], text]
    bare = [reading.strip(" \t*`") for reading in found if reading]
    return [
        reading for reading in dict.fromkeys(one for text in bare for one in (text, text.rstrip(" *`."))) if reading
    ]


def _example(dataset: str, entry: Mapping[str, Any]) -> Example:
    # Without the metadata: they may hold values that are no JSON, whose spelling differs from process to process.
    return Example.of({"dataset": dataset, "question": entry["question"], "answer": entry["answer"]})
