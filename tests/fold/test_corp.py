"""CoRP: weights, geometry, and the limit in which it is the linear fold."""

import numpy as np
import pytest
from fold_worlds import World

from seedfold.fold import corp, linear
from seedfold.fold.base import Population, norm
from seedfold.fold.settings import Corp, Linear
from seedfold.recipe import Term


def cosine(one, other) -> float:
    a, b = ({t.seed: t.scale for t in step} for step in (one, other))
    return sum(a[s] * b.get(s, 0.0) for s in a) / norm(one) / norm(other)


def only(population, **settings):
    (proposal,) = corp.proposals(population, Corp(steps=(1.0,), **{k: (v,) for k, v in settings.items()}))
    return proposal.terms


def test_positive_weights_are_the_elites_softmax() -> None:
    z = corp.standard(np.array([3.0, 1.0, 2.0, 0.0]))
    w = corp.weights(z, 0.5, 2.0, "positive", None)
    wanted = np.exp(2 * z) * [1, 0, 1, 0]
    assert w == pytest.approx(wanted / wanted.sum())


def test_signed_weights_sum_to_nothing_and_rise_with_the_score() -> None:
    z = corp.standard(np.random.default_rng(0).normal(size=50))
    for q, beta in [(0.0, 0.0), (0.0, 1.0), (0.8, 0.0), (0.5, 2.0)]:
        w = corp.weights(z, q, beta, "signed", None)
        assert w.sum() == pytest.approx(0, abs=1e-12)
        assert (np.diff(w[np.argsort(z)]) >= -1e-15).all()


@pytest.mark.parametrize("beta", [0.0, 1e-4])
@pytest.mark.parametrize("sigma", [1.0, (0.5, 1.0, 2.0)])
def test_the_linear_fold_is_the_limit(beta: float, sigma) -> None:
    population = World(0, slope=0.01, spread=0.08).population(60, sigma)
    (signed,) = linear.proposals(population, Linear(steps=(1.0,)))
    folded = only(population, quantiles=0.0, betas=beta, weights="signed", geometry="none")
    assert cosine(folded, signed.terms) == pytest.approx(1.0, abs=1e-3)


def test_how_much_of_the_linear_gain_each_weighting_keeps() -> None:
    """For normal scores: softmax β e^(−β²/2), elite φ(t)/√(1−q), signed softmax β/√(e^(β²) − 1); none positive over √½."""
    z = corp.standard(np.random.default_rng(1).normal(size=200_000))

    def kept(q, beta, kind):
        w = corp.weights(z, q, beta, kind, None)
        return float(w @ z) / float(np.linalg.norm(w) * np.linalg.norm(z))

    assert kept(0.0, 1.0, "positive") == pytest.approx(np.exp(-0.5), abs=0.02)
    assert kept(0.5, 0.0, "positive") == pytest.approx(np.sqrt(1 / np.pi), abs=0.01)
    assert kept(0.0, 1.0, "signed") == pytest.approx(1 / np.sqrt(np.e - 1), abs=0.02)
    assert kept(0.0, 0.0, "signed") == pytest.approx(1.0)
    best = max(
        kept(q, beta, "positive") for q in np.arange(0, 0.95, 0.1) for beta in np.arange(0, 3.1, 0.25) if q or beta
    )
    assert 0.6 < best <= np.sqrt(0.5) + 0.005


def test_compatibility_leaves_the_candidate_itself_out() -> None:
    effects = np.random.default_rng(2).normal(size=(6, 9))
    w = np.random.default_rng(3).dirichlet(np.ones(6))
    alignment, dispersion = corp.compatibility(effects @ effects.T, w)
    for i, effect in enumerate(effects):
        others = w @ effects - w[i] * effect
        unit = others / np.linalg.norm(others)
        assert alignment[i] == pytest.approx(effect @ unit / np.linalg.norm(effect))
        assert dispersion[i] == pytest.approx(((effect - effect @ unit * unit) ** 2).sum())


def test_weight_space_says_nothing_about_independent_seeds_and_behaviour_does() -> None:
    rng = np.random.default_rng(4)
    terms = tuple((Term("rademacher", i, 1.0),) for i in range(30))
    base = np.full(40, 0.5)
    # Ten candidates change the same answers, twenty change answers of their own; their means are alike.
    effects = np.where(np.arange(30)[:, None] < 10, 0.5 * np.sin(np.arange(40)), rng.normal(0, 0.35, size=(30, 40)))
    effects += 0.1 - effects.mean(axis=1, keepdims=True) + rng.normal(0, 0.02, size=(30, 1))
    population = Population(terms, base + effects, base)
    z = corp.standard(population.slopes)
    flat = corp.weights(z, 0.0, 1.0, "positive", corp.gram(population, "weights"))
    assert flat == pytest.approx(corp.weights(z, 0.0, 1.0, "positive", None))
    shaped = corp.weights(z, 0.0, 1.0, "positive", corp.gram(population, "behaviour"))
    assert flat[:10].sum() < 0.6
    assert shaped[:10].sum() > 0.9


def test_the_grid_has_each_step_once_with_its_provenance() -> None:
    population = World(5, slope=0.01, spread=0.08).population(30)
    found = corp.proposals(population, Corp())
    assert len({proposal.terms for proposal in found}) == len(found)
    for proposal in found:
        assert norm(proposal.terms) == pytest.approx(proposal.settings["step"] * population.size)
        assert set(proposal.settings) == {"weights", "geometry", "q", "beta", "step"}
    # 2 weights × 2 geometries × 3 q × 2 β × 5 steps, less the plain mean of everyone, which no reward made.
    assert len(found) == 120 - 5


def test_equal_scores_propose_nothing() -> None:
    terms = tuple((Term("rademacher", i, 1.0),) for i in range(10))
    assert corp.proposals(Population(terms, np.ones((10, 5)), np.ones(5)), Corp()) == []
