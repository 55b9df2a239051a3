"""Which noise family, at which size, is worth more? Arms of equal seeds, scored on search and judged on held-out examples.

Input is plain arrays. An arm is a family with its scale mode and rounding, and a grid of sizes (σ); each σ has the same N
seeds. What an arm is worth is the **gain** on held-out examples of what search chooses, by one of four measures:

    mean      the mean effect of a seed: nothing is chosen
    best      the seed with the highest search score
    quarter   the mean of the best quarter by search score
    fold      a signed step over all seeds of one seed's size, were effects linear: mean effect + Σ ĉᵢ eᵢ, with ĉ the
              centred search scores, scaled to length 1 (`seedfold.fold.linear`)

All are Σ wᵢ eᵢ: weights from search, effects from held-out examples, so luck does not pay. The arm's σ is chosen by search
too, as that with the highest promise: the same measure of the *shrunken* search scores. A longer grid is no lottery ticket.

Seeds and examples both are samples. The variance of a gain is that between draws of seeds (a bootstrap in which scores are
ranked, seeds weighted and σ chosen anew), plus that between examples under the weights as they are, less that of single
answers, which both contain (two-way clustering, as in `merges.estimate`); never less than either alone. Student's t with
the lesser of both degrees of freedom. Seeds and examples are common to all arms: differences of arms are paired in both.
The bootstrap fails for the best of N, for most of its draws hold the observed best (Bickel, Götze and van Zwet 1997,
Statistica Sinica 7:1): there the variance of any one seed's effect takes its place, which is no less than that of a best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedfold import stats
from seedfold.diagnose import density, transfer
from seedfold.diagnose.merges import Estimate, estimate

Array = NDArray[np.float64]
MEASURES = ("mean", "best", "quarter", "fold")
POWER = 0.8
"""Chance with which the detectable difference is found."""


class Scored(NamedTuple):
    """One arm at one σ: paired effects of the same N seeds, on n search and m held-out examples."""

    arm: str
    sigma: float
    search: Array  # (N, n)
    held: Array  # (N, m)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one arm at one σ; all but the reliability on held-out examples, in units of reward."""

    arm: str
    sigma: float
    mean: Estimate  # effect of a seed
    sd: float  # of the true effects, luck taken out
    sd_lo: float
    sd_hi: float
    reliability: transfer.Reliability  # of the search scores
    above: density.Density  # share of the seeds above the base
    best: stats.Paired  # the best by search score
    gains: dict[str, float]  # by measure
    promises: dict[str, float]  # the same by search alone


