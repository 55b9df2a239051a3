import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold.errors import UserError
from seedfold.recipe import FORMAT, Base, Recipe, Term, combine

BASE = Base("some/model", "main", "a" * 32)
OTHER = Base("other/model", "main", "b" * 32)

seeds = st.integers(0, 2**64 - 1)
scales = st.floats(allow_nan=False, allow_infinity=False)
axes = st.tuples(st.sampled_from(["rademacher", "gaussian"]), st.integers(0, 5))
small = st.integers(-8, 8).map(float)  # sums of these are exact in any order
steps = st.lists(st.builds(lambda axis, scale: Term(*axis, scale), axes, small), max_size=8).map(
    lambda terms: Recipe(BASE, tuple(terms))
)


def full(**changes):
    recipe = Recipe(
        BASE,
        (Term("rademacher", 2**64 - 1, 0.1), Term("gaussian", 0, -1e-300), Term("rademacher", 7, 1 / 3)),
        include=("model.layers.*",),
        exclude=("*norm*",),
        scale="rms",
        dtype="float32",
        rounding="dither",
        source={"study": "größer", "evaluations": 12},
    )
    return replace(recipe, **changes)


# File


@given(st.lists(st.builds(Term, st.sampled_from(["rademacher", "gaussian"]), seeds, scales), max_size=6), st.text())
def test_a_recipe_comes_back_from_its_file_bit_for_bit(terms, name):
    recipe = Recipe(replace(BASE, name=name), tuple(terms))
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert [math.copysign(1, term.scale) for term in again.terms] == [math.copysign(1, t.scale) for t in terms]
    assert again.key == recipe.key
    assert again.to_json() == recipe.to_json()


def test_every_field_comes_back_from_the_file(tmp_path):
    recipe = full()
    recipe.save(tmp_path / "new" / "recipe.json")
    again = Recipe.load(tmp_path / "new" / "recipe.json")
    assert again == recipe
    assert again.source == recipe.source


def test_a_file_is_json_with_a_format_and_one_term_a_line():
    text = full().to_json()
    content = json.loads(text)
    assert content["format"] == FORMAT == "seedfold.recipe/1"
    assert content == json.loads(json.dumps(full().to_dict()))
    assert '  ["rademacher", 7, 0.3333333333333333]\n' in text


def test_a_truncated_file_is_refused_at_every_length():
    text = full().to_json()
    for length in range(len(text.rstrip())):
        with pytest.raises(UserError, match=r"write it again|states"):
            Recipe.from_json(text[:length])


@pytest.mark.parametrize("field", ["base", "tensors", "terms", "dtype", "rounding"])
def test_a_file_without_a_field_is_refused_by_name(field):
    content = full().to_dict()
    del content[field]
    with pytest.raises(UserError, match=field):
        Recipe.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "int8"),
        ("rounding", "up"),
        ("terms", [["rademacher", 1]]),
        ("terms", [["rademacher", 1, "big"]]),
        ("terms", [["rademacher", 1, None]]),
        ("terms", [["rademacher", 1.5, 0.1]]),
        ("terms", [["rademacher", True, 0.1]]),
        ("terms", [["rademacher", 2**64, 0.1]]),
        ("terms", [["rademacher", -1, 0.1]]),
        ("terms", [[3, 1, 0.1]]),
        ("terms", [["rademacher", 1, math.nan]]),
        ("terms", [["rademacher", 1, math.inf]]),
        ("terms", 3),
        ("tensors", {"include": ["*"], "exclude": [], "scale": "relative"}),
        ("tensors", []),
        ("tensors", {"include": "model.*", "exclude": [], "scale": "rms"}),
        ("tensors", {"include": ["*"], "exclude": [3], "scale": "rms"}),
        ("terms", [["rademacher", 1, 10**400]]),
        ("base", "some/model"),
        ("source", 3),
    ],
)
def test_a_file_with_a_bad_value_is_refused(field, value):
    with pytest.raises(UserError):
        Recipe.from_json(json.dumps(full().to_dict() | {field: value}))


@pytest.mark.parametrize("text", ["[]", "3", "{}", "null", '"recipe"'])
def test_json_that_is_no_recipe_is_refused(text):
    with pytest.raises(UserError, match="format"):
        Recipe.from_json(text)


def test_another_version_is_refused_and_both_are_named():
    with pytest.raises(UserError, match=r"seedfold\.recipe/2.*seedfold\.recipe/1"):
        Recipe.from_json(json.dumps(full().to_dict() | {"format": "seedfold.recipe/2"}))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "binary.json"):
        with pytest.raises(UserError, match=path.name):
            Recipe.load(path)


