"""One proposed update: race on select, then meet the gate.

Operators are pure functions; the one contact with a model is the bench's callback. `search` makes proposals, `select`
chooses among them, `gate` decides, and `test` is not touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seedfold.fold import gate
from seedfold.fold.base import Bench, Population, Proposal, Step, add
from seedfold.fold.settings import Gate, Race
from seedfold.search import racing

Operator = Callable[[Population], list[Proposal]]

FINALISTS = 2
"""Proposals that at least answer all of select."""


@dataclass(frozen=True)
class Raced:
    """A race's winner, and what it cost."""

    winner: Proposal
    gain: float  # on select, the winner's mean difference from the incumbent: too good by the choice, see the gate
    entrants: int
    evaluations: int


@dataclass(frozen=True)
class Attempt:
    """One proposed update from the race to the verdict."""

    proposal: Proposal | None  # None: the operator had none
    verdict: gate.Verdict | None  # None: it did not come to the gate
    raced: Raced | None = None

    @property
    def committed(self) -> bool:
        return self.verdict is not None and self.verdict.committed


@dataclass(frozen=True)
class Folded:
    """Where a fold ended.

    `terms` is the step from the pretrained base of the last committed update; () where the base stands.
    """

    terms: Step
    attempts: tuple[Attempt, ...]
    evaluations: int
    details: tuple[dict[str, Any], ...] = ()  # one entry per local round, in plain JSON types

    @property
    def history(self) -> tuple[bool, ...]:
        """The gate's verdicts so far, which its next test has to know."""
        return tuple(attempt.committed for attempt in self.attempts if attempt.verdict is not None)


def race(bench: Bench, centre: Step, proposals: Sequence[Proposal], settings: Race, split: str = "select") -> Raced:
    """Successive halving on the examples of `split`: all answer a block, the better share goes on to twice as many.

    Among those that finish the highest mean wins; of equals the one proposed first.
    """
    base = bench.incumbent(centre, split)
    before = bench.spent
    rounds = racing.schedule(len(proposals), len(base), settings.block, settings.keep, FINALISTS)
    rewards = np.full((len(proposals), len(base)), np.nan)
    going = np.arange(len(proposals))
    start = 0
    for count, stop in rounds:
        going = np.sort(going[np.argsort(-_means(rewards[going, :start]), kind="stable")[:count]])
        steps = [add(centre, proposals[number].terms) for number in going.tolist()]
        rewards[going, start:stop] = bench.rewards(steps, split, np.arange(start, stop))
        start = stop
    means = _means(rewards[going])
    best = int(means.argmax())
    gain = float(means[best] - base.mean())
    return Raced(proposals[int(going[best])], gain, len(proposals), bench.spent - before)


def cost(bench: Bench, entrants: int, settings: Race) -> int:
    """Evaluations that `attempt` spends at most, the incumbent's answers included."""
    rounds = racing.schedule(entrants, bench.sizes["select"], settings.block, settings.keep, FINALISTS)
    return racing.evaluations(rounds) + bench.sizes["select"] + 2 * bench.sizes["gate"]


def attempt(
    bench: Bench, centre: Step, proposals: Sequence[Proposal], history: Sequence[bool], racing: Race, gating: Gate
) -> Attempt:
    """Race the proposals and let the winner meet the gate; one that lost on select is not worth a test of the gate."""
    if not proposals:
        return Attempt(None, None)
    raced = race(bench, centre, proposals, racing)
    if raced.gain <= 0:
        return Attempt(raced.winner, None, raced)
    new = bench.rewards([add(centre, raced.winner.terms)], "gate")[0]
    return Attempt(raced.winner, gate.meet(new, bench.incumbent(centre, "gate"), history, gating, bench.graded), raced)


def _means(rewards: np.ndarray) -> np.ndarray:
    return rewards.mean(axis=1) if rewards.shape[1] else np.zeros(len(rewards))
