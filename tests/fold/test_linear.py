"""The signed fold, its forecast, and the population it is made from."""

import numpy as np
import pytest
from fold_worlds import World

from seedfold.fold import linear
from seedfold.fold.base import Bench, Population, add, norm, scaled
from seedfold.fold.settings import Linear
from seedfold.recipe import Term


def term(seed: int, scale: float) -> Term:
    return Term("rademacher", seed, scale)


def test_weights_are_centred_scores_over_size() -> None:
    rewards = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=float)
    population = Population(tuple((term(i, s),) for i, s in enumerate((1, 1, 2, 2))), rewards, np.zeros(4))
    (proposal,) = linear.proposals(population, Linear(steps=(2.0,)))
    mean = rewards.mean(axis=1)
    wanted = (mean - mean.mean()) / np.array([1, 1, 2, 2])  # too few of a size to be centred apart
    wanted = {i: w for i, w in enumerate(wanted * 3.0 / np.linalg.norm(wanted)) if w}  # the median size is 1.5
    assert {t.seed: t.scale for t in proposal.terms} == pytest.approx(wanted)
    assert norm(proposal.terms) == pytest.approx(3.0)


def test_antithetic_pairs_share_an_axis() -> None:
    rewards = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 0, 0]], dtype=float)
    steps = ((term(1, 1.0),), (term(1, -1.0),), (term(2, 1.0),), (term(2, -1.0),))
    (proposal,) = linear.proposals(Population(steps, rewards, np.zeros(3)), Linear(steps=(1.0,)))
    assert [t.seed for t in proposal.terms] == [1, 2]
    assert proposal.terms[0].scale == pytest.approx(2 * proposal.terms[1].scale)


def test_a_candidate_of_many_terms_moves_along_its_own_direction() -> None:
    steps = ((term(1, 3.0), term(2, 4.0)), (term(3, 5.0),))
    population = Population(steps, np.array([[1.0, 1.0], [0.0, 0.0]]), np.zeros(2))
    assert population.sizes == pytest.approx([5, 5])
    assert {t.seed: t.scale for t in population.combine([1.0, 0.0], 1.0)} == pytest.approx({1: 0.6, 2: 0.8})


def test_equal_scores_propose_nothing() -> None:
    population = Population(((term(1, 1.0),), (term(2, 1.0),)), np.ones((2, 3)), np.zeros(3))
    assert linear.proposals(population, Linear()) == []


@pytest.mark.parametrize(
    ("terms", "shape", "message"),
    [(((term(1, 1.0),),), (2, 3), "shape"), (((),), (1, 3), "no step")],
)
def test_populations_that_do_not_fit(terms, shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        Population(terms, np.zeros(shape), np.zeros(3))


def test_racing_leaves_gaps_that_the_fold_can_take() -> None:
    population = World(3, slope=0.05, spread=0.1).population(40)
    rewards = population.rewards.copy()
    rewards[20:, 32:] = np.nan
    (proposal,) = linear.proposals(Population(population.terms, rewards, population.base), Linear(steps=(1.0,)))
    assert len(proposal.terms) == 40


@pytest.mark.parametrize(("count", "sigma"), [(100, (1.0,)), (400, (1.0,)), (400, (0.5, 1.0, 2.0))])
def test_the_forecast_is_what_the_fold_gains(count: int, sigma: tuple[float, ...]) -> None:
    """Linear rewards, reliability near one half: the mean over worlds of forecast and of true gain agree within 10 %."""
    told, formula, gained = [], [], []
    for seed in range(60):
        world = World(10 * seed, slope=0.01, curvature=0.002, spread=0.08)
        population = world.population(count, sigma)
        (proposal,) = linear.proposals(population, Linear(steps=(1.0,)))
        told.append(proposal.forecast)
        gained.append(world.gain(proposal.terms))
        scores = population.scores
        formula.append(np.sqrt(count * scores.reliability) * scores.prior_sd + scores.prior_mean)
    assert np.mean(told) == pytest.approx(np.mean(gained), rel=0.1)
    if len(sigma) == 1:
        assert 0.4 < scores.reliability < 0.7
        assert np.mean(formula) == pytest.approx(np.mean(gained), rel=0.1)


def test_what_a_step_breaks_it_does_not_gain() -> None:
    """Right-or-wrong rewards with a base of a quarter, of which the candidates keep two thirds; of rewards below 0 there
    is no share to speak of."""
    rng = np.random.default_rng(0)
    base = (np.arange(64) < 16).astype(float)
    lost = base * (rng.random((40, 64)) < 2 / 3)
    population = Population(tuple((term(seed, 1.0),) for seed in range(40)), lost, base)
    told = [linear.forecast(population, size) for size in (0.5, 1.0, 3.0)]
    mean = float((lost - base).mean())
    assert [one.curvature for one in told] == pytest.approx([0.25 * mean, mean, 9 * mean])
    assert [one.kept for one in told] == pytest.approx([1 + mean, 1 + 4 * mean, 0.0])
    assert all(one.gain == one.kept * one.slope + one.curvature for one in told)
    below = Population(population.terms, lost - 1, base - 1)
    assert linear.forecast(below, 1.0).kept == 1.0


def test_no_forecast_promises_more_than_there_is() -> None:
    """Half the candidates answer everything, half nothing: the slope of forty of them, taken far, is beyond any reward."""
    base = (np.arange(64) % 4 == 0).astype(float)
    rewards = np.repeat([[1.0], [0.0]], 20, axis=0) * np.ones(64)
    told = linear.forecast(Population(tuple((term(seed, 1.0),) for seed in range(40)), rewards, base), 1.0)
    assert told.kept * told.slope + told.curvature > 2
    assert told.gain == told.most == 0.75


def test_the_forecast_counts_antithetic_pairs_once() -> None:
    told, gained = [], []
    for seed in range(40):
        world = World(10 * seed, slope=0.01, spread=0.05)
        half = world.population(100)
        terms = tuple(step for one in half.terms for step in (one, scaled(one, -1.0)))
        which = np.arange(64)
        population = Population(terms, world(terms, "search", which), half.base)
        (proposal,) = linear.proposals(population, Linear(steps=(1.0,)))
        told.append(proposal.forecast)
        gained.append(world.gain(proposal.terms))
    assert np.mean(told) == pytest.approx(np.mean(gained), rel=0.15)


def test_steps_add_by_axis() -> None:
    assert add((term(1, 1.0), term(2, 2.0)), (term(2, -2.0), term(3, 1.0))) == (term(1, 1.0), term(3, 1.0))


def test_the_bench_counts_and_asks_about_the_incumbent_once() -> None:
    bench = Bench(World(0), {"search": 10, "gate": 5, "select": 1, "test": 1})
    bench.rewards([(), (term(1, 1.0),)], "search", [0, 3])
    first = bench.incumbent((), "gate")
    assert bench.incumbent((), "gate") is first
    assert bench.spent == 4 + 5


def test_the_bench_learns_of_graded_rewards_from_search_and_select_alone() -> None:
    for binary, split, graded in [(True, "search", False), (False, "search", True), (False, "gate", False)]:
        bench = World(0, binary=binary).bench()
        bench.rewards([()], split)
        assert bench.graded is graded
