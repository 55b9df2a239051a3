import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from seedfold import models, noise
from seedfold import weights as module
from seedfold.errors import UserError
from seedfold.noise import Segment
from seedfold.recipe import Recipe, Term
from seedfold.weights import Part, Weights, sketch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def held(tiny):
    """held(dtype): the weights of a tiny model whose head is its embedding."""
    return lambda dtype=torch.bfloat16: tiny("llama", dtype).weights


def expected(weights, name, terms, absolute=lambda scale: scale):
    """round(float32(base) + sum of scale * noise), as the design writes it."""
    numel = weights.tensors[name].numel
    step = torch.zeros(numel)
    for family, seed, scale in terms:
        step = step + torch.tensor(absolute(scale), dtype=torch.float32) * noise.values(family, seed, name, 0, numel)
    return (weights.base(name).float() + step).to(weights.base(name).dtype)


# The plan


def test_tensors_are_those_of_the_checkpoint(smol):
    with safe_open(f"{models.locate(models.EMBEDDED)}/model.safetensors", framework="pt") as checkpoint:
        names = {name: tuple(checkpoint.get_slice(name).get_shape()) for name in checkpoint.keys()}  # noqa: SIM118
    assert {name: tensor.shape for name, tensor in smol.weights.tensors.items()} == names
    assert {tensor.dtype for tensor in smol.weights.tensors.values()} == {"bfloat16"}


def test_a_tied_head_is_one_tensor_under_the_embeddings_name(held):
    tensors = held().tensors
    assert "lm_head.weight" not in tensors
    assert tensors["model.embed_tokens.weight"].shape == (320, 48)


def test_a_head_of_its_own_is_a_tensor(tiny):
    assert "lm_head.weight" in tiny("qwen2").weights.tensors


def test_parameters_that_are_no_floats_are_left_alone():
    layer = torch.nn.Linear(2, 2)
    layer.table = torch.nn.Parameter(torch.arange(3), requires_grad=False)
    assert set(Weights(layer).tensors) == {"weight", "bias"}


def test_a_transposed_parameter_is_held_in_the_order_of_its_rows():
    layer = torch.nn.Linear(2, 3, bias=False)
    values = torch.arange(6.0).view(2, 3).t()
    layer.weight.data = values
    weights = Weights(layer)
    assert weights.base("weight").tolist() == [0, 3, 1, 4, 2, 5]
    weights.live("weight")[1] = 9
    assert layer.weight[0, 1] == 9


# The fingerprint


def test_the_fingerprint_is_the_same_after_loading_again(held):
    assert held().fingerprint == held().fingerprint


def test_the_fingerprint_changes_with_any_one_bit(tiny):
    model = tiny("llama", torch.bfloat16).model
    before = Weights(model).fingerprint
    for parameter in model.parameters():
        bits = parameter.view(-1).view(torch.int16)
        bits[-1] ^= 1
        assert Weights(model).fingerprint != before
        bits[-1] ^= 1
    assert Weights(model).fingerprint == before


def test_the_fingerprint_depends_on_names_shapes_and_dtypes():
    def of(name, shape, dtype):
        values = torch.zeros(6, dtype=dtype)
        return module.fingerprint([(module.Tensor(name, shape, str(dtype)), values)])

    plain = of("a", (2, 3), torch.bfloat16)
    others = [of("b", (2, 3), torch.bfloat16), of("a", (3, 2), torch.bfloat16), of("a", (2, 3), torch.float16)]
    assert len({plain, *others}) == 4


# Becoming a recipe


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", ["rademacher", "gaussian"])
def test_the_weights_are_the_base_plus_scaled_noise_rounded_once(held, recipe_on, family, dtype):
    weights = held(dtype)
    terms = [(family, 3, 0.01), ("rademacher", 2**64 - 1, -0.3), ("gaussian", 0, 1e-4)]
    weights.become(recipe_on(weights, *terms))
    for name in weights.tensors:
        assert torch.equal(weights.live(name), expected(weights, name, terms)), name


def test_the_model_computes_with_the_live_weights(tiny, recipe_on):
    engine = tiny("llama")
    ids = torch.arange(5)[None]
    before = engine.model(ids).logits
    engine.weights.become(recipe_on(engine, (1, 0.1)))
    assert not torch.equal(engine.model(ids).logits, before)
    assert engine.model.lm_head.weight.data_ptr() == engine.model.model.embed_tokens.weight.data_ptr()
    engine.weights.become(None)
    assert torch.equal(engine.model(ids).logits, before)


