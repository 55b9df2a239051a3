"""The four disjoint splits: fixed by a seed and by the examples' content, whatever order the data comes in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from seedfold import config
from seedfold.tasks.base import Example, need


@dataclass(frozen=True)
class Splits:
    """search scores candidates; select chooses among results; gate tests each proposed update once; test is the end."""

    search: tuple[Example, ...]
    select: tuple[Example, ...]
    gate: tuple[Example, ...]
    test: tuple[Example, ...]


def needed(settings: config.Splits) -> int:
    """How many different examples the splits take."""
    return settings.search + settings.select + settings.gate + settings.test


def split(examples: Sequence[Example], settings: config.Splits, what: str = "the data") -> Splits:
    """Deal examples into the splits.

    Raises:
        UserError: fewer examples than the splits need; they never overlap to make up for it.
    """
    need(needed(settings), len(examples), what)
    order = sorted(examples, key=lambda example: _place(settings.seed, example.id))
    parts = []
    for size in (settings.search, settings.select, settings.gate, settings.test):
        parts.append(tuple(order[:size]))
        order = order[size:]
    return Splits(*parts)


def _place(seed: int, example: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{example}".encode(), digest_size=8).digest()
