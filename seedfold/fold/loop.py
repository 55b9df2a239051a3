"""The whole fold: a first update from the searched population, then local rounds; what stays has passed the gate."""

from __future__ import annotations

from seedfold.fold import local
from seedfold.fold.attempt import Folded, Operator, Walk
from seedfold.fold.base import Bench, Population
from seedfold.fold.settings import Gate, Local, Race


def fold(
    bench: Bench,
    population: Population,
    operator: Operator,
    racing: Race,
    gating: Gate,
    rounds: Local,
) -> Folded:
    """Fold a population that was scored around the pretrained base.

    Args:
        bench: asks for rewards on search, select and gate. `evaluations` counts what is asked here, not the population's.
        operator: proposals from a population, e.g. ``lambda population: corp.proposals(population, settings)``.
        rounds: local rounds; `rounds.rounds` = 0 for the first update alone.
    """
    before = bench.spent
    walk = Walk(bench, racing, gating.planned(rounds.tests), rounds.gate_every)
    walk.update(operator(population))
    details = local.rounds(walk, population, operator, rounds)
    walk.end()
    return Folded(walk.committed, tuple(walk.attempts), bench.spent - before, details)
