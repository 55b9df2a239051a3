"""A comparison of noise families as it is run: every arm answers the same search and held-out examples.

Answers are kept in the journal of the folder `families` below the study's. It is bound to the model, the task, the splits
and the engine, not to the arms: more seeds, sizes or arms ask only for what is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedfold import stats
from seedfold.config import Config, Search, Stats
from seedfold.diagnose import families, steps
from seedfold.diagnose.arms import Arm, Cell, drawn, sized
from seedfold.diagnose.saved import base_of, rewards_of
from seedfold.engines import opened
from seedfold.errors import UserError
from seedfold.evaluate import Evaluator, check_room
from seedfold.fold import linear
from seedfold.fold.base import Population
from seedfold.fold.settings import Fold
from seedfold.journal import Journal
from seedfold.progress import Progress
from seedfold.recipe import Recipe
from seedfold.splits import Dealt, deal
from seedfold.study import base_recipe, same_material, token_limit
from seedfold.tasks.base import Example
from seedfold.weights import Weights

Array = NDArray[np.float64]
FOLDER = "families"
Key = tuple[str, float]
"""An arm and its σ."""


@dataclass(frozen=True)
class FoldPair:
    """Realised folds of two arms, each at the σ that search chose, on the same examples."""

    one: str
    other: str
    difference: stats.Paired
    p_holm: float


@dataclass(frozen=True)
class Trial:
    """What came of it. base: its mean reward on search and on the held-out split."""

    told: families.Told
    split: str
    base: tuple[float, float]
    examples: tuple[int, int]
    answers: int
    sizes: dict[Key, steps.Size]
    forecasts: dict[Key, float]  # of the linear fold of one seed's size
    folds: dict[Key, stats.Paired]  # what it realised, over the base; empty unless asked for
    fold_pairs: list[FoldPair]


def run(
    chosen: Config,
    folder: Path,
    arms: Sequence[Arm],
    seeds: int,
    split: str = "select",
    by: str = "quarter",
    against: str = "",
    fold: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trial:
    """Compare arms, or go on with a comparison.

    Args:
        folder: the study's; there need be no study in it.
        seeds: of each arm at each of its sizes.
        split: the held-out examples.
        by, against, seed: see `families.compare`.
        fold: also let the linear fold of each arm and size, of one seed's size, answer the held-out examples.

    Raises:
        UserError: anything that is the user's to mend.
    """
    progress = progress or Progress(quiet=True)
    if against and against not in (arm.label for arm in arms):
        raise UserError(f'"--against" is "{against}", which is no arm; use {", ".join(arm.label for arm in arms)}')
    dealt = deal(chosen)
    search, held = dealt.splits.search, getattr(dealt.splits, split)
    if not held:
        raise UserError(f'"--split" is {split}, which has no examples; use select or test')
    with Journal.open(folder / FOLDER, _bound(chosen)) as journal, ExitStack() as stack:
        asked = _Asked(chosen, dealt, journal, progress, stack)
        weights = _Weights(chosen, asked.base, progress)
        cells = drawn(
            _sized(arms, chosen, asked.base, journal, weights), chosen, asked.base.base, asked.base.dtype, seeds
        )
        everyone = [recipe for cell in cells for recipe in cell.recipes]
        progress.expect((1 + len(everyone)) * (len(search) + len(held)) + fold * len(cells) * len(held))
        asked.learn(search)
        rewards = asked.rewards([asked.base, *everyone], [*search, *held], FOLDER)
        base, effects = rewards[0], (rewards[1:] - rewards[0]).reshape(len(cells), seeds, -1)
        scored = [
            families.Scored(cell.arm, cell.sigma, own[:, : len(search)], own[:, len(search) :])
            for cell, own in zip(cells, effects, strict=True)
        ]
        resamples = min(chosen.stats.resamples, 2000)
        told = families.compare(scored, base[len(search) :], by, against, chosen.stats.level, resamples, seed)
        keys = [(cell.arm, cell.sigma) for cell in cells]
        populations = {
            key: Population(tuple(r.terms for r in cell.recipes), base[: len(search)] + own.search, base[: len(search)])
            for key, cell, own in zip(keys, cells, scored, strict=True)
        }
        folded = _folds(asked, cells, populations, held) if fold else {}
        sizes = _sizes(cells, journal, weights)
        progress.close()
    on_held = base[len(search) :]
    level, draws = chosen.stats.level, chosen.stats.resamples
    return Trial(
        told=told,
        split=split,
        base=(float(base[: len(search)].mean()), float(on_held.mean())),
        examples=(len(search), len(held)),
        answers=len({recipe.key for recipe in everyone}) * len(base) + len(base) + len(folded) * len(held),
        sizes=dict(zip(keys, sizes, strict=True)),
        forecasts={key: linear.forecast(population, key[1]).gain for key, population in populations.items()},
        folds={key: stats.paired(found, on_held, level, draws, seed) for key, found in folded.items()},
        fold_pairs=_fold_pairs(told, folded, against, level, draws, seed),
    )


def _bound(chosen: Config) -> dict[str, object]:
    """What decides an answer, given its recipe."""
    return dataclasses.replace(chosen, name=FOLDER, search=Search(), fold=Fold(), stats=Stats()).binding()


class _Asked:
    """Answers from the journal, or from an engine that is opened when the first one is missing."""

    def __init__(self, chosen: Config, dealt: Dealt, journal: Journal, progress: Progress, stack: ExitStack) -> None:
        self.chosen, self.dealt, self.journal, self.progress, self._stack = chosen, dealt, journal, progress, stack

    @cached_property
    def evaluator(self) -> Evaluator:
        self.progress.say(f"loading {self.chosen.model.name}")
        engine = self._stack.enter_context(opened(self.chosen.model, self.chosen.engine))
        splits = self.dealt.splits
        found = Evaluator(engine, self.dealt.task, self.journal, self.progress)
        check_room(found, (*splits.search, *splits.select, *splits.gate, *splits.test))
        same_material(self.journal, engine, found, splits)
        return found

    @cached_property
    def base(self) -> Recipe:
        return base_of(self.journal) or base_recipe(self.chosen, self.evaluator.engine)

    def learn(self, examples: Sequence[Example]) -> None:
        """Let the base answer search under the configured limit, from which that of all other answers is learned."""
        if self.journal.noted("token_limit") is not None:
            return
        task = self.dealt.task
        rows = self.evaluator.greedy(self.base, examples)
        self.progress.done -= len(examples)  # they are counted again with the others
        self.journal.note("token_limit", token_limit(rows, task.max_tokens, self.chosen.task.limit))

    def rewards(self, recipes: Sequence[Recipe], examples: Sequence[Example], phase: str) -> Array:
        """(recipes, examples) rewards of greedy answers."""
        ids = [example.id for example in examples]
        found = rewards_of(self.journal, recipes, ids)
        if not np.isnan(found).any():
            self.progress.add(found.size, known=True)
            return found
        self.evaluator.limit = self.journal.noted("token_limit")["used"]
        self.progress.enter(phase)
        different = list({recipe.key: recipe for recipe in recipes}.values())
        self.evaluator.greedy_many(different, examples)
        return rewards_of(self.journal, recipes, ids)


def _folds(
    asked: _Asked, cells: Sequence[Cell], populations: dict[Key, Population], held: Sequence[Example]
) -> dict[Key, Array]:
    """(held-out examples,) rewards of each cell's linear fold of one seed's size; the base's where all scores are equal."""
    recipes = []
    for cell, population in zip(cells, populations.values(), strict=True):
        terms = population.combine(population.slopes, cell.sigma)
        recipes.append(
            dataclasses.replace(cell.recipes[0], terms=terms, source={**cell.recipes[0].source, "fold": "linear"})
        )
    return dict(zip(populations, asked.rewards(recipes, held, "linear folds"), strict=True))


