"""Do sums of good seeds beat sums of random ones, and is the effect of a sum the sum of the effects?

A merge is Σ wₖ δₖ of its parents' steps δ. Parents are drawn from families: the best quarter, the worst quarter and
everyone by search score; families by held-out score are oracles, shown to know what there was to find. All of it is
measured on examples that scored no candidate, paired with the base.

A cell is one family, operator and number of parents. Its merges and its examples are both samples, so a mean over them
varies with both: intervals are those of a two-way crossed design.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedfold import stats
from seedfold.errors import UserError

Array = NDArray[np.float64]
FAMILIES = ("top", "random", "bottom", "oracle-top", "oracle-bottom")
OPERATORS = {"average": lambda n: 1 / n, "norm": lambda n: 1 / math.sqrt(n), "sum": lambda n: 1.0}
"""Weight of each of n parents: the norm-preserving one keeps the step's size, for independent steps are orthogonal. Those
of a subspace are not: there it follows from their inner products, see `preserving`."""
MOST = 64
"""Parents of a merge."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Parents are places in the population, the best of the family first; a weight for each."""

    family: str
    operator: str
    parents: tuple[int, ...]
    weights: tuple[float, ...]


def plan(
    score: ArrayLike,
    families: Sequence[str],
    operators: Sequence[str],
    sizes: Sequence[int],
    weights: Sequence[Sequence[float]] = (),
    merges: int = 4,
    oracle: ArrayLike | None = None,
    seed: int = 0,
    gram: ArrayLike | None = None,
) -> list[Merge]:
    """Draw parents; the same sets of them for all operators, so that operators are compared on equal terms.

    Sets of a family share no parent: merges of common parents would be no independent samples, and intervals too short. A
    family is a quarter of the candidates, but no fewer than twice the parents of a merge.

    Args:
        score: (N,) search scores.
        families: of `FAMILIES`.
        operators: of `OPERATORS`.
        sizes: numbers of parents, 2 to 64.
        weights: lists of weights of their own, which apply to parents from the best of the family down.
        merges: sets of parents per family and size; fewer where the family has no more.
        oracle: (N,) held-out scores, for the oracle families.
        gram: (N, N) inner products of the candidates' steps; without them, steps count as orthogonal.
    """
    for option, names, known in (("families", families, FAMILIES), ("operators", operators, tuple(OPERATORS))):
        if unknown := [name for name in names if name not in known]:
            raise UserError(f'"--{option}" has {unknown[0]}; use any of {", ".join(known)}')
    if merges < 1 or not (sizes or weights):
        raise UserError('there is nothing to merge; give "--merges" of at least 1, and "--parents" or "--weights"')
    by_score = np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")
    found = []
    given = [tuple(map(float, item)) for item in weights]
    for size in sorted({*sizes, *map(len, given)}):
        if not 2 <= size <= min(MOST, len(by_score)):
            raise UserError(
                f'"--parents" has {size}, but a merge takes 2 to {min(MOST, len(by_score))} of {len(by_score)} candidates; '
                "use a number between"
            )
        for family in families:
            order = by_score
            if family.startswith("oracle"):
                if oracle is None:
                    raise UserError(f'"--families" has {family}, but there are no held-out scores to choose by')
                order = np.argsort(-np.asarray(oracle, dtype=np.float64), kind="stable")
            rng = np.random.default_rng([seed, size, FAMILIES.index(family)])
            for parents in _sets(rng, _pool(order, family, size), size, merges):
                each = {name: OPERATORS[name](size) for name in operators if size in sizes}
                if gram is not None and "norm" in each:
                    each["norm"] = preserving(np.asarray(gram, dtype=np.float64)[np.ix_(parents, parents)])
                uniform = [(name, (weight,) * size) for name, weight in each.items()]
                own = [(",".join(f"{w:g}" for w in item), item) for item in given if len(item) == size]
                found += [Merge(family, name, parents, item) for name, item in (*uniform, *own)]
    return found


def preserving(gram: ArrayLike) -> float:
    """The weight under which a sum of n steps is as large as one of them (their root mean square norm): 1/√n if orthogonal.

    Args:
        gram: (n, n) inner products.
    """
    g = np.asarray(gram, dtype=np.float64)
    own, whole = float(np.trace(g)), float(g.sum())
    if not (g - np.diag(np.diag(g))).any():
        return 1 / math.sqrt(len(g))
    # Steps that cancel have no sum to be enlarged.
    return math.sqrt(own / len(g) / whole) if whole > 1e-9 * own else 1 / math.sqrt(len(g))


