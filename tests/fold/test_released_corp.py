"""The released procedure: closed forms of its geometry, its counts, and its constants."""

import itertools
import math

import numpy as np
import pytest
from fold_worlds import World

from seedfold.fold import released_corp as released
from seedfold.fold.base import Population, norm
from seedfold.fold.settings import ReleasedCorp
from seedfold.recipe import Term

SETTINGS = ReleasedCorp()


def test_two_passes_by_hand() -> None:
    """Each candidate is its own axis, so alignment is w¹σ/‖m‖ and dispersion σ²(1 − a²)."""
    rewards = np.array([0.1, 0.5, 0.4, 0.6, 0.2])
    sigma = np.array([1.0, 2.0, 0.5, 1.0, 2.0])
    elite, w = released.two_pass(np.diag(sigma), rewards, 0.5, 5.0, 1e-12)
    assert elite.tolist() == [1, 2, 3]  # the median is 0.4 and belongs to the elite
    r, s = rewards[elite], sigma[elite]
    first = np.exp(5 * r) / np.exp(5 * r).sum()
    a = first * s / math.sqrt(float(((first * s) ** 2).sum()))
    d = s**2 * (1 - a**2)
    logits = 5 * r + (a - a.mean()) / a.std() - (d - d.mean()) / d.std()
    assert w == pytest.approx(np.exp(logits) / np.exp(logits).sum())


def test_equal_candidates_have_standard_scores_of_zero() -> None:
    _, w = released.two_pass(np.eye(4), np.full(4, 0.5), 0.5, 5.0, 1e-12)
    assert w == pytest.approx(np.full(4, 0.25))


def test_the_merge_is_the_weighted_mean_with_its_spectrum() -> None:
    rng = np.random.default_rng(0)
    matrix, rewards = rng.normal(size=(12, 20)), rng.random(12)
    axes = tuple(("gaussian", i) for i in range(20))
    merged = released.merge(axes, matrix, rewards, 0.5, 2.0, SETTINGS)
    elite, w = released.two_pass(matrix, rewards, 0.5, 2.0, 1e-12)
    mean = w @ matrix[elite]
    covariance = (matrix[elite] - mean).T @ np.diag(w) @ (matrix[elite] - mean)
    values = np.linalg.eigvalsh(covariance)[::-1]
    assert merged.mean == pytest.approx(mean)
    assert merged.variances == pytest.approx(np.maximum(values[: len(merged.variances)], 0), abs=1e-12)
    for value, vector in zip(merged.variances[:5], merged.directions[:5], strict=True):
        assert covariance @ vector == pytest.approx(value * vector, abs=1e-9)
    assert merged.kappa == pytest.approx(mean @ mean / np.trace(covariance))
    share = values[values > 1e-12] / np.trace(covariance)
    assert merged.effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert norm(merged.step(4.0)) == pytest.approx(4 * np.linalg.norm(mean))


def test_temperature_meets_the_effective_sample_size() -> None:
    scores = np.random.default_rng(1).random(40)
    for target in (4.0, 16.0, 39.0):
        w = released.tempered(scores, target)
        assert 1 / float(w @ w) == pytest.approx(target, rel=1e-3)


def test_schedules() -> None:
    assert [released.schedule(t, SETTINGS) for t in range(3)] == pytest.approx([16, 8, 4])
    assert released.next_lambda(0.5, 0.0, SETTINGS) == pytest.approx(0.25 + 0.475)
    assert released.next_lambda(0.5, 1.0, SETTINGS) == pytest.approx(0.25 + 0.075)
    assert released.next_lambda(0.5, 0.5, SETTINGS) == pytest.approx(0.25 + 0.275)


def test_a_regression_costs_two_fixes() -> None:
    difference = np.array([[1, 1, -1, 0], [1, 1, 1, -1]])
    assert released.fixes_less_regressions(difference, 2.0) == pytest.approx([0, 0.25])
    assert released.passes(np.array([[1, 0, 0, 0], [1, -1, 0, 0], [1, 1, 0, 0]]), 1.0).tolist() == [False, False, True]
    assert released.passes(np.zeros((1, 4)), 1.0).tolist() == [False]


def test_the_low_rank_part_hardly_counts_as_released() -> None:
    """σ²·λⱼ with λⱼ of order σ²: about σ² of the isotropic part's energy, at σ = 1e-3 some 1e-7 of it."""
    sigma = 1e-3
    axes = tuple(("gaussian", i) for i in range(50))
    merged = released.merge(axes, np.eye(50) * sigma, np.random.default_rng(2).random(50), 0.5, 5.0, SETTINGS)
    steps = released.sample(0, merged, sigma, 0.5, SETTINGS)
    fresh = [sum(t.scale**2 for t in step if t.seed >= 50) for step in steps]
    shared = [sum(t.scale**2 for t in step if t.seed < 50) for step in steps]
    assert len(steps) == 100
    assert np.mean(fresh) == pytest.approx(sigma**2 / 2)
    assert np.mean(shared) / np.mean(fresh) < 1e-5


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_counts_and_commits(slope: float) -> None:
    sizes = {"search": 80, "select": 60, "gate": 1, "test": 1}
    world = World(7, slope=slope, spread=0.3, binary=True, sizes=sizes)
    population = world.population(60, (0.25, 0.5))
    bench = world.bench()
    settings = ReleasedCorp(probe=40, candidates=20, betas=(1.0, 5.0), scales=(1.0, 4.0))
    found = released.run(population, bench, settings)
    assert found.terms  # stage 1 commits whatever is best on the probe, even where nothing can be gained
    assert (
        len(released.sweep(population.axes, population.matrix.toarray(), population.rewards.mean(axis=1), SETTINGS))
        == 126
    )
    rounds = [entry for entry in found.details if entry["stage"] == 2]
    assert 2 <= len(rounds) <= 3
    most = 12 * 40 + len(rounds) * (20 * 40 + 18 * 80 + 4 * 40) + 80 * len(rounds)
    assert 12 * 40 + 80 + len(rounds) * 20 * 40 <= found.evaluations == bench.spent <= most
    for before, after in itertools.pairwise(rounds):
        assert after["sigma"] == before["sigma"] * (1.0 if before["accepted"] else 0.5)
    if slope:
        assert world.gain(found.terms) > 0


def test_best_sigma_has_the_highest_mean_reward() -> None:
    terms = tuple((Term("gaussian", i, (1e-3, 2e-3)[i % 2]),) for i in range(8))
    rewards = np.array([[0.2, 0.6][i % 2] for i in range(8)])[:, None] * np.ones(3)
    assert released.best_sigma(Population(terms, rewards, np.zeros(3))) == pytest.approx(2e-3)