def _fold_pairs(
    told: families.Told, folded: dict[Key, Array], against: str, level: float, resamples: int, seed: int
) -> list[FoldPair]:
    if not folded:
        return []
    places = told.places
    listed = [
        (one, other) for i, one in enumerate(places) for other in places[i + 1 :] if against in ("", one.arm, other.arm)
    ]
    found = [
        stats.paired(folded[one.arm, one.sigma], folded[other.arm, other.sigma], level, resamples, seed)
        for one, other in listed
    ]
    adjusted = stats.holm([item.p for item in found]) if found else ()
    return [
        FoldPair(one.arm, other.arm, item, float(p))
        for (one, other), item, p in zip(listed, found, adjusted, strict=True)
    ]


class _Weights:
    """The model's weights on the CPU, loaded when the first step is measured; what was measured is kept in the journal."""

    def __init__(self, chosen: Config, base: Recipe, progress: Progress) -> None:
        self.model, self.progress = dataclasses.replace(chosen.model, dtype=base.dtype), progress

    def measure(self, recipe: Recipe) -> steps.Size:
        return steps.measure(recipe, self._loaded)

    @cached_property
    def _loaded(self) -> Weights:
        self.progress.say("measuring the steps")
        return steps.weights_of(self.model)


def _sized(arms: Sequence[Arm], chosen: Config, base: Recipe, journal: Journal, weights: _Weights) -> list[Arm]:
    """The arms with sigmas in place of norms."""
    known = dict(journal.noted("units", {}))
    found = []
    for arm in arms:
        if arm.norms:
            unit = drawn([dataclasses.replace(arm, sigmas=(1.0,))], chosen, base.base, base.dtype, 1)[0].recipes[0]
            if unit.key not in known:
                known[unit.key] = weights.measure(unit).intended
                journal.note("units", known)
            arm = sized(arm, known[unit.key])
        found.append(arm)
    return found


def _sizes(cells: Sequence[Cell], journal: Journal, weights: _Weights) -> list[steps.Size]:
    """Of each cell's first seed."""
    known = dict(journal.noted("sizes", {}))
    for cell in cells:
        if cell.recipes[0].key not in known:
            known[cell.recipes[0].key] = dataclasses.asdict(weights.measure(cell.recipes[0]))
            journal.note("sizes", known)
    return [steps.Size(**known[cell.recipes[0].key]) for cell in cells]