@dataclass(frozen=True, slots=True)
class Place:
    """An arm at the σ that search chose. lowest, highest: the ranks that the comparisons leave open, 1 the best."""

    arm: str
    sigma: float
    gain: Estimate
    lowest: int
    highest: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms, each at its own σ: gain of `one` less that of `other`."""

    one: str
    other: str
    difference: Estimate
    p_holm: float


@dataclass(frozen=True)
class Told:
    """detectable: the difference that such a comparison would find with a chance of `POWER`, in units of reward."""

    by: str
    seeds: int
    rows: list[Row]
    places: list[Place]  # the best first
    pairs: list[Pair]
    detectable: float

    def found(self, level: float = 0.95) -> list[Pair]:
        """The pairs that differ at the level."""
        return [pair for pair in self.pairs if pair.p_holm <= 1 - level]


def compare(
    cells: Sequence[Scored],
    held_base: Array,
    by: str = "quarter",
    against: str = "",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Told:
    """Compare arms.

    Args:
        cells: arms and sizes, in any order; all of the same N ≥ 2 seeds, n ≥ 2 and m ≥ 2 examples.
        held_base: (m,) rewards of the base, for intervals of rewards that are right or wrong.
        by: of `MEASURES`.
        against: compare with this arm alone, in place of all with all: fewer comparisons, more power.
        level, resamples, seed: of the intervals.
    """
    arms: dict[str, list[_Cell]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, []).append(_Cell(cell))
    count = len(cells[0].search)
    rng = np.random.default_rng(seed)
    draws = rng.integers(count, size=(resamples, count))
    judged = {name: _judge(of, by, draws) for name, of in arms.items()}
    order = sorted(judged, key=lambda name: -judged[name].value)
    listed = [(one, other) for i, one in enumerate(order) for other in order[i + 1 :] if against in ("", one, other)]
    raw = [_difference(judged[one], judged[other], level) for one, other in listed]
    adjusted = stats.holm([item.p for item, _ in raw]) if raw else np.zeros(0)
    pairs = [Pair(one, other, item, float(p)) for (one, other), (item, _), p in zip(listed, raw, adjusted, strict=True)]
    lost = {name: sum(p.other == name and p.p_holm <= 1 - level for p in pairs) for name in order}
    won = {name: sum(p.one == name and p.p_holm <= 1 - level for p in pairs) for name in order}
    places = [
        Place(
            name, judged[name].sigma, _difference(judged[name], None, level)[0], 1 + lost[name], len(order) - won[name]
        )
        for name in order
    ]
    free = _degrees(next(iter(judged.values())))
    rows = [_row(cell, held_base, level, seed) for of in arms.values() for cell in of]
    return Told(by, count, rows, places, pairs, _detectable([error for _, error in raw], free, level))


# One arm


class _Cell:
    """Means and luck of one arm at one σ."""

    def __init__(self, cell: Scored) -> None:
        self.arm, self.sigma = cell.arm, cell.sigma
        self.search, self.effects = np.asarray(cell.search, np.float64), np.asarray(cell.held, np.float64)
        # Rounding errors must not tell equals apart.
        self.score = self.search.mean(axis=1).round(12)
        self.luck = float((_residuals(self.search) ** 2).sum()) / _free(self.search) / self.search.shape[1]
        self.mean = self.effects.mean(axis=1)
        self.single = _residuals(self.effects)


@dataclass(frozen=True, slots=True)
class _Judged:
    """An arm's gain; `draws`: in bootstrap samples of the seeds. effects, single: weighted, (N, m).

    least: the variance between seeds where the bootstrap cannot tell it, else 0.
    """

    sigma: float
    value: float
    draws: Array
    least: float
    effects: Array
    single: Array


def _judge(of: Sequence[_Cell], by: str, draws: NDArray[np.intp]) -> _Judged:
    everyone = np.arange(draws.shape[1])[None]
    promises = np.stack([weigh(cell.score[everyone], cell.luck, by)[0] for cell in of])
    chosen = of[int(promises[:, 0].argmax())]
    weights = weigh(chosen.score[everyone], chosen.luck, by)[1][0]
    found, promised = [], []
    for cell in of:
        promise, drawn = weigh(cell.score[draws], cell.luck, by)
        promised.append(promise)
        found.append((drawn * cell.mean[draws]).sum(axis=1))
    best = np.argmax(promised, axis=0)
    return _Judged(
        sigma=chosen.sigma,
        value=float(weights @ chosen.mean),
        draws=np.array(found)[best, np.arange(len(draws))],
        least=float(chosen.mean.var(ddof=1)) if by == "best" else 0.0,
        effects=weights[:, None] * chosen.effects,
        single=weights[:, None] * chosen.single,
    )


def weigh(scores: Array, luck: float, by: str) -> tuple[Array, Array]:
    """(promises (R,), weights (R, N)) of R samples of N search scores, by one measure.

    Args:
        scores: (R, N) mean effects on search.
        luck: the variance of such a mean that is luck. Shrunken: centre + r · (score − centre), r = 1 − luck / variance.
    """
    count, n = scores.shape
    even = np.full((count, n), 1 / n)
    centre = scores.mean(axis=1)
    from_centre = scores - centre[:, None]
    spread = (from_centre**2).sum(axis=1)
    trust = np.clip(1 - luck * (n - 1) / np.where(spread > 1e-18, spread, np.inf), 0, 1)
    trust[spread <= 1e-18] = 0
    if by == "mean":
        return centre, even
    if by == "fold":
        length = np.sqrt(spread)
        unit = np.divide(from_centre, length[:, None], out=np.zeros_like(even), where=length[:, None] > 1e-9)
        return centre + trust * length, even + unit
    many = 1 if by == "best" else math.ceil(n / 4)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :many]
    weights = np.zeros_like(even)
    np.put_along_axis(weights, top, 1 / many, axis=1)
    return centre + trust * (weights * from_centre).sum(axis=1), weights


# Intervals


def _difference(one: _Judged, other: _Judged | None, level: float) -> tuple[Estimate, float]:
    """(gain of one less that of other, None: of nothing; its standard error)."""
    from scipy.special import stdtr, stdtrit

    value, draws, effects, single, least = one.value, one.draws, one.effects, one.single, one.least
    if other is not None:
        value, draws, least = value - other.value, draws - other.draws, least + other.least
        effects, single = effects - other.effects, single - other.single
    n, m = effects.shape
    by_seed = max(float(draws.var()) * n / (n - 1), least)
    by_example = float(effects.sum(axis=0).var(ddof=1)) / m
    by_answer = float((single**2).sum()) / (m - 1) / m * n / (n - 1)
    error = math.sqrt(max(by_seed + by_example - by_answer, by_seed, by_example))
    if error < 1e-12:  # no spread does not prove that there is none
        return Estimate(value, *stats.bootstrap_mean(np.full(m, value), level), 1.0), error
    free = _degrees(one)
    reach = float(stdtrit(free, (1 + level) / 2)) * error
    return Estimate(value, value - reach, value + reach, 2 * float(stdtr(free, -abs(value) / error))), error


def _degrees(judged: _Judged) -> int:
    return min(judged.effects.shape) - 1


def _detectable(errors: Sequence[float], free: int, level: float) -> float:
    """For the median pair, at the level of the first step of Holm's method."""
    from scipy.special import ndtri, stdtrit

    if not errors:
        return math.nan
    threshold = float(stdtrit(free, 1 - (1 - level) / 2 / len(errors)))
    return float(np.median(errors)) * (threshold + float(ndtri(POWER)))


