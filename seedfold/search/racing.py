"""Successive halving on blocks of examples (Karnin, Koren and Somekh, 2013; Jamieson and Talwalkar, 2016).

Every candidate answers the first block; after each block the better share goes on to the next, which doubles the
examples answered so far, until the examples are used up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def schedule(candidates: int, examples: int, block: int, keep: float, finalists: int) -> list[tuple[int, int]]:
    """(candidates, examples answered by the end of the round) for each round.

    Args:
        candidates: N, in the first round.
        examples: all there are; the last round reaches them.
        block: examples of the first round; each later round doubles what has been answered.
        keep: share of the candidates that goes on.
        finalists: never fewer candidates than this.
    """
    rounds = []
    answered = min(block, examples)
    while True:
        rounds.append((candidates, answered))
        if answered >= examples:
            return rounds
        candidates = min(candidates, max(finalists, math.ceil(candidates * keep)))
        answered = min(examples, 2 * answered)


def evaluations(rounds: Sequence[tuple[int, int]]) -> int:
    """How many answers a schedule costs."""
    before = [0, *(answered for _, answered in rounds)]
    return sum(count * (answered - start) for (count, answered), start in zip(rounds, before, strict=False))
