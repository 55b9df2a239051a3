"""Does a seed's score on search tell what it is worth elsewhere? Every candidate on two disjoint slices of examples.

Input is plain arrays. Candidates are the unit: intervals of correlations are over seeds, those of a candidate's gain over
examples. A size (σ) that does harm makes scores predict by itself, without telling one seed of a size from another, so
correlations are given over all candidates and again within sizes, centred there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedfold import stats
from seedfold.diagnose.density import Density, density

Array = NDArray[np.float64]
TARGETS = (0.5, 0.8, 0.9)
"""Reliabilities for which the number of examples is told."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of scores and held-out scores, over candidates. NaN where either does not vary."""

    spearman: float
    spearman_lo: float
    spearman_hi: float
    spearman_p: float
    pearson: float
    pearson_lo: float
    pearson_hi: float
    pearson_p: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Share of the variance of scores of one size that is signal, with an interval over candidates and examples."""

    value: float
    lo: float
    hi: float
    examples: int

    def needed(self, target: float) -> tuple[float, float, float]:
        """Examples for a reliability of `target`, with the interval: infinite where no signal was seen.

        From reliability r with m examples: m · (1 − r) / r · target / (1 − target) (Spearman 1910, Brown 1910).
        """
        few, middle, many = (
            self.examples * (1 - r) / r * target / (1 - target) if r > 0 else math.inf
            for r in (self.hi, self.value, self.lo)
        )
        return middle, few, many


@dataclass(frozen=True, slots=True)
class Best:
    """One candidate's lead over the base on held-out examples."""

    number: int
    search: float  # its lead on search, raw
    expected: float  # and shrunk: what it can be expected to have elsewhere
    held: stats.Paired


@dataclass(frozen=True)
class Transfer:
    """All answers, in units of reward."""

    candidates: int
    search_examples: int
    held_examples: int
    everyone: Correlation
    within: Correlation  # sizes centred
    ceiling: float  # √(product of the reliabilities): the Pearson within sizes that luck leaves to a perfect transfer
    search_reliability: Reliability
    held_reliability: Reliability
    chosen: Best  # by shrunken search score
    oracle: Best  # by held-out score itself: what no one could have known
    chance_mean: float  # lead of the held-out best of as many equal candidates
    chance_high: float
    above: list[Density]  # share above the base on held-out examples, by size; sizes of one candidate left out


def measure(
    search: ArrayLike,
    search_base: ArrayLike,
    held: ArrayLike,
    held_base: ArrayLike,
    sigmas: ArrayLike,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Transfer:
    """Compare scores on two slices.

    Args:
        search: (N, n) rewards, NaN where racing did not ask. search_base: (n,).
        held: (N, m) rewards, without NaN. held_base: (m,).
        sigmas: (N,) sizes.
        level, resamples, seed: of the intervals.
    """
    asked, base = np.asarray(search, dtype=np.float64), np.asarray(search_base, dtype=np.float64)
    there, there_base = np.asarray(held, dtype=np.float64), np.asarray(held_base, dtype=np.float64)
    label = np.unique(np.asarray(sigmas), return_inverse=True)[1]
    seen = ~np.isnan(asked).all(axis=0)
    shrunk = stats.shrink((asked - base)[:, seen], label)
    elsewhere = (there - there_base).mean(axis=1)
    everyone = correlate(shrunk.mean, elsewhere, level)
    within = correlate(centred(shrunk.mean, label), centred(elsewhere, label), level)
    whole = ~np.isnan(asked).any(axis=0)
    one = reliability(asked[:, whole], label, level)
    other = reliability(there, label, level)

    def best(number: int) -> Best:
        lead = stats.paired(there[number], there_base, level, seed=seed)
        return Best(number, float(shrunk.mean[number]), float(shrunk.shrunk[number]), lead)

    many = np.bincount(label)[label] > 1  # a size of one candidate has no spread
    chance = stats.chance_lead(there, there_base, resamples, seed, level)
    return Transfer(
        candidates=len(there),
        search_examples=int(whole.sum()),
        held_examples=there.shape[1],
        everyone=everyone,
        within=within,
        ceiling=math.sqrt(max(one.value, 0.0) * max(other.value, 0.0)),
        search_reliability=one,
        held_reliability=other,
        chosen=best(max(range(len(there)), key=lambda i: (shrunk.shrunk[i], shrunk.mean[i], -i))),
        oracle=best(int(elsewhere.argmax())),
        chance_mean=chance[0],
        chance_high=chance[1],
        above=density((there - there_base)[many], np.asarray(sigmas)[many], (0.0,), level, seed=seed)
        if many.any()
        else [],
    )


def correlate(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Correlation:
    """Both correlations of two (N,) arrays. Pearson's interval: Fisher's z (Fisher 1921), p: Student's t (scipy)."""
    from scipy.stats import pearsonr

    # Rounding errors must not tell equals apart, for ranks would take them seriously.
    a, b = (np.asarray(values, dtype=np.float64).round(12) for values in (x, y))
    ranks = stats.spearman(a, b, level)
    if math.isnan(ranks[0]) or len(a) < 4:
        return Correlation(*ranks, *[math.nan] * 4)
    found = pearsonr(a, b)
    interval = found.confidence_interval(level)
    return Correlation(*ranks, float(found.statistic), float(interval.low), float(interval.high), float(found.pvalue))


def reliability(rewards: ArrayLike, labels: ArrayLike, level: float = 0.95) -> Reliability:
    """Reliability of mean rewards between candidates of one size, pooled over sizes.

    Two-way analysis of variance within sizes: 1 − noise / rows (Hoyt 1941), below 0 where luck alone would make scores
    differ more. Interval: (1 − value) / (1 − truth) has an F distribution (Feldt 1965, Psychometrika 30:357); answers that
    are right or wrong stretch it a little. 0 with an interval of (0, 1) where nothing can be told: fewer than 2 candidates
    more than sizes, fewer than 2 examples, or scores that do not vary.

    Args:
        rewards: (N, m), without NaN.
        labels: (N,) whole numbers from 0.
    """
    from scipy.special import fdtri

    r, label = np.asarray(rewards, dtype=np.float64), np.asarray(labels)
    n, m = r.shape
    groups = np.unique(label)
    free = n - len(groups)
    if free < 1 or m < 2:
        return Reliability(0.0, 0.0, 1.0, m)
    within = r.copy()
    for group in groups:  # each size has its own means by example: what all of a size share is no candidate's merit
        within[label == group] -= r[label == group].mean(axis=0)
    scores = within.mean(axis=1)
    rows = m * float(scores @ scores) / free
    noise = float(((within - scores[:, None]) ** 2).sum()) / (free * (m - 1))
    if rows <= 1e-12:
        return Reliability(0.0, 0.0, 1.0, m)
    value = 1 - noise / rows
    tail = (1 - level) / 2
    degrees = free, free * (m - 1)
    lo, hi = (1 - (1 - value) * float(fdtri(*degrees, share)) for share in (1 - tail, tail))
    return Reliability(value, lo, hi, m)


def centred(values: ArrayLike, labels: ArrayLike) -> Array:
    """(N,) values less the mean of their label."""
    found, label = np.array(values, dtype=np.float64), np.asarray(labels)
    for group in np.unique(label):
        found[label == group] -= found[label == group].mean()
    return found
