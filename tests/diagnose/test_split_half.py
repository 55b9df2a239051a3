"""Split halves: p-values that are uniform on noise, planted structure that is found, and what cannot be seen."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from threadpoolctl import threadpool_info, threadpool_limits

from seedfold.diagnose import split_half
from seedfold.fold.base import Population
from seedfold.recipe import Term


def noise(rng: np.random.Generator, candidates: int, examples: int) -> np.ndarray:
    """Right-or-wrong answers of useless candidates less the base's: examples differ in difficulty, nothing else."""
    difficulty = rng.beta(0.7, 0.7, size=examples)
    base = rng.random(examples) < difficulty
    return (rng.random((candidates, examples)) < difficulty).astype(float) - base


def planted(rng: np.random.Generator, candidates: int, examples: int, rank: int, strength: float) -> np.ndarray:
    factors = rng.normal(size=(candidates, rank)) @ rng.normal(size=(rank, examples)) * strength
    return factors + rng.normal(size=(candidates, examples)) * rng.uniform(0.5, 1.5, size=examples)


def test_p_values_are_uniform_on_pure_noise() -> None:
    found: dict[str, list[float]] = {}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        effects = noise(rng, 40, 24)
        # A size of its own mean is no structure either.
        groups = np.repeat([0, 1], 20)
        told = split_half.measure(
            effects - 0.2 * groups[:, None], groups, np.eye(40), most=3, permutations=39, seed=seed
        )
        for name in ("direction_population", "direction_examples", "weights_examples"):
            found.setdefault(name, []).append(getattr(told, name).p)
        for name in ("curve_population", "curve_examples"):
            for r, point in enumerate(getattr(told, name), 1):
                found.setdefault(f"{name}[{r}]", []).append(point.p)
        found.setdefault("rank", []).append(told.rank > 0)
    some = found.pop("rank")
    assert scipy_stats.binomtest(sum(some), len(some), 0.05).pvalue > 0.01
    rng = np.random.default_rng(0)
    for name, p in found.items():
        spread = np.array(p) - rng.random(len(p)) / 40  # p comes in steps of 1/40
        assert scipy_stats.kstest(spread, "uniform").pvalue > 0.005, name


def test_a_naive_split_would_find_a_direction_in_noise() -> None:
    """Scores and effects of the same examples: the trap that the halves of the examples avoid."""
    cosines = []
    for seed in range(30):
        effects = noise(np.random.default_rng(seed), 200, 24)
        effects = effects - effects.mean(axis=0)
        one, other = ((half.mean(axis=1) @ half) for half in (effects[:100], effects[100:]))
        cosines.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert np.mean(cosines) > 0.5
    honest = [
        split_half.measure(
            noise(np.random.default_rng(seed), 200, 24), permutations=5, most=1
        ).direction_population.observed
        for seed in range(30)
    ]
    assert abs(np.mean(honest)) < 0.15


@pytest.mark.parametrize("true", [0, 1, 3, 5])
def test_the_planted_rank_is_found(true: int) -> None:
    found = [
        split_half.rank(planted(np.random.default_rng(seed), 120, 48, true, 0.45), permutations=39, seed=seed)
        for seed in range(10)
    ]
    ranks = [rank for rank, _ in found]
    assert ranks.count(true) >= 8, ranks
    if true:
        # A loading is estimated from the 24 examples of a half; finding their patterns costs a little more.
        share = 24 * 0.45**2 / (24 * 0.45**2 + 1 + 1 / 12)
        assert np.mean([reproduced for _, reproduced in found]) == pytest.approx(share - 0.05, abs=0.1)


def test_measure_finds_rank_three_in_the_rewarded_half() -> None:
    effects = planted(np.random.default_rng(0), 240, 96, 3, 0.6)
    told = split_half.measure(effects, permutations=39)
    assert told.rank == 3
    assert told.curve_population[2].observed > 0.7 > told.curve_population[2].null_high
    assert told.curve_examples[2].observed > 0.7 > told.curve_examples[2].null_high
    # A fourth direction adds little to what the two halves share.
    shared = [r * point.observed for r, point in enumerate(told.curve_population, 1)]
    assert shared[2] - shared[1] > 0.5 > shared[3] - shared[2]


def test_structure_without_reward_is_no_direction_and_reward_along_it_is() -> None:
    unrewarded, rewarded = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        pattern = rng.permutation(np.repeat([1.0, -1.0], 30))  # sums to nothing: it changes answers, not the score
        factor = rng.normal(size=80)
        luck = rng.normal(size=(80, 60))
        # The halves of the examples are random, so a pattern that sums to nothing still leaks into the score a little,
        # with opposite signs on X and Y: that is no reproducible reward.
        unrewarded.append(
            split_half.measure(np.outer(factor, pattern) + luck, most=1, permutations=39).direction_examples.p
        )
        rewarded.append(
            split_half.measure(np.outer(factor, pattern + 0.7) + luck, most=1, permutations=39).direction_population.p
        )
    assert np.mean(np.array(unrewarded) <= 0.05) <= 0.1
    assert np.mean(np.array(rewarded) <= 0.05) > 0.9


def test_weight_space_is_blind_between_populations_and_not_between_examples() -> None:
    rng = np.random.default_rng(1)
    effects = rng.normal(size=(60, 1)) + rng.normal(size=(60, 40))
    terms = tuple((Term("rademacher", i, 1.0),) for i in range(60))
    gram = Population(terms, effects, np.zeros(40)).gram
    told = split_half.measure(effects, gram=gram, most=1, permutations=99)
    assert told.weights_population.observed == 0
    assert told.weights_population.p == 1
    assert told.weights_examples.observed > 0.8
    assert told.weights_examples.p <= 0.01


def test_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="finite array of at least 4"):
        split_half.rank(np.full((10, 10), np.nan))


def test_small_decompositions_run_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several studies on a machine of many cores would wait for each other's threads, not work."""
    seen = []
    effects = noise(np.random.default_rng(0), 16, 12)

    def watched(*arguments: object) -> np.ndarray:
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return directions(*arguments)

    directions = split_half._directions
    monkeypatch.setattr(split_half, "_directions", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        split_half.rank(effects, permutations=3)
        split_half.measure(effects, permutations=3)
    assert set(seen) == {1}
