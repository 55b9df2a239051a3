import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from noise_oracle import low_rank

from seedfold.errors import UserError
from seedfold.noise import Segment, families, family, values
from seedfold.noise import low_rank as module
from seedfold.noise import torch as reference
from seedfold.noise.torch import DTYPES, perturbation, rebuild

NAME = "model.layers.0.self_attn.q_proj.weight"


def matrix(name, seed, height, width, tensor=NAME):
    return values(name, seed, tensor, 0, height * width, shape=(height, width)).view(height, width)


# What it means


@pytest.mark.parametrize("rank", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (7, 5), (1, 1), (1, 513), (260, 1), (130, 128)])
def test_every_entry_is_the_oracles(rank, shape):
    height, width = shape
    drawn = values(f"low-rank-{rank}", 2**63 + 7, "w", 0, height * width, shape=shape)
    for i in random.Random(rank).sample(range(height * width), min(30, height * width)):
        assert drawn[i].item() == low_rank(rank, 2**63 + 7, "w", i, width), i


def test_places_far_into_a_large_tensor_are_the_oracles():
    width, start = 2**33 + 5, 2**45 + 77
    drawn = values("low-rank-4", 3, "w", start, start + 6, shape=(2**20, width))
    assert drawn.tolist() == [low_rank(4, 3, "w", i, width) for i in range(start, start + 6)]


def test_known_answers_of_the_documentation():
    shape = (151_936, 896)
    four = values("low-rank-4", 42, "model.embed_tokens.weight", 2**27, 2**27 + 8, shape=shape)
    assert four.tolist() == [-1, 0, 1, 0, 0, 0, -1, -1]
    three = values("lora-3", 42, NAME, 896 * 895, 896 * 895 + 5, shape=(896, 896))
    assert three.tolist() == pytest.approx([-1.73205078, -0.57735026, 0.57735026, 1.73205078, 0.57735026], abs=1e-8)


@pytest.mark.parametrize("shape", [(300,), (3, 10, 10), ()])
def test_what_is_no_matrix_has_dense_signs(shape):
    numel = int(np.prod(shape))
    drawn = values("low-rank-4", 9, "w", 0, numel, shape=shape)
    assert torch.equal(drawn, values("rademacher", 9, "w", 0, numel))


def test_lora_is_low_rank_on_its_modules_and_zero_elsewhere():
    same = matrix("low-rank-4", 5, 30, 50)
    assert torch.equal(matrix("lora-4", 5, 30, 50), same)
    assert torch.equal(matrix("lora-4:k_proj+q_proj", 5, 30, 50), same)
    assert not matrix("lora-4:k_proj", 5, 30, 50).any()
    for tensor in ("q_proj.bias", "model.embed_tokens.weight", "my_q_proj.weight", "q_proj", "q_proj.0.weight"):
        assert not matrix("lora-4", 5, 30, 50, tensor).any(), tensor
    assert matrix("lora-4", 5, 30, 50, "q_proj.weight").any()
    assert not values("lora-4", 5, NAME, 0, 60, shape=(3, 4, 5)).any()
    assert not values("lora-4", 5, "model.norm.weight", 0, 60).any()  # its shape does not matter


# Statistics


@pytest.mark.parametrize("rank", [1, 3, 4, 16])
def test_mean_variance_kurtosis_and_rank(rank):
    height, width, count = 300, 400, 60
    drawn = [matrix(f"low-rank-{rank}", seed, height, width).double() for seed in range(count)]
    assert all(int(torch.linalg.matrix_rank(x)) == rank for x in drawn[:5])
    # The entries of a draw are no independent samples, but the draws are.
    for power, expected in ((1, 0.0), (2, 1.0), (4, 3.0 - 2.0 / rank)):
        means = torch.stack([(x**power).mean() for x in drawn])
        error = max(float(means.std()) / count**0.5, 1e-9)  # of rank 1, all squares are 1
        assert abs(float(means.mean()) - expected) < 5 * error + 1e-7, power


def test_seeds_tensors_ranks_and_families_are_independent():
    height, width = 400, 500
    draws = [matrix(f"low-rank-{rank}", seed, height, width) for rank in (4, 8) for seed in (0, 1, 2**32)]
    draws += [matrix("low-rank-4", 0, height, width, "another.weight"), matrix("rademacher", 0, height, width)]
    flat = torch.stack([x.flatten() for x in draws])
    correlation = flat @ flat.T / (height * width)
    # Of two independent draws it is (1 / ranks) * sum over pairs of factors of a product of two means of signs.
    spread = (height * width) ** -0.5
    assert correlation.fill_diagonal_(0).abs().max() < 5 * spread


def test_the_factors_are_uncorrelated():
    left, right = family("low-rank-8").factors(3, "w", (20_000, 20_000))
    left = left * 8**0.5
    for a, b in ((left, left), (right, right), (left, right)):
        z = a.T @ b / 20_000**0.5
        z = z if a is not b else z.fill_diagonal_(0)
        assert z.abs().max() < 5


# Shards and tiles


