"""The gate: exact levels, the tree of histories, and its error and power over whole runs."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from seedfold import UserError, stats
from seedfold.fold import gate
from seedfold.fold.settings import Gate


@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_levels_of_all_histories_add_up_to_at_most_the_level(most: int) -> None:
    settings = Gate(level=0.05, proposals=most)
    levels = [
        gate.allowance(history, settings)
        for length in range(most)
        for history in itertools.product((False, True), repeat=length)
    ]
    assert len(levels) == 2**most - 1
    assert 0.4 * 0.05 < sum(levels) <= 0.05 * (1 + 1e-12)


def test_one_planned_proposal_gets_the_whole_level() -> None:
    assert gate.allowance((), Gate(level=0.05, proposals=1)) == pytest.approx(0.05)


def test_more_proposals_than_planned_are_refused() -> None:
    with pytest.raises(UserError, match=r'"fold.gate.proposals" is 2 and as many'):
        gate.meet([1.0], [0.0], (False, False), Gate(proposals=2))


def test_binomial_p_is_the_binomial_tail() -> None:
    for fixed, broken in [(0, 0), (1, 0), (8, 1), (3, 9), (40, 22)]:
        tail = scipy_stats.binom.sf(fixed - 1, fixed + broken, 0.5) if fixed + broken else 1.0
        assert gate.binomial_p(fixed, broken) == pytest.approx(tail)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.choice([-1.0, 0.05], p=[0.05 / 1.05, 1 / 1.05], size=n),  # rare, large losses
        lambda rng, n: rng.choice([1.0, -0.05], p=[0.05 / 1.05, 1 / 1.05], size=n),  # rare, large gains
        lambda rng, n: rng.uniform(-1, 1, size=n),
        lambda rng, n: rng.choice([-1.0, 1.0], size=n),
    ],
)
def test_betting_errs_no_more_than_its_level_whatever_the_shape(draw) -> None:
    rng = np.random.default_rng(0)
    small = np.array([gate.betting_p(draw(rng, 60), 1.0, 0.05) <= 0.05 for _ in range(4000)])
    assert stats.wilson(int(small.sum()), len(small))[0] <= 0.05


def test_the_betting_bound_is_where_its_p_crosses_the_level() -> None:
    d = np.random.default_rng(1).normal(0.1, 0.2, size=200).clip(-1, 1)
    bound = gate.betting_bound(d, 1.0, 0.05)
    assert gate.betting_p(d, 1.0, 0.05, bound - 1e-6) <= 0.05 < gate.betting_p(d, 1.0, 0.05, bound + 1e-6)
    assert 0.03 < bound < d.mean()


def test_rewards_beyond_the_span_are_refused() -> None:
    with pytest.raises(UserError, match=r'"fold.gate.span" is 1, but two rewards of one example differ by 3'):
        gate.meet([3.0], [0.0], (), Gate())
    with pytest.raises(ValueError, match="finite"):
        gate.meet([np.nan], [0.0], (), Gate())


def test_which_test_it_is_does_not_depend_on_the_gates_own_data() -> None:
    new, old = np.repeat([1.0, 1.0], [12, 40]), np.repeat([0.0, 1.0], [12, 40])
    settings = Gate(proposals=1)
    assert gate.meet(new, old, (), settings).p == gate.binomial_p(12, 0)
    assert gate.meet(new, old, (), settings, graded=True).p == gate.betting_p(new - old, 1.0, 0.05)
    assert gate.meet(new * 0.9, old, (), settings).p == gate.betting_p(new * 0.9 - old, 1.0, 0.05)


# Whole runs


def adaptive_run(rng: np.random.Generator, committed_by, n: int, proposals: int, graded: bool) -> bool:
    """Useless updates only, each built on the last committed one's luck; whether any of them is committed.

    The adversary gets all that the gate gives away: after a commit the incumbent is the committed model, and proposals
    share half of their answers with the previous one when that was rejected.
    """

    def answers() -> np.ndarray:
        return rng.beta(0.5, 0.5, size=n) if graded else rng.integers(2, size=n).astype(float)

    incumbent = answers()
    last = answers()
    history: list[bool] = []
    for _ in range(proposals):
        last = np.where(rng.random(n) < 0.5, last, answers())
        history.append(committed_by(last, incumbent, history))
        if history[-1]:
            incumbent, last = last, answers()
    return any(history)


@pytest.mark.parametrize("graded", [False, True])
def test_useless_updates_are_committed_in_at_most_one_run_of_twenty(graded: bool) -> None:
    settings = Gate(level=0.05, proposals=20)
    rng = np.random.default_rng(2)

    def gated(new: np.ndarray, old: np.ndarray, history: list[bool]) -> bool:
        return gate.meet(new, old, history, settings, graded).committed

    def naive(new: np.ndarray, old: np.ndarray, history: list[bool]) -> bool:
        return stats.paired(new, old, level=0.9, resamples=200).lo > 0

    bad = sum(adaptive_run(rng, gated, 100, 20, graded) for _ in range(400))
    # 5 % of 400 is 20; a true 5 % shows 29 or fewer with 98 % chance. The gate is to stay below 5 % as observed.
    assert bad <= 20, stats.wilson(bad, 400)
    if not graded:
        assert sum(adaptive_run(rng, naive, 100, 20, graded) for _ in range(100)) > 30


@pytest.mark.parametrize(
    ("graded", "n", "fixed", "least"), [(False, 200, 0.10, 0.85), (False, 400, 0.07, 0.85), (True, 400, 0.08, 0.85)]
)
def test_a_useful_update_is_committed(graded: bool, n: int, fixed: float, least: float) -> None:
    """Power at the first test of up to four, for an update that fixes `fixed` of the answers and breaks 1 %."""
    rng = np.random.default_rng(3)
    settings = Gate(proposals=4)
    committed = 0
    for _ in range(300):
        d = rng.choice([1.0, -1.0, 0.0], p=[fixed, 0.01, 0.99 - fixed], size=n)
        base = np.where(d > 0, 0.0, np.where(d < 0, 1.0, rng.integers(2, size=n)))
        if graded:
            base, d = 0.25 + 0.5 * base, 0.5 * d + rng.normal(0, 0.01, size=n).clip(-0.05, 0.05)
        committed += gate.meet(base + d, base, (), settings, graded).committed
    assert committed / 300 >= least
