"""The four disjoint splits: fixed by a seed and by the examples' content, whatever order the data comes in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seedfold import config, leakage, tasks
from seedfold.tasks.base import Example, Task, need

MOST = 8
"""Times as many examples as needed, at most, that a generated task is asked for to find enough different prompts."""


@dataclass(frozen=True)
class Splits:
    """search scores candidates; select chooses among results; gate tests each proposed update once; test is the end."""

    search: tuple[Example, ...]
    select: tuple[Example, ...]
    gate: tuple[Example, ...]
    test: tuple[Example, ...]


@dataclass(frozen=True)
class Dealt:
    """A task and its splits. repeated: examples that were left out because another one's prompt is the same."""

    task: Task
    splits: Splits
    repeated: int

    def leakage(self) -> list[leakage.Pair]:
        """Near-duplicates across the splits."""
        parts = {
            name: {example.id: leakage.prompt_text(self.task.messages(example)) for example in examples}
            for name, examples in vars(self.splits).items()
        }
        return leakage.near(parts)


def needed(settings: config.Splits) -> int:
    """How many different examples the splits take."""
    return settings.search + settings.select + settings.gate + settings.test


def deal(chosen: config.Config) -> Dealt:
    """Load the task of a config and deal its examples, no two of them with the same prompt.

    The same is what `leakage.normal` makes the same: rows that differ in an id, in case or in white space alone are one
    question, and must not stand in two splits. The one that comes first in the order of dealing is kept.

    Raises:
        UserError: fewer different prompts than the splits need.
    """
    count = asked = needed(chosen.splits)
    generated = "path" not in tasks.USES.get(chosen.task.name.partition(":")[0], ("path",))
    while True:
        task = tasks.load(chosen.task, asked)
        kept, repeated = _different(task, _order(task.examples, chosen.splits.seed), count)
        asked += count - len(kept)
        if len(kept) == count or not generated or asked > MOST * count:
            what = f'task "{chosen.task.name}"' + (f" ({repeated} repeat the prompt of another)" if repeated else "")
            return Dealt(task, split(kept, chosen.splits, what), repeated)


def split(examples: Sequence[Example], settings: config.Splits, what: str = "the data") -> Splits:
    """Deal examples into the splits.

    Raises:
        UserError: fewer examples than the splits need; they never overlap to make up for it.
    """
    need(needed(settings), len(examples), what)
    order = _order(examples, settings.seed)
    parts = []
    for size in (settings.search, settings.select, settings.gate, settings.test):
        parts.append(tuple(order[:size]))
        order = order[size:]
    return Splits(*parts)


def _different(task: Task, examples: Iterable[Example], count: int) -> tuple[list[Example], int]:
    """The first `count` examples whose prompts differ, and how many were passed over on the way."""
    kept: dict[str, Example] = {}
    repeated = 0
    for example in examples:
        if len(kept) == count:
            break
        key = leakage.normal(leakage.prompt_text(task.messages(example)))
        repeated += key in kept
        kept.setdefault(key, example)
    return list(kept.values()), repeated


def _order(examples: Sequence[Example], seed: int) -> list[Example]:
    return sorted(examples, key=lambda example: _place(seed, example.id))


def _place(seed: int, example: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{example}".encode(), digest_size=8).digest()