@pytest.mark.parametrize("width", [256, 577, 1000, 64])
def test_shards_are_parts_of_the_whole(width):
    height = 150
    whole = matrix("low-rank-5", 3, height, width)
    terms, shape = [("low-rank-5", 3, 1.0)], (height, width)
    for top, bottom in [(0, 1), (17, 43), (149, 150)]:
        shard = Segment(NAME, top * width, 1, (bottom - top) * width, 0, shape)
        assert torch.equal(perturbation(shard, terms).view(-1, width), whole[top:bottom])
    for left, right in [(0, width), (0, 64), (29, 31), (width // 2, width), (3, width - 1)]:
        shard = Segment(NAME, left, height, right - left, width, shape)
        assert torch.equal(perturbation(shard, terms).view(height, -1), whole[:, left:right])
    for start, stop in [(1, 2), (5, 9_000), (width - 1, 3 * width + 1)]:
        assert torch.equal(values("low-rank-5", 3, NAME, start, stop, shape=shape), whole.flatten()[start:stop])
    every_third = Segment(NAME, 2 * width + 7, 40, 40, 3 * width, shape)
    assert torch.equal(perturbation(every_third, terms).view(40, 40), whole[2:122:3, 7:47])
    skewed = Segment(NAME, 11, 60, 50, width + 1, shape)  # rows that start at columns of their own
    expected = torch.cat([whole.flatten()[11 + r * (width + 1) :][:50] for r in range(60)])
    assert torch.equal(perturbation(skewed, terms), expected)


def test_neither_the_size_of_tiles_nor_of_what_is_held_matters(monkeypatch):
    shape = (30, 200)
    terms = [("low-rank-8", 1, 0.01), ("gaussian", 2, 0.003), ("lora-3", 4, -1 / 3)]
    segments = [Segment.whole(NAME, 6000, shape), Segment(NAME, 33, 30, 70, 200, shape)]
    results = []
    for calls, held in ((8192, 2**20), (16, 2**20), (8192, 64), (16, 200)):
        monkeypatch.setattr(reference, "_CALLS", calls)
        monkeypatch.setattr(module, "_HELD", held)
        results.append([perturbation(segment, terms) for segment in segments])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rebuild_is_the_formula(dtype):
    terms = [("low-rank-4", 1, 0.004), ("rademacher", 2, 0.01), ("lora-3", 3, 1 / 3)]
    base = torch.randn(6000, generator=torch.Generator().manual_seed(0)).to(dtype)
    total = torch.zeros(60, 100)
    for name, seed, scale in terms:
        total = total + torch.tensor(scale, dtype=torch.float32) * matrix(name, seed, 60, 100)
    out = rebuild(base, torch.empty_like(base), Segment.whole(NAME, 6000, (60, 100)), terms)
    assert torch.equal(out, (base.float() + total.flatten()).to(dtype))


PEAK = """
import resource, sys, torch
from seedfold.noise import Segment
from seedfold.noise.torch import rebuild
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
family, height, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
base = torch.ones(height * width, dtype=torch.bfloat16)
rebuild(base[:9], base[:9], Segment.whole("q_proj.weight", 9, (3, 3)), [(family, 1, 0.1)])
before = peak()
rebuild(base, base, Segment.whole("q_proj.weight", height * width, (height, width)), [(family, 1, 0.1)])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize(("name", "shape"), [("low-rank-8", (151_936, 896)), ("lora-64", (64, 151_936))])
def test_memory_beyond_the_weights_is_a_few_mebibytes(name, shape):
    command = [sys.executable, "-c", PEAK, name, *map(str, shape)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 32


# Names


def test_names_state_the_rank():
    assert families()[2:] == ("low-rank-RANK", "lora-RANK[:MODULES]")
    for name in ("low-rank-1", "low-rank-1024", "lora-16", "lora-2:fc_in+fc_out"):
        assert name in families()
        assert family(name) is family(name)
    for name in ("low-rank", "low-rank-0", "lora", "lora-4:", "lowrank-4", None):
        assert name not in families()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("low-rank", "give one of rademacher, gaussian, low-rank-RANK, lora-RANK[:MODULES]"),
        ("low-rank-", "its rank is no number from 1 to 1024; give one such as low-rank-8"),
        *(
            (f"low-rank-{rank}", "its rank is no number")
            for rank in ("0", "08", "-1", "+8", "1025", "8.0", "x", "٣", " 8")
        ),
        ("lora-0:q_proj", "its rank is no number from 1 to 1024; give one such as lora-8"),
        ("lora-4:", "modules are no plain names"),
        ("lora-4:q_proj+", "modules are no plain names"),
        ("lora-4:self_attn.q_proj", "modules are no plain names"),
        ("lora-4:v_proj+q_proj+v_proj", "not in order, each once; give lora-4:q_proj+v_proj"),
    ],
)
def test_bad_names_are_the_users_to_mend(name, said):
    with pytest.raises(UserError) as error:
        values(name, 0, NAME, 0, 4, shape=(2, 2))
    assert str(error.value).startswith(f"family is {name!r}")
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["low-rank-4", "lora-4"])
def test_a_missing_shape_is_refused(name):
    with pytest.raises(UserError, match=f"shape of {NAME} is not given"):
        values(name, 0, NAME, 0, 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["low-rank-3", "low-rank-64", "lora-8"])
def test_cuda_equals_cpu(name):
    shape, terms = (3000, 1234), [(name, 7, 1 / 3)]
    for segment in (Segment.whole(NAME, 3000 * 1234, shape), Segment(NAME, 77, 3000, 1000, 1234, shape)):
        assert torch.equal(perturbation(segment, terms, device="cuda").cpu(), perturbation(segment, terms))
