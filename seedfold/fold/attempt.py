"""Proposed updates: they race on select, and what won meets the gate, at once or several together.

Operators are pure functions; the one contact with a model is the bench's callback. `search` makes proposals, `select`
chooses among them, `gate` decides, and `test` is not touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seedfold.fold import gate
from seedfold.fold.base import Bench, Population, Proposal, Step, add, scaled
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
    verdict: gate.Verdict | None  # None: it did not come to the gate, or not yet and by itself
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
        """The gate's verdicts, in order."""
        return verdicts(self.attempts)


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
    """Evaluations that an update spends at most, the incumbent's answers included."""
    rounds = racing.schedule(entrants, bench.sizes["select"], settings.block, settings.keep, FINALISTS)
    return racing.evaluations(rounds) + bench.sizes["select"] + 2 * bench.sizes["gate"]


def meet(bench: Bench, new: Step, old: Step, history: Sequence[bool], gating: Gate) -> gate.Verdict:
    """Let one model meet the gate against another; both are steps from the pretrained base."""
    proposed = bench.rewards([new], "gate")[0]
    return gate.meet(proposed, bench.incumbent(old, "gate"), history, gating, bench.graded)


def verdicts(attempts: Sequence[Attempt]) -> tuple[bool, ...]:
    """What the gate said of those that met it, which its next test has to know."""
    return tuple(attempt.committed for attempt in attempts if attempt.verdict is not None)


class Walk:
    """A fold's way from the pretrained base, update by update.

    `centre` is where the next update starts, `committed` where the last update stands that passed the gate. They are the
    same while every update meets the gate (`every` = 1). Else the walk goes on from what select likes, and the gate judges
    several updates together against what was committed before them: all of them stay, or none. To the gate that is one
    proposal, fixed before its examples were seen, like any other.
    """

    def __init__(self, bench: Bench, racing: Race, gating: Gate, every: int = 1) -> None:
        """every: updates between tests of the gate; 0: only `end` tests."""
        self.bench, self.racing, self.gating, self.every = bench, racing, gating, every
        self.centre: Step = ()
        self.committed: Step = ()
        self.attempts: list[Attempt] = []
        self._waiting: list[int] = []  # places of the attempts that moved the centre and have not met the gate

    @property
    def history(self) -> tuple[bool, ...]:
        """The gate's verdicts so far, in order."""
        return verdicts(self.attempts)

    @property
    def open(self) -> bool:
        """Whether the gate may be met again."""
        return len(self.history) < self.gating.proposals

    def update(self, proposals: Sequence[Proposal]) -> bool:
        """Race the proposals and go on from the winner; whether the centre moved, and was not sent back by the gate.

        A winner that select does not prefer to the centre is not worth a test of the gate.
        """
        if not proposals:
            self.attempts.append(Attempt(None, None))
            return False
        raced = race(self.bench, self.centre, proposals, self.racing)
        if raced.gain <= 0:
            self.attempts.append(Attempt(raced.winner, None, raced))
            return False
        self.centre = add(self.centre, raced.winner.terms)
        self._waiting.append(len(self.attempts))
        verdict = self._met() if len(self._waiting) == self.every else None
        self.attempts.append(Attempt(raced.winner, verdict, raced))
        return verdict is None or verdict.committed

    def end(self) -> None:
        """Let the updates that have not met the gate meet it: a single one as itself, several as one proposal."""
        waiting = self._waiting
        if len(waiting) == 1:
            self.attempts[waiting[0]] = replace(self.attempts[waiting[0]], verdict=self._met())
        elif waiting:
            step = add(self.centre, scaled(self.committed, -1.0))
            proposal = Proposal(step, "walk", {"updates": len(waiting)})
            self.attempts.append(Attempt(proposal, self._met()))

    def _met(self) -> gate.Verdict:
        verdict = meet(self.bench, self.centre, self.committed, self.history, self.gating)
        if verdict.committed:
            self.committed = self.centre
        self.centre, self._waiting = self.committed, []
        return verdict


def _means(rewards: np.ndarray) -> np.ndarray:
    return rewards.mean(axis=1) if rewards.shape[1] else np.zeros(len(rewards))
