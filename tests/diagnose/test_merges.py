"""Merges: who is drawn, what is counted, no effect where none is planted, and planted ones found."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from seedfold.diagnose import merges
from seedfold.diagnose.merges import Merge
from seedfold.errors import UserError

ALL = ("top", "random", "bottom"), ("average", "norm", "sum")


def test_families_and_operators() -> None:
    score = np.arange(40.0)[::-1]  # candidate 0 is the best
    plan = merges.plan(score, ALL[0], ALL[1], (2, 4), [(0.7, -0.3), (1, 1, 1)], merges=4, seed=1)
    by = {(m.family, m.operator, len(m.parents)): m for m in plan}
    assert by["top", "average", 4].weights == (0.25,) * 4
    assert by["top", "norm", 4].weights == (0.5,) * 4
    assert by["top", "sum", 2].weights == (1, 1)
    assert by["random", "0.7,-0.3", 2].weights == (0.7, -0.3)
    assert by["bottom", "1,1,1", 3].weights == (1, 1, 1)
    assert all(max(m.parents) < 10 for m in plan if m.family == "top")
    assert all(min(m.parents) >= 30 for m in plan if m.family == "bottom")
    assert max(max(m.parents) for m in plan if m.family == "random") >= 20
    assert all(list(m.parents) == sorted(m.parents) for m in plan)  # the best first: they get the first weight
    sets: dict[tuple[str, int], dict[str, list[tuple[int, ...]]]] = {}
    for m in plan:
        sets.setdefault((m.family, len(m.parents)), {}).setdefault(m.operator, []).append(m.parents)
    for (family, size), of in sets.items():
        assert len({tuple(drawn) for drawn in of.values()}) == 1  # the same for all operators
        drawn = next(iter(of.values()))
        used = [i for parents in drawn for i in parents]
        assert len(set(used)) == len(used)
        assert len(drawn) == (4 if family == "random" else min(4, 10 // size))


def test_a_family_is_drawn_alike_whatever_else_is_asked() -> None:
    score = np.random.default_rng(0).normal(size=20)
    alone = merges.plan(score, ("random",), ("sum",), (3,), seed=5)
    among = merges.plan(score, ALL[0], ALL[1], (2, 3), seed=5)
    assert alone == [m for m in among if (m.family, m.operator, len(m.parents)) == ("random", "sum", 3)]
    assert alone != merges.plan(score, ("random",), ("sum",), (3,), seed=6)


def test_the_norm_is_preserved_where_steps_overlap() -> None:
    """Four steps in two dimensions; and orthogonal ones of different sizes, whose weights must not change by a bit."""
    steps = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    gram = steps @ steps.T
    plan = merges.plan(np.arange(4.0), ("random",), ("norm", "sum"), (2,), gram=gram)
    assert [m.operator for m in plan] == ["norm", "sum"] * 2
    for m in plan:
        made = np.asarray(m.weights) @ steps[list(m.parents)]
        if m.operator == "norm":
            assert np.linalg.norm(made) == pytest.approx(1)
        else:
            assert m.weights == (1, 1)
    plain = merges.plan(np.arange(8.0), *ALL, (2, 3))
    assert merges.plan(np.arange(8.0), *ALL, (2, 3), gram=np.diag(np.arange(1.0, 9.0))) == plain
    assert merges.preserving(np.array([[1.0, -1.0], [-1.0, 1.0]])) == 1 / math.sqrt(2)


def test_64_parents_and_oracles() -> None:
    score, held = np.arange(130.0), -np.arange(130.0)
    top, oracle = merges.plan(score, ("top", "oracle-top"), ("norm",), (64,), merges=1, oracle=held)
    assert len(top.parents) == 64
    assert top.parents[0] > top.parents[1]
    assert oracle.parents[0] < oracle.parents[1]
    assert top.weights == (1 / 8,) * 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("best",), ("sum",), (2,)), '"--families" has best; use any of top, random'),
        ((("top",), ("product",), (2,)), '"--operators" has product; use any of average'),
        ((("top",), ("sum",), (65,)), '"--parents" has 65, but a merge takes 2 to 64 of 80'),
        ((("top",), ("sum",), (1,)), '"--parents" has 1'),
        ((("top",), ("sum",), ()), "nothing to merge"),
        ((("oracle-top",), ("sum",), (2,)), "no held-out scores"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        merges.plan(np.arange(80.0), *arguments)


def test_weights_are_read() -> None:
    assert merges.read_weights("0.7,-0.3") == (0.7, -0.3)
    for text in ("", "a,b", "1,inf", "1,,2"):
        with pytest.raises(UserError, match="numbers with commas"):
            merges.read_weights(text)


def test_counts_by_hand() -> None:
    base = np.array([0, 0, 0, 1, 1, 1.0])
    parents = np.array([[1, 0, 0, 1, 1, 1], [0, 1, 0, 1, 1, 0], [np.nan] * 6, [1, 1, 0, 1, 0, 0]])
    plan = [Merge("top", "sum", (0, 1), (1, 1)), Merge("top", "sum", (3, 1), (1, 1))]
    rewards = np.array([[1, 0, 1, 1, 0, 1.0], [1, 1, 0, 1, 1, 0]])
    told = merges.analyse(plan, rewards, parents, base)
    one = told.results[0]
    assert (one.fixed, one.broken) == ((0, 2), (4,))
    assert (one.kept, one.fixable) == (1, 2)  # a parent fixes the first two; the merge keeps one of these
    assert one.gain.difference == pytest.approx(1 / 6)
    assert one.predicted == pytest.approx(1 / 6)  # effects 1/6 and 0
    assert (one.mean_parent, one.best_parent) == (pytest.approx(1 / 12), pytest.approx(1 / 6))
    (cell,) = told.cells
    assert (cell.merges, cell.above_base, cell.above_mean, cell.above_best) == (2, 2, 2, 1)
    assert cell.predicted == pytest.approx(1 / 12)
    assert cell.excess.value == pytest.approx(1 / 12)
    assert cell.enrichment is None


def test_a_single_merge_is_no_sample() -> None:
    found = merges.estimate([np.ones((1, 8)), np.zeros((4, 8))], [1, -1])
    assert found.value == 1
    assert math.isnan(found.p)
    equal = merges.estimate([np.zeros((3, 20))], [1])
    assert equal.lo < 0 < equal.hi
    assert equal.p == 1


@pytest.mark.parametrize(("merge", "example", "single"), [(0, 0, 1), (0.5, 0.5, 0.5), (0.1, 0.5, 0.5), (0, 1, 0.2)])
def test_intervals_hold_over_merges_and_examples(merge: float, example: float, single: float) -> None:
    """The truth is 0.3 for one array and 0 for the difference of two; both intervals may be too wide, not too short."""
    missed = np.zeros(2)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=32) * example
        one, other = (
            rng.normal(size=(m, 1)) * merge + common + rng.normal(size=(m, 32)) * single + 0.3 for m in (5, 4)
        )
        alone, both = merges.estimate([one], [1]), merges.estimate([one, other], [1, -1])
        missed += [not alone.lo <= 0.3 <= alone.hi, not both.lo <= 0 <= both.hi]
    for count in missed:
        assert scipy_stats.binomtest(int(count), 400, 0.05, "greater").pvalue > 0.01


def world(
    seed: int, sd: float = 0.3, reliability: float = 0.0, saturates: bool = False, candidates: int = 48, count: int = 4
) -> merges.Merges:
    """Candidates with a true worth, a search score that may know of it, and merges whose worth is the weighted sum."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=candidates)
    score = reliability * true + (1 - reliability) * rng.normal(size=candidates)
    plan = merges.plan(score, *ALL, (2, 4), merges=count, seed=seed)
    ease = rng.normal(size=48)

    def answers(worth: np.ndarray) -> np.ndarray:
        return (sd * worth[:, None] + ease + rng.normal(size=(len(worth), 48)) * 0.5 > 0).astype(float)

    if saturates:  # graded rewards; half of what the parents gain together gets lost
        base, luck = np.zeros(48), rng.normal(size=(candidates, 48)) * 0.1
        parents = 0.1 + sd * np.abs(true)[:, None] / 3 + luck
        rewards = np.array([0.5 * np.asarray(m.weights) @ parents[list(m.parents)] for m in plan])
        rewards += rng.normal(size=rewards.shape) * 0.1
        return merges.analyse(plan, rewards, parents, base, resamples=20)
    worth = np.array([np.asarray(m.weights) @ true[list(m.parents)] for m in plan])
    return merges.analyse(plan, answers(worth), answers(true), (ease > 0).astype(float))


