"""The diagnostics of a whole study: read its folder, ask for what is missing, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seedfold import stats
from seedfold.diagnose import dense, merges, selectors, split_half, transfer
from seedfold.diagnose.answers import answer, sketched
from seedfold.diagnose.saved import Array, Saved
from seedfold.progress import Progress
from seedfold.recipe import combine

RESAMPLES = 2000
"""Of bootstraps over candidates, at most: each ranks the whole population anew."""


def halves(
    saved: Saved, most: int = 8, elite: float = 0.5, permutations: int = 199, sketch: int = 0, seed: int = 0
) -> split_half.SplitHalf:
    """Split-half of a study; `sketch`: about how many weights to look at for weight space, 0: coefficients."""
    population = saved.independent
    gram = population.gram
    if sketch:
        place = {recipe.terms: recipe for recipe in saved.recipes}
        gram = sketched(saved, [place[step] for step in population.terms], sketch)
    level = 1 - saved.config.stats.level
    return split_half.measure(population.effects, population.sizes, gram, most, elite, permutations, level, seed)


@dataclass(frozen=True, eq=False)
class Transferred:
    """held: (candidates, held-out examples) rewards. references: how many of the search examples have one, and of all."""

    told: transfer.Transfer
    held: Array
    selectors: list[selectors.Selector]
    references: tuple[int, int] | None
    dense_reliability: transfer.Reliability | None


def transferred(
    saved: Saved,
    split: str = "select",
    logprobs: bool = True,
    column: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> Transferred:
    """All candidates on the held-out split, and on reference answers to both; then what that tells.

    logprobs, column: whether to ask for the log-probabilities of reference answers, and of which (`dense`).
    """
    progress = progress or Progress(quiet=True)
    examples, settings = saved.examples(split), saved.config.stats
    if column:
        dense.references(saved, examples, column)  # one that is not there is refused before anything is asked
    held = answer(saved, "transfer", [saved.base, *saved.recipes], examples, progress)
    labels = saved.sigmas
    told = transfer.measure(
        saved.rewards,
        saved.base_rewards,
        held[1:],
        held[0],
        saved.sigmas,
        settings.level,
        min(settings.resamples, RESAMPLES),
        seed,
    )
    whole = saved.complete
    one, other = selectors.Slice(whole.rewards, whole.base), selectors.Slice(held[1:], held[0])
    references = trust = None
    if logprobs:
        search = [saved.dealt.splits.search[i] for i in saved.asked]
        everything = [*search, *examples]
        texts = dense.references(saved, everything, column)
        found = dense.logprobs(saved, texts, everything, progress, column)
        if found is not None:
            effects = found[0] - found[1]
            known = np.flatnonzero(~np.isnan(effects).any(axis=0))
            there = known[known < len(search)]
            one = one._replace(dense=effects[:, : len(search)])
            other = other._replace(dense=effects[:, len(search) :])
            references = len(there), len(known)
            trust = transfer.reliability(effects[:, there], labels, settings.level)
    resamples = min(settings.resamples, RESAMPLES)
    compared = selectors.compare(one, other, labels, settings.level, resamples, seed)
    return Transferred(told, held[1:], compared, references, trust)


def merged(
    saved: Saved,
    split: str = "select",
    families: Sequence[str] = ("top", "random", "bottom"),
    operators: Sequence[str] = ("average", "norm", "sum"),
    sizes: Sequence[int] = (2, 4),
    weights: Sequence[Sequence[float]] = (),
    count: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> merges.Merges:
    """Merges of a study's candidates on the held-out split. An oracle family needs all candidates' answers there."""
    progress = progress or Progress(quiet=True)
    examples, settings = saved.examples(split), saved.config.stats
    recipes = saved.recipes
    seen = ~np.isnan(saved.rewards).all(axis=0)
    shrunk = stats.shrink((saved.rewards - saved.base_rewards)[:, seen], saved.sigmas)
    oracle = None
    if any(family.startswith("oracle") for family in families):
        oracle = answer(saved, "transfer", [saved.base, *recipes], examples, progress)[1:].mean(axis=1)
    # Where no reliable difference is left, the mean breaks ties.
    score = shrunk.shrunk + 1e-6 * shrunk.mean
    plan = merges.plan(score, families, operators, sizes, weights, count, oracle, seed, saved.population.gram)
    made = [combine([recipes[i] for i in merge.parents], merge.weights) for merge in plan]
    used = sorted({i for merge in plan for i in merge.parents})
    rewards = answer(saved, "merges", [saved.base, *(recipes[i] for i in used), *made], examples, progress)
    parents = np.full((len(recipes), len(examples)), np.nan)
    parents[used] = rewards[1 : 1 + len(used)]
    return merges.analyse(plan, rewards[1 + len(used) :], parents, rewards[0], settings.level, settings.resamples, seed)
