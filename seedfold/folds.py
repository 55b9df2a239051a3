"""The folds of a study: operators that know no model meet its engine, its splits and its journal.

Every evaluation of every proposal is an answer in the journal, so that a fold that was interrupted goes on where it was:
the operators run again from the start, and what they ask is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seedfold import dense
from seedfold.fold import corp, evolution, linear, loop, released_corp
from seedfold.fold.attempt import FINALISTS, Attempt, Folded
from seedfold.fold.base import Array, Bench, Population, Proposal, Step
from seedfold.fold.settings import Gate
from seedfold.recipe import Recipe
from seedfold.search import racing

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.evaluate import Evaluator
    from seedfold.splits import Splits


DRAWN = "answers of the base"
"""What dense scores ask for, in a plan."""


@dataclass(frozen=True)
class Fold:
    """Where one method ended: `recipe` is the base's where nothing was committed.

    evaluations, tokens: answers, and tokens in them, that the method asked for beyond the search, answers it shares
    with another method included.
    """

    method: str
    folded: Folded
    recipe: Recipe
    evaluations: int
    tokens: int

    @property
    def committed(self) -> bool:
        return bool(self.folded.terms)

    def to_dict(self) -> dict[str, Any]:
        """For the record, in plain JSON types."""
        return {
            "method": self.method,
            "committed": self.committed,
            "terms": len(self.recipe.terms),
            "size": self.recipe.norm(),
            "evaluations": self.evaluations,
            "tokens": self.tokens,
            "attempts": [_told(attempt) for attempt in self.folded.attempts],
            "rounds": [dict(detail) for detail in self.folded.details],
        }


def run(
    evaluator: Evaluator,
    config: Config,
    splits: Splits,
    graded: Population,
    candidates: Sequence[Recipe],
    base: Recipe,
) -> list[Fold]:
    """Fold the population by each method of the config, one after the other, each from the base.

    Args:
        graded: the candidates and their scores on search, around the base.
        candidates: their recipes: which tensors, scale and rounding their noise has, the folds have too.
        base: the recipe without terms.
    """
    scored = graded
    if config.fold.score != config.search.score:  # else the search has scored them so
        _, table = dense.score(evaluator, config, config.fold.score, splits.search, base, candidates)
        scored = Population(graded.terms, table[1:], table[0])
    populations = {method: graded if method == "released_corp" else scored for method in config.fold.methods}
    return [
        _fold(method, evaluator, config, splits, population, candidates[0], base)
        for method, population in populations.items()
    ]


def _fold(
    method: str,
    evaluator: Evaluator,
    config: Config,
    splits: Splits,
    population: Population,
    candidate: Recipe,
    base: Recipe,
) -> Fold:
    tokens = 0

    def recipe(step: Step) -> Recipe:
        return dataclasses.replace(candidate, terms=step, source=source) if step else base

    def evaluate(steps: Sequence[Step], split: str, examples: NDArray[np.intp]) -> Array:
        nonlocal tokens
        different = list(dict.fromkeys(recipe(step) for step in steps))
        asked = [getattr(splits, split)[i] for i in examples.tolist()]
        answered = dict(zip(different, evaluator.greedy_many(different, asked), strict=True))
        rows = [answered[recipe(step)] for step in steps]
        tokens += sum(row.tokens for line in rows for row in line)
        return np.array([[row.reward for row in line] for line in rows], dtype=np.float64)

    source: dict[str, Any] = {"study": config.name, "method": method}
    bench = Bench(evaluate, {name: len(getattr(splits, name)) for name in ("search", "select", "gate")})
    evaluator.progress.enter(f"fold: {method}")
    folded = operate(method, bench, population, config)
    source = source | {"evaluations": folded.evaluations}
    return Fold(method, folded, recipe(folded.terms), folded.evaluations, tokens)


def operate(method: str, bench: Bench, population: Population, config: Config) -> Folded:
    """Let one method propose and be judged; see `seedfold.fold`."""
    chosen, gate = config.fold, gate_of(config)
    if method == "released_corp":
        return released_corp.run(population, bench, chosen.released_corp)
    if method == "evolution":
        return evolution.run(bench, chosen.evolution.sized(population.size), gate)

    def propose(scored: Population) -> list[Proposal]:
        if method == "linear":
            found = linear.proposals(scored, chosen.linear)
        else:
            found = corp.proposals(scored, chosen.corp)
        # Dense scores are in nats, and so would the forecast be.
        nats = chosen.score != "reward" and scored is population
        return [dataclasses.replace(proposal, forecast=None) for proposal in found] if nats else found

    return loop.fold(bench, population, propose, chosen.race, gate, chosen.local)


def gate_of(config: Config) -> Gate:
    """The gate that each method meets: they share the examples, and so the level, in equal parts (a union bound)."""
    return dataclasses.replace(config.fold.gate, level=config.fold.gate.level / max(1, len(config.fold.gated)))


def planned(config: Config) -> dict[str, int]:
    """Answers that each method asks for, at most; and those that the base draws for dense scores."""
    drawn = config.fold.samples * config.splits.search
    shared = {DRAWN: drawn} if config.fold.methods and config.fold.score != "reward" else {}
    return shared | {method: _planned(method, config) for method in config.fold.methods}


def _planned(method: str, config: Config) -> int:
    fold, sizes = config.fold, config.splits
    if method == "evolution":
        own = fold.evolution
        batch = min(own.batch or sizes.search, sizes.search)
        return own.iterations * own.candidates * batch + (own.tests + 1) * sizes.gate
    if method == "released_corp":
        old = fold.released_corp
        probe, swept = min(old.probe, sizes.select), len(old.quantiles) * len(old.betas)
        local = sizes.search + old.candidates * -(-sizes.search // 2) + swept * len(old.etas) * sizes.search
        return swept * len(old.scales) * probe + old.rounds * (local + (len(old.line) + 1) * probe)
    grid = fold.corp
    entrants = len(fold.linear.steps)
    if method == "corp":
        entrants = len(grid.quantiles) * len(grid.betas) * len(grid.steps) * len(grid.weights) * len(grid.geometry)
    schedule = racing.schedule(entrants, sizes.select, fold.race.block, fold.race.keep, FINALISTS)
    one = racing.evaluations(schedule) + sizes.select + 2 * sizes.gate
    local = (fold.local.candidates + 1) * sizes.search + one
    spent = fold.local.rounds * local
    return one + (min(spent, fold.local.budget) if fold.local.budget else spent)


def _told(attempt: Attempt) -> dict[str, Any]:
    """One proposed update: what it was, how it did on select, and what the gate said."""
    proposal, raced, verdict = attempt.proposal, attempt.raced, attempt.verdict
    return {
        "settings": dict(proposal.settings) if proposal else None,
        "forecast": proposal.forecast if proposal else None,
        "select_gain": raced.gain if raced else None,
        "entrants": raced.entrants if raced else None,
        "gate": None if verdict is None else dataclasses.asdict(verdict),
        "committed": attempt.committed,
    }
