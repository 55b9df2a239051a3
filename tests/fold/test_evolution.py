"""Evolution strategies: the update by hand, and the loop on a world whose gain is known."""

from dataclasses import replace

import numpy as np
import pytest
from fold_worlds import World

from seedfold import UserError
from seedfold.fold import evolution
from seedfold.fold.settings import Evolution, Gate
from seedfold.recipe import Term

SIZES = {"search": 128, "select": 1, "gate": 256, "test": 1}
QUICK = Evolution(iterations=20, candidates=16, sigma=0.2, rate=0.4, batch=64)


def test_the_update_by_hand() -> None:
    settings = Evolution(sigma=0.5, rate=0.1, candidates=4)
    noise = [
        Term("rademacher", 1, 0.5),
        Term("rademacher", 1, -0.5),
        Term("rademacher", 2, 0.5),
        Term("rademacher", 2, -0.5),
    ]
    rewards = np.array([0.9, 0.1, 0.4, 0.6])
    z = (rewards - rewards.mean()) / rewards.std()
    step = evolution.update(noise, rewards, settings)
    assert {t.seed: t.scale for t in step} == pytest.approx({1: 0.025 * (z[0] - z[1]), 2: 0.025 * (z[2] - z[3])})
    assert evolution.update(noise, np.full(4, 0.3), settings) == ()


def test_sizes_come_from_the_population_where_none_are_given() -> None:
    assert Evolution().sized(3e-3) == Evolution(sigma=3e-3, rate=1.5e-3)
    assert Evolution(sigma=1e-3).sized(3e-3) == Evolution(sigma=1e-3, rate=5e-4)
    assert QUICK.sized(3e-3) == QUICK
    with pytest.raises(ValueError, match="above 0"):
        evolution.run(World(0, spread=0.3, sizes=SIZES).bench(), Evolution(), Gate())


def test_pairs_are_antithetic_and_seeds_are_never_drawn_twice() -> None:
    drawn = [term for iteration in range(5) for term in evolution.draw(QUICK, iteration)]
    assert len(drawn) == 80
    assert len({term.seed for term in drawn}) == 40
    assert all(a.seed == b.seed and a.scale == -b.scale for a, b in zip(drawn[::2], drawn[1::2], strict=True))
    single = evolution.draw(replace(QUICK, antithetic=False), 0)
    assert len({term.seed for term in single}) == 16
    with pytest.raises(UserError, match="which is odd"):
        Evolution(candidates=31)


def test_batches_take_the_examples_in_turn() -> None:
    seen = np.concatenate([evolution.batch(Evolution(batch=40), i, 100) for i in range(5)])
    assert np.bincount(seen, minlength=100).tolist() == [2] * 100


def test_it_climbs_and_the_gate_lets_it() -> None:
    world = World(0, slope=0.08, curvature=0.01, spread=0.3, binary=True, sizes=SIZES)
    bench = world.bench()
    found = evolution.run(bench, QUICK, Gate(proposals=1))
    assert found.history == (True,)
    assert world.gain(found.terms) > 0.1
    assert 120 < len(found.terms) <= 20 * 8  # a pair that scores alike leaves no term
    assert found.evaluations == bench.spent == 20 * 16 * 64 + 2 * 256


def test_without_signal_the_base_stands() -> None:
    committed = 0
    for seed in range(30):
        world = World(10 * seed, spread=0.3, binary=True, sizes=SIZES)
        found = evolution.run(world.bench(), replace(QUICK, iterations=6, gate_every=2), Gate(proposals=3))
        assert len(found.history) == 3
        committed += bool(found.terms)
    assert committed <= 5  # 5 % of 30 is 1.5; more than 5 has a chance of 0.3 %


def test_a_gated_stretch_is_judged_against_the_last_commit() -> None:
    world = World(0, slope=0.15, spread=0.3, binary=True, sizes=SIZES)
    found = evolution.run(world.bench(), replace(QUICK, gate_every=10), Gate(proposals=2))
    assert found.history[0]
    assert {t.seed for t in found.attempts[0].proposal.terms}.isdisjoint(
        t.seed for t in found.attempts[1].proposal.terms
    )
