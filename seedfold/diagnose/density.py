"""How dense better models are around the base, and whether they are specialists.

Solution density δ(m) = P[score(θ + ε) ≥ score(θ) + m], and spectral discordance: Gan and Isola 2026 (arXiv:2603.12228).

A share of *observed* scores above the base is wider than that of the true ones: luck alone puts half of the equals
above. So each share stands beside the one that is left when luck is taken out, by the same model as shrinkage: true
effects of one size are normal, their mean and variance estimated from candidates × examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedfold import stats

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Density:
    """Candidates of one size that are better than the base by at least a margin."""

    sigma: float
    margin: float  # in units of reward
    candidates: int
    share: float  # of observed scores on these examples
    lo: float  # Wilson interval: more seeds on the same examples
    hi: float
    true_share: float  # with luck taken out, for these examples' distribution
    true_lo: float  # interval over seeds and examples
    true_hi: float


def density(
    effects: ArrayLike,
    sigmas: ArrayLike,
    margins: Sequence[float] = (0.0,),
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Density]:
    """Density by σ and margin.

    Args:
        effects: (N, n) paired differences from the base, NaN where not asked; only examples that all candidates of a size
            answered are used.
        sigmas: (N,) sizes of the candidates.
        margins: in units of reward.
        level, resamples, seed: of the intervals.

    Raises:
        ValueError: fewer than 2 candidates of a size, or fewer than 2 examples that all of them answered.
    """
    e, size = np.asarray(effects, dtype=np.float64), np.asarray(sigmas, dtype=np.float64)
    found = []
    for sigma in np.unique(size):
        mine = e[size == sigma]
        mine = mine[:, ~np.isnan(mine).any(axis=0)]
        if min(mine.shape) < 2:
            raise ValueError(
                f"sigma {sigma:g} has effects of shape {mine.shape}; 2 candidates on 2 examples are needed"
            )
        n = len(mine)
        fit = analysis(mine)
        means, sds = possible(fit, resamples, seed)
        for margin in margins:
            # Rounding must not decide whether 3/8 is at least 0.375.
            above = int((mine.mean(axis=1) >= margin - 1e-9).sum())
            share = float(above_margin(fit.mean, fit.sd, margin))
            lo, hi = np.quantile(above_margin(means, sds, margin), [(1 - level) / 2, (1 + level) / 2])
            found.append(
                Density(
                    float(sigma),
                    margin,
                    n,
                    above / n,
                    *stats.wilson(above, n, level),
                    share,
                    min(lo, share),
                    max(hi, share),
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class Analysis:
    """Two-way analysis of variance of (n candidates, m examples)."""

    n: int
    m: int
    mean: float
    rows: float  # variance of the candidates' means
    columns: float  # variance of the examples' means
    noise: float  # variance of one effect

    @property
    def sd(self) -> float:
        """Of the true effects; a negative estimate of their variance is set to 0."""
        return math.sqrt(max(self.rows - self.noise / self.m, 0.0))


def analysis(e: Array) -> Analysis:
    n, m = e.shape
    rows, columns, mean = e.mean(axis=1), e.mean(axis=0), float(e.mean())
    left = float(((e - rows[:, None] - columns + mean) ** 2).sum()) / ((n - 1) * (m - 1))
    return Analysis(n, m, mean, float(rows.var(ddof=1)), float(columns.var(ddof=1)), left)


def possible(fit: Analysis, count: int, seed: int) -> tuple[Array, Array]:
    """`count` (means, sds) of the true effects that the data leave possible: generalised pivots (Weerahandi 1993).

    Drawing candidates and examples anew with replacement would not do: repeated examples double the noise of a mean.
    The base's luck on these examples is in every effect, and so in the variance of the examples' means.
    """
    rng = np.random.default_rng(seed)
    k, d = fit.n - 1, (fit.n - 1) * (fit.m - 1)
    rows, noise = fit.rows * k / rng.chisquare(k, size=count), fit.noise * d / rng.chisquare(d, size=count)
    spread = rows / fit.n + max(fit.columns - fit.noise / fit.n, 0.0) / fit.m
    means = fit.mean + np.sqrt(spread) * rng.standard_t(min(k, fit.m - 1), size=count)
    return means, np.sqrt(np.maximum(rows - noise / fit.m, 0.0))


def above_margin(mean: ArrayLike, sd: ArrayLike, margin: float) -> Array:
    """P[N(mean, sd²) ≥ margin], elementwise."""
    from scipy.special import ndtr

    distance, spread = np.asarray(mean, dtype=np.float64) - margin, np.asarray(sd, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, ndtr(distance / spread), (distance >= 0).astype(np.float64))


@dataclass(frozen=True, slots=True)
class Discordance:
    """1 − the mean correlation of the tasks' percentile ranks: 0 generalists, 1 specialists."""

    observed: float
    lo: float  # bootstrap interval over seeds
    hi: float
    corrected: float  # with each correlation over the root of the scores' reliabilities; NaN where one is 0


def discordance(rewards: Sequence[ArrayLike], level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Discordance:
    """Spectral discordance of T tasks over the same N seeds.

    Luck lowers every correlation and passes for specialisation, so the observed value is too high. The corrected one
    divides by the reliabilities (Spearman 1904), those of split halves of each task's examples.

    Args:
        rewards: for each task (N, n_task), the same seeds in the same order, without NaN.

    Raises:
        ValueError: fewer than 2 tasks or 3 seeds, or tasks of different numbers of seeds.
    """
    tasks = [np.asarray(task, dtype=np.float64) for task in rewards]
    counts = {len(task) for task in tasks}
    if len(tasks) < 2 or len(counts) != 1 or min(counts) < 3 or not all(np.isfinite(task).all() for task in tasks):
        raise ValueError("discordance needs finite rewards of the same seeds, at least 3, on at least 2 tasks")
    means = np.array([task.mean(axis=1) for task in tasks])
    rng = np.random.default_rng(seed)
    n = means.shape[1]
    draws = [_discordance(means[:, rng.integers(n, size=n)]) for _ in range(resamples)]
    draws = [draw for draw in draws if not math.isnan(draw)] or [math.nan]
    lo, hi = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    reliable = np.array([max(stats.split_half_reliability(task, seed=seed), 0.0) for task in tasks])
    root = np.sqrt(np.outer(reliable, reliable))
    return Discordance(_discordance(means), float(lo), float(hi), _discordance(means, root))


def _discordance(means: Array, root: Array | None = None) -> float:
    """From (T, N) mean rewards; `root` divides the correlations."""
    from scipy.stats import rankdata

    ranks = rankdata(means, axis=1)
    if (np.ptp(ranks, axis=1) == 0).any():
        return math.nan
    correlation = np.corrcoef(ranks)
    if root is not None:
        if (root == 0).any() or np.isnan(root).any():
            return math.nan
        correlation = correlation / root
    return float(1 - correlation[np.triu_indices(len(means), 1)].mean())
