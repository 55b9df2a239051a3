"""Who does what: the units of a run, the queue of those nobody has, and what becomes of those whose engine ended.

No processes and no threads in here; `pool.Pool` holds its lock meanwhile.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from seedfold.engines.base import Answer, Job, Prompt
from seedfold.errors import UserError

TOO_MANY = 3
"""Units set aside, and more than were finished: then it is not the units, and the run ends."""

NOTHING: frozenset[tuple[int, int]] = frozenset()
"""What is left of every unit that is done: one object, for there may be 100,000 units."""


class Holder(Protocol):
    """What is known of an engine's work. width: units that it does at once. run, lists: the last run it had work of, and
    the prompt lists it has of that. assignments: what it is to do, in order: number -> units."""

    width: int
    run: int
    lists: set[int]
    assignments: dict[int, list[Unit]]


@dataclass(eq=False)
class Unit:
    """A job or, of one with many samples, a part. accounts: how engines ended that were at it."""

    number: int
    of: int
    job: Job
    accounts: list[str] = field(default_factory=list)
    left: frozenset[tuple[int, int]] | None = None
    """(index, sample) that has not arrived; None before anyone has the unit."""

    def wanted(self) -> frozenset[tuple[int, int]]:
        if self.left is None:
            self.left = frozenset(self._pairs()) - self.job.done
        return self.left

    def done(self) -> frozenset[tuple[int, int]]:
        """What need not be answered, again or at all."""
        wanted = self.wanted()
        return frozenset(pair for pair in self._pairs() if pair not in wanted)

    def known(self) -> bool:
        """Whether all of it was known before."""
        return all(pair in self.job.done for pair in self._pairs())

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return itertools.product(range(len(self.job.prompts)), self.job.decoding.samples)


class Run:
    """One call of `Pool.run`: units nobody has yet, and answers nobody has taken.

    Args:
        number: of the run.
        at_once: answers that an engine generates at once. A unit is at least so many, if the job is: its samples are shared
            out by that alone, so that batches are the same whoever and how many answer.
    """

    def __init__(self, number: int, jobs: Sequence[Job], at_once: int) -> None:
        self.number = number
        self.lists: dict[int, tuple[int, Sequence[Prompt]]] = {}  # id of a prompt list -> its number and itself
        self.units: list[Unit] = []
        for of, job in enumerate(jobs):
            self.lists.setdefault(id(job.prompts), (len(self.lists), job.prompts))
            size, samples = max(1, -(-at_once // max(1, len(job.prompts)))), job.decoding.samples
            for first in range(0, len(samples), size):
                part = replace(job, decoding=replace(job.decoding, samples=samples[first : first + size]))
                unit = Unit(len(self.units), of, part if len(samples) > size else job)
                if not unit.known():
                    self.units.append(unit)
        self.queue = deque(self.units)
        self.left = len(self.units)
        self.aside: list[Unit] = []
        self.arrived: deque[tuple[int, list[Answer]]] = deque()
        self.waiting = 0
        self.error: Exception | None = None

    def share(self, holder: Holder, ready: Sequence[Holder], depth: int) -> int:
        """Units to give an engine now, one of those that are ready: what it does at once, and at depth 1 as much again,
        that it need not wait for. The last units are for whoever is free first."""
        busy = sum(1 for units in holder.assignments.values() for unit in units if unit.wanted())
        spare = len(self.queue) >= sum(other.width for other in ready) if depth else True
        return min(len(self.queue), max(0, (depth + 1) * holder.width - busy)) if spare else 0

    def assign(self, holder: Holder, size: int, number: int) -> tuple[Any, ...]:
        """Give an engine the next units, so many, as assignment `number`; the message that tells it."""
        units = [self.queue.popleft() for _ in range(size)]
        if holder.run != self.number:
            holder.run, holder.lists = self.number, set()
        needed = dict(self.lists[id(unit.job.prompts)] for unit in units)
        new = {key: list(prompts) for key, prompts in needed.items() if key not in holder.lists}
        holder.lists.update(new)
        holder.assignments[number] = units
        told = [
            (unit.number, unit.job.recipe, self.lists[id(unit.job.prompts)][0], unit.job.decoding, unit.done())
            for unit in units
        ]
        return "work", self.number, number, new, told

    def hear(self, number: int, answers: Sequence[Answer]) -> bool:
        """Keep what is new of some answers to a unit; whether that completes it."""
        unit = self.units[number]
        wanted = unit.wanted()
        fresh = [answer for answer in answers if (answer.index, answer.sample) in wanted]
        if not fresh:
            return False
        unit.left = wanted - {(answer.index, answer.sample) for answer in fresh} or NOTHING
        self.arrived.append((unit.of, fresh))
        self.waiting += len(fresh)
        self.left -= not unit.left
        return not unit.left

    def take(self) -> list[tuple[int, list[Answer]]]:
        """What has arrived, job by job: fewer, larger batches for who is slower than the engines."""
        merged: dict[int, list[Answer]] = {}
        for number, answers in self.arrived:
            merged.setdefault(number, []).extend(answers)
        self.arrived.clear()
        self.waiting = 0
        return list(merged.items())

    def back(self, holder: Holder, account: str, retries: int) -> list[Unit]:
        """The engine ended: its units go to the front of the queue, without what has arrived.

        What it was at (the first units, as many as it does at once) may have ended it: that goes back `retries` times.

        Returns:
            units that are set aside now.
        """
        units = [unit for units in holder.assignments.values() for unit in units if unit.wanted()]
        holder.assignments.clear()
        aside = []
        for unit in units[: holder.width]:
            unit.accounts.append(account)
            if len(unit.accounts) > retries:
                aside.append(unit)
        self.queue.extendleft(unit for unit in reversed(units) if unit not in aside)
        self.aside += aside
        self.left -= len(aside)
        if len(self.aside) >= TOO_MANY and len(self.aside) > len(self.units) - self.left - len(self.aside):
            self.error = self.account()
        return aside

    def account(self) -> UserError | None:
        """What was set aside, and why; None if nothing was."""
        if not self.aside:
            return None
        first = self.aside[0]
        return UserError(
            f"{len(self.aside)} of {len(self.units)} pieces of work were set aside, because every engine that was at them "
            f'ended, "engine.retries" and once more; the first was {called(first)}, and last {first.accounts[-1]}; all '
            "else that was answered is recorded: mend that, and run the same command again"
        )


def called(unit: Unit) -> str:
    """What a unit is called in messages."""
    recipe = unit.job.recipe
    whose = "the base" if recipe is None or not recipe.terms else f"recipe {recipe.key}"
    return f"{whose} on {len(unit.job.prompts)} prompts"
