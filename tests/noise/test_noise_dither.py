import math
from fractions import Fraction

import pytest
import torch
from noise_oracle import uniform16

from seedfold.noise import Segment
from seedfold.noise.dither import round_dither
from seedfold.noise.torch import perturbation, rebuild

HALF = [torch.bfloat16, torch.float16]


def all_finite(dtype):
    every = torch.arange(-32768, 32768).to(torch.int16).view(dtype)
    return every[every.isfinite()]


def floats(bits):
    """float32 values with these 32-bit patterns."""
    return torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)


def bits_of(values):
    return values.view(torch.int16).tolist()


def exact_rule(x, dtype, draw):
    """The rule of docs/noise.md in rational numbers, for one finite x below the top of the range."""
    grid, smallest = (8, -133) if dtype == torch.bfloat16 else (11, -24)
    size = abs(Fraction(x))
    exponent = math.frexp(x)[1] - grid if x else smallest
    unit = Fraction(2) ** max(exponent, smallest)
    steps = size // unit
    steps += draw + int(65536 * (size / unit - steps)) >= 65536
    return math.copysign(float(steps * unit), x)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("draw", [0, 1, 65535])
def test_representable_values_never_move(dtype, draw):
    every = all_finite(dtype)
    rounded = round_dither(every.float(), dtype, torch.full((len(every),), draw, dtype=torch.int32))
    assert bits_of(rounded) == bits_of(every)


@pytest.mark.parametrize("dtype", HALF)
def test_rule_in_rational_numbers(dtype):
    generator = torch.Generator().manual_seed(3)
    bits = torch.randint(-(2**31), 2**31, (6000,), generator=generator)
    exponents = torch.randint(95, 143, (6000,), generator=generator)  # where float16 has its subnormals and normals
    bits[:4000] = (bits[:4000] & ~0x7F800000) | (exponents[:4000] << 23)
    x = floats(bits.tolist())
    draw = torch.randint(0, 65536, (6000,), generator=generator, dtype=torch.int32)
    keep = x.abs() < torch.finfo(dtype).max
    rounded = round_dither(x, dtype, draw)[keep].float()
    expected = [exact_rule(a, dtype, d) for a, d in zip(x[keep].tolist(), draw[keep].tolist(), strict=True)]
    assert len(expected) > 4000
    assert torch.equal(rounded.view(torch.int32), torch.tensor(expected).view(torch.int32))


def test_bfloat16_rule_is_an_addition_to_the_bits():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(100_000, generator=generator)
    draw = torch.randint(0, 65536, (100_000,), generator=generator, dtype=torch.int32)
    expected = ((x.view(torch.int32) + draw) >> 16).to(torch.int16)
    assert torch.equal(round_dither(x, torch.bfloat16, draw).view(torch.int16), expected)


def test_float16_rule_in_integers_as_a_kernel_would():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(100_000, generator=generator) * 2.0 ** torch.randint(-30, 14, (100_000,), generator=generator)
    draw = torch.randint(0, 65536, (100_000,), generator=generator, dtype=torch.int32)
    rounded = round_dither(x, torch.float16, draw)
    normal = x.abs() >= 2.0**-14
    kernel = ((x.view(torch.int32) + (draw >> 3)) & ~0x1FFF).view(torch.float32)
    assert torch.equal(rounded[normal].float(), kernel[normal])
    steps = x.abs() * 2.0**24
    share = ((steps - steps.trunc()) * 65536).to(torch.int32)
    magnitude = steps.to(torch.int32) + (draw + share >= 65536)
    assert torch.equal((rounded.view(torch.int16).to(torch.int32) & 0x7FFF)[~normal], magnitude[~normal])


@pytest.mark.parametrize("dtype", HALF)
def test_top_of_the_range_infinities_and_nan_round_to_nearest(dtype):
    top = torch.finfo(dtype).max
    x = torch.tensor(
        [top * 1.0001, -top * 1.0001, float("inf"), -float("inf"), float("nan")], dtype=torch.float64
    ).float()
    x = torch.cat([x, -x, floats([0x7F7F0001, 0x7F7FFFFF])])
    for draw in (0, 65535):
        rounded = round_dither(x, dtype, torch.full((len(x),), draw, dtype=torch.int32))
        assert bits_of(rounded) == bits_of(x.to(dtype))


@pytest.mark.parametrize("dtype", HALF)
def test_draw_is_the_documented_one(dtype):
    base = torch.linspace(-3, 3, 500).to(dtype)
    segment, terms = Segment("w", 2**33 + 5, 1, 500, 0), [("gaussian", 1, 0.01)]
    x = base.float() + perturbation(segment, terms)
    draw = torch.tensor([uniform16(6, "w#dither", 2**33 + 5 + i) for i in range(500)], dtype=torch.int32)
    out = rebuild(base, torch.empty_like(base), segment, terms, rounding="dither", dither_seed=6)
    assert torch.equal(out, round_dither(x, dtype, draw))
    again = rebuild(base, torch.empty_like(base), segment, terms, rounding="dither", dither_seed=7)
    assert not torch.equal(out, again)


@pytest.mark.parametrize(("dtype", "at"), [*((d, a) for d in HALF for a in (1.0, -0.37)), (torch.float16, 3e-5)])
def test_unbiased_where_nearest_swallows_the_step(dtype, at):
    n, step = 400_000, abs(at) * 2e-4
    base = torch.full((n,), at, dtype=dtype)
    segment, terms = Segment.whole("w", n), [("rademacher", 2, step)]
    sign = perturbation(segment, terms) / step
    nearest = rebuild(base, torch.empty_like(base), segment, terms)
    assert torch.equal(nearest, base)
    realised = rebuild(base, torch.empty_like(base), segment, terms, rounding="dither").double() - base.double()
    along = realised * sign
    error = along.std() / n**0.5
    assert abs(along.mean() - step) < 5 * error
    assert error < step / 20
    assert abs(realised.mean() - step * sign.double().mean()) < 5 * realised.std() / n**0.5


def test_float32_is_rounded_to_nearest():
    base = torch.linspace(-1, 1, 1000)
    segment, terms = Segment.whole("w", 1000), [("gaussian", 1, 0.1)]
    a, b = (rebuild(base, torch.empty_like(base), segment, terms, rounding=r) for r in ("nearest", "dither"))
    assert torch.equal(a, b)
