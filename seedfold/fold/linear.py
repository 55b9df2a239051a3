"""The signed fold over the whole population: weights proportional to the centred, shrunken scores.

Where effects are linear, candidate i of size σᵢ along the unit direction uᵢ gains σᵢ · g·uᵢ for one slope vector g.
Independent directions are orthogonal, so the step of a given size that gains most in expectation is along the posterior
mean of g: Σ ĝᵢ uᵢ with ĝᵢ = (shrunken score − its size's mean) / σᵢ, negative ones included. No choice of weights on
these scores has a greater expected gain (Cauchy–Schwarz); a fold with weights of one sign reaches at most √½ of it, and
a softmax e^(βz) of normal scores β e^(−β²/2) of it, at most 0.61 (docs/fold.md).

Forecast: a step of one perturbation's size gains √N · √r · sd(true effects), r the reliability, on top of the curvature,
the population's mean effect. Steps that break answers break gained ones too: of the gain the share is kept that a step of
that size keeps of the base's reward. Without that, forecasts at twice the size were wrong by an order
(docs/RESEARCH_LOG.md, 2026-11-28). And no step gains more than there is to gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from seedfold.fold.base import Population, Proposal
from seedfold.fold.settings import Linear


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected gain of a signed step, in units of reward."""

    slope: float  # what the scores promise, were effects linear
    curvature: float  # what a step of that size loses (or gains) in any direction
    kept: float = 1.0  # share of the base's reward that a step of that size keeps, in any direction
    most: float = math.inf  # what there is to gain: every answer as good as the best one seen

    @property
    def gain(self) -> float:
        return min(self.kept * self.slope + self.curvature, self.most)


def forecast(population: Population, size: float) -> Forecast:
    """Forecast for the signed step of norm `size`.

    slope = size · k · ‖c‖ with c = Σ ĝᵢ uᵢ; k fits the slopes that c implies to the ĝᵢ: 1 for independent directions,
    ½ for antithetic pairs, which tell the same slope twice. For N equal sizes that is √N · √r · sd(true effects).
    curvature = size² · (mean effects regressed on σ² through the origin).
    """
    scores, sizes = population.scores, population.sizes
    curvature = size**2 * float(scores.centre @ sizes**2 / (sizes**2 @ sizes**2))
    kept = _kept(population, curvature)
    most = max(float(np.nanmax(population.rewards)), float(population.base.max())) - float(population.base.mean())
    if not population.deviations.any():
        return Forecast(0.0, curvature, kept, most)
    c = population.slopes / sizes @ population.matrix
    implied = (population.matrix @ c) / sizes
    return Forecast(size * float(c @ c) * float(np.linalg.norm(c)) / float(implied @ implied), curvature, kept, most)


def _kept(population: Population, curvature: float) -> float:
    """1 where nothing is lost, or where rewards can be negative, so that a share of them means nothing."""
    reward = float(population.base.mean())
    if reward <= 0 or np.nanmin(population.rewards) < 0 or population.base.min() < 0:
        return 1.0
    return min(1.0, max(0.0, 1.0 + curvature / reward))


def proposals(population: Population, settings: Linear) -> list[Proposal]:
    """One proposal per step size; none if all scores are equal."""
    found = []
    for step in settings.steps:
        size = step * population.size
        terms = population.combine(population.slopes, size)
        if terms:
            found.append(Proposal(terms, "linear", {"step": step}, forecast(population, size).gain))
    return found
