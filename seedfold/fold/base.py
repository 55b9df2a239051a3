"""What operators take and give: a scored population, and proposals.

A step is a tuple of recipe terms, added to the incumbent's. Sizes, norms and inner products are in coefficient space,
where every (family, seed) is an orthonormal axis: a step's norm is its root mean square per weight, in expectation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedfold import stats
from seedfold.recipe import Term

Array = NDArray[np.float64]
Step = tuple[Term, ...]


@dataclass(frozen=True)
class Proposal:
    """An update that an operator proposes: a step from the incumbent, and how it came about."""

    terms: Step
    operator: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # plain JSON types: q, beta, step …
    forecast: float | None = None  # of the gain, in units of reward, where the operator has one


@dataclass(frozen=True, eq=False)
class Population:
    """Candidates around one incumbent, scored on the same examples.

    Attributes:
        terms: N steps from the incumbent.
        rewards: (N, n) float64, NaN where a candidate was not asked (racing).
        base: (n,) float64, the incumbent's rewards on the same examples.

    Raises:
        ValueError: shapes that do not fit, a base with NaN, a candidate without any reward or of size 0.
    """

    terms: tuple[Step, ...]
    rewards: Array
    base: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(tuple(Term(*term) for term in step) for step in self.terms))
        object.__setattr__(self, "rewards", np.asarray(self.rewards, dtype=np.float64))
        object.__setattr__(self, "base", np.asarray(self.base, dtype=np.float64))
        if self.rewards.shape != (len(self.terms), *self.base.shape) or self.base.ndim != 1:
            raise ValueError(
                f"{len(self.terms)} candidates have rewards of shape {self.rewards.shape} and a base of {self.base.shape}"
            )
        if not np.isfinite(self.base).all():
            raise ValueError("the base's rewards must be finite, to be paired with")
        if not (self.sizes > 0).all():
            raise ValueError(f"candidate {int((self.sizes > 0).argmin())} has no step; leave it out")

    def __len__(self) -> int:
        return len(self.terms)

    @cached_property
    def axes(self) -> tuple[tuple[str, int], ...]:
        """The A different (family, seed), in order of first appearance."""
        return tuple(dict.fromkeys((term.family, term.seed) for step in self.terms for term in step))

    @cached_property
    def matrix(self) -> Any:
        """Coefficients of the candidates, a sparse (N, A) float64 array; a repeated axis of a step is summed."""
        from scipy.sparse import csr_array

        place = {axis: number for number, axis in enumerate(self.axes)}
        entries = [(i, place[t.family, t.seed], t.scale) for i, step in enumerate(self.terms) for t in step]
        rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        return csr_array((values, (rows, columns)), shape=(len(self), len(self.axes)), dtype=np.float64)

    @cached_property
    def sizes(self) -> Array:
        """(N,) norms of the steps."""
        return np.sqrt(np.asarray(self.matrix.multiply(self.matrix).sum(axis=1))).ravel()

    @property
    def size(self) -> float:
        """The median candidate's norm: the unit of an update's size."""
        return float(np.median(self.sizes))

    @property
    def gram(self) -> Array:
        """(N, N) inner products of the steps."""
        return np.asarray((self.matrix @ self.matrix.T).toarray())

    @property
    def groups(self) -> NDArray[np.intp]:
        """(N,) labels of the candidates' sizes; one label for all if a size is too rare to be judged apart."""
        label, count = np.unique([f"{size:.6g}" for size in self.sizes], return_inverse=True, return_counts=True)[1:]
        return label if count.min() >= stats.SMALL_GROUP else np.zeros(len(self), dtype=np.intp)

    @property
    def effects(self) -> Array:
        """(N, n) paired differences from the base, NaN where not asked."""
        return self.rewards - self.base

    @cached_property
    def scores(self) -> stats.Shrinkage:
        """Effects, shrunk within groups of equal size."""
        asked = ~np.isnan(self.rewards).all(axis=0)
        return stats.shrink(self.effects[:, asked], self.groups)

    @property
    def deviations(self) -> Array:
        """(N,) shrunken scores less the mean of their size; exactly 0 where no reliable difference was found."""
        return self._significant(self.scores.shrunk - self.scores.centre)

    @cached_property
    def slopes(self) -> Array:
        """(N,) deviations per unit of size: what a candidate's direction gains, its size's mean effect left out.

        With no reliable difference at all, their limit for vanishing reliability, up to a factor: the plain centred means,
        each by the number of its examples. The direction is then still the best there is; its forecast is 0.
        """
        deviations = self.deviations
        if not deviations.any():
            answered = (~np.isnan(self.rewards)).sum(axis=1)
            deviations = self._significant(self.scores.mean - self.scores.centre) * answered
        return np.asarray(deviations / self.sizes)

    def _significant(self, values: Array) -> Array:
        """Rounding errors of equal scores are no direction."""
        largest = max(float(np.abs(self.base).max()), float(np.nanmax(np.abs(self.rewards))))
        return np.where(np.abs(values) > 1e-9 * largest, values, 0.0)

    def combine(self, weights: ArrayLike, size: float) -> Step:
        """Σ weightᵢ · stepᵢ / ‖stepᵢ‖, scaled to norm `size`; the base (no terms) if the sum vanishes."""
        total = np.asarray(weights, dtype=np.float64) / self.sizes @ self.matrix
        norm = float(np.linalg.norm(total))
        if not norm > 1e-12 * float(np.abs(weights).max()):
            return ()
        return step_of(self.axes, total * (size / norm))


