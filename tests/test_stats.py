import itertools
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold import stats


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def bits(fixed: int, broken: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    treatment = np.repeat([1, 0, 1, 0], [fixed, broken, both, neither])
    control = np.repeat([0, 1, 1, 0], [fixed, broken, both, neither])
    return treatment, control


# Wilson. The four examples of Newcombe (1998, Statistics in Medicine 17:857), table I.


@pytest.mark.parametrize(
    ("successes", "n", "lo", "hi"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published_values(successes, n, lo, hi):
    assert stats.wilson(successes, n) == pytest.approx((lo, hi), abs=5e-5)
    mirrored = stats.wilson(n - successes, n)
    assert mirrored == pytest.approx((1 - hi, 1 - lo), abs=5e-5)


def test_wilson_edges():
    assert stats.wilson(0, 0) == (0.0, 1.0)
    assert stats.wilson(0, 7)[0] == 0.0
    assert stats.wilson(7, 7)[1] == 1.0
    assert stats.wilson(5, 10, 0.99)[0] < stats.wilson(5, 10, 0.9)[0]
    with pytest.raises(ValueError, match="successes"):
        stats.wilson(3, 2)
    with pytest.raises(ValueError, match="level"):
        stats.wilson(1, 2, 95)


# Bootstrap


@pytest.mark.parametrize(("n", "least", "most"), [(3, 0.9, 0.99), (30, 0.92, 0.98), (200, 0.92, 0.98)])
def test_bootstrap_mean_covers(n, least, most):
    rng = generator(n)
    hits = 0
    for trial in range(400):
        lo, hi = stats.bootstrap_mean(rng.normal(3, 2, n), resamples=1000, seed=trial)
        hits += lo <= 3 <= hi
    assert least <= hits / 400 <= most


def test_bootstrap_mean_is_the_students_interval_for_many_normal_values():
    x = generator(4).normal(1, 2, 400)
    half = 1.966 * x.std(ddof=1) / 20
    assert stats.bootstrap_mean(x, resamples=40_000) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.01)


def test_bootstrap_mean_is_a_function_of_its_seed():
    x = generator(1).normal(size=50)
    assert stats.bootstrap_mean(x, seed=3) == stats.bootstrap_mean(x, seed=3)
    assert stats.bootstrap_mean(x, seed=3) != stats.bootstrap_mean(x, seed=4)


def test_bootstrap_mean_without_spread_is_not_certain():
    assert stats.bootstrap_mean([0.3]) == (-math.inf, math.inf)
    lo, hi = stats.bootstrap_mean([0.3] * 100, span=2.0)
    assert (0.3 - lo, hi - 0.3) == pytest.approx((2 * 0.036996, 2 * 0.036996), abs=1e-5)
    for bad in ([], [math.nan], [[1.0]], [math.inf, 0]):
        with pytest.raises(ValueError, match="values"):
            stats.bootstrap_mean(bad)


def test_memory_of_resampling_is_bounded():
    x = generator(0).normal(size=10_000)
    tracemalloc.start()
    stats.paired(x, np.zeros(10_000), resamples=2_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6  # all at once: 2,000 · 10,000 · 8 bytes = 160 MB for each of two arrays


def test_no_resample_is_lost_to_chunking(monkeypatch):
    monkeypatch.setattr(stats, "CHUNK", 1000)
    assert list(stats._chunks(10, 300)) == [3, 3, 3, 1]
    assert list(stats._chunks(2, 10_000)) == [1, 1]


# Paired comparisons


@pytest.mark.parametrize(("fixed", "broken"), [(0.1, 0.05), (0.3, 0.2), (0.03, 0.03)])
@pytest.mark.parametrize("n", [30, 200])
def test_paired_covers_with_binary_rewards(fixed, broken, n):
    rng = generator(n)
    hits = 0
    for _ in range(400):
        b, c, rest = rng.multinomial(n, [fixed, broken, 1 - fixed - broken])
        found = stats.paired(*bits(b, c, rest, 0))
        hits += found.lo <= fixed - broken <= found.hi
    # With an expected number of 2 changed answers in 30 a score interval is wider than it must be.
    assert 0.92 <= hits / 400 <= (0.98 if n * (fixed + broken) > 3 else 1)


@pytest.mark.parametrize("n", [30, 150])
def test_paired_covers_with_graded_rewards_and_its_p_is_uniform(n):
    rng = generator(n)
    hits = rejected = 0
    for trial in range(400):
        hard = rng.uniform(size=n)
        treatment = np.clip(hard + rng.normal(0, 0.3, n), 0, 1)
        control = np.clip(hard + rng.normal(0, 0.3, n), 0, 1)
        found = stats.paired(treatment, control, resamples=600, seed=trial)
        hits += found.lo <= 0 <= found.hi
        rejected += found.p <= 0.05
    assert 0.92 <= hits / 400 <= 0.98
    assert 0.02 <= rejected / 400 <= 0.08


def test_paired_counts():
    found = stats.paired(*bits(6, 1, 20, 13))
    assert (found.difference, found.n, found.fixed, found.broken) == (pytest.approx(5 / 40), 40, 6, 1)
    assert found.p == pytest.approx(0.125)
    assert found.lo < 5 / 40 < found.hi


def test_pairing_matters():
    rng = generator(2)
    hard = rng.normal(0, 10, 100)
    treatment, control = hard + rng.normal(0.5, 0.5, 100), hard + rng.normal(0, 0.5, 100)
    assert stats.paired(treatment, control).lo > 0
    assert stats.paired(treatment, rng.permutation(control)).lo < 0


def test_no_changed_answer_still_has_an_interval():
    found = stats.paired(*bits(0, 0, 30, 20))
    assert (found.lo, found.hi) == pytest.approx((-0.0713476, 0.0713476), abs=1e-6)  # z² / (50 + z²)
    assert found.p == 1.0
    graded = stats.paired([0.5] * 50, [0.5] * 50)
    assert (graded.lo, graded.hi, graded.p) == (pytest.approx(-0.0713476), pytest.approx(0.0713476), 1.0)


def test_paired_tiny():
    one = stats.paired([1], [0])
    assert -1 <= one.lo < 0 < one.hi <= 1
    assert one.p == 1.0
    assert stats.paired([0.5], [0.1]).lo == -math.inf
    with pytest.raises(ValueError, match="2 and 1"):
        stats.paired([1, 0], [1])
    with pytest.raises(ValueError, match="control"):
        stats.paired([1], [math.nan])


def test_tango_published_values():
    # 21 children, airway hyper-responsiveness before and after transplantation: 1 against 7 changed (Fagerland,
    # Lydersen and Laake 2014, Statistics in Medicine 33:2850).
    assert stats.tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert stats.tango(7, 1, 21) == pytest.approx((0.026, 0.517), abs=5e-4)


def test_tango_edges():
    assert stats.tango(10, 0, 10)[1] == 1.0
    assert stats.tango(0, 10, 10)[0] == -1.0
    for counts in ((3, 3, 5), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="counts"):
            stats.tango(*counts)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_tango_agrees_with_the_score_test_of_no_difference(fixed, broken, rest):
    n = fixed + broken + rest
    if n == 0:
        return
    lo, hi = stats.tango(fixed, broken, n)
    assert -1 <= lo <= (fixed - broken) / n <= hi <= 1
    if fixed + broken:
        z = (fixed - broken) / math.sqrt(fixed + broken)
        if abs(abs(z) - 1.959964) > 1e-4:
            assert (lo <= 0 <= hi) == (abs(z) < 1.959964)


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (6, 1, 2 * (1 + 7) / 128),
        (1, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(fixed, broken, p):
    assert stats.mcnemar_exact(fixed, broken) == pytest.approx(p)


def test_sign_flip_by_hand():
    # 8 patterns of 3 signs; only all-plus and all-minus reach the observed sum.
    assert stats.paired([0.1, 0.2, 0.3], [0, 0, 0]).p == pytest.approx(2 / 8)
    # ±0.1 ±0.2 ±0.3 reaches 0.2 in absolute value unless it is 0.
    assert stats.paired([-0.1, 0.0, 0.3, 0.5], [0, 0, 0, 0.5]).p == pytest.approx(1.0)
    assert stats.paired([0.1, 0.2, -0.3, 0.5], [0, 0, 0, 0.5]).p == 1.0


def test_sign_flip_sampled_agrees_with_enumerated():
    d = generator(5).normal(0.4, 1, 12)
    exact = stats._sign_flip(d, 2**12, 0)
    assert stats._sign_flip(d, 4095, 0) == pytest.approx(exact, abs=0.02)
    assert stats._sign_flip(np.full(40, 0.5), 99, 0) == pytest.approx(0.01)  # never 0


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert stats.holm([]).shape == (0,)
    for bad in ([1.2], [math.nan]):
        with pytest.raises(ValueError, match="p-values"):
            stats.holm(bad)


# Shrinkage


def population(n: int, m: int, sd: float, seed: int, noise: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """(true scores around 0, rewards) with examples that differ far more than candidates do."""
    rng = generator(seed)
    true = rng.normal(0, sd, n)
    return true, true[:, None] + rng.normal(0, 2, m) + rng.normal(0, noise, (n, m))


def test_shrink_is_the_two_way_analysis_of_variance_on_full_data():
    _, r = population(12, 30, 0.2, 1)
    rows, columns = r.mean(axis=1), r.mean(axis=0)
    noise = ((r - rows[:, None] - columns + r.mean()) ** 2).sum() / (11 * 29)
    prior = rows.var(ddof=1) - noise / 30
    found = stats.shrink(r)
    assert found.mean == pytest.approx(rows)
    assert found.prior_sd == pytest.approx(math.sqrt(prior), rel=1e-4)
    assert found.se == pytest.approx(np.full(12, math.sqrt(noise / 30)), rel=1e-4)
    assert found.reliability == pytest.approx(prior / rows.var(ddof=1), rel=1e-4)
    assert found.shrunk == pytest.approx(r.mean() + found.reliability * (rows - r.mean()), rel=1e-4)
    assert found.prior_mean == pytest.approx(r.mean())


def test_shrink_recovers_the_spread_and_halves_the_error():
    sd, n, m = 0.05, 200, 64
    runs = [(true, stats.shrink(r)) for true, r in (population(n, m, sd, seed) for seed in range(40))]
    assert np.mean([f.prior_sd**2 for _, f in runs]) == pytest.approx(sd**2, rel=0.1)
    assert np.mean([f.reliability for _, f in runs]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([f.se for _, f in runs]) == pytest.approx(0.05, rel=0.02)
    raw = np.mean([np.var(f.mean - true) for true, f in runs])
    shrunk = np.mean([np.var(f.shrunk - true) for true, f in runs])
    assert shrunk == pytest.approx(raw / 2, rel=0.1)


def test_the_winners_shrunken_score_is_unbiased_and_its_plain_score_is_not():
    plain, shrunk = [], []
    for seed in range(120):
        true, r = population(100, 64, 0.05, seed)
        found = stats.shrink(r)
        best = found.mean.argmax()
        lead = true[best] - true.mean()
        plain.append(found.mean[best] - found.mean.mean() - lead)
        shrunk.append(found.shrunk[best] - found.prior_mean - lead)
    assert np.mean(plain) > 0.05
    assert abs(np.mean(shrunk)) < 0.012


def test_shrink_with_binary_rewards_uses_paired_noise():
    rng = generator(3)
    easy = rng.uniform(size=400) < 0.6  # nearly every answer is settled by the example
    r = np.array([np.where(rng.uniform(size=400) < 0.05, ~easy, easy) for _ in range(50)]).astype(float)
    found = stats.shrink(r)
    assert found.se == pytest.approx(np.full(50, math.sqrt(0.05 * 0.95 / 400)), rel=0.05)
    assert found.se[0] < 0.5 * math.sqrt(0.24 / 400)


def test_no_signal_gives_no_signal():
    found = [stats.shrink(population(50, 40, 0.0, seed)[1]) for seed in range(40)]
    assert np.mean([f.reliability for f in found]) < 0.15
    none = [f for f in found if f.prior_sd == 0]
    assert 10 < len(none) < 35
    assert all(np.ptp(f.shrunk) < 1e-9 and f.reliability == 0 for f in none)


def race(r: np.ndarray) -> np.ndarray:
    """Half go on after 32 examples, half of those after 64."""
    r = r.copy()
    n = len(r)
    order = np.argsort(-r[:, :32].mean(axis=1))
    r[order[n // 2 :], 32:] = np.nan
    score = np.where(np.isnan(r[:, 32]), -np.inf, r[:, :64].mean(axis=1))
    r[np.argsort(-score)[n // 4 :], 64:] = np.nan
    return r


def test_shrink_after_racing_is_unbiased_for_survivors_and_for_the_others():
    spread, survivors, others, unshrunk = [], [], [], []
    for seed in range(40):
        true, r = population(200, 128, 0.05, seed)
        raced = race(r)
        found = stats.shrink(raced)
        through = ~np.isnan(raced).any(axis=1)
        error = found.shrunk - found.prior_mean - true
        spread.append(found.prior_sd**2)
        survivors.append(error[through].mean())
        others.append(error[~through].mean())
        unshrunk.append((found.mean - found.prior_mean - true)[through].mean())
    assert math.sqrt(np.mean(spread)) == pytest.approx(0.05, rel=0.06)
    assert abs(np.mean(survivors)) < 0.004
    assert abs(np.mean(others)) < 0.004
    assert np.mean(unshrunk) > 0.015  # what the survivors' plain scores owe to luck


def test_shrink_of_any_ragged_rewards_maximises_the_likelihood():
    # More patterns than examples; checked against the REML likelihood of Patterson and Thompson written out in full.
    _, r = population(14, 6, 0.5, 2)
    r[generator(5).uniform(size=r.shape) < 0.3] = np.nan
    at = np.argwhere(~np.isnan(r))
    y, x, z = r[tuple(at.T)], np.eye(6)[at[:, 1]], np.eye(14)[at[:, 0]]

    def likelihood(prior: float, noise: float) -> float:
        v = prior * z @ z.T + noise * np.eye(len(y))
        inverse = np.linalg.inv(v)
        information = x.T @ inverse @ x
        rest = y - x @ np.linalg.solve(information, x.T @ inverse @ y)
        return -sum(np.linalg.slogdet(matrix)[1] for matrix in (v, information)) - rest @ inverse @ rest

    found = stats.shrink(r)
    prior, noise = found.prior_sd**2, float((found.se**2 * (~np.isnan(r)).sum(axis=1))[0])
    best = likelihood(prior, noise)
    for up, down in itertools.product((0.97, 1, 1.03), repeat=2):
        assert likelihood(prior * up, noise * down) <= best + 1e-6
    # And the scores are the best linear predictions under it.
    inverse = np.linalg.inv(prior * z @ z.T + noise * np.eye(len(y)))
    effects = np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ y)
    assert found.shrunk == pytest.approx(effects.mean() + prior * z.T @ inverse @ (y - x @ effects))


def test_an_easy_first_block_is_no_merit():
    _, r = population(20, 60, 0.3, 6)
    r[:, :20] += 5
    ragged = r.copy()
    ragged[10:, 20:] = np.nan
    full, found = stats.shrink(r), stats.shrink(ragged)
    assert found.mean == pytest.approx(full.mean, abs=0.4)
    assert np.nanmean(ragged, axis=1)[10:].mean() > full.mean[10:].mean() + 2
    assert (found.se[10:] > found.se[:10]).all()


def test_ragged_equals_full_when_nothing_is_missing():
    # The first column is asked of one candidate only: it says nothing about the others, and changes nothing.
    _, r = population(15, 25, 0.2, 8)
    alone = np.full((15, 1), np.nan)
    full = stats.shrink(r)
    nothing = stats.shrink(np.hstack([alone, r]))
    assert nothing.shrunk == pytest.approx(full.shrunk)
    alone[3] = 100.0
    nearly = stats.shrink(np.hstack([alone, r]))
    assert nearly.prior_sd == pytest.approx(full.prior_sd, rel=1e-3)
    assert nearly.shrunk - nearly.prior_mean == pytest.approx(full.shrunk - full.prior_mean, abs=5e-3)


def test_groups_have_their_own_centre_spread_and_noise():
    _, near = population(60, 80, 0.02, 1, noise=0.2)
    _, far = population(60, 80, 0.2, 2, noise=0.8)
    far = far - far.mean(axis=0) + near.mean(axis=0) - 3.0
    r = np.vstack([near, far])
    labels = [0.001] * 60 + [0.004] * 60
    found = stats.shrink(r, labels)
    apart = stats.shrink(near), stats.shrink(far)
    assert found.shrunk[:60] == pytest.approx(apart[0].shrunk, abs=1e-6)
    assert found.shrunk[60:] == pytest.approx(apart[1].shrunk, abs=1e-6)
    assert found.centre[0] - found.centre[-1] == pytest.approx(3.0)
    assert found.se[-1] / found.se[0] == pytest.approx(4, rel=0.1)
    assert found.reliability == pytest.approx((apart[0].reliability + apart[1].reliability) / 2)
    assert stats.shrink(r).prior_sd > 1  # the difference between the groups, taken for signal


def test_small_groups_are_one_population():
    _, r = population(20, 30, 0.2, 3)
    assert stats.shrink(r, [0] * 13 + [1] * 7).shrunk == pytest.approx(stats.shrink(r).shrunk)
    assert stats.shrink(r, [0] * 12 + [1] * 8).centre[0] != stats.shrink(r, [0] * 12 + [1] * 8).centre[-1]


def test_ragged_groups_are_compared_on_the_same_examples():
    _, r = population(40, 60, 0.05, 4)
    r[:, 30:] -= 4  # a hard second block, which the second group never sees
    r[20:, 30:] = np.nan
    found = stats.shrink(r, [0] * 20 + [1] * 20)
    assert found.centre[0] == pytest.approx(found.centre[-1], abs=0.1)


def test_shrink_degenerate():
    same = stats.shrink(np.full((4, 6), 0.3))
    assert same.shrunk == pytest.approx(np.full(4, 0.3))
    assert (same.prior_sd, same.reliability, same.se.max()) == (0, 0, 0)
    one = stats.shrink([[0.0, 1.0, 1.0, 1.0]])
    assert (one.mean[0], one.shrunk[0], one.reliability) == (pytest.approx(0.75), pytest.approx(0.75), 0)
    assert math.isnan(one.se[0])
    one_example = stats.shrink([[0.0], [1.0], [1.0]])
    assert one_example.mean == pytest.approx([0, 1, 1])
    assert one_example.shrunk == pytest.approx([2 / 3] * 3)
    certain = stats.shrink([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert certain.shrunk == pytest.approx([0, 1], abs=1e-3)
    two = stats.shrink([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
    assert two.shrunk == pytest.approx([0.5, 0.5])
    for bad in ([1.0, 2.0], [[math.inf]], np.zeros((0, 3))):
        with pytest.raises(ValueError, match="rewards"):
            stats.shrink(bad)
    with pytest.raises(ValueError, match="candidate 1"):
        stats.shrink([[1.0], [math.nan]])
    with pytest.raises(ValueError, match="groups"):
        stats.shrink([[1.0], [0.0]], [1])


def test_shrink_is_unmoved_by_the_base_and_scales_with_the_reward():
    _, r = population(10, 20, 0.3, 9)
    base = generator(1).normal(size=20)
    found, gains, scaled = stats.shrink(r), stats.shrink(r - base), stats.shrink(1000 * r)
    assert gains.shrunk == pytest.approx(found.shrunk - base.mean())
    assert gains.reliability == pytest.approx(found.reliability)
    assert scaled.prior_sd == pytest.approx(1000 * found.prior_sd)


def test_split_half_reliability_agrees_with_the_variance_components():
    sd, m = 0.05, 64
    split = [stats.split_half_reliability(population(200, m, sd, seed)[1], 50, seed) for seed in range(10)]
    assert np.mean(split) == pytest.approx(0.5, abs=0.05)
    assert stats.split_half_reliability(population(200, m, 1.0, 0)[1]) > 0.97
    assert abs(np.mean([stats.split_half_reliability(population(200, m, 0.0, s)[1], 20) for s in range(10)])) < 0.12


def test_split_half_reliability_degenerate():
    assert math.isnan(stats.split_half_reliability(np.ones((5, 10))))
    assert math.isnan(stats.split_half_reliability(np.eye(2)))
    assert math.isnan(stats.split_half_reliability(np.eye(5)[:, :1]))
    r = population(50, 20, 0.5, 1)[1]
    ragged = np.hstack([r, np.where(np.arange(50)[:, None] < 25, r * 0, np.nan)])
    assert stats.split_half_reliability(ragged) == stats.split_half_reliability(r)
    assert stats.split_half_reliability(r, seed=1) != stats.split_half_reliability(r, seed=2)


# Rank correlation


def test_spearman_by_hand():
    rho, lo, hi, p = stats.spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7])
    # Ranks of y: 1, 2, 3.5, 5, 3.5; Pearson of the ranks is 8 / √(10 · 9.5).
    assert rho == pytest.approx(8 / math.sqrt(95))
    assert lo < rho < hi <= 1
    assert p == pytest.approx(16 / 120)


def test_spearman_interval_of_bonett_and_wright():
    x = np.arange(50.0)
    y = x + generator(1).normal(0, 20, 50)
    rho, lo, hi, _ = stats.spearman(x, y)
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / 47)
    assert (math.atanh(lo), math.atanh(hi)) == pytest.approx((math.atanh(rho) - half, math.atanh(rho) + half))


def test_spearman_covers():
    rng = generator(7)
    # The rank correlation of two normals with correlation 0.6.
    true = 6 / math.pi * math.asin(0.3)
    hits = 0
    for _ in range(400):
        x, z = rng.normal(size=(2, 40))
        _, lo, hi, _ = stats.spearman(x, 0.6 * x + 0.8 * z)
        hits += lo <= true <= hi
    assert 0.92 <= hits / 400 <= 0.98


def test_spearman_p_by_all_orders():
    x, y = np.arange(7.0), np.array([1.0, 0, 2, 4, 3, 6, 5])
    rho, _, _, p = stats.spearman(x, y)
    count = sum(abs(np.corrcoef(x, order)[0, 1]) >= rho - 1e-9 for order in itertools.permutations(range(7)))
    assert p == pytest.approx(count / math.factorial(7))


def test_spearman_p_is_uniform_beyond_all_orders():
    rng = generator(8)
    p = [stats.spearman(rng.normal(size=20), rng.normal(size=20))[3] for _ in range(1000)]
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.07
    assert stats.spearman(range(9), range(9))[3] == pytest.approx(2 / math.factorial(9))


def test_spearman_degenerate():
    for x, y in (([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1], [2])):
        assert all(math.isnan(value) for value in stats.spearman(x, y))
    rho, lo, hi, p = stats.spearman([1, 2, 3, 4, 5], [10, 20, 30, 40, 50])
    assert (rho, hi) == (pytest.approx(1), pytest.approx(1))
    assert lo < 0.9
    assert p == pytest.approx(2 / 120)
    assert stats.spearman([1, 2, 3], [3, 2, 1]) == (pytest.approx(-1), -1, 1, pytest.approx(2 / 6))
    with pytest.raises(ValueError, match="3 and 2"):
        stats.spearman([1, 2, 3], [1, 2])


# The best of many


@pytest.mark.parametrize(
    ("n", "value"),
    [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)), (10, 1.53875), (100, 2.50759)],
)
def test_expected_maximum_known_constants(n, value):
    assert stats.expected_maximum(n) == pytest.approx(value, abs=5e-6)
    assert stats.expected_maximum(n, sd=3, mean=-1) == pytest.approx(3 * value - 1, abs=2e-5)


def test_expected_maximum_grows_and_refuses_none():
    assert 4.8 < stats.expected_maximum(10**6) < stats.expected_maximum(10**7) < 5.4
    with pytest.raises(ValueError, match="at least 1"):
        stats.expected_maximum(0)


@pytest.mark.parametrize("binary", [True, False])
def test_chance_lead_is_calibrated_when_all_are_equal(binary):
    rng = generator(11)
    above, leads, expected = 0, [], []
    trials = 200
    for trial in range(trials):
        base = rng.uniform(size=120) < 0.5 if binary else rng.normal(size=120)
        if binary:
            r = np.where(rng.uniform(size=(40, 120)) < 0.1, ~base, base)
        else:
            r = base + rng.normal(0.1, 0.5, (40, 120))
        mean, high = stats.chance_lead(r, base, resamples=300, seed=trial)
        lead = (np.asarray(r, float) - base).mean(axis=1).max()
        leads.append(lead)
        expected.append(mean)
        above += lead > high
    assert 0.02 <= above / trials <= 0.09
    assert np.mean(expected) == pytest.approx(np.mean(leads), rel=0.05)


def test_chance_lead_sees_a_candidate_that_is_better():
    rng = generator(12)
    base = rng.normal(size=200)
    r = base + rng.normal(0, 0.5, (40, 200))
    r[7] += 0.3
    assert (r[7] - base).mean() > stats.chance_lead(r, base)[1]


def test_chance_lead_agrees_with_the_expected_maximum():
    rng = generator(13)
    base = rng.normal(size=400)
    r = base + rng.normal(0, 0.5, (100, 400))
    mean, high = stats.chance_lead(r, base)
    assert mean - (r - base).mean() == pytest.approx(stats.expected_maximum(100, 0.5 / 20), rel=0.1)
    assert high > mean


def test_chance_lead_degenerate():
    assert stats.chance_lead(np.ones((3, 5)), np.zeros(5)) == (1.0, 1.0)
    assert stats.chance_lead([[2.0]], [1.0]) == (1.0, 1.0)
    for bad in ([[1.0, 2.0]], [[math.nan]], [1.0]):
        with pytest.raises(ValueError, match="rewards"):
            stats.chance_lead(bad, [0.0])


def test_import_is_light():
    source = "import sys, seedfold.stats; print([m for m in sys.modules if m.split('.')[0] in ('scipy', 'torch')])"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", source], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
