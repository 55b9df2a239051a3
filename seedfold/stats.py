"""Intervals, paired tests and shrinkage: pure functions of arrays.

Everything here is deterministic: what resamples takes an integer seed and draws from ``Generator(PCG64(seed))``.
Every `level` is two-sided. For a one-sided lower bound at level L take the `lo` of level 2L − 1.
Bad input (NaN where it has no meaning, unequal lengths, counts that do not add up) raises ValueError.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CHUNK = 1 << 22  # elements held at once while resampling: 32 MB of float64
SMALL_GROUP = 8  # a variance between fewer candidates than this is mostly luck


# Intervals of one sample


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion, `successes` out of `n` (Wilson 1927). With n = 0 it is (0, 1)."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n = {n}, not {successes}")
    if n == 0:
        return 0.0, 1.0
    z = _normal_quantile(level)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact bounds are 0 and 1; rounding must not put them a hair inside.
    lo = 0.0 if successes == 0 else (centre - half) / scale
    hi = 1.0 if successes == n else (centre + half) / scale
    return lo, hi


def bootstrap_mean(
    values: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0, span: float = 1.0
) -> tuple[float, float]:
    """Bootstrap interval of the mean of `values` (n,).

    Percentile interval, widened by t(n−1) / z · √(n / (n−1)): the plain one is too narrow for small n, by the factor
    that Hesterberg (2015, The American Statistician 69:371) derives. Applied to the width it holds down to n = 2,
    where no resample lies outside the data. One value has no interval: (−inf, inf).

    Values that are all equal show no spread, but do not prove that there is none. Then the bounds are those of a
    Wilson interval for "a value differs", 0 of n, times `span`, the range one value can take.
    """
    x = _finite("values", values)
    n = len(x)
    mean = float(x.mean())
    if n == 1:
        return -math.inf, math.inf
    if np.ptp(x) == 0:
        reach = wilson(0, n, level)[1] * span
        return mean - reach, mean + reach
    from scipy.special import stdtrit

    rng = _generator(seed)
    means = np.concatenate([x[rng.integers(n, size=(rows, n))].mean(axis=1) for rows in _chunks(resamples, n)])
    tail = (1 - level) / 2
    lo, hi = np.quantile(means, [tail, 1 - tail])
    widen = float(stdtrit(n - 1, 1 - tail)) / _normal_quantile(level) * math.sqrt(n / (n - 1))
    return mean + widen * (float(lo) - mean), mean + widen * (float(hi) - mean)


# Paired comparisons


@dataclass(frozen=True, slots=True)
class Paired:
    """Treatment against control on the same n examples; lo and hi bound the difference, p is two-sided."""

    difference: float  # mean of treatment − control, in units of reward
    lo: float
    hi: float
    p: float
    n: int
    fixed: int  # examples on which the treatment is better
    broken: int  # examples on which it is worse


def paired(
    treatment: ArrayLike,
    control: ArrayLike,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    span: float = 1.0,
) -> Paired:
    """Mean difference of two (n,) arrays of rewards of the same examples, with its interval and p.

    Rewards that are all 0 or 1: Tango's score interval and the exact McNemar test. A bootstrap is too short when few
    answers change (it covers 91 % instead of 95 % at n = 30 with 4 changed answers) and has no length at all when none
    does, which is when an honest interval matters most.
    Other rewards: the widened bootstrap of `bootstrap_mean`, and a sign-flip permutation test. `span`, the range of a
    difference, is only used if all differences are equal.

    The two parts are separate methods: at the edge of significance, interval and p can disagree, the exact test being
    the more cautious. Whoever commits on the result should ask for both.
    """
    a, b = _finite("treatment", treatment), _finite("control", control)
    if a.shape != b.shape:
        raise ValueError(f"treatment and control must be paired, but have {len(a)} and {len(b)} rewards")
    d = a - b
    n, fixed, broken = len(d), int((d > 0).sum()), int((d < 0).sum())
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        lo, hi = tango(fixed, broken, n, level)
        p = mcnemar_exact(fixed, broken)
    else:
        lo, hi = bootstrap_mean(d, level, resamples, seed, span)
        p = _sign_flip(d[d != 0], resamples, seed)
    return Paired(float(d.mean()), lo, hi, p, n, fixed, broken)


def tango(fixed: int, broken: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of the difference of two paired proportions, (fixed − broken) / n.

    Tango (1998, Statistics in Medicine 17:891): all differences that the score test does not reject, the nuisance
    parameter (share of broken) at its maximum likelihood under each. With nothing fixed or broken it is ±z² / (n + z²).
    """
    if min(fixed, broken) < 0 or fixed + broken > n or n < 1:
        raise ValueError(f"fixed = {fixed} and broken = {broken} are not counts among n = {n} pairs")
    z = _normal_quantile(level)
    estimate = (fixed - broken) / n

    def score(delta: float) -> float:
        linear = (2 * n - fixed + broken) * delta - fixed - broken
        root = math.sqrt(max(linear * linear + 8 * n * broken * delta * (1 - delta), 0.0))
        lost = (root - linear) / (4 * n)
        variance = n * (2 * lost + delta * (1 - delta))
        distance = fixed - broken - n * delta
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    lo = -1.0 if broken == n else _bisect(lambda delta: score(delta) > z, -1.0, estimate)
    hi = 1.0 if fixed == n else _bisect(lambda delta: score(delta) > -z, estimate, 1.0)
    return lo, hi


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided exact p that `fixed` against `broken` changed answers is a fair coin's doing (McNemar 1947).

    Twice the smaller binomial tail, at most 1; nothing changed gives 1.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(fixed, broken), fixed + broken, 0.5))) if fixed + broken else 1.0


