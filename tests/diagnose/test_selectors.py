"""Selectors: the formulas by hand, no difference where none is planted, and the better one where there is."""

import numpy as np
import pytest
from populations import slices
from scipy import stats as scipy_stats

from seedfold.diagnose import selectors
from seedfold.diagnose.selectors import Slice

NAMES = [
    "raw mean",
    "shrunk mean",
    "lower bound",
    "difficulty-weighted",
    "log-probability",
    "mean and log-probability",
]


def test_scores_by_hand() -> None:
    rewards = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1, 0.0]])
    base = np.array([1, 0, 0, 0.0])
    # Nobody misses the first, and nobody gets the last: weights 0, ½, ½, 1.
    assert selectors.hard_first(rewards, base) == pytest.approx([0.25, 0.25, 0, 0.5])
    effects = rewards - base
    bound = selectors.lower_bound(effects)
    assert bound[2] == 0
    assert bound[0] == pytest.approx(0.25 - 1.959964 * 0.5 / 2)
    found = selectors.scores(Slice(rewards, base), np.zeros(4))
    assert list(found) == NAMES[:4]
    assert found["raw mean"] == pytest.approx(effects.mean(axis=1))
    assert found["shrunk mean"].argsort().tolist() == found["raw mean"].argsort().tolist()


def test_the_index_has_the_coefficients_of_the_truth() -> None:
    """Graded = truth + noise, dense = 3 truth + another trait + noise that one answer and its log-probability share."""
    rng = np.random.default_rng(0)
    n, m = 20_000, 10
    truth, trait = rng.normal(size=(n, 1)), rng.normal(size=(n, 1))
    luck = rng.normal(size=(n, m)) * 2
    graded, dense = truth + luck, 3 * truth + trait + luck + rng.normal(size=(n, m))
    dense[:, 5:] = np.nan  # no reference
    found = selectors.index(graded, dense, np.zeros(n))
    total = np.array([[1 + 0.4, 3 + 0.4], [3 + 0.4, 9 + 1 + 5 / 5]])
    own = np.linalg.solve(total, [1, 3])
    want = own[0] * graded.mean(axis=1) + own[1] * dense[:, :5].mean(axis=1)
    assert np.corrcoef(found, want)[0, 1] > 0.999
    assert np.std(found) == pytest.approx(np.std(want), rel=0.03)
    # It beats both of its parts.
    ability = [
        np.corrcoef(score, truth[:, 0])[0, 1] for score in (found, graded.mean(axis=1), dense[:, :5].mean(axis=1))
    ]
    assert ability[0] > max(ability[1:])


def test_the_index_without_use_is_the_mean() -> None:
    graded = np.random.default_rng(1).normal(size=(30, 8))
    label = np.repeat([0, 1], 15)
    assert selectors.index(graded, np.full((30, 8), np.nan), label) == pytest.approx(graded.mean(axis=1))
    assert selectors.index(graded, np.zeros((30, 8)), label) == pytest.approx(graded.mean(axis=1))


def test_no_difference_planted_none_found() -> None:
    wrong = missed = 0
    times = 80
    for seed in range(times):
        search, held, sigmas, _ = slices(seed)
        told = selectors.compare(search, held, sigmas, resamples=200)
        assert [one.name for one in told] == NAMES
        wrong += min(one.p_holm for one in told) <= 0.05
        missed += not told[0].lo <= 0 <= told[0].hi
    assert scipy_stats.binomtest(wrong, times, 0.05, "greater").pvalue > 0.01
    assert scipy_stats.binomtest(missed, times, 0.05, "greater").pvalue > 0.01


def test_a_better_selector_is_found() -> None:
    """The log-probability measures the same worth with a quarter of the noise."""
    better = 0
    for seed in range(12):
        search, held, sigmas, true = slices(seed, candidates=160, sd=0.1, dense_noise=0.2)
        told = {one.name: one for one in selectors.compare(search, held, sigmas, resamples=400)}
        better += told["log-probability"].p_holm <= 0.05 and told["log-probability"].more > 0
        assert told["mean and log-probability"].more > 0.02
        assert true[list(told["log-probability"].picks)].mean() > 0.1
    assert better >= 10


def test_slices_take_turns() -> None:
    search, held, sigmas, _ = slices(0, sd=0.3)
    one = selectors.compare(search, held, sigmas, resamples=50)[0]
    best = (search.rewards - search.base).mean(axis=1).argmax(), (held.rewards - held.base).mean(axis=1).argmax()
    assert one.picks == best
    gain = np.concatenate([(held.rewards - held.base)[best[0]], (search.rewards - search.base)[best[1]]])
    assert one.gain.difference == pytest.approx(gain.mean())
    assert (one.more, one.p, one.p_holm) == (0, 1, 1)
    means = search.rewards.mean(axis=1), held.rewards.mean(axis=1)
    assert one.correlation == pytest.approx(scipy_stats.spearmanr(*means).statistic)
