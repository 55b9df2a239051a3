import random

import pytest
import torch

from seedfold.errors import UserError
from seedfold.noise import Segment, values
from seedfold.noise import torch as reference
from seedfold.noise.torch import DTYPES, perturbation, rebuild

MIXED = [("rademacher", 1, 0.004), ("gaussian", 2**63, -0.0071), ("rademacher", 3, 1 / 3), ("gaussian", 4, 1e-6)]


def many_terms(count):
    rng = random.Random(5)
    return [(rng.choice(["rademacher", "gaussian"]), rng.randrange(2**64), rng.gauss(0, 0.01)) for _ in range(count)]


def plain_sum(terms, name, start, stop):
    """The formula, without tiles: products and sums in float32, in order."""
    total = torch.zeros(stop - start)
    for family, seed, scale in terms:
        total = total + torch.tensor(scale, dtype=torch.float32) * values(family, seed, name, start, stop)
    return total


def same_bits(a, b):
    view = torch.int32 if a.dtype == torch.float32 else torch.int16
    return a.dtype == b.dtype and torch.equal(a.view(view), b.view(view))


def base_weights(n, dtype):
    return torch.randn(n, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "terms", [MIXED[:1], MIXED[1:2], MIXED, many_terms(300)], ids=["one", "gaussian", "four", "300"]
)
def test_rebuild_is_the_formula(dtype, terms):
    base = base_weights(5000, dtype)
    expected = (base.float() + plain_sum(terms, "w", 37, 5037)).to(dtype)
    out = torch.empty_like(base)
    assert rebuild(base, out, Segment("w", 37, 1, 5000, 0), terms) is out
    assert same_bits(out, expected)


def test_rebuild_in_place_and_of_a_parameter():
    base = torch.nn.Parameter(base_weights(3000, torch.bfloat16))
    expected = rebuild(base, torch.empty(3000, dtype=torch.bfloat16), Segment.whole("w", 3000), MIXED)
    rebuild(base, base, Segment.whole("w", 3000), MIXED)
    assert same_bits(base.detach(), expected)


@pytest.mark.parametrize("terms", [[], [("gaussian", 1, 0.0)], [("rademacher", 1, 1e-60)]])
@pytest.mark.parametrize("rounding", ["nearest", "dither"])
def test_no_step_is_a_copy_to_the_bit(terms, rounding):
    base = torch.tensor([0.0, -0.0, 1.5, float("inf"), float("nan"), -6e-8], dtype=torch.float16)
    assert same_bits(rebuild(base, torch.ones_like(base), Segment.whole("w", 6), terms, rounding=rounding), base)
    assert perturbation(Segment.whole("w", 6), terms).tolist() == [0.0] * 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ties_go_to_even(dtype):
    half_ulp = torch.finfo(dtype).eps / 2
    base = torch.full((4096,), 1.0, dtype=dtype) + torch.arange(4096).remainder(8).to(dtype) * (2 * half_ulp)
    out = rebuild(base, torch.empty_like(base), Segment.whole("w", 4096), [("rademacher", 1, half_ulp)])
    step = values("rademacher", 1, "w", 0, 4096)
    odd = torch.arange(4096) % 2 == 1
    inside = base.float() + step * half_ulp > 1.0  # below 1 the spacing halves, and nothing ties
    assert torch.equal(out[~odd & inside], base[~odd & inside])
    assert torch.equal(out[odd].float(), base[odd].float() + step[odd] * 2 * half_ulp)