def holm(pvalues: Sequence[float] | Array) -> Array:
    """Holm's (1979) adjusted p-values, in the order given: rejecting those below α errs once with chance at most α."""
    p = np.asarray(pvalues, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


# Shrinkage and reliability of candidate scores


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """Scores of N candidates, each split into signal and luck. Arrays are (N,) float64, in units of reward."""

    mean: Array  # score as if every candidate had answered every example; the plain mean when all have
    shrunk: Array  # expected true score given the data; all equal when prior_sd is 0, so break ties by `mean`
    se: Array  # noise of `mean` between candidates on the same examples, s / √(examples answered)
    centre: Array  # what each is shrunk toward: the mean of its group
    prior_mean: float  # average centre
    prior_sd: float  # sd of the true scores around their centres (root mean square over groups)
    reliability: float  # share of the variance of `mean` around its centre that is signal, averaged over candidates


def shrink(rewards: ArrayLike, groups: ArrayLike | None = None) -> Shrinkage:
    """Empirical-Bayes scores of candidates that answered the same examples.

    rewards: (N candidates, M examples), NaN where a candidate was not asked (racing). To shrink gains over the base,
    subtract its (M,) rewards first: that moves all scores alike and changes neither noise nor reliability.
    groups: (N,) labels, one for each noise scale, say: each group has its own centre, spread and noise. Ignored if a
    group has fewer than 8 candidates, too few to learn a spread from.

    Model: reward = example + group + candidate + noise, examples and groups fixed, candidates normal. An easy example
    is easy for everyone, so the noise of a mean is the variance left after candidate and example effects, not
    p(1 − p) / M, which can be several times as large. Variances are by REML (Patterson and Thompson 1971): on full
    data the usual two-way analysis of variance with negative estimates set to 0, reliability that of Hoyt (1941) or
    Cronbach's alpha. On ragged data the likelihood also allows for racing having chosen who goes on by earlier
    rewards: least squares would leave the survivors' luck in their scores. The shrunken scores are Henderson's BLUP:
    centre + reliabilityᵢ · (mean − centre). A candidate that saw only easy examples gains nothing by it.

    One candidate, or one example, does not tell signal from noise: the shrunken scores are then the centres.
    """
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or r.size == 0 or np.isinf(r).any():
        raise ValueError("rewards must be a finite array (candidates, examples), with NaN for what was not asked")
    seen = ~np.isnan(r)
    if not seen.any(axis=1).all():
        raise ValueError(f"candidate {int(seen.any(axis=1).argmin())} has no reward at all")
    r, seen = r[:, seen.any(axis=0)], seen[:, seen.any(axis=0)]
    n = len(r)
    group = np.zeros(n, dtype=np.intp)
    if groups is not None:
        _, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        if group.shape != (n,):
            raise ValueError(f"groups must label each of the {n} candidates")
        if sizes.min() < SMALL_GROUP:
            group = np.zeros(n, dtype=np.intp)

    fits = [_reml(r[group == g], seen[group == g]) for g in range(group.max() + 1)]
    ratio = np.array([fit[0] for fit in fits])[group]  # variance of candidates / variance of noise
    noise = np.array([fit[1] for fit in fits])[group]
    answered = seen.sum(axis=1)
    trust = ratio * answered / (1 + ratio * answered)

    examples, levels = _fixed_effects(np.where(seen, r, 0.0), seen, group, ratio, noise)
    unit = float(np.nanmax(np.abs(r))) or 1.0
    centre = _settled(examples.mean() + levels[group], unit)
    mean = _settled(examples.mean() + np.where(seen, r - examples, 0.0).sum(axis=1) / answered, unit)
    return Shrinkage(
        mean=mean,
        shrunk=_settled(centre + trust * (mean - centre), unit),
        se=np.sqrt(noise / answered) if n > 1 else np.full(n, np.nan),
        centre=centre,
        prior_mean=float(centre.mean()),
        prior_sd=math.sqrt(float((ratio * noise).mean())),
        reliability=float(trust.mean()),
    )


def _settled(values: Array, unit: float) -> Array:
    """Rounded to 10⁻¹² of the greatest reward: linear algebra differs in the last bit between processors and numbers of
    threads, and equal scores must be equal everywhere."""
    return np.asarray(np.round(values / unit, 12) * unit)


def _reml(r: Array, seen: NDArray[np.bool_]) -> tuple[float, float]:
    """(candidate variance / noise variance, noise variance) of one group, example effects removed."""
    from scipy.optimize import minimize_scalar

    seen, r = seen[:, seen.any(axis=0)], r[:, seen.any(axis=0)]
    # Centring the columns changes no contrast and spares the sums of squares below from cancellation.
    r = np.where(seen, r - np.nanmean(r, axis=0), 0.0)
    columns = seen.sum(axis=0)
    dof = int(columns.sum()) - len(columns)
    total = float((r * r).sum())
    if dof <= 0 or total <= 1e-20 * seen.sum():
        return 0.0, 0.0
    # Racing leaves only a few different rows of `seen`. Given those, every system below is as small as their number.
    _, first, which = np.unique(np.packbits(seen, axis=1), axis=0, return_index=True, return_inverse=True)
    which = which.ravel()
    pattern = seen[first].astype(np.float64)
    size, rows = pattern.sum(axis=1), np.bincount(which)
    sums, root = r.sum(axis=1), np.sqrt(columns)
    sum_of, square_of = np.bincount(which, sums), np.bincount(which, sums * sums)

    def profile(ratio: float) -> tuple[float, float]:
        """(−2 log likelihood + constant, noise variance): Xᵀ V⁻¹ X of the examples is root (I − bᵀb) root / noise."""
        weight = ratio / (1 + ratio * size)
        b = np.sqrt(rows * weight)[:, None] * pattern / root
        right = (r.sum(axis=0) - (weight * sum_of) @ pattern) / root
        explained = 0.0
        if len(b) < len(root):  # Woodbury and Sylvester: the same with b bᵀ
            explained = float(right @ right)
            b, right = b.T, b @ right
        core = np.eye(b.shape[1]) - b.T @ b
        explained += float(right @ np.linalg.solve(core, right))
        left = max(total - float(weight @ square_of) - explained, 1e-12 * total)
        determinant = float(np.linalg.slogdet(core)[1]) + float(rows @ np.log1p(ratio * size))
        return dof * math.log(left) + determinant, left / dof

    best = math.exp(minimize_scalar(lambda log: profile(math.exp(log))[0], bounds=(-14, 9), method="bounded").x)
    # No gain in likelihood over "no signal at all" is the negative variance estimate that is set to 0.
    if profile(best)[0] >= profile(0.0)[0] - 1e-9:
        best = 0.0
    best = float(f"{best:.9g}")
    return best, float(f"{profile(best)[1]:.9g}")


def _fixed_effects(
    r: Array, seen: NDArray[np.bool_], group: NDArray[np.intp], ratio: Array, noise: Array
) -> tuple[Array, Array]:
    """Generalised least squares of example effects (M,) and group effects (G,), given the variances.

    A candidate's precision matrix over the examples it answered is (I − k·11ᵀ) / noise, k = ratio / (1 + ratio·count).
    """
    n, m = r.shape
    count = seen.sum(axis=1)
    member = np.eye(group.max() + 1)[group]
    # Without any noise every weighting is right, and equal weights are finite.
    precision = 1 / noise if (noise > 0).all() else np.ones(n)
    shared = precision * ratio / (1 + ratio * count)
    own = precision / (1 + ratio * count)
    asked = seen.astype(np.float64)
    corner = (asked * own[:, None]).T @ member
    system = np.block(
        [
            [np.diag(precision @ asked) - (asked * shared[:, None]).T @ asked, corner],
            [corner.T, np.diag((own * count) @ member)],
        ]
    )
    sums = r.sum(axis=1)
    right = np.concatenate([precision @ r - (shared * sums) @ asked, (own * sums) @ member])
    # Examples and groups are determined up to a constant that moves from one to the other; least norm picks one.
    solution = np.linalg.lstsq(system, right, rcond=None)[0]
    return solution[:m], solution[m:]


def split_half_reliability(rewards: ArrayLike, splits: int = 100, seed: int = 0) -> float:
    """Reliability of candidate means, from the correlation between random halves of the examples.

    rewards: (N, M). Examples that some candidate was not asked (NaN) are left out. The mean correlation c over
    `splits` is stepped up to full length, 2c / (1 + c) (Spearman 1910, Brown 1910), if positive, and returned as it
    is otherwise. NaN with fewer than 3 candidates, fewer than 2 examples, or no variation between candidates.
    """
    r = np.asarray(rewards, dtype=np.float64)
    r = r[:, ~np.isnan(r).any(axis=0)]
    n, m = r.shape
    if n < 3 or m < 2:
        return math.nan
    rng = _generator(seed)
    half = m // 2
    found = []
    for _ in range(splits):
        order = rng.permutation(m)
        found.append(_correlation(r[:, order[:half]].mean(axis=1), r[:, order[half : 2 * half]].mean(axis=1)))
    known = [c for c in found if not math.isnan(c)]
    if not known:
        return math.nan
    mean = sum(known) / len(known)
    return 2 * mean / (1 + mean) if mean > 0 else mean


def spearman(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> tuple[float, float, float, float]:
    """(rho, lo, hi, p): rank correlation of two (n,) arrays; ties share their mean rank.

    Interval: Fisher's z with variance (1 + ρ²/2) / (n − 3) (Bonett and Wright 2000, Psychometrika 65:23), (−1, 1) below
    four points. p: all orders up to n = 8; beyond, Student's t with n − 2 degrees of freedom, but never below
    2 / n!, the least that an order of n values can have. All four are NaN if x or y is constant or n < 2.
    """
    a, b = _finite("x", x), _finite("y", y)
    if a.shape != b.shape:
        raise ValueError(f"x and y must be paired, but have {len(a)} and {len(b)} values")
    n = len(a)
    rho = _correlation(_ranks(a), _ranks(b))
    if math.isnan(rho):
        return math.nan, math.nan, math.nan, math.nan
    from scipy.special import stdtr

    if n <= 8:
        orders = _ranks(b)[np.array(list(itertools.permutations(range(n))))]
        centred = _ranks(a) - (n + 1) / 2
        reached = np.abs(orders @ centred)
        p = float((reached >= abs(_ranks(b) @ centred) * (1 - 1e-12)).mean())
    else:
        t = -abs(rho) * math.sqrt((n - 2) / max(1 - rho * rho, 1e-300))
        p = min(1.0, max(2 * float(stdtr(n - 2, t)), 2 / math.factorial(min(n, 20))))
    if n < 4:
        return rho, -1.0, 1.0, p
    # A perfect order has no finite z: take the next best one, two neighbours swapped, for an interval with a length.
    inner = min(abs(rho), 1 - 12 / (n * (n * n - 1))) * math.copysign(1, rho)
    half = _normal_quantile(level) * math.sqrt((1 + inner * inner / 2) / (n - 3))
    lo, hi = math.tanh(math.atanh(inner) - half), math.tanh(math.atanh(inner) + half)
    return rho, min(lo, rho), max(hi, rho), p


# What chance alone would give the best of many


def expected_maximum(n: int, sd: float = 1.0, mean: float = 0.0) -> float:
    """Expected largest of `n` independent normal values: what the best of n equal candidates scores by luck.

    The integral of x · n φ(x) Φ(x)ⁿ⁻¹ (David and Nagaraja 2003, section 3.1) by the trapezoidal rule, good to 1e-9.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    from scipy.special import log_ndtr

    x = np.linspace(-12, 12, 4801)
    density = np.exp(math.log(n) + (n - 1) * log_ndtr(x) - x * x / 2) / math.sqrt(2 * math.pi)
    return mean + sd * float((x * density).sum() * (x[1] - x[0]))


def chance_lead(
    rewards: ArrayLike, base: ArrayLike, resamples: int = 2_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """(mean, `level` quantile) of the best candidate's lead over the base, were all candidates equally good in truth.

    rewards: (N, M), base: (M,). Every candidate's paired differences are centred at the mean of all, which keeps
    their variances and their correlation through shared examples; then examples are resampled, for all candidates at
    once, and the largest mean difference is noted (max-statistic bootstrap, as in White 2000, Econometrica 68:1097).
    An observed lead above the quantile says that candidates differ, not that the winner's lead is all real.
    """
    b = _finite("base", base)
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or r.shape[0] < 1 or r.shape[1] != len(b) or not np.isfinite(r).all():
        raise ValueError(f"rewards must be a finite array (candidates, {len(b)}), to be paired with the base")
    d = r - b
    n, m = d.shape
    # Resampled means vary by (M − 1) / M too little.
    centred = (d - d.mean(axis=1, keepdims=True)) * math.sqrt(m / (m - 1) if m > 1 else 1.0)
    rng = _generator(seed)
    even = np.full(m, 1 / m)
    leads = np.concatenate(
        [(rng.multinomial(m, even, size=rows) @ centred.T / m).max(axis=1) for rows in _chunks(resamples, n + m)]
    )
    leads += d.mean()
    return float(leads.mean()), float(np.quantile(leads, level))


# Shared parts


def _sign_flip(d: Array, resamples: int, seed: int) -> float:
    """Two-sided p of the sum of non-zero differences if each sign were a coin; every pattern if they are few."""
    n = len(d)
    observed = abs(d.sum()) * (1 - 1e-12)  # sums in another order must still count as equal
    if n < 63 and 2**n <= resamples:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((np.abs(2 * (flips @ d) - d.sum()) >= observed).mean())
    rng = _generator(seed)
    reached = 0
    for rows in _chunks(resamples, n):
        flips = rng.integers(2, size=(rows, n), dtype=np.int8)
        reached += int((np.abs(2 * (flips @ d) - d.sum()) >= observed).sum())
    return (reached + 1) / (resamples + 1)  # the observed signs are one of the patterns, so p is never 0


def _bisect(below: Callable[[float], bool], lo: float, hi: float) -> float:
    """Where `below` turns from true to false between lo and hi."""
    for _ in range(60):
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if below(middle) else (lo, middle)
    return (lo + hi) / 2


def _ranks(x: Array) -> Array:
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], dtype=np.float64)


def _correlation(x: Array, y: Array) -> float:
    """Pearson's, NaN if either does not vary."""
    if len(x) < 2 or np.ptp(x) <= 1e-12 * np.abs(x).max() or np.ptp(y) <= 1e-12 * np.abs(y).max():
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1, 1))


def _finite(name: str, values: ArrayLike) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0 or not np.isfinite(x).all():
        raise ValueError(f"{name} must be a non-empty list of finite numbers")
    return x


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _chunks(total: int, width: int) -> Iterator[int]:
    """Row counts that add up to `total`, each of at most CHUNK elements in rows of `width`."""
    step = max(1, CHUNK // width)
    for start in range(0, total, step):
        yield min(step, total - start)
