"""Which score picks the best single candidate? Several of them on the same rows, compared by cross-fitting.

Two slices of examples take turns: a selector sees the one, with all its parameters estimated there, and is judged by the
graded reward on the other. Two judgements: the rank correlation with the candidates' scores on the other slice, and the
gain over the base of the one candidate that it picks. Correlations compare selectors with far more power: a pick is one
candidate of N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedfold import stats

Array = NDArray[np.float64]
REFERENCE = "raw mean"
"""The selector that the others are compared with."""


class Slice(NamedTuple):
    """All candidates on some examples."""

    rewards: Array  # (N, n)
    base: Array  # (n,)
    dense: Array | None = (
        None  # (N, n): log-probabilities of reference answers less the base's, NaN where there is none
    )


@dataclass(frozen=True, slots=True)
class Selector:
    """A score, judged on examples that it did not see. Correlations are means of the two turns."""

    name: str
    correlation: float  # Spearman with the other slice's mean reward
    lo: float  # bootstrap interval over candidates
    hi: float
    more: float  # correlation less that of the raw mean
    more_lo: float
    more_hi: float
    p: float  # of that difference, two-sided
    p_holm: float  # for all selectors compared
    gain: stats.Paired  # of the two turns' picks over the base, each on the slice that it was not picked on
    picks: tuple[int, int]


def compare(
    one: Slice, other: Slice, labels: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[Selector]:
    """Judge all selectors that the slices have data for.

    Intervals and p of correlations are those of a bootstrap over candidates (Efron and Tibshirani 1993, chapter 15), in
    which the scores of the two slices stay as they are; p counts resamples on the far side of 0 and is adjusted by Holm's
    method.
    """
    from scipy.stats import rankdata

    turns = [(scores(seen, labels), judged) for seen, judged in ((one, other), (other, one))]
    names = [name for name in turns[0][0] if name in turns[1][0]]
    # Rounding errors must not tell equals apart.
    truth = [(judged.rewards - judged.base).mean(axis=1).round(12) for _, judged in turns]
    table = [np.array([found[name] for name in names]).round(12) for found, _ in turns]
    n = len(truth[0])

    def correlations(which: NDArray[np.intp]) -> Array:
        total = np.zeros(len(names))
        for values, held in zip(table, truth, strict=True):
            ranks, right = rankdata(values[:, which], axis=1), rankdata(held[which])
            ranks, right = ranks - (n + 1) / 2, right - (n + 1) / 2
            size = np.sqrt((ranks**2).sum(axis=1) * float(right @ right))
            total += np.divide(ranks @ right, size, out=np.zeros(len(names)), where=size > 0)
        return total / 2

    rng = np.random.default_rng(seed)
    observed = correlations(np.arange(n))
    draws = np.array([correlations(rng.integers(n, size=n)) for _ in range(resamples)])
    place = names.index(REFERENCE)
    more, extra = observed - observed[place], draws - draws[:, [place]]
    tails = [(1 - level) / 2, (1 + level) / 2]
    p = [_two_sided(extra[:, i]) for i in range(len(names))]
    # The reference is not compared with itself.
    rest = [i for i in range(len(names)) if i != place]
    adjusted = np.ones(len(names))
    adjusted[rest] = stats.holm([p[i] for i in rest])
    base = np.concatenate([other.base, one.base])
    lo, hi = np.quantile(draws, tails, axis=0)
    more_lo, more_hi = np.quantile(extra, tails, axis=0)
    found = []
    for i, name in enumerate(names):
        picks = int(table[0][i].argmax()), int(table[1][i].argmax())
        reward = np.concatenate([other.rewards[picks[0]], one.rewards[picks[1]]])
        found.append(
            Selector(
                name=name,
                correlation=float(observed[i]),
                lo=float(lo[i]),
                hi=float(hi[i]),
                more=float(more[i]),
                more_lo=float(more_lo[i]),
                more_hi=float(more_hi[i]),
                p=p[i] if i != place else 1.0,
                p_holm=float(adjusted[i]),
                gain=stats.paired(reward, base, level, seed=seed),
                picks=picks,
            )
        )
    return found


def _two_sided(draws: Array) -> float:
    reached = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (1 + reached) / (1 + len(draws)))


# The scores: each from one slice alone


def scores(seen: Slice, labels: ArrayLike) -> Mapping[str, Array]:
    """(N,) scores by selector, greater is better."""
    label = np.asarray(labels)
    effects = seen.rewards - seen.base
    shrunk = stats.shrink(effects, label)
    found = {
        REFERENCE: effects.mean(axis=1),
        # Where no reliable difference is left, the mean breaks ties.
        "shrunk mean": shrunk.shrunk + 1e-6 * shrunk.mean,
        "lower bound": lower_bound(effects),
        "difficulty-weighted": hard_first(seen.rewards, seen.base),
    }
    if seen.dense is not None and not np.isnan(seen.dense).any(axis=0).all():
        found["log-probability"] = np.nanmean(seen.dense, axis=1)
        found["mean and log-probability"] = index(effects, seen.dense, label)
    return found


def lower_bound(effects: ArrayLike, level: float = 0.95) -> Array:
    """Lower end of the normal interval of each mean paired effect: it mistrusts those who change many answers."""
    from scipy.special import ndtri

    e = np.asarray(effects, dtype=np.float64)
    spread = e.std(axis=1, ddof=1) / math.sqrt(e.shape[1])
    return np.asarray(e.mean(axis=1) - float(ndtri((1 + level) / 2)) * spread)


def hard_first(rewards: ArrayLike, base: ArrayLike) -> Array:
    """Mean effect in which an example weighs the more the less the population earns on it.

    Weights 1 − the population's mean reward, in units of the range of rewards: the focusing factor (1 − p)^γ of Lin et al.
    2017 (arXiv:1708.02002), γ = 1.
    """
    r, b = np.asarray(rewards, dtype=np.float64), np.asarray(base, dtype=np.float64)
    low, high = min(r.min(), b.min()), max(r.max(), b.max())
    weights = 1 - (r.mean(axis=0) - low) / (high - low) if high > low else np.ones(r.shape[1])
    total = float(weights.sum())
    return np.asarray((r - b) @ weights / total if total > 0 else (r - b).mean(axis=1))


def index(effects: ArrayLike, dense: ArrayLike, labels: ArrayLike) -> Array:
    """The best linear prediction of the true graded effect from graded and dense mean: a selection index.

    Coefficients C⁻¹ c (Smith 1936; Hazel 1943, Genetics 28:476), C the covariance of the two means over candidates of one
    size, c that of each with the true graded effect. c is estimated without luck in common: by products of different
    examples only, since what one answer and its own log-probability share is no merit. Negative ones count as 0. Graded
    alone where C is singular or c is 0.

    Args:
        effects: (N, n) graded, less the base's.
        dense: (N, n), less the base's, NaN for examples without a reference.
        labels: (N,) sizes, each with its own centre.
    """
    e, d = np.asarray(effects, dtype=np.float64), np.asarray(dense, dtype=np.float64)
    label = np.unique(np.asarray(labels), return_inverse=True)[1]
    known = ~np.isnan(d).any(axis=0)
    n, k = e.shape[1], int(known.sum())
    graded = e.mean(axis=1)
    if n < 2 or not k:
        return np.asarray(graded)
    within = np.stack([_centred(e, label), _centred(np.where(known, d, 0.0), label)])
    means = np.stack([within[0].mean(axis=1), within[1].sum(axis=1) / k])
    free = max(1, len(e) - int(label.max()) - 1)
    total = means @ means.T / free
    # Products of an example with itself, as they stand in the product of the means.
    shared = np.array([(within[0] ** 2).sum() / n, (within[0] * within[1]).sum() / k]) / (n * free)
    truth = np.maximum((total[0] - shared) * n / (n - 1), 0.0)
    own = np.array([1.0, 0.0])
    scale = np.sqrt(np.diag(total))
    if truth.any() and scale.all() and abs(total[0, 1]) < (1 - 1e-9) * scale[0] * scale[1]:
        own = np.linalg.solve(total / np.outer(scale, scale), truth / scale) / scale
    return np.asarray(graded - means[0] + own @ means)


def _centred(values: Array, label: NDArray[np.intp]) -> Array:
    found = values.copy()
    for group in range(int(label.max()) + 1):
        found[label == group] -= values[label == group].mean(axis=0)
    return found