@pytest.mark.parametrize("rounding", ["nearest", "dither"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_and_fused_tensors_are_parts_of_the_whole(dtype, rounding):
    names, height, width = ("q_proj", "k_proj", "v_proj"), 60, 1000
    base = {name: base_weights(height * width, dtype) for name in names}
    options = {"rounding": rounding, "dither_seed": 8}
    whole = {
        name: rebuild(base[name], torch.empty_like(base[name]), Segment.whole(name, height * width), MIXED, **options)
        for name in names
    }

    rows = slice(17 * width, 43 * width)
    shard = torch.empty(26 * width, dtype=dtype)
    rebuild(base["q_proj"][rows].clone(), shard, Segment("q_proj", 17 * width, 1, 26 * width, 0), MIXED, **options)
    assert same_bits(shard, whole["q_proj"][rows])

    cut = base["k_proj"].view(height, width)[:, 333:777].contiguous()
    segment = Segment("k_proj", 333, height, 444, width)
    rebuild(cut, cut, segment, MIXED, **options)
    assert same_bits(cut, whole["k_proj"].view(height, width)[:, 333:777].contiguous())

    fused = torch.cat([base[name] for name in names])
    for k, name in enumerate(names):
        part = fused[k * height * width : (k + 1) * height * width]
        rebuild(part, part, Segment.whole(name, height * width), MIXED, **options)
    assert same_bits(fused, torch.cat([whole[name] for name in names]))


@pytest.mark.parametrize("rounding", ["nearest", "dither"])
def test_tile_size_does_not_matter(monkeypatch, rounding):
    base = base_weights(40 * 700, torch.bfloat16)
    segments = [Segment("w", 77, 1, 28_000, 0), Segment("w", 5, 40, 700, 1001), Segment("w", 128, 28, 1000, 1024)]
    results = []
    for calls in (16, 48, 512, 8192):
        monkeypatch.setattr(reference, "_CALLS", calls)
        results.append([rebuild(base, base.clone(), segment, MIXED, rounding=rounding) for segment in segments])
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


NAME = "model.layers.0.self_attn.q_proj.weight"
FAMILIES = {
    "rademacher": [("rademacher", 1, 0.004)],
    "gaussian": [("gaussian", 2**63, -0.0071)],
    "low-rank": [("low-rank-8", 2**64 - 1, 0.004)],
    "lora": [("lora-3", 2**33, 1 / 3)],
    "mixed": [*MIXED, ("low-rank-8", 5, 0.003), ("lora-3:q_proj", 6, -0.01), ("rademacher", 7, 0.002)],
}


@pytest.mark.parametrize("rounding", ["nearest", "dither"])
@pytest.mark.parametrize("terms", FAMILIES.values(), ids=FAMILIES.keys())
def test_the_tiles_of_a_gpu_make_the_same_weights(monkeypatch, terms, rounding):
    segments = [
        Segment(NAME, 77, 1, 2_200_000, 0, (2200, 1003)),
        Segment(NAME, 5, 2200, 1000, 1003, (2201, 1003)),  # rows start anywhere in a generator's block
        Segment(NAME, 67, 2200, 1000, 1088, (2201, 1088)),  # in one of two places
        Segment(NAME, 256, 2200, 1000, 1024, (2201, 1024)),
        Segment(NAME, 3, 90, 1000, 1001, (200, 530)),  # at columns of their own
    ]
    base = base_weights(2_200_000, torch.bfloat16)

    def rebuilt(segment):
        before = base[: segment.numel]
        return rebuild(before, torch.empty_like(before), segment, terms, rounding=rounding, dither_seed=2**63 + 9)

    normal = [rebuilt(segment) for segment in segments]
    monkeypatch.setattr(reference, "_tile_size", lambda device, block: reference._GPU_TILE)
    large = [rebuilt(segment) for segment in segments]
    assert all(same_bits(a, b) for a, b in zip(normal, large, strict=True))


def test_tiles_are_large_on_a_gpu_alone():
    assert [reference._tile_size(torch.device("cpu"), block) for block in (8, 128)] == [2**16, 2**20]
    assert [reference._tile_size(torch.device("cuda", 1), block) for block in (8, 128)] == [2**24, 2**24]


def test_the_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        base = base_weights(500, torch.bfloat16)
        rebuild(base, base, Segment.whole("w", 500), MIXED)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_perturbation_is_the_sum_and_fills_out():
    out = torch.empty(2000)
    assert perturbation(Segment("w", 11, 1, 2000, 0), MIXED, out=out) is out
    assert same_bits(out, plain_sum(MIXED, "w", 11, 2011))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"out": torch.zeros(8, dtype=torch.float16)}, "dtype of out is float16; give bfloat16"),
        ({"base": torch.zeros(8, dtype=torch.float64)}, "dtype of base is float64"),
        ({"base": torch.zeros(16, dtype=torch.bfloat16)[::2]}, "strides of base"),
        ({"base": torch.zeros(9, dtype=torch.bfloat16)}, "size of base is 9; give 8"),
        ({"terms": [("gaussian", 1, float("nan"))]}, "scale is nan"),
        ({"terms": [("gaussian", 1, 1e39)]}, "scale is 1e+39"),
        ({"terms": [("gaussian", -1, 1.0)]}, "seed is -1"),
        ({"terms": [("cauchy", 1, 1.0)]}, "family is 'cauchy'"),
        ({"rounding": "up"}, "rounding is 'up'"),
        ({"dither_seed": 2**64}, "dither_seed is"),
    ],
)
def test_bad_arguments_are_the_users_to_mend(change, said):
    weights = torch.zeros(8, dtype=torch.bfloat16)
    arguments = {"base": weights, "out": weights.clone(), "segment": Segment.whole("w", 8), "terms": MIXED, **change}
    with pytest.raises(UserError) as error:
        rebuild(**arguments)
    assert str(error.value).startswith(said)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("rounding", ["nearest", "dither"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_equals_cpu(dtype, rounding):
    base = base_weights(3_000_000, dtype)
    segment = Segment("w", 2**40 + 77, 3000, 1000, 1234)
    here = rebuild(base, torch.empty_like(base), segment, MIXED, rounding=rounding)
    there = rebuild(base.cuda(), torch.empty_like(base, device="cuda"), segment, MIXED, rounding=rounding)
    assert same_bits(there.cpu(), here)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("rounding", ["nearest", "dither"])
@pytest.mark.parametrize("terms", FAMILIES.values(), ids=FAMILIES.keys())
def test_cuda_equals_cpu_over_several_tiles(terms, rounding):
    segment = Segment(NAME, 77, 40_000, 1000, 1024, (40_001, 1024))
    base = base_weights(segment.numel, torch.bfloat16)
    assert len(base) > 2 * reference._GPU_TILE
    here = rebuild(base, torch.empty_like(base), segment, terms, rounding=rounding, dither_seed=8)
    there = rebuild(
        base.cuda(), torch.empty_like(base, device="cuda"), segment, terms, rounding=rounding, dither_seed=8
    )
    assert same_bits(there.cpu(), here)
