"""Families without a fused kernel: every engine rebuilds them by the reference."""

import pytest
import torch
from checkpoints import small_study, write_tiny
from tiny_models import IdTokenizer, tiny_model

import seedfold
from seedfold import config, evaluation, models
from seedfold.engines.base import Decoding, Job, Prompt
from seedfold.engines.held import Held
from seedfold.engines.stacked import StackedEngine
from seedfold.errors import UserError
from seedfold.noise import values
from seedfold.recipe import Base, Recipe, Term
from seedfold.weights import Tensor, Weights

TERMS = [("low-rank-4", 1, 0.05), ("rademacher", 2, 0.01), ("lora-3:q_proj+v_proj", 2**63, -0.04)]


def formula(tensor, base, terms):
    """round(float32(base) + sum of scale * noise) of a whole tensor."""
    step = torch.zeros(tensor.numel)
    for name, seed, scale in terms:
        noise = values(name, seed, tensor.name, 0, tensor.numel, shape=tensor.shape)
        step = step + torch.tensor(scale, dtype=torch.float32) * noise
    return (base.float() + step).to(base.dtype)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("terms", [TERMS[:1], TERMS[2:], TERMS])
def test_weights_become_what_the_reference_makes(recipe_on, device, terms):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    weights = Weights(tiny_model("qwen2", torch.bfloat16).to(device))
    weights.become(recipe_on(weights, (3, 0.1), dtype="bfloat16"))  # where there is a GPU, the kernel's
    weights.become(recipe_on(weights, *terms, dtype="bfloat16"))
    for name, tensor in weights.tensors.items():
        assert torch.equal(weights.live(name).cpu(), formula(tensor, weights.base(name).cpu(), terms)), name
    weights.become(None)
    assert weights.checksum() == weights.fingerprint


@pytest.mark.parametrize("terms", [TERMS[:1], TERMS[2:], TERMS])
def test_the_kernel_leaves_recipes_that_it_does_not_know_to_the_reference(recipe_on, terms):
    triton = pytest.importorskip("seedfold.noise.triton", reason="needs Triton, if only its interpreter")
    weights = Weights(tiny_model("llama", torch.bfloat16))
    held = [part for name in weights.tensors for part in weights.parts(name)]
    assert triton.knows(TERMS[1:2])
    assert not triton.knows(terms)
    assert not weights._fused(tuple(weights.tensors), held, recipe_on(weights, *terms, dtype="bfloat16"))
    assert weights.checksum() == weights.fingerprint
    with pytest.raises(UserError, match="no fused kernel"):
        triton.Rebuilder([(part.segment, part.base, part.live) for part in held]).rebuild(terms)


SHAPES = {"q_proj.weight": (60, 40), "v_proj.weight": (20, 40), "down.weight": (30, 90), "embed.weight": (37, 40)}


class Rank(torch.nn.Module):
    """One of two ranks that fuses rows, splits rows and columns, and pads, as a runtime does."""

    def __init__(self, rank):
        super().__init__()
        self.rank = rank
        for name, shape in {"qv": (40, 40), "down": (30, 45), "embed": (24, 40)}.items():
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(shape), requires_grad=False))

    def load_weights(self, weights):
        for name, value in weights:
            if name == "q_proj.weight":
                self.qv[:30].copy_(value.chunk(2)[self.rank])
            elif name == "v_proj.weight":
                self.qv[30:].copy_(value.chunk(2)[self.rank])
            elif name == "down.weight":
                self.down.copy_(value.chunk(2, dim=1)[self.rank])
            else:
                mine = value[24 * self.rank : 24 * (self.rank + 1)]
                self.embed[: len(mine)].copy_(mine)


@pytest.mark.parametrize("host", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_runtimes_fused_and_split_tensors_are_parts_of_the_whole(rank, host):
    tensors = {name: Tensor(name, shape, "float32") for name, shape in SHAPES.items()}
    torch.manual_seed(0)
    base = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    model, expected = Rank(rank), Rank(rank)
    model.load_weights(base.items())
    owner = Held(model, tensors, host)
    owner.begin("f" * 32)
    owner.become(Recipe(Base("", "", "f" * 32), tuple(Term(*term) for term in TERMS), dtype="float32"), {})
    whole = {name: formula(tensors[name], values.flatten(), TERMS).view(SHAPES[name]) for name, values in base.items()}
    expected.load_weights(whole.items())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name)), name
    assert owner.padding() == 0


def test_the_stacked_engines_answers_are_the_transformers_engines(tiny, recipe_on):
    stacked = StackedEngine(tiny_model("llama"), IdTokenizer(), "llama", copies=2, slots=4, device="cpu")
    prompts = [Prompt(tuple((7 * i + j * j) % 300 for j in range(3 + 5 * i)), str(i)) for i in range(5)]
    recipes = [recipe_on(stacked, term) for term in TERMS]
    jobs = [Job(recipe, prompts, Decoding(8)) for recipe in recipes]
    found, expected = (
        {(number, answer.index): answer.text for number, batch in engine.run(jobs) for answer in batch}
        for engine in (stacked, tiny("llama"))
    )
    assert found == expected
    assert len(set(found.values())) > 10


@pytest.mark.parametrize("family", ["low-rank-4", "lora-2"])
def test_a_study_of_thin_noise(tmp_path, family):
    settings = small_study(tmp_path, write_tiny(tmp_path / "model"), candidates=4, votes=[1, 2], family=family)
    done = seedfold.run(config.from_dict(settings), tmp_path / "out")
    best = tmp_path / "out" / "recipes" / "rank-01.json"
    recipe = Recipe.load(best)
    assert [term.family for term in recipe.terms] == [family]
    found = evaluation.evaluate(config.from_dict(settings), [best], "test")
    assert found["accuracy"] == done.record["results"][1]["accuracy"]
    weights = Weights(models.load(config.Model(name=settings["model"]["name"]))[0])
    steps = {step.tensor: step.intended for step in weights.inspect(recipe)}
    assert steps["model.layers.0.mlp.up_proj.weight"] == pytest.approx(abs(recipe.terms[0].scale), rel=0.2)
    assert (steps["model.embed_tokens.weight"] > 0) == family.startswith("low-rank")


def test_a_study_of_an_unknown_rank_is_refused(tmp_path):
    settings = small_study(tmp_path, write_tiny(tmp_path / "model"), candidates=4, votes=[1], family="low-rank-0")
    with pytest.raises(UserError, match=r'"search.family" is "low-rank-0"; use one of .*low-rank-RANK'):
        seedfold.run(config.from_dict(settings), tmp_path / "out")


def test_a_lora_family_that_meets_no_module_is_refused(recipe_on):
    weights = Weights(tiny_model("llama", torch.bfloat16))
    recipe = recipe_on(weights, ("lora-2:c_attn+c_proj", 1, 0.1), dtype="bfloat16")
    with pytest.raises(
        UserError, match=r'"lora-2:c_attn\+c_proj" is for modules that .* every candidate would be the base'
    ):
        weights.become(recipe)
