"""Families compared: by hand; no difference planted, none found at the stated level; planted ones found."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from seedfold.diagnose import families
from seedfold.diagnose.families import MEASURES, Scored


def cells(
    seed: int,
    sd: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
    lift: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
    seeds: int = 24,
    examples: int = 48,
    shared: float = 0.0,
) -> tuple[list[Scored], np.ndarray]:
    """Right-or-wrong answers of arms with two sizes each, and the base's on the held-out slice.

    sd: of the true worth of an arm's seeds, lift: the arm's mean worth. shared: how much of a seed's worth is the same in
    all arms, as of one family under two scale modes. A direction is worth twice as much at the second size.
    """
    rng = np.random.default_rng(seed)
    common = rng.normal(size=seeds)
    slices = []
    worth = [
        spread * (shared * common + math.sqrt(1 - shared**2) * rng.normal(size=seeds)) + gain
        for spread, gain in zip(sd, lift, strict=True)
    ]
    bases = []
    for _ in range(2):
        ease = rng.normal(size=examples)
        base = (ease + rng.normal(size=examples) * 0.5 > 0).astype(float)
        bases.append(base)
        slices.append(
            [
                (size * true[:, None] + ease + rng.normal(size=(seeds, examples)) * 0.5 > 0) - base
                for true in worth
                for size in (0.5, 1.0)
            ]
        )
    names = [(f"arm {i}", size) for i in range(len(sd)) for size in (0.5, 1.0)]
    return [Scored(*name, one, other) for name, one, other in zip(names, *slices, strict=True)], bases[1]


def test_weights_and_promises_by_hand() -> None:
    scores = np.array([[0.3, 0.1, -0.1, 0.1, 0.1, 0.1, 0.1, 0.1]])
    found = {by: families.weigh(scores, 0.0, by) for by in MEASURES}
    assert found["mean"][0] == pytest.approx([0.1])
    assert found["mean"][1] == pytest.approx(np.full((1, 8), 1 / 8))
    assert found["best"][1].tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]]
    assert found["best"][0] == pytest.approx([0.3])
    assert found["quarter"][1].tolist() == [[0.5, 0.5, 0, 0, 0, 0, 0, 0]]
    assert found["quarter"][0] == pytest.approx([0.2])
    root = math.sqrt(0.5)
    assert found["fold"][1] == pytest.approx(np.array([[root, 0, -root, 0, 0, 0, 0, 0]]) + 1 / 8)
    assert found["fold"][0] == pytest.approx([0.1 + math.sqrt(0.08)])
    # Half of the variance is luck: half of the lead is promised, and the same seeds are taken.
    half = families.weigh(scores, 0.08 / 7 / 2, "quarter")
    assert half[0] == pytest.approx([0.15])
    assert np.array_equal(half[1], found["quarter"][1])
    equal = families.weigh(np.full((1, 8), 0.25), 0.01, "fold")
    assert equal[0] == pytest.approx([0.25])
    assert equal[1] == pytest.approx(np.full((1, 8), 1 / 8))


def test_the_folds_promise_is_the_linear_folds_forecast() -> None:
    """The measure is what `seedfold.fold.linear` does, were effects linear."""
    from seedfold.fold import linear
    from seedfold.fold.base import Population

    world, _ = cells(3, sd=(0.4,) * 4)
    cell = world[1]
    population = Population(
        tuple((("rademacher", i, 0.01),) for i in range(24)), cell.search, np.zeros(cell.search.shape[1])
    )
    told = families.compare(world[:2], np.zeros(48), by="fold", resamples=10)
    assert told.rows[1].promises["fold"] == pytest.approx(linear.forecast(population, 0.01).gain, abs=1e-4)
    step = population.combine(population.slopes, 0.01)
    unit = np.array([term.scale for term in step]) / 0.01
    assert told.rows[1].gains["fold"] == pytest.approx(cell.held.mean() + unit @ cell.held.mean(axis=1), abs=1e-6)


def test_sigma_is_chosen_by_search_and_judged_on_held_out() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0.2, 0.1, size=(8, 20)), rng.normal(-0.2, 0.1, size=(8, 20))
    world = [Scored("a", 1.0, good, bad), Scored("a", 2.0, bad, good), Scored("b", 1.0, bad, bad)]
    told = families.compare(world, np.zeros(20), by="mean", resamples=50)
    place = next(place for place in told.places if place.arm == "a")
    assert place.sigma == 1.0
    assert place.gain.value == pytest.approx(bad.mean())
    assert [row.gains["mean"] for row in told.rows] == pytest.approx([bad.mean(), good.mean(), bad.mean()])


WORLDS = {
    "equal seeds": {},
    "seeds that differ": {"sd": (0.3,) * 4},
    "the same seeds in all arms": {"sd": (0.3,) * 4, "shared": 1.0},
    "arms that do harm alike": {"sd": (0.2,) * 4, "lift": (-0.4,) * 4},
}


@pytest.mark.parametrize("world", WORLDS)
def test_no_difference_planted_no_difference_found(world: str) -> None:
    """All comparisons of a study together: 5 %, for each measure; and single intervals miss 0 in 5 %."""
    times = 100
    for by in MEASURES:
        found, single = 0, []
        for seed in range(times):
            drawn, base = cells(seed, **WORLDS[world])
            told = families.compare(drawn, base, by=by, resamples=200, seed=seed)
            found += bool(told.found())
            single += [pair.difference.p <= 0.05 for pair in told.pairs]
            assert all(place.highest == 4 and place.lowest == 1 for place in told.places) == (not told.found())
        assert scipy_stats.binomtest(found, times, 0.05, "greater").pvalue > 0.01, by
        # In 400 worlds it was 0.06 at most; the six pairs of a study are not independent.
        assert np.mean(single) < 0.1, by


def test_a_gain_that_is_not_there_is_not_claimed() -> None:
    """Equal seeds, none better than the base in truth: the gain's interval misses 0 in 5 %, for all that is chosen."""
    for by in MEASURES:
        missed = 0
        for seed in range(150):
            drawn, base = cells(seed)
            gain = families.compare(drawn[:2], base, by=by, resamples=100, seed=seed).places[0].gain
            missed += not gain.lo <= 0 <= gain.hi
        assert scipy_stats.binomtest(missed, 150, 0.05, "greater").pvalue > 0.01, by