def test_a_save_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "recipe.json"
    full().save(path)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("seedfold.recipe.os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        full(terms=()).save(path)
    assert Recipe.load(path) == full()


def test_a_save_replaces_the_file_and_leaves_nothing_else(tmp_path):
    full().save(tmp_path / "recipe.json")
    full(terms=()).save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json").terms == ()
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


# Identity


def test_the_key_ignores_where_a_recipe_and_its_base_came_from():
    renamed = replace(BASE, name="elsewhere", revision="1234")
    assert full(base=renamed, source={"study": "another"}).key == full().key


@pytest.mark.parametrize(
    "changes",
    [
        {"base": OTHER},
        {"terms": full().terms[:2]},
        {"terms": full().terms[::-1]},
        {"terms": (full().terms[0]._replace(scale=math.nextafter(0.1, 1)), *full().terms[1:])},
        {"terms": (full().terms[0]._replace(seed=2**64 - 2), *full().terms[1:])},
        {"terms": (full().terms[0]._replace(family="gaussian"), *full().terms[1:])},
        {"include": ("*",)},
        {"exclude": ()},
        {"scale": "absolute"},
        {"dtype": "bfloat16"},
        {"rounding": "nearest"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_key_depends_on_all_that_decides_the_weights(changes):
    assert full(**changes).key != full().key


def test_the_key_of_a_known_recipe_never_changes():
    """Journals are keyed by it: a change of the key's definition would make every old study start again."""
    recipe = Recipe(BASE, (Term("rademacher", 1, 0.5),))
    assert recipe.key == "b858597b68ed769cd255356be92653f4"
    assert recipe.dither_seed == 17107843306354059220


def test_recipes_of_different_terms_are_dithered_differently():
    recipes = [Recipe(BASE, (Term("rademacher", seed, scale),)) for seed in range(20) for scale in (0.1, 0.2)]
    assert len({recipe.dither_seed for recipe in recipes}) == 40
    assert all(0 <= recipe.dither_seed < 2**64 for recipe in recipes)


def test_equal_recipes_have_equal_keys_whatever_types_their_numbers_had():
    plain = Recipe(BASE, (Term("rademacher", 3, 1.0),))
    for seed, scale in ((3, 1), (np.int64(3), np.float32(1)), (np.uint64(3), np.float64(1))):
        recipe = Recipe(BASE, (Term("rademacher", seed, scale),))
        assert recipe == plain
        assert recipe.key == plain.key
        assert recipe.to_json() == plain.to_json()


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_no_finite_number_is_refused(scale):
    with pytest.raises(UserError, match="seed 3"):
        Recipe(BASE, (Term("rademacher", 3, scale),))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(UserError, match=str(seed)):
        Recipe(BASE, (Term("rademacher", seed, 1.0),))


# Algebra


@given(steps, steps)
def test_addition_commutes_in_coefficients(a, b):
    assert (a + b).coefficients == (b + a).coefficients


@given(steps, steps, steps)
def test_addition_associates_in_coefficients(a, b, c):
    assert ((a + b) + c).coefficients == (a + (b + c)).coefficients


@given(steps)
def test_a_step_minus_itself_is_the_base(a):
    assert (a - a).terms == ()


@given(steps, steps)
def test_subtraction_undoes_addition(a, b):
    assert ((a + b) - b).coefficients == (1.0 * a).coefficients


@given(steps, small, small)
def test_scaling_distributes(a, x, y):
    assert (a * x + a * y).coefficients == ((x + y) * a).coefficients


@given(steps, steps, steps, small)
def test_the_inner_product_is_bilinear_and_symmetric(a, b, c, x):
    assert a.inner(b) == b.inner(a)
    assert (a + x * b).inner(c) == a.inner(c) + x * b.inner(c)


@given(steps, steps)
@settings(max_examples=50)
def test_the_cosine_lies_between_minus_one_and_one(a, b):
    assert abs(a.cosine(b)) <= 1 + 1e-12
    assert a.norm() == math.sqrt(sum(x * x for x in a.coefficients.values()))


def test_norms_and_cosines_of_known_steps():
    a = Recipe(BASE, (Term("rademacher", 1, 3.0), Term("rademacher", 2, 4.0)))
    b = Recipe(BASE, (Term("rademacher", 2, 1.0), Term("gaussian", 1, 9.0)))
    assert a.norm() == 5.0
    assert a.inner(b) == 4.0
    assert a.cosine(a) == 1.0
    assert a.cosine(-1 * a) == -1.0
    assert a.cosine(Recipe(BASE)) == 0.0


def test_combining_merges_axes_in_order_of_appearance_and_drops_zeros():
    a = Recipe(BASE, (Term("rademacher", 1, 1.0), Term("rademacher", 2, 2.0)), source={"study": "s"})
    b = Recipe(BASE, (Term("rademacher", 2, -1.0), Term("gaussian", 1, 1.0)))
    combined = combine([a, b], [1.0, 2.0])
    assert combined.terms == (Term("rademacher", 1, 1.0), Term("gaussian", 1, 2.0))
    assert combined.source == {}


def test_recipes_of_different_bases_do_not_combine_and_both_are_named():
    a, b = Recipe(BASE), Recipe(OTHER)
    for operation in (
        lambda: a + b,
        lambda: a - b,
        lambda: a.inner(b),
        lambda: a.cosine(b),
        lambda: combine([a, b], [1, 1]),
    ):
        with pytest.raises(UserError, match=f"{BASE.fingerprint}.*{OTHER.fingerprint}"):
            operation()


@pytest.mark.parametrize(
    "changes",
    [{"include": ("a*",)}, {"exclude": ("b",)}, {"scale": "rms"}, {"dtype": "float32"}, {"rounding": "dither"}],
)
def test_recipes_that_perturb_differently_do_not_combine(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        Recipe(BASE) + Recipe(BASE, **changes)


@pytest.mark.parametrize(("recipes", "weights"), [([], []), ([Recipe(BASE)], []), ([Recipe(BASE)], [1.0, 2.0])])
def test_one_weight_per_recipe_is_asked_for(recipes, weights):
    with pytest.raises(UserError, match="weight"):
        combine(recipes, weights)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_no_finite_number_is_refused(weight):
    with pytest.raises(UserError):
        Recipe(BASE, (Term("rademacher", 1, 1.0),)) * weight
    with pytest.raises(UserError):
        combine([Recipe(BASE)], [weight])


def test_a_sum_beyond_float64_is_refused():
    with pytest.raises(UserError):
        Recipe(BASE, (Term("rademacher", 1, 1e308),)) * 1e10
