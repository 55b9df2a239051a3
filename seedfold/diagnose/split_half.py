"""Does what was rewarded reproduce? Split halves of the population and of the examples, against permutation nulls.

Input is plain arrays: effects (N candidates, n examples), paired differences from the base. Two questions, two nulls.

**Direction.** Candidates are scored on one half of the examples, X, and their effects taken on the other, Y: score and
effect would otherwise share their noise, and Σ sᵢ eᵢ would agree between halves of pure noise. u = Σ sᵢ eᵢ, with scores and
effects centred within each half and size, is computed in halves A and B of the population, and the statistic is the inner
product u_A · u_B. Null: the scores are permuted among the candidates of a half and size, which leaves every correlation
between examples in place: a strong but unrewarded structure must not pass for a reproducible direction.

**Low-rank covariance.** The leading r right singular vectors of the centred effects of A and of B, and the share of one
span that lies in the other, ‖V_Aᵀ V_B‖² / r. Null: each example's column is permuted on its own among the candidates of a
half and size (parallel analysis: Horn 1965; Buja and Eyuboglu 1992). It keeps the examples' variances, so hard and easy
examples are no structure, and removes what ties them together. The rewarded half of the population (the elite) is chosen
on X, its covariance is taken on Y.

The same between halves of the *examples*, where candidates are the common axis: left singular vectors, and scores.

**Weight space.** Steps of independent seeds are orthogonal: between halves of the population any direction has a cosine of
0, whatever its worth. Only halves of the examples can be compared there, or populations that share seeds. `gram` holds the
steps' inner products: those of coefficient space, or of an independent sketch of the weights.

Candidates must be independent: of an antithetic pair, hand in half the difference of the two effects as one candidate.
p-values count the observed arrangement among the permuted ones, so they are exact at any N and n if the null holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

Array = NDArray[np.float64]
Index = NDArray[np.intp]

one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""Permutations are thousands of small decompositions: threads gain nothing there, and where several studies share a machine
of many cores they wait for each other twenty times as long as they work."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """One statistic of two halves against its permutation null."""

    observed: float  # cosine, or overlap, of the two halves
    null: float  # the permuted ones' mean
    null_high: float  # and their 95 % quantile
    p: float  # one-sided: chance of a statistic as large without structure


@dataclass(frozen=True)
class SplitHalf:
    """All answers. Curves hold r = 1, 2, …; `rank` is how many directions of covariance reproduce at `level`."""

    direction_population: Reproduction  # behaviour: A against B
    direction_examples: Reproduction  # scores: X against Y
    weights_population: Reproduction | None  # coefficient or sketch space; None without a gram
    weights_examples: Reproduction | None
    curve_population: tuple[Reproduction, ...]
    curve_examples: tuple[Reproduction, ...]
    rank: int
    share: float  # of those directions' energy (as combinations of candidates) that reproduces between example halves


@one_thread
def measure(
    effects: ArrayLike,
    groups: ArrayLike | None = None,
    gram: ArrayLike | None = None,
    most: int = 8,
    elite: float = 0.5,
    permutations: int = 199,
    level: float = 0.05,
    seed: int = 0,
) -> SplitHalf:
    """Split once at random, in four quarters, and answer all questions.

    Args:
        effects: (N, n) paired differences, without NaN: leave out examples that racing did not ask everyone.
        groups: (N,) labels of equal size; candidates are centred and permuted within them.
        gram: (N, N) inner products of the candidates' steps.
        most: greatest r of the curves.
        elite: quantile of the score on X from which candidates make the covariance; 0: all.
    """
    e = _effects(effects)
    label = np.zeros(len(e), dtype=np.intp) if groups is None else np.unique(groups, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    half_a, half_b = _halves(rng, label)
    x, y = _halves(rng, np.zeros(e.shape[1], dtype=np.intp))
    score_x, score_y = _centred(e[:, x], label).mean(axis=1), _centred(e[:, y], label).mean(axis=1)
    on_y = e[:, y]

    best = [_elite(half, score_x, label, elite) for half in (half_a, half_b)]
    k, reproduced = rank(on_y[np.concatenate(best)], label[np.concatenate(best)], most, permutations, level, seed)

    def halves_of_population(products: Array) -> Reproduction:
        return _pair(rng, score_x, score_x, half_a, half_b, products, label, permutations)

    def halves_of_examples(products: Array) -> Reproduction:
        everyone = np.arange(len(e))
        return _pair(rng, score_x, score_y, everyone, everyone, products, label, permutations)

    behaviour = _behaviour(on_y, label, half_a, half_b)
    steps = None if gram is None else np.asarray(gram, dtype=np.float64)
    a, b = best
    return SplitHalf(
        direction_population=halves_of_population(behaviour),
        direction_examples=halves_of_examples(np.eye(len(e))),
        weights_population=None if steps is None else halves_of_population(steps),
        weights_examples=None if steps is None else halves_of_examples(steps),
        curve_population=_curve(rng, on_y[a], on_y[b], label[a], label[b], most, permutations, False),
        curve_examples=_curve(rng, e[:, x], e[:, y], label, label, most, permutations, True),
        rank=k,
        share=reproduced,
    )


# Direction


def _behaviour(effects: Array, label: Index, a: Index, b: Index) -> Array:
    """Inner products (N, N) of effects that are centred within half and size."""
    centred = np.zeros_like(effects)
    for half in (a, b):
        centred[half] = _centred(effects[half], label[half])
    return np.asarray(centred @ centred.T)


def _pair(
    rng: np.random.Generator, one: Array, other: Array, a: Index, b: Index, gram: Array, label: Index, permutations: int
) -> Reproduction:
    """Σ_A oneᵢ vᵢ against Σ_B otherⱼ vⱼ, vectors v given by their inner products; the scores of each are permuted.

    The inner product is tested, which has more power than the cosine that is shown: permuted scores make short vectors.
    """
    s, t = _centred(one[a, None], label[a])[:, 0], _centred(other[b, None], label[b])[:, 0]
    across = gram[np.ix_(a, b)]
    length = math.sqrt(max(float(s @ gram[np.ix_(a, a)] @ s) * float(t @ gram[np.ix_(b, b)] @ t), 0.0))
    null = np.array([_shuffled(rng, s, label[a]) @ across @ _shuffled(rng, t, label[b]) for _ in range(permutations)])
    observed = float(s @ across @ t)
    null[np.abs(null) < 1e-12 * length] = 0.0
    observed = 0.0 if abs(observed) < 1e-12 * length else observed
    return _result(observed, null, 1 / length if length else 0.0)


# Covariance


@one_thread
def rank(
    effects: ArrayLike,
    groups: ArrayLike | None = None,
    most: int = 8,
    permutations: int = 199,
    level: float = 0.05,
    seed: int = 0,
) -> tuple[int, float]:
    """(directions of the effects' covariance that reproduce between halves of the population, how well they do).

    One direction after the other, until one fails: the variance of B along A's k-th direction, and of A along B's, is
    compared with that of data whose k − 1 directions before are kept and whose residuals are permuted example by example,
    analysed anew (parallel analysis, deflated as in Dobriban and Owen 2019, on held-out halves). The first stage, "any
    structure at all", is exact; later ones rest on the directions found before.

    How well: the share of the directions' energy, as combinations of candidates, that reproduces between halves of the
    examples; 1 − share is what of a step along them would be noise.
    """
    e = _effects(effects)
    label = np.zeros(len(e), dtype=np.intp) if groups is None else np.unique(groups, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    a, b = _halves(rng, label)
    one, other = _centred(e[a], label[a]), _centred(e[b], label[b])
    found = 0
    while found < min(most, min(len(one), len(other), e.shape[1]) - 2):
        basis = _directions(np.concatenate([one, other]), found)
        kept = [part @ basis.T @ basis for part in (one, other)]
        # Taking directions out has shrunk the columns that they load on.
        grow = 1 / np.sqrt(np.maximum(1 - (basis**2).sum(axis=0), 1e-6))
        rest = [(part - inside) * grow for part, inside in zip((one, other), kept, strict=True)]
        null = []
        for _ in range(permutations):
            redone = [
                _centred(inside + _columns(rng, left, label[half]), label[half])
                for inside, left, half in zip(kept, rest, (a, b), strict=True)
            ]
            null.append(_held_out(redone[0], redone[1], found))
        if _result(_held_out(one, other, found), np.array(null), 1.0).p > level:
            break
        found += 1
    return found, _share(rng, e, label, found, min(permutations, 50)) if found else 0.0


def _held_out(one: Array, other: Array, k: int) -> float:
    """Sum of squares of each half along the other's direction number k (from 0)."""
    u, v = _directions(one, k + 1)[k], _directions(other, k + 1)[k]
    return float(((other @ u) ** 2).sum() + ((one @ v) ** 2).sum())


def _share(rng: np.random.Generator, e: Array, label: Index, k: int, permutations: int) -> float:
    """Of the energy of k directions, as combinations of candidates, the part that reproduces between example halves.

    Each half's directions hold a part ρ² of the truth, so their overlap beyond chance is about ρ⁴.
    """
    x, y = _halves(rng, np.zeros(e.shape[1], dtype=np.intp))
    last = _curve(rng, e[:, x], e[:, y], label, label, k, permutations, True)[-1]
    return math.sqrt(min(max((last.observed - last.null) / max(1 - last.null, 1e-12), 0.0), 1.0))


def _curve(
    rng: np.random.Generator, one: Array, other: Array, la: Index, lb: Index, most: int, permutations: int, left: bool
) -> tuple[Reproduction, ...]:
    """Overlap of the leading r singular directions, r = 1 … most; `left`: of the candidates, else of the examples."""
    one, other = _centred(one, la), _centred(other, lb)
    most = min(most, *one.shape, *other.shape)

    def overlaps(p: Array, q: Array) -> Array:
        u, v = (_directions(part.T if left else part, most) for part in (p, q))
        squares = (u @ v.T) ** 2
        return np.array([squares[:r, :r].sum() / r for r in range(1, most + 1)])

    observed = overlaps(one, other)
    null = np.array([overlaps(_columns(rng, one, la), _columns(rng, other, lb)) for _ in range(permutations)])
    return tuple(_result(float(observed[r]), null[:, r], 1.0) for r in range(most))


# Shared parts


def _effects(effects: ArrayLike) -> Array:
    e = np.asarray(effects, dtype=np.float64)
    if e.ndim != 2 or min(e.shape) < 4 or not np.isfinite(e).all():
        raise ValueError(f"effects must be a finite array of at least 4 candidates and 4 examples, not {e.shape}")
    return e


def _halves(rng: np.random.Generator, label: Index) -> tuple[Index, Index]:
    """Two halves with as many of each label, in order."""
    a: list[int] = []
    b: list[int] = []
    for group in range(label.max() + 1):
        members = rng.permutation(np.flatnonzero(label == group)).tolist()
        # The odd one goes to the half that is shorter.
        first = len(members) // 2 + (len(members) % 2 and len(a) < len(b))
        a, b = a + members[:first], b + members[first:]
    return np.sort(np.array(a, dtype=np.intp)), np.sort(np.array(b, dtype=np.intp))


def _elite(half: Index, score: Array, label: Index, quantile: float) -> Index:
    """Those of a half from the quantile of the score of their size up."""
    chosen = [
        members[score[members] >= np.quantile(score[members], quantile)]
        for group in np.unique(label[half])
        if len(members := half[label[half] == group])
    ]
    return np.sort(np.concatenate(chosen))


def _centred(values: Array, label: Index) -> Array:
    """Each column less its mean within the label."""
    found = np.array(values, dtype=np.float64)
    for group in np.unique(label):
        found[label == group] -= found[label == group].mean(axis=0)
    return found


def _shuffled(rng: np.random.Generator, scores: Array, label: Index) -> Array:
    found = scores.copy()
    for group in np.unique(label):
        found[label == group] = rng.permutation(scores[label == group])
    return found


def _columns(rng: np.random.Generator, values: Array, label: Index) -> Array:
    """Every column permuted on its own within the label."""
    found = values.copy()
    for group in np.unique(label):
        found[label == group] = rng.permuted(values[label == group], axis=0)
    return found


def _directions(values: Array, k: int) -> Array:
    """The k leading right singular vectors, (k, columns), from the smaller of the two Gram matrices."""
    if not k:
        return np.zeros((0, values.shape[1]))
    rows, columns = values.shape
    if columns <= rows:
        return _leading(values.T @ values, k)
    found = _leading(values @ values.T, k) @ values
    # Rounding makes a null direction of no length; an orthonormal basis is what the callers rely on.
    return np.asarray(np.linalg.qr(found.T)[0].T)


def _leading(gram: Array, k: int) -> Array:
    """The k leading eigenvectors, as rows."""
    last = len(gram) - 1
    return np.asarray(eigh(gram, subset_by_index=(last - k + 1, last), check_finite=False)[1][:, ::-1].T)


def _result(observed: float, null: Array, unit: float) -> Reproduction:
    reached = int((null >= observed - 1e-12 * abs(observed)).sum())
    high = float(np.quantile(null, 0.95))
    return Reproduction(observed * unit, float(null.mean()) * unit, high * unit, (1 + reached) / (1 + len(null)))