def test_a_thousand_switches_leave_no_trace(recipe_on):
    torch.manual_seed(0)
    weights = Weights(torch.nn.Sequential(torch.nn.Linear(9, 20), torch.nn.Linear(20, 5)).to(torch.bfloat16))
    recipes = [
        recipe_on(weights, (seed, 0.5 ** (seed % 9)), include=("*", "0.*", "1.bias")[seed % 3 :][:1])
        for seed in range(50)
    ]
    sums = {}
    for i in range(1000):
        recipe = recipes[i * 37 % 50]
        weights.become(recipe)
        assert weights.checksum() == sums.setdefault(recipe.key, weights.checksum())
    assert len(set(sums.values()) | {weights.fingerprint}) > 40
    weights.become(None)
    assert weights.checksum() == weights.fingerprint


def test_switching_a_real_model_leaves_no_trace(smol, recipe_on):
    for seed in range(20):
        include = ("*",) if seed < 2 else (f"model.layers.{seed}.*", "model.norm.weight")
        smol.become(recipe_on(smol, (seed, 0.01), include=include))
    assert smol.weights.checksum() != smol.fingerprint
    smol.become(None)
    assert smol.weights.checksum() == smol.fingerprint


def test_only_included_tensors_that_are_not_excluded_change(held, recipe_on):
    weights = held()
    include, exclude = ("model.layers.*.weight", "model.norm*"), ("*layers.0*", "*.o_proj.*")
    weights.become(recipe_on(weights, (1, 0.5), include=include, exclude=exclude))
    changed = {name for name in weights.tensors if not torch.equal(weights.live(name), weights.base(name))}
    wanted = {
        name
        for name in weights.tensors
        if name == "model.norm.weight" or (name.startswith("model.layers.1.") and "o_proj" not in name)
    }
    assert changed == wanted


def test_patterns_that_match_nothing_are_refused(held, recipe_on):
    weights = held()
    with pytest.raises(UserError, match=r"transformer\.\*.*model\.embed_tokens\.weight"):
        weights.become(recipe_on(weights, (1, 0.5), include=("transformer.*",)))


def test_rms_scales_are_relative_to_each_tensor(held, recipe_on):
    weights, terms = held(torch.float32), [("rademacher", 4, 0.1)]
    weights.become(recipe_on(weights, *terms, scale="rms"))
    for name in weights.tensors:
        rms = math.sqrt(weights.base(name).double().square().mean().item())
        assert weights.rms(name) == pytest.approx(rms, rel=1e-12)
        wanted = expected(weights, name, terms, lambda scale, name=name: scale * weights.rms(name))
        assert torch.equal(weights.live(name), wanted)


def test_dither_rounds_without_bias_and_the_same_every_time(recipe_on):
    layer = torch.nn.Linear(256, 256, bias=False).to(torch.bfloat16)
    layer.weight.data.fill_(1.0)
    weights = Weights(layer)
    nearest = recipe_on(weights, (1, 1e-3))
    weights.become(nearest)
    down = weights.live("weight")[weights.live("weight") < 1]
    assert len(down) == 0  # half a step below one is 2e-3: all that is smaller rounds away
    dithered = replace(nearest, rounding="dither")
    weights.become(dithered)
    first = weights.live("weight").clone()
    moved = (first.float() - 1).mean().item()
    signs = noise.values("rademacher", 1, "weight", 0, 256 * 256)
    along = ((first.float() - 1) * signs).mean().item()
    assert along == pytest.approx(1e-3, rel=0.05)
    assert abs(moved) < 5e-5
    weights.become(None)
    weights.become(dithered)
    assert torch.equal(weights.live("weight"), first)


def test_a_recipe_of_another_base_is_refused_and_both_are_named(held, recipe_on):
    weights, other = held(torch.bfloat16), held(torch.float32)
    recipe = recipe_on(other, (1, 0.1))
    for use in (weights.become, weights.inspect, lambda recipe: sketch(recipe, weights)):
        with pytest.raises(UserError, match=f"{other.fingerprint}.*{weights.fingerprint}"):
            use(recipe)
    assert weights.checksum() == weights.fingerprint