@pytest.mark.parametrize("sd", [0.0, 0.3])
def test_no_effect_planted_no_effect_found(sd: float) -> None:
    """Scores that know nothing: of equal candidates, and of different ones. All cells of a study together: 5 %."""
    enriched = gained = 0
    cells: list[bool] = []
    times = 100
    for seed in range(times):
        told = world(seed, sd)
        enriched += min(cell.enrichment_p_holm for cell in told.cells if cell.enrichment) <= 0.05
        gained += min(one.p_holm for one in told.results) <= 0.05
        cells += [cell.gain.p <= 0.05 for cell in told.cells]
    assert scipy_stats.binomtest(enriched, times, 0.05, "greater").pvalue > 0.01
    if not sd:
        assert np.mean(cells) < 0.065  # unadjusted; cells of a study are not independent
        assert scipy_stats.binomtest(gained, times, 0.05, "greater").pvalue > 0.01


def test_additive_effects_have_no_excess() -> None:
    times, wrong = 100, 0
    for seed in range(times):
        rng = np.random.default_rng(seed)
        plan = merges.plan(rng.normal(size=40), *ALL, (2, 4), seed=seed)
        parents = rng.normal(size=(40, 1)) * 0.05 + rng.normal(size=(40, 48)) * 0.3
        rewards = np.array([np.asarray(m.weights) @ parents[list(m.parents)] for m in plan])
        rewards += rng.normal(size=(len(plan), 1)) * 0.02 + rng.normal(size=rewards.shape) * 0.2
        told = merges.analyse(plan, rewards, parents, np.zeros(48), resamples=20)
        wrong += min(cell.excess_p_holm for cell in told.cells) <= 0.05
    assert scipy_stats.binomtest(wrong, times, 0.05, "greater").pvalue > 0.01


def test_planted_effects_are_found() -> None:
    found = 0
    for seed in range(20):
        told = world(seed, sd=0.4, reliability=0.9, candidates=160, count=10)
        best = next(c for c in told.cells if (c.family, c.operator, c.parents) == ("top", "norm", 4))
        worst = next(c for c in told.cells if (c.family, c.operator, c.parents) == ("bottom", "norm", 4))
        assert best.enrichment.value > 0 > worst.enrichment.value
        assert best.fixed > best.broken
        found += best.enrichment_p_holm <= 0.05
    assert found >= 15
    found = 0
    for seed in range(10):
        cells = world(seed, saturates=True, count=8).cells
        whole = [cell for cell in cells if cell.operator == "sum" and cell.family == "random"]
        assert all(cell.excess.value == pytest.approx(-cell.predicted / 2, abs=0.05) for cell in whole)
        found += min(cell.excess_p_holm for cell in whole) <= 0.05
    assert found >= 9
