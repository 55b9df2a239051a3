"""What a task is: examples, a prompt for each, a grader that gives a reward, and an answer to vote on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedfold.errors import UserError

Message = dict[str, str]
"""A chat message: {"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True)
class Example:
    """One item. `columns` are the row's data; `id` is a digest of them, so that equal content is the same example."""

    id: str
    columns: Mapping[str, Any] = field(hash=False)

    @staticmethod
    def of(columns: Mapping[str, Any]) -> Example:
        """Build an example; its id is 16 hex digits of the BLAKE2b digest of the row's canonical JSON."""
        text = json.dumps(columns, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return Example(digest, columns)


@dataclass(frozen=True)
class Grade:
    """The reading of one completion.

    strict: reward under the asked-for format; the number that searches maximise. lenient: reward for the substance,
    however it is written (never below strict for right-or-wrong tasks). answer: the normal form to vote on, under the
    asked-for format, so that all who gave it earn the same; None when there is none: this completion does not vote.
    """

    strict: float
    lenient: float
    answer: str | None


class Task:
    """Base class of tasks. Subclasses set the attributes and override `messages` and `grade`."""

    name: str = ""
    max_tokens: int = 256
    """Token limit of an answer."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer; the completion is cut before the first of them."""
    system: str = ""
    """System message; empty: none is sent."""
    digest: str = ""
    """Stands for grading code that is the user's own: a study refuses to go on with another."""
    graders: int = 0
    """Calls of `grade_many` that may run at once, on threads of their own, while the engine goes on: for grading that waits
    for other processes or hosts. 0: none; answers are graded where the engine is."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples: tuple[Example, ...] = tuple(unique(examples))

    def messages(self, example: Example) -> list[Message]:
        """The chat that asks for an answer. Messages that all examples share come first: they are computed once."""
        raise NotImplementedError

    def ask(self, prompt: str | Sequence[Message]) -> list[Message]:
        """The usual chat: the system message, where there is one, and one user message; or a chat that is given, in
        which the system message takes the place of its own."""
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]
        if not self.system:
            return chat
        return [{"role": "system", "content": self.system}, *chat[chat[0]["role"] == "system" :]]

    def grade(self, completion: str, example: Example) -> Grade:
        """Read one completion. Must not raise, whatever the text (a user's own broken reward: `UserError`), and must
        end quickly."""
        raise NotImplementedError

    def grade_many(self, completions: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
        """Read completions, one per example. Override when grading is faster, or only defined, on a batch."""
        return [self.grade(completion, example) for completion, example in zip(completions, examples, strict=True)]


def grade_of_vote(answer: str | None, grades: Sequence[Grade]) -> Grade:
    """The grade a vote is scored by: that of the first completion that gave the winning answer, in the voters' order.

    A vote is worth what one of its completions is worth, whatever the task: nothing else is defined for a user's own
    reward, and no grader needs a second way to score. When nobody gave an answer (None) the first completion stands.
    """
    return next((grade for grade in grades if grade.answer == answer), grades[0])


def unique(examples: Sequence[Example]) -> list[Example]:
    """Drop repeated content, first one kept, order kept: a row that stands twice must not fall into two splits."""
    kept: dict[str, Example] = {}
    for example in examples:
        kept.setdefault(example.id, example)
    return list(kept.values())


def need(count: int, have: int, what: str) -> None:
    """Refuse data that is too small, saying how many examples are needed."""
    if have < count:
        raise UserError(f"{what} has {have} different examples but the splits need {count}; add data or lower [splits]")