def _pool(order: NDArray[np.intp], family: str, size: int) -> list[int]:
    quarter = min(len(order), max(2 * size, math.ceil(len(order) / 4)))
    if family.endswith("top"):
        return [int(i) for i in order[:quarter]]
    return [int(i) for i in (order[-quarter:] if family.endswith("bottom") else order)]


def _sets(rng: np.random.Generator, pool: list[int], size: int, count: int) -> list[tuple[int, ...]]:
    """Disjoint sets, in the pool's order within each."""
    order = rng.permutation(len(pool))
    starts = range(0, len(pool) - size + 1, size)[:count]
    return [tuple(pool[i] for i in sorted(order[start : start + size])) for start in starts]


def read_weights(text: str) -> tuple[float, ...]:
    """Weights as the command line has them: numbers with commas between."""
    try:
        found = tuple(float(item) for item in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(map(math.isfinite, found)):
        raise UserError(f'"--weights" is {text!r}; give numbers with commas between, for example --weights 0.7,0.3')
    return found


# What came of them


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over merges and examples, with its interval and two-sided p; NaN where there is one merge alone."""

    value: float
    lo: float
    hi: float
    p: float


@dataclass(frozen=True, slots=True)
class Result:
    """One merge against the base, and against its parents."""

    merge: Merge
    gain: stats.Paired
    p_holm: float  # of the gain, for all merges measured
    predicted: float  # Σ wₖ times the parents' effects
    mean_parent: float  # mean of the parents' gains
    best_parent: float
    fixed: tuple[int, ...]  # places of examples that the merge answers better than the base
    broken: tuple[int, ...]
    kept: int  # of the examples that a parent fixes, those that the merge fixes too
    fixable: int  # examples that a parent fixes


@dataclass(frozen=True)
class Cell:
    """A family, operator and number of parents."""

    family: str
    operator: str
    parents: int
    merges: int
    gain: Estimate
    above_base: int  # merges above the base, their parents' mean, their best parent
    above_mean: int
    above_best: int
    fixed: float  # examples, mean over merges
    broken: float
    predicted: float  # gain, were effects additive
    excess: Estimate  # the sum's effect less the sum of the effects
    excess_p_holm: float
    enrichment: Estimate | None  # gain less that of the random family; None for that family itself
    enrichment_p_holm: float


@dataclass(frozen=True)
class Merges:
    results: list[Result]
    cells: list[Cell]


def analyse(
    merges: Sequence[Merge],
    rewards: ArrayLike,
    parents: ArrayLike,
    base: ArrayLike,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Merges:
    """Judge merges by their answers.

    Args:
        merges: M of them.
        rewards: (M, n) on held-out examples.
        parents: (N, n) of the whole population on the same, NaN for candidates that are no parent.
        base: (n,).
        level, resamples, seed: of each merge's interval; only rewards other than 0 and 1 are resampled.
    """
    r, parent, b = (np.asarray(values, dtype=np.float64) for values in (rewards, parents, base))
    single = parent - b
    predicted = np.array([np.asarray(merge.weights) @ single[list(merge.parents)] for merge in merges])
    effects = r - b
    gains = [stats.paired(row, b, level, resamples, seed) for row in r]
    adjusted = stats.holm([gain.p for gain in gains])
    results = [
        _result(merge, effects[i], single[list(merge.parents)], gains[i], adjusted[i], float(predicted[i].mean()))
        for i, merge in enumerate(merges)
    ]
    members: dict[tuple[str, str, int], list[int]] = {}
    for i, merge in enumerate(merges):
        members.setdefault((merge.family, merge.operator, len(merge.parents)), []).append(i)

    def one(values: Array, key: tuple[str, str, int]) -> Estimate:
        """Of a cell; families of one operator and size lend each other their spread, with a sign of 0."""
        alike = [key, *(other for other in members if other[1:] == key[1:] and other != key)]
        return estimate([values[members[k]] for k in alike], [1.0] + [0.0] * (len(alike) - 1), level)

    excess = {key: one(effects - predicted, key) for key in members}
    enriched = {
        key: estimate([effects[which], effects[members["random", *key[1:]]]], [1.0, -1.0], level)
        for key, which in members.items()
        if key[0] != "random" and ("random", *key[1:]) in members
    }
    excess_holm, enriched_holm = _adjust(excess), _adjust(enriched)
    cells = []
    for key, which in members.items():
        mine = [results[i] for i in which]
        lead = [result.gain.difference for result in mine]
        cells.append(
            Cell(
                *key,
                merges=len(mine),
                gain=one(effects, key),
                above_base=sum(value > 0 for value in lead),
                above_mean=sum(result.gain.difference > result.mean_parent for result in mine),
                above_best=sum(result.gain.difference > result.best_parent for result in mine),
                fixed=float(np.mean([len(result.fixed) for result in mine])),
                broken=float(np.mean([len(result.broken) for result in mine])),
                predicted=float(predicted[which].mean()),
                excess=excess[key],
                excess_p_holm=excess_holm[key],
                enrichment=enriched.get(key),
                enrichment_p_holm=enriched_holm.get(key, math.nan),
            )
        )
    return Merges(results, cells)


def _result(
    merge: Merge, effect: Array, parents: Array, gain: stats.Paired, adjusted: float, predicted: float
) -> Result:
    fixed, fixable = effect > 0, (parents > 0).any(axis=0)
    means = parents.mean(axis=1)
    return Result(
        merge=merge,
        gain=gain,
        p_holm=float(adjusted),
        predicted=predicted,
        mean_parent=float(means.mean()),
        best_parent=float(means.max()),
        fixed=tuple(np.flatnonzero(fixed).tolist()),
        broken=tuple(np.flatnonzero(effect < 0).tolist()),
        kept=int((fixed & fixable).sum()),
        fixable=int(fixable.sum()),
    )


def estimate(groups: Sequence[ArrayLike], signs: Sequence[float], level: float = 0.95) -> Estimate:
    """Σ sign · mean of arrays (merges, examples) over the same examples, where both are samples.

    Variance: that between merges, plus that between examples, less that of single answers, which both contain (two-way
    clustering: Cameron, Gelbach and Miller 2011, J. Business & Economic Statistics 29:238); never less than either alone.
    The variance between merges is pooled over the arrays, those of sign 0 too, for they may hold few; one merge has none.
    Student's t, its degrees of freedom by Satterthwaite (1946, Biometrics 2:110), but no more than the examples have and
    no fewer than the lesser of both, which it is below 3: the approximation errs there.
    """
    from scipy.special import stdtr, stdtrit

    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    n = arrays[0].shape[1]
    value = sum(sign * float(a.mean()) for sign, a in zip(signs, arrays, strict=True))
    free = sum(len(a) - 1 for a in arrays)
    if n < 2 or any(sign and len(a) < 2 for sign, a in zip(signs, arrays, strict=True)):
        return Estimate(value, math.nan, math.nan, math.nan)
    rest = [a - a.mean(axis=1, keepdims=True) - a.mean(axis=0) + a.mean() for a in arrays]
    between = sum(float(((a.mean(axis=1) - a.mean()) ** 2).sum()) for a in arrays) / free
    single = sum(float((left**2).sum()) for left in rest) / (free * (n - 1))
    share = sum(sign * sign / len(a) for sign, a in zip(signs, arrays, strict=True))
    by_merge = between * share
    by_example = float(np.var(sum(s * a.mean(axis=0) for s, a in zip(signs, arrays, strict=True)), ddof=1)) / n
    by_answer = single * share / n
    variance = max(by_merge + by_example - by_answer, by_merge, by_example)
    error = math.sqrt(variance)
    if error < 1e-12:  # no spread does not prove that there is none
        return Estimate(value, *stats.bootstrap_mean(np.full(n, value), level), 1.0)
    mixed = by_merge**2 / free + by_example**2 / (n - 1) + by_answer**2 / (free * (n - 1))
    least = min(free, n - 1)
    degrees = min(max(variance**2 / mixed, least), n - 1) if free >= 3 else least
    reach = float(stdtrit(degrees, (1 + level) / 2)) * error
    p = 2 * float(stdtr(degrees, -abs(value) / error))
    return Estimate(value, value - reach, value + reach, p)


def _adjust(found: Mapping[tuple[str, str, int], Estimate]) -> dict[tuple[str, str, int], float]:
    """Holm's p of those that were tested; NaN for the others."""
    tested = [key for key, item in found.items() if not math.isnan(item.p)]
    adjusted = dict(zip(tested, stats.holm([found[key].p for key in tested]), strict=True))
    return {key: float(adjusted.get(key, math.nan)) for key in found}
