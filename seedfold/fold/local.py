"""Local rounds: sample around the new centre along what reproduced, fold, and go on.

A candidate is σ · (√λ · ε + √(1 − λ) · Σⱼ √κⱼ zⱼ bⱼ): fresh noise, and r directions bⱼ of the rewarded population with
energies κⱼ that sum to 1, so that both parts have the same energy in expectation and λ is the isotropic share. In terms of
covariances that is σ² (λ I + (1 − λ) C) with C of rank r and the energy of I.

The directions are those that change answers together: left singular vectors of the elite's centred effects, turned back
into combinations of the candidates' steps. (The covariance of the steps themselves has no directions but the single
seeds, which are orthogonal.) Rank and isotropic floor come from split halves: as many directions as reproduce between
halves of the population, and the share of their energy that does not between halves of the examples: what of a step
along them is noise anyway.

λ moves half-way to floor + (1 − floor) · (share of candidates that do not improve), from ½ at the start: the less the
directions help, the more isotropic. σ grows after an update and shrinks after a rejection. Candidates stay in the
population until the centre moves: those of a rejected round tell its slope as well as new ones do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from seedfold.diagnose import split_half
from seedfold.diagnose.density import above_margin
from seedfold.fold.attempt import Operator, Walk, cost
from seedfold.fold.base import Array, Population, Step, add, scaled, step_of
from seedfold.fold.settings import Local
from seedfold.recipe import Term
from seedfold.search.population import seed


@dataclass(frozen=True)
class Shape:
    """Directions to sample along: (r, A) unit vectors over the axes, their energies (r,), and the isotropic floor."""

    axes: tuple[tuple[str, int], ...]
    directions: Array
    energies: Array
    floor: float


def rounds(walk: Walk, population: Population, operator: Operator, settings: Local) -> tuple[dict[str, Any], ...]:
    """Rounds until patience, the number of rounds, the gate's proposals or the budget end; a record of each.

    Args:
        walk: where the fold stands; it is moved.
        population: the last one that was scored, which shapes the first round; its steps are from its own incumbent.
    """
    bench = walk.bench
    before = bench.spent
    sigma = settings.sigma or population.size
    lam = improving = 0.5
    details: list[dict[str, Any]] = []
    rejected = 0
    around: Step | None = None  # where the population's rounds were drawn
    for number in range(settings.rounds):
        if rejected >= settings.patience or not walk.open:
            break
        scoring = (settings.candidates + 1) * bench.sizes["search"]
        if settings.budget and bench.spent - before + scoring > settings.budget:
            break
        form = shape(population, settings)
        lam = (max(lam, form.floor) + form.floor + (1 - form.floor) * (1 - improving)) / 2
        steps = sample(form, sigma, lam, settings, number)
        base = bench.incumbent(walk.centre, "search")
        drawn = Population(tuple(steps), bench.rewards([add(walk.centre, step) for step in steps], "search"), base)
        improving = float(above_margin(drawn.scores.prior_mean, drawn.scores.prior_sd, 0.0))
        population = joined(population, drawn) if walk.centre == around else drawn
        around = walk.centre
        proposals = operator(population)
        if settings.budget and bench.spent - before + cost(bench, len(proposals), walk.racing) > settings.budget:
            break
        moved = walk.update(proposals)
        details.append(
            {
                "round": number,
                "sigma": sigma,
                "lambda": lam,
                "floor": form.floor,
                "rank": len(form.energies),
                "improving": improving,
                "moved": moved,
            }
        )
        rejected = 0 if moved else rejected + 1
        sigma *= settings.sigma_up if moved else settings.sigma_down
    return tuple(details)


def joined(one: Population, other: Population) -> Population:
    """Both populations, which are around the same incumbent and answered the same examples."""
    return Population(one.terms + other.terms, np.concatenate([one.rewards, other.rewards]), one.base)


def shape(population: Population, settings: Local) -> Shape:
    """The rewarded population's directions, with automatic rank and floor where the settings leave them open."""
    population = unpaired(population)
    effects = population.effects
    effects = effects[:, ~np.isnan(effects).any(axis=0)]
    rank, floor = settings.rank, settings.floor
    if not (rank and floor):
        enough = min(effects.shape) >= 8
        told = (
            split_half.rank(effects, population.groups, settings.max_rank, seed=settings.seed) if enough else (0, 0.0)
        )
        rank, floor = rank or told[0], floor or 1 - told[1]
    elite = population.slopes >= np.quantile(population.slopes, settings.elite)
    left, values, _ = np.linalg.svd(effects[elite] - effects[elite].mean(axis=0), full_matrices=False)
    rank = min(rank, int((values > 1e-9 * max(float(values[0]), 1e-300)).sum()))
    if not rank:
        return Shape(population.axes, np.zeros((0, len(population.axes))), np.zeros(0), 1.0)
    directions = (left[:, :rank] / population.sizes[elite][:, None]).T @ population.matrix[np.flatnonzero(elite)]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Shape(population.axes, directions, values[:rank] ** 2 / float((values[:rank] ** 2).sum()), floor)


def sample(form: Shape, sigma: float, lam: float, settings: Local, number: int) -> list[Step]:
    """The candidates of round `number`, steps from the centre. Without directions all energy is isotropic."""
    rng = np.random.default_rng((settings.seed, number))
    count = settings.candidates
    isotropic = sigma * math.sqrt(lam if len(form.energies) else 1.0)
    z = rng.normal(size=(count, len(form.energies))) * np.sqrt(form.energies)
    shared = sigma * math.sqrt(1 - lam) * z @ form.directions
    return [
        add((Term(settings.family, seed(settings.seed, number * count + i), isotropic),), step_of(form.axes, shared[i]))
        for i in range(count)
    ]


def unpaired(population: Population) -> Population:
    """Antithetic pairs as one candidate each, with half the difference of their effects; others as they are.

    Plus and minus the same noise are no independent witnesses, and would reproduce each other's structure.
    """
    place = {step: number for number, step in enumerate(population.terms)}
    terms, rewards, done = [], [], set()
    for number, step in enumerate(population.terms):
        if number in done:
            continue
        twin = place.get(scaled(step, -1.0))
        mine = population.rewards[number]
        if twin is not None and twin != number:
            done.add(twin)
            mine = population.base + (mine - population.rewards[twin]) / 2
        terms.append(step)
        rewards.append(mine)
    return Population(tuple(terms), np.array(rewards), population.base)
