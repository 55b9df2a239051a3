"""Noise compiled for a CPU is what the families fill, to the bit."""

import random

import pytest
import torch

from seedfold.noise import compiled, counter
from seedfold.noise.registry import family
from seedfold.noise.torch import _float32


def filled(name, seeds, scales, shape, first, stride, before=None):
    """By the families' own `fill`, term by term."""
    total, noise = before, torch.empty(shape)
    for seed, scale in zip(seeds, scales, strict=True):
        family(name).fill(noise, seed=seed, tensor="a.weight", first=first, stride=stride, scale=scale, shape=None)
        total = noise.clone() if total is None else total + noise
    return total


@pytest.mark.parametrize("name", ["rademacher", "gaussian"])
@pytest.mark.parametrize("terms", [1, 2, 35])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    ("rows", "blocks", "first", "stride"),
    [(1, 1, 0, 0), (1, 16, 3, 0), (3, 37, 2**57 // 128 - 60, 50), (2, 15, 2**33, 16)],
)
def test_it_is_what_families_fill(name, terms, fresh, rows, blocks, first, stride):
    rng = random.Random(terms)
    size = family(name).BLOCK
    seeds = [2**64 - 1, *(rng.randrange(2**64) for _ in range(terms - 1))]
    scales = [_float32(rng.choice([rng.gauss(0, 0.01), 1e-41])) for _ in range(terms)]  # subnormal ones too
    before = torch.randn(rows, blocks * size, generator=torch.Generator().manual_seed(1))
    out = before.clone()
    compiled.add(out, family(name).__name__, seeds, scales, "a.weight", first * size, stride * size, fresh)
    expected = filled(name, seeds, scales, out.shape, first * size, stride * size, None if fresh else before)
    assert torch.equal(out.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize(
    ("first", "stride", "rows", "columns"), [(0, 0, 1, 1), (2**53 - 3, 17, 5, 33), (2**32 - 2, 0, 1, 16)]
)
def test_words_are_those_of_torch(first, stride, rows, columns):
    for seed, key in ((0, 0), (2**64 - 1, 2**64 - 1), (0x299F31D0_A4093822, 0x03707344_13198A2E)):
        told = (seed, key, first, stride, rows, columns)
        assert torch.equal(compiled.words(*told), counter.words_by_torch(*told, torch.device("cpu")))


def test_nothing_is_left_of_what_was_there():
    out = torch.full((1, 128), float("nan"))
    compiled.add(out, family("gaussian").__name__, [1], [0.5], "w", 0, 0, True)
    assert out.isfinite().all()
    out.fill_(float("nan"))
    compiled.add(out, family("rademacher").__name__, [1], [0.5], "w", 0, 0, False)
    assert out.isnan().all()