def step_of(axes: Sequence[tuple[str, int]], coefficients: ArrayLike) -> Step:
    """Terms of the non-zero coefficients, (A,), rounded to float32, in which weights are rebuilt.

    So a step is the same recipe wherever its coefficients were computed, though linear algebra differs in the last bit
    between processors and numbers of threads.
    """
    values = np.asarray(coefficients, dtype=np.float32).tolist()
    return tuple(Term(*axis, value) for axis, value in zip(axes, values, strict=True) if value)


def add(*steps: Step) -> Step:
    """The sum of steps: axes in order of first appearance, zero coefficients dropped."""
    total: dict[tuple[str, int], float] = {}
    for step in steps:
        for family, seed, scale in step:
            total[family, seed] = total.get((family, seed), 0.0) + scale
    return tuple(Term(*axis, scale) for axis, scale in total.items() if scale)


def scaled(step: Step, factor: float) -> Step:
    return tuple(Term(term.family, term.seed, term.scale * factor) for term in step)


def norm(step: Step) -> float:
    """Norm of a step in which no axis is repeated."""
    return math.sqrt(math.fsum(term.scale * term.scale for term in step))


class Evaluate(Protocol):
    """The caller's side: rewards of models (whole steps from the pretrained base) on examples of a split.

    Returns (len(steps), len(examples)) float64. The same question must get the same answer.
    """

    def __call__(self, steps: Sequence[Step], split: str, examples: NDArray[np.intp]) -> Array: ...


class Bench:
    """Asks, remembers the answers about the incumbent, and counts the evaluations spent.

    `graded` turns true when rewards other than 0 and 1 are seen, on search or select: the gate has to know beforehand.

    Args:
        evaluate: the callback.
        sizes: examples of each split.
    """

    def __init__(self, evaluate: Evaluate, sizes: Mapping[str, int]) -> None:
        self.evaluate = evaluate
        self.sizes = dict(sizes)
        self.spent = 0
        self.graded = False
        self._known: dict[tuple[Step, str], Array] = {}

    def rewards(self, steps: Sequence[Step], split: str, examples: ArrayLike | None = None) -> Array:
        """(len(steps), examples) rewards; by default on the whole split."""
        which = np.arange(self.sizes[split]) if examples is None else np.asarray(examples, dtype=np.intp)
        if not len(steps) or not len(which):
            return np.zeros((len(steps), len(which)))
        self.spent += len(steps) * len(which)
        answers = np.asarray(self.evaluate(steps, split, which), dtype=np.float64)
        if answers.shape != (len(steps), len(which)) or not np.isfinite(answers).all():
            raise ValueError(f"{len(steps)} steps on {len(which)} examples of {split} gave rewards of {answers.shape}")
        if split in ("search", "select") and not np.isin(answers, (0, 1)).all():
            self.graded = True
        return answers

    def incumbent(self, step: Step, split: str) -> Array:
        """Rewards of one model on the whole split, asked once."""
        if (step, split) not in self._known:
            self._known[step, split] = self.rewards([step], split)[0]
        return self._known[step, split]
