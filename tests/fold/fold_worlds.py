"""Simulated models: rewards as a known function of the step, so that a fold's true gain is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seedfold.fold.base import Bench, Population, Step
from seedfold.recipe import Term

SIZES = {"search": 64, "select": 64, "gate": 128, "test": 256}


def normals(*keys: object) -> np.ndarray:
    """Standard normal numbers, a function of integer arrays that broadcast: splitmix64, then Box and Muller."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for key in keys:
            state = _mix(
                _mix(np.asarray(key).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15) * (state + np.uint64(1))
            )
        u, v = _mix(state + np.uint64(1)), _mix(state + np.uint64(2))
    unit = [(x >> np.uint64(11)).astype(np.float64) / 2.0**53 for x in (u, v)]
    return np.sqrt(-2 * np.log(1 - unit[0])) * np.cos(2 * np.pi * unit[1])


def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class World:
    """Reward of a step δ = Σ cₖ·axisₖ on an example: base + gain(δ) + idiosyncrasy.

    gain(δ) = slope · Σ cₖ gₖ − curvature · ‖δ‖², gₖ standard normal, one per seed.
    Idiosyncrasy is linear in δ too, with one independent normal slope (`spread`) per seed and example, so that true gain
    is the mean over infinitely many examples. `binary`: a right-or-wrong answer with that chance instead, drawn anew for
    every recipe and example.
    """

    def __init__(self, seed: int, slope=0.0, curvature=0.0, spread=0.0, binary=False, sizes=SIZES) -> None:
        self.seed, self.slope, self.curvature, self.spread, self.binary = seed, slope, curvature, spread, binary
        self.sizes = dict(sizes)

    def gain(self, step: Step) -> float:
        if not self.slope:
            return -self.curvature * sum(term.scale**2 for term in step)
        seeds, c = _arrays(step)
        return float(self.slope * (c @ normals(self.seed, seeds)) - self.curvature * (c @ c))

    def __call__(self, steps: Sequence[Step], split: str, examples: np.ndarray) -> np.ndarray:
        number = np.asarray(examples) + 1_000_000 * (1 + list(self.sizes).index(split))
        base = 0.5 + 0.15 * np.clip(normals(self.seed + 1, number), -2, 2)
        found = base + np.array([self.gain(step) for step in steps])[:, None]
        if self.spread:
            for row, step in enumerate(steps):
                seeds, c = _arrays(step)
                found[row] += self.spread * (c @ normals(self.seed + 2, seeds[:, None], number)) if len(c) else 0.0
        if self.binary:
            from scipy.special import ndtr

            # Numbers hash alike in every run.
            keys = [hash(tuple((term.seed, term.scale) for term in step)) & (2**63 - 1) for step in steps]
            found = (ndtr(normals(self.seed + 3, np.array(keys)[:, None], number)) < found).astype(float)
        return found

    def bench(self) -> Bench:
        return Bench(self, self.sizes)

    def population(self, count: int, sigma: float | Sequence[float] = 1.0, examples: int | None = None) -> Population:
        """`count` candidates around the base, scored on search."""
        sigmas = np.resize(np.atleast_1d(sigma), count).tolist()
        terms = tuple((Term("rademacher", 1000 + number, scale),) for number, scale in enumerate(sigmas))
        which = np.arange(examples or self.sizes["search"])
        return Population(terms, self(terms, "search", which), self([()], "search", which)[0])


def _arrays(step: Step) -> tuple[np.ndarray, np.ndarray]:
    return np.array([term.seed for term in step], dtype=np.uint64), np.array([term.scale for term in step], dtype=float)
