"""The whole fold: a first update from the searched population, then local rounds; every update passes the gate."""

from __future__ import annotations

from seedfold.fold import local
from seedfold.fold.attempt import Folded, Operator, attempt
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
    first = attempt(bench, (), operator(population), (), racing, gating)
    centre = first.proposal.terms if first.committed and first.proposal is not None else ()
    history = () if first.verdict is None else (first.committed,)
    if not rounds.rounds:
        return Folded(centre, (first,), bench.spent - before)
    rest = local.rounds(bench, centre, population, operator, rounds, racing, gating, history)
    return Folded(rest.terms, (first, *rest.attempts), bench.spent - before, rest.details)