def test_a_planted_difference_is_found_and_ranked() -> None:
    """Arm 2 has seeds that differ, arm 3 harms: of the arms that choose, 2 is the best; by the mean, 3 is the worst."""
    best, worst = 0, 0
    for seed in range(10):
        drawn, base = cells(seed, sd=(0.05, 0.05, 0.6, 0.05), lift=(0, 0, 0, -0.5), seeds=48, examples=96)
        told = families.compare(drawn, base, by="quarter", resamples=200)
        best += told.places[0].arm == "arm 2" and told.places[0].highest == 1
        assert next(row for row in told.rows if row.arm == "arm 2").reliability.lo > 0
        told = families.compare(drawn, base, by="mean", resamples=200)
        worst += told.places[-1].arm == "arm 3" and told.places[-1].lowest == 4
    assert best >= 9
    assert worst >= 9


def test_one_comparison_has_more_power_than_all() -> None:
    drawn, base = cells(1, sd=(0.3,) * 4)
    every = families.compare(drawn, base, resamples=200)
    few = families.compare(drawn, base, against="arm 1", resamples=200)
    assert len(every.pairs) == 6
    assert len(few.pairs) == 3
    assert all("arm 1" in (pair.one, pair.other) for pair in few.pairs)
    assert few.detectable < every.detectable
    same = {(p.one, p.other): p.difference for p in every.pairs}
    assert all(same[p.one, p.other] == p.difference for p in few.pairs)


def test_the_detectable_difference_is_detected_as_often_as_stated() -> None:
    """Two arms whose means differ by what was called detectable; effects normal, so that it can be planted exactly."""
    rng = np.random.default_rng(5)

    def world(gap: float) -> list[Scored]:
        return [
            Scored(name, 1.0, *(rng.normal(0, 0.05, (30, 1)) + rng.normal(shift, 0.3, (30, 40)) for _ in range(2)))
            for name, shift in (("a", 0.0), ("b", gap))
        ]

    stated = np.median([families.compare(world(0), np.zeros(40), "mean", resamples=200).detectable for _ in range(20)])
    found = sum(bool(families.compare(world(stated), np.zeros(40), "mean", resamples=200).found()) for _ in range(200))
    assert 0.7 < found / 200 < 0.9


def test_one_arm_and_equal_answers() -> None:
    same = np.zeros((6, 10))
    told = families.compare([Scored("a", 1.0, same, same), Scored("b", 1.0, same, same)], np.ones(10), resamples=20)
    assert told.pairs[0].difference.p == 1
    assert told.pairs[0].difference.lo < 0 < told.pairs[0].difference.hi
    alone = families.compare([Scored("a", 1.0, same, same)], np.ones(10), resamples=20)
    assert alone.pairs == []
    assert math.isnan(alone.detectable)
