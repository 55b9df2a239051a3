"""Transfer: no effect planted, none found; a planted one is; and the formulas by hand."""

import math

import numpy as np
import pytest
from populations import slices
from scipy import stats as scipy_stats

from seedfold.diagnose import transfer


def measured(seed: int, **world: float) -> transfer.Transfer:
    search, held, sigmas, _ = slices(seed, **world)
    return transfer.measure(search.rewards, search.base, held.rewards, held.base, sigmas, resamples=100)


def test_no_effect_planted_no_effect_found() -> None:
    """Equal candidates; then sizes that differ, where no seed of a size is better than another."""
    for harm in (0.0, 0.5):
        told = [measured(seed, harm=harm) for seed in range(120)]
        for name in ("spearman_p", "pearson_p"):
            p = np.array([getattr(one.within, name) for one in told])
            assert scipy_stats.kstest(p, "uniform").pvalue > 0.005, (harm, name)
        # Interval of the reliability: it leaves out the truth, 0, in 5 % of cases.
        missed = sum(not one.search_reliability.lo <= 0 <= one.search_reliability.hi for one in told)
        assert scipy_stats.binomtest(missed, len(told), 0.05, "greater").pvalue > 0.01
        if not harm:
            beyond = sum(one.oracle.held.difference > one.chance_high for one in told)
            assert scipy_stats.binomtest(beyond, len(told), 0.05, "greater").pvalue > 0.01
            assert np.mean([one.oracle.held.difference for one in told]) > 0.05  # luck of the best of 40, and yet
        else:
            # A harmful size makes scores predict over everyone, and says nothing within a size.
            assert np.mean([one.everyone.spearman for one in told]) > 0.6
            assert abs(np.mean([one.within.spearman for one in told])) < 0.05


def test_a_planted_effect_is_found() -> None:
    told = [measured(seed, sd=0.25, candidates=60, examples=64) for seed in range(20)]
    assert all(one.within.spearman_p < 0.01 for one in told)
    assert np.mean([one.within.pearson for one in told]) == pytest.approx(
        np.mean([one.ceiling for one in told]), abs=0.05
    )
    assert all(one.search_reliability.lo > 0 for one in told)
    # The pick by score gains on examples that did not choose it, less than on those that did.
    assert np.mean([one.chosen.held.difference for one in told]) > 0.05
    assert np.mean([one.chosen.search for one in told]) > np.mean([one.chosen.held.difference for one in told])
    assert np.mean([one.chosen.expected - one.chosen.held.difference for one in told]) == pytest.approx(0, abs=0.03)
    assert all(one.oracle.held.difference >= one.chosen.held.difference for one in told)


def test_needed_examples_are_those_that_give_the_reliability() -> None:
    """Told from 48 examples, checked on that many fresh ones."""
    reached = []
    for seed in range(6):
        search, _, sigmas, _ = slices(seed, candidates=400, sd=0.15)
        needed, least, most = transfer.reliability(search.rewards, sigmas).needed(0.8)
        assert least < needed < most
        many, *_ = slices(100 + seed, candidates=400, sd=0.15, examples=round(needed))
        reached.append(transfer.reliability(many.rewards, sigmas).value)
    assert np.mean(reached) == pytest.approx(0.8, abs=0.03)
    assert transfer.Reliability(0.5, -0.1, 0.8, 10).needed(0.5) == pytest.approx((10, 2.5, math.inf))


def test_reliability_is_cronbachs_alpha_and_feldts_interval() -> None:
    rng = np.random.default_rng(3)
    r = rng.normal(size=(30, 1)) * 0.5 + rng.normal(size=(30, 12))
    found = transfer.reliability(r, np.zeros(30, dtype=int))
    covariance = np.cov(r.T)
    assert found.value == pytest.approx(12 / 11 * (1 - np.trace(covariance) / covariance.sum()))
    covered = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        r = rng.normal(size=(20, 1)) * 0.5 + rng.normal(size=(20, 12)) + np.repeat([0, 3], 10)[:, None]
        one = transfer.reliability(r, np.repeat([0, 1], 10))
        covered += one.lo <= 12 * 0.25 / (12 * 0.25 + 1) <= one.hi
    assert scipy_stats.binomtest(covered, 300, 0.95).pvalue > 0.01


def test_where_nothing_can_be_told() -> None:
    assert transfer.reliability(np.ones((5, 4)), np.zeros(5, dtype=int)) == transfer.Reliability(0, 0, 1, 4)
    assert transfer.reliability(np.eye(2), np.arange(2)) == transfer.Reliability(0, 0, 1, 2)
    assert math.isnan(transfer.correlate(np.ones(5), np.arange(5)).pearson)
    short = transfer.correlate([1.0, 2.0, 3.0], [3.0, 1.0, 2.0])
    assert short.spearman == pytest.approx(-0.5)
    assert math.isnan(short.pearson)


def test_racing_leaves_gaps_on_search_alone() -> None:
    search, held, sigmas, _ = slices(0, sd=0.3)
    gaps = search.rewards.copy()
    gaps[::2, 24:] = np.nan
    told = transfer.measure(gaps, search.base, held.rewards, held.base, sigmas, resamples=50)
    assert told.search_examples == 24
    assert told.within.spearman > 0.3


def test_a_size_of_one_candidate() -> None:
    search, held, sigmas, _ = slices(0, sd=0.3)
    sigmas[-1] = 3
    told = transfer.measure(search.rewards, search.base, held.rewards, held.base, sigmas, resamples=50)
    assert [one.sigma for one in told.above] == [1, 2]
    assert told.within.spearman > 0.3
    alone = transfer.measure(search.rewards, search.base, held.rewards, held.base, np.arange(1.0, 41), resamples=50)
    assert alone.above == []
    assert math.isnan(alone.within.spearman)