def _row(cell: _Cell, held_base: Array, level: float, seed: int) -> Row:
    n = len(cell.score)
    label = np.zeros(n, dtype=np.intp)
    fit = density.analysis(cell.effects)
    sds = density.possible(fit, 2000, seed)[1]
    lo, hi = np.quantile(sds, [(1 - level) / 2, (1 + level) / 2])
    told = {by: weigh(cell.score[None], cell.luck, by) for by in MEASURES}
    gains = {by: float(weights[0] @ cell.mean) for by, (_, weights) in told.items()}
    best = int(told["best"][1][0].argmax())
    return Row(
        arm=cell.arm,
        sigma=cell.sigma,
        mean=estimate([cell.effects], [1.0], level),
        sd=fit.sd,
        sd_lo=min(float(lo), fit.sd),
        sd_hi=max(float(hi), fit.sd),
        reliability=transfer.reliability(cell.search, label, level),
        above=density.density(cell.effects, np.full(n, cell.sigma), (0.0,), level, seed=seed)[0],
        best=stats.paired(held_base + cell.effects[best], held_base, level, seed=seed),
        gains=gains,
        promises={by: float(promise[0]) for by, (promise, _) in told.items()},
    )


def _residuals(e: Array) -> Array:
    return np.asarray(e - e.mean(axis=1, keepdims=True) - e.mean(axis=0) + e.mean())


def _free(e: Array) -> int:
    return (e.shape[0] - 1) * (e.shape[1] - 1)
