"""Subspaces: what a seed expands to, by hand and by the oracle; that it is a recipe like any other; what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import small_study, write_tiny
from noise_oracle import noise
from tiny_models import IdTokenizer, tiny_model

import seedfold
from seedfold import config, evaluation
from seedfold.diagnose import saved
from seedfold.engines.base import Decoding, Job, Prompt
from seedfold.engines.stacked import StackedEngine
from seedfold.errors import UserError
from seedfold.fold.base import Population
from seedfold.noise import Segment, subspace, values
from seedfold.noise.torch import perturbation
from seedfold.recipe import Base, Recipe, Term
from seedfold.search.population import draw, seed_of, sigma_of
from seedfold.weights import Weights

KNOWN = [("rademacher", 1, 0.6961331833866775), ("gaussian", 2, 0.7179126625070285)]
ONE, TWO, BOTH = ("rademacher", 1, 2.0), ("gaussian", 2, 0.5), ("low-rank-2", 3, 1.0)
DIRECTIONS = [[ONE], [TWO], [ONE, BOTH]]


def coefficients(terms):
    return {(family, seed): scale for family, seed, scale in terms}


def test_a_seed_is_one_gaussian_weight_per_direction_scaled_to_its_size() -> None:
    """By an independent oracle of the weights, in plain arithmetic."""
    w = [noise("gaussian", 42, "#subspace", k) for k in range(3)]
    raw = {
        ("rademacher", 1): w[0] + w[2] * 2 / math.sqrt(5),
        ("gaussian", 2): w[1],
        ("low-rank-2", 3): w[2] / math.sqrt(5),
    }
    length = math.sqrt(sum(value**2 for value in raw.values()))
    found = coefficients(subspace.expand(DIRECTIONS, 42, 0.01))
    assert list(found) == list(raw)
    assert found == pytest.approx({axis: 0.01 * value / length for axis, value in raw.items()}, rel=1e-14)
    assert coefficients(subspace.expand(DIRECTIONS, 42, -0.01)) == {axis: -scale for axis, scale in found.items()}


def test_known_answer() -> None:
    """To the bit: what docs/noise.md states."""
    assert subspace.expand([[ONE], [TWO]], 42, 1.0) == KNOWN


def test_points_are_spread_evenly_over_the_sphere() -> None:
    axes = [[("rademacher", k, 1.0)] for k in range(4)]
    points = np.array([[t[2] for t in subspace.expand(axes, seed, 2.0)] for seed in range(4000)])
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.full(4000, 2.0))
    assert points.mean(axis=0) == pytest.approx(np.zeros(4), abs=0.08)  # five standard errors
    assert np.cov(points.T) == pytest.approx(np.eye(4), abs=0.12)


def test_the_step_is_the_combination_of_the_directions_steps() -> None:
    part = Segment.whole("model.layers.0.mlp.down_proj.weight", 6 * 40, (6, 40))
    terms = subspace.expand(DIRECTIONS, 7, 0.1)
    weights = [noise("gaussian", 7, "#subspace", k) for k in range(3)]
    steps = [
        perturbation(part, direction).double() / math.sqrt(sum(scale**2 for *_, scale in direction))
        for direction in DIRECTIONS
    ]
    mixed = sum(weight * step for weight, step in zip(weights, steps, strict=True))
    found = perturbation(part, terms).double()
    assert torch.allclose(found / found.norm(), mixed / mixed.norm(), atol=1e-6)
    assert float(found.square().mean().sqrt()) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ([], "0 directions"),
        ([[ONE], []], "direction 1 of a subspace has no step"),
        ([[("rademacher", 1, 1.0), ("rademacher", 1, -1.0)]], "direction 0 of a subspace has no step"),
    ],
)
def test_no_subspace(directions, message) -> None:
    with pytest.raises(UserError, match=message):
        subspace.expand(directions, 1, 0.1)


BASE = Base("model", "", "f" * 32)


def settings(**search: object) -> config.Search:
    whole = {"family": "subspace", "candidates": 4, "sigmas": [0.01, 0.02], "votes": [1], **search}
    return config.from_dict({"search": whole}).search


def test_directions_are_terms_files_and_folders(tmp_path: Path) -> None:
    for number, term in enumerate((ONE, TWO)):
        Recipe(BASE, (Term(*term),)).save(tmp_path / "some" / f"rank-{number}.json")
    Recipe(BASE, (Term(*ONE), Term(*BOTH))).save(tmp_path / "mixed.json")
    given = [str(tmp_path / "some"), str(tmp_path / "mixed.json"), "gaussian 9 -0.5, rademacher 7"]
    population = draw(settings(directions=given), BASE, "bfloat16")
    expected = [*DIRECTIONS, [("gaussian", 9, -0.5), ("rademacher", 7, 1.0)]]
    for recipe, sigma in zip(population, (0.01, 0.02, 0.01, 0.02), strict=True):
        assert [tuple(term) for term in recipe.terms] == subspace.expand(expected, seed_of(recipe), sigma)
        assert sigma_of(recipe, (0.01, 0.02)) == sigma
        assert recipe.norm() == pytest.approx(sigma, rel=1e-12)
    assert len({recipe.key for recipe in population}) == 4
    longer = draw(settings(directions=given, candidates=8), BASE, "bfloat16")
    assert longer[:4] == population
    plus, minus = draw(settings(directions=given, antithetic=True), BASE, "bfloat16")[:2]
    assert plus.terms == (minus * -1).terms


def test_a_single_term_has_its_own_sigma_and_seed() -> None:
    for recipe in draw(settings(family="rademacher"), BASE, "bfloat16"):
        assert sigma_of(recipe, (0.01, 0.02)) == recipe.terms[0].scale
        assert seed_of(recipe) == recipe.terms[0].seed


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({}, '"search.directions" is empty'),
        ({"directions": ["rademacher"]}, '"search.directions" has "rademacher"; give a recipe file'),
        ({"directions": ["rademacher 7 x"]}, '"search.directions" has "rademacher 7 x"'),
        ({"directions": ["unknown 7"]}, '"search.directions" has "unknown 7"'),
        ({"directions": ["none.json"]}, 'recipe file "none.json" cannot be read'),
        ({"directions": ["{tmp}/other.json"]}, f"on base {'a' * 32} .other., but the model is {'f' * 32}"),
        ({"directions": ["{tmp}/rms.json"]}, "with scale 'rms', but \"search.scale\" is 'absolute'"),
        ({"directions": ["{tmp}/base.json"]}, "which is the base itself"),
        ({"directions": ["{tmp}"], "exclude": ["*norm*"]}, '"search.exclude" is'),
        ({"directions": ["{tmp}/empty"]}, "holds no .json"),
        ({"directions": ["rademacher 7"], "family": "gaussian"}, '"search.directions" is given, but "search.family"'),
        ({"family": "subspaces"}, '"search.family" is "subspaces"; use one of .*, subspace'),
    ],
)
def test_what_is_refused(tmp_path: Path, search: dict[str, object], message: str) -> None:
    Recipe(Base("other", "", "a" * 32), (Term(*ONE),)).save(tmp_path / "other.json")
    Recipe(BASE, (Term(*ONE),), scale="rms").save(tmp_path / "rms.json")
    Recipe(BASE).save(tmp_path / "base.json")
    (tmp_path / "empty").mkdir()
    if "exclude" in search:
        (tmp_path / "other.json").unlink()
        Recipe(BASE, (Term(*ONE),)).save(tmp_path / "a.json")
    search = dict(search)
    if "directions" in search:
        search["directions"] = [text.format(tmp=tmp_path) for text in search["directions"]]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=message):
        draw(settings(**search), BASE, "bfloat16")


def test_candidates_that_overlap_are_seen_to_overlap() -> None:
    """What a fold takes for orthogonal must be: in three directions, six candidates are not."""
    population = draw(settings(directions=[f"rademacher {k}" for k in range(3)], candidates=6), BASE, "float32")
    scored = Population(tuple(recipe.terms for recipe in population), np.zeros((6, 4)), np.zeros(4))
    assert np.linalg.matrix_rank(scored.gram) == 3
    assert np.abs(scored.gram - np.diag(np.diag(scored.gram))).max() > 1e-5


@pytest.mark.parametrize("scale", ["absolute", "rms"])
def test_every_engine_rebuilds_it_like_any_recipe(tiny, scale) -> None:
    """Expanded, it is a recipe of several terms: the reference and the stacked engine make the same weights and answers."""
    engine = tiny("llama")
    stacked = StackedEngine(tiny_model("llama"), IdTokenizer(), "llama", copies=2, slots=4, device="cpu")
    base = Base("llama", "", engine.fingerprint)
    given = ["rademacher 1, low-rank-2 3", "gaussian 2"]
    population = draw(settings(directions=given, scale=scale, sigmas=[0.1]), base, "float32")
    prompts = [Prompt(tuple((7 * i + j * j) % 300 for j in range(3 + 5 * i)), str(i)) for i in range(3)]
    jobs = [Job(recipe, prompts, Decoding(6)) for recipe in population]
    found, expected = (
        {(number, answer.index): answer.text for number, batch in one.run(jobs) for answer in batch}
        for one in (stacked, engine)
    )
    assert found == expected
    weights = Weights(tiny_model("llama"))
    weights.become(population[0])
    for name, tensor in weights.tensors.items():
        factor = weights.rms(name) if scale == "rms" else 1.0
        terms = [(family, seed, value * factor) for family, seed, value in population[0].terms]
        assert torch.equal(weights.live(name), weights.base(name) + perturbation(tensor.segment(), terms)), name


def test_a_study_of_a_subspace(tmp_path: Path) -> None:
    """A study like any other: recipes without other files, the sizes told apart, read back by the diagnostics."""
    changes = {"family": "subspace", "directions": [f"rademacher {k}" for k in range(3)], "candidates": 16}
    chosen = config.from_dict(small_study(tmp_path, write_tiny(tmp_path / "model"), **changes))
    done = seedfold.run(chosen, tmp_path / "out")
    best = Recipe.load(tmp_path / "out" / "recipes" / "rank-01.json")
    assert len(best.terms) == 3
    assert (
        evaluation.evaluate(chosen, [tmp_path / "out" / "recipes" / "rank-01.json"], "test")["accuracy"]
        == (done.record["results"][1]["accuracy"])
    )
    found = saved.load(tmp_path / "out")
    assert found.sigmas.tolist() == [0.02, 0.05] * 8
    assert len(found.population.groups) == 16


FAMILIES = ["rademacher", "gaussian", "low-rank-3", "lora-2", "lora-2:q_proj"]


@pytest.mark.parametrize("family", [*FAMILIES, "subspace"])
def test_rms_is_an_option_of_every_family(family) -> None:
    """The scale of a term on a tensor is σ times that tensor's root mean square, as summed in float64."""
    weights = Weights(tiny_model("qwen2", torch.bfloat16))
    base = Base("", "", weights.fingerprint)
    given = {"directions": ["gaussian 3", "low-rank-2 4"]} if family == "subspace" else {}
    recipe = draw(settings(family=family, scale="rms", sigmas=[0.3], **given), base, "bfloat16")[0]
    weights.become(recipe)
    touched = 0
    for name, tensor in weights.tensors.items():
        whole = weights.base(name)
        size = float(whole.double().square().mean().sqrt())
        step = torch.zeros(tensor.numel)
        for kind, seed, scale in recipe.terms:
            drawn = values(kind, seed, name, 0, tensor.numel, shape=tensor.shape)
            step = step + torch.tensor(scale * size, dtype=torch.float32) * drawn
        assert torch.equal(weights.live(name), (whole.float() + step).bfloat16()), name
        if step.any() and tensor.numel > 1000:
            touched += 1
            assert float(step.square().mean().sqrt()) == pytest.approx(0.3 * size, rel=0.15), name
    assert touched >= (2 if family == "lora-2:q_proj" else 10)
