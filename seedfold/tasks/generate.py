"""What generated tasks share: different examples from a seed, and strict options."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from seedfold.errors import UserError
from seedfold.tasks.base import Example

PATIENCE = 2_000
"""Draws in a row without anything new, after which a task counts as exhausted."""


def distinct(draw: Callable[[Random], Mapping[str, Any]], count: int, seed: int, task: str) -> list[Example]:
    """The first `count` different rows of the stream that the seed defines: asking for more keeps those before."""
    random = Random(seed)
    kept: dict[str, Example] = {}
    idle = 0
    while len(kept) < count:
        example = Example.of(draw(random))
        idle = idle + 1 if example.id in kept else 0
        kept.setdefault(example.id, example)
        if idle > PATIENCE:
            raise too_few(task, len(kept), count)
    return list(kept.values())


def too_few(task: str, possible: int, count: int) -> UserError:
    return UserError(
        f'task "{task}" can make only {possible} of the {count} different examples needed; '
        'lower [splits] or "task.examples", or widen the task with "task.options"'
    )


def whole_numbers(task: str, options: Mapping[str, Any], defaults: Mapping[str, int]) -> dict[str, int]:
    """The defaults with the options put over them; anything but a known whole number above 0 is refused."""
    for key, value in options.items():
        if key not in defaults:
            raise UserError(f'task "{task}" has no option "{key}" = {value!r} in "task.options"; {hint(key, defaults)}')
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f'"task.options.{key}" is {value!r}; use a whole number of at least 1')
    return {**defaults, **options}


def hint(word: str, known: Iterable[str]) -> str:
    """What to write in place of an unknown word."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(known) or 'none'}"
