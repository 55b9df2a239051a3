"""Local rounds: energies, shape, adaptation, budget, and what they add."""

import numpy as np
import pytest
from fold_worlds import World

from seedfold.fold import linear, local
from seedfold.fold.attempt import Walk
from seedfold.fold.base import Population, norm
from seedfold.fold.settings import Gate, Linear, Local, Race
from seedfold.recipe import Term

SIZES = {"search": 64, "select": 64, "gate": 256, "test": 1}


def operator(population: Population):
    return linear.proposals(population, Linear(steps=(1.0, 2.0)))


def structured(seed: int, rank: int) -> Population:
    """Effects in `rank` directions: each seed moves answers along a few patterns, and a little at random."""
    rng = np.random.default_rng(seed)
    terms = tuple((Term("rademacher", i, 0.002),) for i in range(160))
    patterns = rng.normal(size=(rank, 64))
    effects = rng.normal(size=(160, rank)) @ patterns * 0.1 + rng.normal(size=(160, 64)) * 0.1
    return Population(terms, 0.5 + effects, np.full(64, 0.5))


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_rank_and_floor_come_from_what_reproduces(rank: int) -> None:
    form = local.shape(structured(0, rank), Local())
    assert len(form.energies) == rank
    # A loading is estimated from the 32 examples of a half, with noise as large as one pattern's effect.
    assert form.floor == pytest.approx(1.0 if rank == 0 else 1 / (1 + 32), abs=0.06)


def test_settings_override_the_automatic_choice() -> None:
    form = local.shape(structured(0, 1), Local(rank=5, floor=0.2))
    assert len(form.energies) == 5
    assert form.floor == 0.2
    assert form.energies.sum() == pytest.approx(1)
    assert np.linalg.norm(form.directions, axis=1) == pytest.approx(np.ones(5))


def test_directions_are_the_ones_that_move_answers_together() -> None:
    """With one planted pattern, the direction weighs seeds by how much they follow it."""
    rng = np.random.default_rng(3)
    factor = rng.normal(size=120)
    terms = tuple((Term("rademacher", i, 0.5),) for i in range(120))
    effects = np.outer(factor, rng.normal(size=64)) + rng.normal(size=(120, 64))
    form = local.shape(Population(terms, effects, np.zeros(64)), Local(rank=1, floor=0.5, elite=0.0))
    follows = np.corrcoef(form.directions[0], factor)[0, 1]
    assert abs(follows) > 0.95


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0])
def test_both_parts_have_the_energy_that_lambda_says(lam: float) -> None:
    form = local.shape(structured(1, 3), Local())
    steps = local.sample(form, 0.002, lam, Local(candidates=2000), 0)
    known = set(form.axes)
    shared = [sum(t.scale**2 for t in step if (t.family, t.seed) in known) for step in steps]
    fresh = [sum(t.scale**2 for t in step if (t.family, t.seed) not in known) for step in steps]
    assert np.mean(fresh) == pytest.approx(lam * 0.002**2)
    assert np.mean(shared) == pytest.approx((1 - lam) * 0.002**2, rel=0.1, abs=1e-12)


def test_without_directions_all_energy_is_isotropic() -> None:
    form = local.shape(structured(0, 0), Local())
    steps = local.sample(form, 0.002, 0.5, Local(candidates=5), 0)
    assert [len(step) for step in steps] == [1] * 5
    assert [norm(step) for step in steps] == pytest.approx([0.002] * 5)
    assert (
        len(
            {
                step[0].seed
                for number in range(3)
                for step in local.sample(form, 0.002, 0.5, Local(candidates=5), number)
            }
        )
        == 15
    )


def test_antithetic_pairs_count_once() -> None:
    plus = structured(0, 0)
    minus = tuple((term._replace(scale=-term.scale),) for (term,) in plus.terms)
    rewards = np.concatenate([plus.rewards, 1 - plus.rewards])
    both = Population(plus.terms + minus, rewards, plus.base)
    single = local.unpaired(both)
    assert single.terms == plus.terms
    assert single.effects == pytest.approx(plus.effects)
    assert len(local.shape(both, Local()).energies) == 0


def run(world: World, settings: Local, gating: Gate, count: int = 100):
    """The rounds alone, from the base: where the walk ended, what they told, and what they cost."""
    walk = Walk(world.bench(), Race(), gating)
    return walk, local.rounds(walk, world.population(count), operator, settings), walk.bench.spent


def test_rounds_climb_sigma_follows_and_the_budget_holds() -> None:
    # Of ten such worlds one never climbs: its base is lucky on the few select examples.
    world = World(2, slope=0.03, curvature=0.02, binary=True, sizes=SIZES)
    settings = Local(rounds=4, candidates=150, rank=2, floor=0.5, patience=4, sigma=1.0)
    found, details, _ = run(world, settings, Gate(proposals=4))
    assert any(found.history)
    assert world.gain(found.committed) > 0.03
    assert found.centre == found.committed
    sigma = 1.0
    for entry in details:
        assert entry["sigma"] == pytest.approx(sigma)
        assert 0.5 <= entry["lambda"] <= 1
        sigma *= 1.25 if entry["moved"] else 0.7
    assert [entry["moved"] for entry in details] == [attempt.committed for attempt in found.attempts]
    for budget in (5_000, 12_000, 20_000, 40_000):
        limited, _, spent = run(world, Local(**{**vars(settings), "budget": budget}), Gate(proposals=4))
        assert spent <= budget
        assert len(limited.attempts) <= len(found.attempts)
    assert run(world, Local(**{**vars(settings), "budget": 5_000}), Gate(proposals=4))[2] == 0


def test_patience_and_the_gates_proposals_end_it() -> None:
    flat = World(1, curvature=0.2, binary=True, sizes=SIZES)
    found, *_ = run(flat, Local(rounds=6, candidates=20, rank=1, floor=0.5, patience=2), Gate(proposals=4))
    assert len(found.attempts) == 2
    steep = World(1, slope=0.05, binary=True, sizes=SIZES)
    found, *_ = run(steep, Local(rounds=6, candidates=60, rank=1, floor=0.5, patience=6), Gate(proposals=2))
    assert len(found.history) == 2


def test_candidates_of_rejected_rounds_tell_the_slope_until_the_centre_moves() -> None:
    world = World(1, slope=0.05, binary=True, sizes=SIZES)
    walk, told = Walk(world.bench(), Race(), Gate(proposals=1), every=0), []

    def once(population: Population):
        told.append(len(population))
        return operator(population) if len(told) == 3 else []

    settings = Local(rounds=5, candidates=20, rank=1, floor=0.5, patience=5)
    details = local.rounds(walk, world.population(50), once, settings)
    assert [entry["moved"] for entry in details] == [False, False, True, False, False]
    assert told == [20, 40, 60, 20, 40]