def test_an_unknown_family_is_refused_and_the_base_comes_back(held, recipe_on):
    weights = held()
    with pytest.raises(UserError, match="cauchy"):
        weights.become(recipe_on(weights, ("cauchy", 1, 0.1)))
    weights.become(None)
    assert weights.checksum() == weights.fingerprint


def test_a_rebuild_cut_short_is_undone_by_the_next(held, recipe_on, monkeypatch):
    weights = held()
    one, two = recipe_on(weights, (1, 0.5), include=("*mlp*",)), recipe_on(weights, (2, 0.5))
    weights.become(two)
    whole = weights.checksum()
    weights.become(one)
    real, calls = module.rebuild, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    for after, checksum in ((None, weights.fingerprint), (two, whole)):
        monkeypatch.setattr(module, "rebuild", interrupted)
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            weights.become(two)
        monkeypatch.setattr(module, "rebuild", real)
        weights.become(after)
        assert weights.checksum() == checksum


def test_an_engine_cut_short_while_switching_does_not_mistake_itself(tiny, recipe_on, monkeypatch):
    engine = tiny("llama", torch.bfloat16)
    recipe = recipe_on(engine, (2, 0.5))
    real, calls = module.rebuild, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(module, "rebuild", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.become(recipe)
    monkeypatch.setattr(module, "rebuild", real)
    engine.become(recipe)
    whole = engine.weights.checksum()
    engine.become(None)
    assert engine.weights.checksum() == engine.fingerprint
    engine.become(recipe)
    assert engine.weights.checksum() == whole


# Looking at the step


def test_inspect_says_what_rounding_left_of_the_step(held, recipe_on):
    weights = held()
    recipe = recipe_on(weights, (1, 1e-3), ("gaussian", 2, 5e-4), exclude=("*norm*",))
    report = {step.tensor: step for step in weights.inspect(recipe)}
    assert weights.checksum() == weights.fingerprint  # only looked at
    assert set(report) == {name for name in weights.tensors if "norm" not in name}
    weights.become(recipe)
    for name, step in report.items():
        base, live = weights.base(name), weights.live(name)
        numel = base.numel()
        intended = sum(scale * noise.values(f, s, name, 0, numel).double() for f, s, scale in recipe.terms)
        realised = live.double() - base.double()
        assert step.weights == numel
        assert step.changed == (live != base).double().mean().item()
        assert step.intended == pytest.approx(intended.square().mean().sqrt().item(), rel=1e-5)
        assert step.realised == pytest.approx(realised.square().mean().sqrt().item(), rel=1e-9)
        cosine = torch.nn.functional.cosine_similarity(intended, realised, dim=0).item()
        assert step.cosine == pytest.approx(cosine, abs=1e-5)


def test_inspect_in_small_chunks_gives_the_same(held, recipe_on, monkeypatch):
    weights = held()
    recipe = recipe_on(weights, (1, 1e-2), rounding="dither")
    whole = weights.inspect(recipe)
    monkeypatch.setattr(module, "CHUNK", 1024)
    for step, other in zip(weights.inspect(recipe), whole, strict=True):
        assert (step.tensor, step.changed) == (other.tensor, other.changed)
        assert step.cosine == pytest.approx(other.cosine, rel=1e-9)


def test_a_step_that_rounds_away_has_no_cosine(held, recipe_on):
    weights = held()
    for step in weights.inspect(recipe_on(weights, (1, 1e-30), include=("*proj*",))):
        assert step.changed == step.realised == 0
        assert math.isnan(step.cosine)


# Sketches


def test_a_sketch_of_every_weight_gives_the_inner_product(held, recipe_on):
    weights = held(torch.float32)
    a, b = recipe_on(weights, (1, 0.3), (2, 0.1)), recipe_on(weights, (2, 0.5), ("gaussian", 3, 0.2))
    exact = 0.0
    for name, tensor in weights.tensors.items():
        steps = [
            sum(scale * noise.values(f, s, name, 0, tensor.numel).double() for f, s, scale in recipe.terms)
            for recipe in (a, b)
        ]
        exact += float(steps[0] @ steps[1])
    assert (sketch(a, weights).double() @ sketch(b, weights).double()).item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("scale", ["absolute", "rms"])
def test_a_sketch_of_some_weights_estimates_the_inner_product(held, recipe_on, scale):
    weights = held(torch.float32)
    a = recipe_on(weights, ("gaussian", 1, 0.3), (2, 0.4), scale=scale)
    b = recipe_on(weights, (2, 0.5), (4, 0.2), scale=scale)
    whole_a, whole_b = sketch(a, weights), sketch(b, weights)
    part_a, part_b = sketch(a, weights, samples=16_384), sketch(b, weights, samples=16_384)
    assert 10_000 < len(part_a) < 24_000 < len(whole_a)
    norms = (whole_a.norm() * whole_b.norm()).item()
    assert (part_a @ part_b).item() == pytest.approx((whole_a @ whole_b).item(), abs=0.04 * norms)
    assert part_a.norm().item() == pytest.approx(whole_a.norm().item(), rel=0.1)


def test_the_base_has_an_empty_sketch(held, recipe_on):
    weights = held()
    assert sketch(recipe_on(weights), weights).square().sum() == 0


def test_a_sketch_weighs_small_tensors_of_large_weights_rightly(recipe_on):
    model = torch.nn.Sequential(torch.nn.Linear(1000, 1000, bias=False), torch.nn.LayerNorm(200, bias=False))
    model[0].weight.data.fill_(0.01)
    weights = Weights(model)
    recipe = recipe_on(weights, (1, 1.0), scale="rms")
    squares = sketch(recipe, weights, samples=20_000).square().sum().item()
    assert squares == pytest.approx(1000 * 1000 * 0.01**2 + 200, rel=1e-4)


def test_become_accepts_a_recipe_that_came_from_a_file(held, recipe_on):
    weights = held()
    recipe = recipe_on(weights, (5, 0.1))
    weights.become(recipe)
    whole = weights.checksum()
    weights.become(None)
    weights.become(Recipe.from_json(recipe.to_json()))
    assert weights.checksum() == whole
    assert recipe.terms == (Term("rademacher", 5, 0.1),)


# Tensors held in parts, as an engine that fuses, splits and pads them does


def cut(weights, name, height, columns):
    """The parts of a (height, width) tensor: its columns before and after a cut, each with storage of its own."""
    tensor = weights.tensors[name]
    width = tensor.numel // height
    parts = []
    for left, right in ((0, columns), (columns, width)):
        segment = Segment(name, left, height, right - left, width, tensor.shape)
        base = segment.view(weights.base(name)).reshape(-1).clone()
        parts.append(Part(segment, base.clone(), base))
    return parts


def test_a_model_held_in_parts_is_the_same_model(tiny, recipe_on):
    whole = tiny("qwen2", torch.bfloat16).weights
    parts = []
    for name, tensor in whole.tensors.items():
        if name.endswith("down_proj.weight"):
            parts += cut(whole, name, tensor.shape[0], 37)
        else:
            parts.append(Part(tensor.segment(), whole.base(name).clone(), whole.base(name)))
    split = Weights.of_parts(whole.tensors, parts)
    assert split.fingerprint == whole.fingerprint
    for fields in ({}, {"rounding": "dither"}, {"scale": "rms", "include": ("*mlp*",)}):
        recipe = recipe_on(whole, (1, 0.02), ("gaussian", 2, 0.01), dtype="bfloat16", **fields)
        whole.become(recipe)
        split.become(recipe)
        assert split.checksum() == whole.checksum() != whole.fingerprint
        assert [vars(a) == vars(b) for a, b in zip(split.inspect(recipe), whole.inspect(recipe), strict=True)]
    split.become(None)
    assert split.checksum() == whole.fingerprint


def test_some_parts_of_a_model_are_rebuilt_without_the_others(tiny, recipe_on):
    whole = tiny("llama", torch.bfloat16).weights
    name = "model.layers.1.mlp.up_proj.weight"
    right = cut(whole, name, whole.tensors[name].shape[0], 20)[1]
    shard = Weights.of_parts(whole.tensors, [right], whole.fingerprint)
    recipe = recipe_on(whole, (1, 0.02), dtype="bfloat16")
    whole.become(recipe)
    shard.become(recipe)
    assert torch.equal(shard.parts(name)[0].live, right.segment.view(whole.live(name)).reshape(-1))
    with pytest.raises(ValueError, match="only a part of"):
        shard.live(name)
