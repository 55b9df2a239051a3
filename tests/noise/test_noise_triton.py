"""The fused kernel against the reference, bit for bit: in Triton's interpreter on the CPU, and on a GPU.

`conftest.py` asks for the interpreter where there is no GPU, before anything imports Triton. Where there is one, the
kernel is compiled and the tests on the CPU are skipped; `TRITON_INTERPRET=1 pytest` runs them there too.
"""

import importlib.util
import json
import random
import sys
from pathlib import Path

import noise_oracle
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedfold.errors import UserError
from seedfold.noise import Segment
from seedfold.noise.torch import DTYPES, rebuild

pytest.importorskip("triton", reason="needs Triton, if only its interpreter")
import triton
import triton.language as tl

from seedfold.noise import triton as fused

ROUNDINGS = ["nearest", "dither"]
SIGNS = [("rademacher", 2**63 + 12345, 0.004)]
QUANTILES = [("gaussian", 2**64 - 1, -0.0071)]
MIXED = [("rademacher", 1, 0.004), ("gaussian", 2**33, -0.0071), ("rademacher", 3, 1 / 3), ("gaussian", 4, 1e-6)]
POISON = 77.0  # exact in every dtype, and near no weight

# One of each kind that the kernel tells apart: vectors or single weights, one row or many, near and far.
SEGMENTS = [
    Segment.whole("whole", 3000),
    Segment("rows", 7 * 576, 1, 5 * 576, 0),
    Segment("columns", 192, 9, 192, 576),
    Segment("ragged columns", 333, 11, 77, 1001),
    Segment("narrow", 3, 40, 1, 50),
    Segment("beyond 32 bits", 2**32 + 40, 1, 1000, 0),
    Segment("beyond 40 bits", 2**40 + 77, 3, 333, 2**33 + 5),
    Segment("at the end", 2**64 - 256, 1, 256, 0),
    Segment("touching rows", 40, 4, 64, 64),
    Segment("nothing", 5, 1, 0, 0),
]


def weights(count, dtype, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(dtype)


def bits(tensor):
    return tensor.cpu().view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


def many_terms(count, families=("rademacher",)):
    rng = random.Random(5)
    return [(rng.choice(families), rng.randrange(2**64), rng.gauss(0, 0.01)) for _ in range(count)]


def parts_of(segments, dtype, device):
    """(segment, base, live) of each segment, with poison in the live tensors."""
    bases = [weights(segment.numel, dtype, seed).to(device) for seed, segment in enumerate(segments)]
    return [(segment, base, torch.full_like(base, POISON)) for segment, base in zip(segments, bases, strict=True)]


def assert_reference(parts, terms, factors=None, **options):
    """Every live part has the bits that the reference makes on the CPU."""
    for segment, base, live in parts:
        own = terms if factors is None else [(f, s, scale * factors[segment.tensor]) for f, s, scale in terms]
        expected = rebuild(base.cpu(), torch.empty_like(base, device="cpu"), segment, own, **options)
        assert torch.equal(bits(live), bits(expected)), segment


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("terms", [SIGNS, QUANTILES, MIXED, []], ids=["signs", "quantiles", "mixed", "none"])
def test_every_kind_of_segment(device, dtype, terms, rounding):
    parts = parts_of(SEGMENTS, dtype, device)
    options = {"rounding": rounding, "dither_seed": 2**63 + 99}
    fused.Rebuilder(parts).rebuild(terms, **options)
    assert_reference(parts, terms, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_300_signs(device, dtype):
    parts = parts_of([Segment("w", 2**40 + 8, 2, 264, 1000)], dtype, device)
    fused.Rebuilder(parts).rebuild(many_terms(300))
    assert_reference(parts, many_terms(300))


def test_300_mixed_terms(device):
    parts = parts_of([Segment("w", 2**40 + 5, 1, 300, 0)], torch.bfloat16, device)
    terms = many_terms(300, ("rademacher", "gaussian"))
    fused.Rebuilder(parts).rebuild(terms)
    assert_reference(parts, terms)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("terms", [SIGNS, MIXED], ids=["one", "four"])
def test_factors_per_tensor(device, terms, rounding):
    segments = [Segment(name, 5 * k, 1, 500, 0) for k, name in enumerate("abcb")]
    parts = parts_of(segments, torch.bfloat16, device)
    parts[1][1][:4] = torch.tensor([0.0, -0.0, 1.0, -1.0])
    factors = {"a": 0.1 + 1e-9, "b": 0.0, "c": 3.7, "not here": 1.0}
    fused.Rebuilder(parts).rebuild(terms, factors, rounding=rounding)
    assert_reference(parts, terms, factors, rounding=rounding)
    assert torch.equal(bits(parts[1][2]), bits(parts[1][1]))


def test_factors_that_silence_a_term_on_some_tensors(device):
    terms = [("rademacher", 1, 1e-30), ("gaussian", 2, 0.0), ("rademacher", 3, 1e-40)]
    factors = {"a": 1.0, "b": 1e-10, "c": 1e-20}
    parts = parts_of([Segment.whole(name, 300) for name in "abc"], torch.float32, device)
    for _, base, _ in parts:
        base.zero_()
        base[::2] = -0.0
    fused.Rebuilder(parts).rebuild(terms, factors)
    assert_reference(parts, terms, factors)
    assert torch.equal(bits(parts[2][2]), bits(parts[2][1]))  # nothing left: a copy to the sign of its zeros


def test_the_product_with_a_factor_is_made_in_float64(device):
    scale, factor = 0.3, 0.7  # rounded to float32 before the product, the result is another
    product = torch.tensor(scale * factor, dtype=torch.float32)
    assert product != torch.tensor(scale) * torch.tensor(factor)
    base = torch.zeros(128, device=device)
    live = base.clone()
    fused.Rebuilder([(Segment.whole("w", 128), base, live)]).rebuild([("rademacher", 1, scale)], {"w": factor})
    assert torch.equal(live.abs().cpu(), product.expand(128))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # the interpreter's, from numpy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_edges_of_the_range(device, dtype, rounding):
    info = torch.finfo(dtype)
    special = [0.0, -0.0, info.max, -info.max, info.tiny, -info.tiny, info.tiny / 4, info.smallest_normal * 1.5]
    special += [info.max * 0.996, 1.0, 1.0 + info.eps, -1.0 - info.eps, float("inf"), -float("inf"), 6e-8, 3e-39]
    base = torch.tensor(special, dtype=torch.float64).to(dtype).repeat(64).to(device)
    live = torch.full_like(base, POISON)
    parts = [(Segment.whole("w", len(base)), base, live)]
    rebuilder = fused.Rebuilder(parts)
    top = float(info.max)
    sizes = [info.eps / 2, info.eps * 0.26, 6e-8, 2.0**-25, 3e-39, 1e-45, top * info.eps / 4, top * 2**-9, 0.75 * top]
    for size in sizes:
        terms = [("rademacher", 4, size)]
        rebuilder.rebuild(terms, rounding=rounding)
        assert_reference(parts, terms, rounding=rounding)
    for terms in ([("gaussian", 4, 2.0**-24)], [("gaussian", 4, top / 3)], [("gaussian", 5, 1e-45)]):
        rebuilder.rebuild(terms, rounding=rounding)
        assert_reference(parts, terms, rounding=rounding)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_value_of_the_dtype(device, dtype):
    base = torch.arange(-32768, 32768).to(torch.int16).view(dtype)
    base = base[~base.isnan()].to(device)
    parts = [(Segment.whole("w", len(base)), base, torch.full_like(base, POISON))]
    rebuilder = fused.Rebuilder(parts, tile=(512, 8) if device == "cpu" else None)  # few programs, interpreted
    for rounding in ROUNDINGS:
        for scale in (2.0**-9, 3e-6):
            rebuilder.rebuild([("gaussian", 9, scale)], rounding=rounding)
            assert_reference(parts, [("gaussian", 9, scale)], rounding=rounding)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_not_a_number_stays_one(device, dtype, rounding):
    base = torch.tensor([float("nan"), 1.0, -float("nan"), float("inf")] * 40, dtype=dtype, device=device)
    live = torch.full_like(base, POISON)
    fused.Rebuilder([(Segment.whole("w", 160), base, live)]).rebuild(SIGNS, rounding=rounding)
    assert torch.equal(live.isnan(), base.isnan())


@pytest.mark.parametrize(
    ("terms", "factors"),
    [([], None), ([("gaussian", 1, 0.0)], None), ([("rademacher", 1, 1e-60)], None), (MIXED, {"w": 0.0})],
)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_step_is_a_copy_to_the_bit(device, dtype, rounding, terms, factors):
    base = torch.tensor([0.0, -0.0, 1.5, float("inf"), float("nan"), -6e-8], dtype=dtype, device=device)
    base.view(torch.int32 if dtype == torch.float32 else torch.int16)[4] += 3  # a NaN that no rounding would make
    live = torch.full_like(base, POISON)
    fused.Rebuilder([(Segment.whole("w", 6), base, live)]).rebuild(terms, factors, rounding=rounding)
    assert torch.equal(bits(live), bits(base))


@pytest.mark.parametrize("at", [0, 8, 3], ids=["aligned", "aligned within", "unaligned"])
@pytest.mark.parametrize("terms", [SIGNS, MIXED], ids=["signs", "mixed"])
def test_segments_of_a_fused_buffer_leave_its_padding_alone(device, terms, at):
    height, width = 5, 200
    buffer = torch.full((4 * height * width + at,), POISON, dtype=torch.bfloat16, device=device)
    shards = [
        (Segment("q", 0, 1, height * width, 0), at),
        (Segment("k", 16, height, 104, 640), at + height * width),
        (Segment("v", 7, height, 99, 640), at + 2 * height * width),
    ]
    parts = [
        (segment, weights(segment.numel, torch.bfloat16).to(device), buffer[start : start + segment.numel])
        for segment, start in shards
    ]
    untouched = torch.ones(len(buffer), dtype=torch.bool)
    for segment, start in shards:
        untouched[start : start + segment.numel] = False
    fused.Rebuilder(parts).rebuild(terms)
    assert_reference(parts, terms)
    assert (buffer.cpu()[untouched] == POISON).all()


def test_dtypes_may_be_mixed_and_base_may_be_live(device):
    segment = Segment("w", 8, 1, 600, 0)
    parts = [part for dtype in DTYPES for part in parts_of([segment], dtype, device)]
    for _, base, live in parts:
        live.copy_(base)
    fused.Rebuilder([(segment, live, live) for _, _, live in parts]).rebuild(MIXED, rounding="dither")
    assert_reference(parts, MIXED, rounding="dither")


def test_one_rebuilder_many_recipes(device):
    """Every rebuild starts from the base, whatever came before, in any order of kinds."""
    parts = parts_of([Segment.whole("a", 700), Segment("b", 3, 4, 55, 100)], torch.bfloat16, device)
    bases = [base.clone() for _, base, _ in parts]
    rebuilder = fused.Rebuilder(parts)
    recipes = [SIGNS, QUANTILES, MIXED, [], [("rademacher", 1, 0.0)], many_terms(7), SIGNS, [("rademacher", 0, -0.5)]]
    for terms in recipes:
        for rounding in ROUNDINGS:
            rebuilder.rebuild(terms, rounding=rounding, dither_seed=3)
            assert_reference(parts, terms, rounding=rounding, dither_seed=3)
    assert all(torch.equal(base, kept) for (_, base, _), kept in zip(parts, bases, strict=True))


def test_a_subset_leaves_the_other_tensors_alone(device):
    parts = parts_of(SEGMENTS[:4], torch.float16, device)
    fused.Rebuilder(parts[1:3]).rebuild(SIGNS)
    assert_reference(parts[1:3], SIGNS)
    assert all((parts[k][2] == POISON).all() for k in (0, 3))


@pytest.mark.parametrize(("units", "warps"), [(16, 4), (32, 4), (128, 8)])
def test_the_tile_does_not_matter(device, units, warps):
    parts = parts_of(SEGMENTS, torch.bfloat16, device)
    fused.Rebuilder(parts, tile=(units, warps)).rebuild(MIXED, rounding="dither")
    assert_reference(parts, MIXED, rounding="dither")


def test_the_benchmark_runs_and_finds_what_it_measures_right(monkeypatch, capsys, tmp_path):
    place = Path(__file__).resolve().parents[2] / "benchmarks" / "switch.py"
    spec = importlib.util.spec_from_file_location("switch", place)
    switch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(switch)
    record = tmp_path / "rows.json"
    options = ["--shapes", "tiny", "--rounds", "1", "--many", "2", "--json", str(record)]
    monkeypatch.setattr(sys, "argv", ["switch.py", *options])
    switch.main()
    assert "equal, bit for bit" in capsys.readouterr().out
    rows = json.loads(record.read_text())["rows"]
    assert [row["name"] for row in rows if row.get("checked")] == [
        "seedfold, Rademacher",
        "seedfold, Gaussian",
        "seedfold, Rademacher, dither",
        "seedfold, 2 terms",
    ]
    assert all(row["ms"] > 0 and row["gbps"] > 0 for row in rows)
    parts = switch.parts_of_shapes("tiny", torch.device("cuda" if fused.COMPILED else "cpu"))
    rebuilder = fused.Rebuilder(parts)
    monkeypatch.setattr(rebuilder, "rebuild", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="differs"):
        switch._check(parts, rebuilder, SIGNS, "nearest")


def test_nothing_to_rebuild():
    fused.Rebuilder([]).rebuild(MIXED)


segments = st.builds(
    lambda start, rows, length, gap: Segment(f"t{start % 3}", start, rows, length, length + gap),
    st.one_of(st.integers(0, 300), st.integers(2**32 - 300, 2**32 + 300), st.integers(0, 2**63)),
    st.integers(1, 9),
    st.integers(0, 300),
    st.one_of(st.integers(0, 200), st.sampled_from([0, 128, 2**31, 2**40 + 3])),
)
seeds = st.integers(0, 2**64 - 1)
terms_drawn = st.lists(
    st.tuples(st.sampled_from(["rademacher", "gaussian"]), seeds, st.floats(-2, 2, width=32)), max_size=3
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    held=st.lists(st.tuples(segments, st.sampled_from(DTYPES)), min_size=1, max_size=3),
    terms=terms_drawn,
    scaled=st.booleans(),
    rounding=st.sampled_from(ROUNDINGS),
    dither_seed=seeds,
)
def test_any_segments(device, held, terms, scaled, rounding, dither_seed):
    parts = [parts_of([segment], dtype, device)[0] for segment, dtype in held]
    factors = {"t0": 0.5, "t1": 0.0, "t2": 1 / 3} if scaled else None
    fused.Rebuilder(parts).rebuild(terms, factors, rounding=rounding, dither_seed=dither_seed)
    assert_reference(parts, terms, factors, rounding=rounding, dither_seed=dither_seed)


@pytest.mark.parametrize("lead", [0, 40, 3], ids=["start", "aligned", "unaligned"])
def test_offsets_of_a_buffer_beyond_32_bits(lead):
    """The last program alone, on a buffer of which only the end is ever touched, and so held in memory."""
    if fused.COMPILED:
        pytest.skip("the kernel is compiled here; the next test is for the GPU")
    count, seen = 2**31 + 2**20 + 5000, 16384
    base, live = (torch.empty(count, dtype=torch.bfloat16) for _ in range(2))
    base[-seen:] = weights(seen, torch.bfloat16)
    live[-seen:] = POISON
    rebuilder = fused.Rebuilder([(Segment("w", lead, 1, count, 0), base, live)])
    (group,) = rebuilder._groups
    units = fused.TERMS[0] if group.aligned else fused.TERMS[0] // 4
    rebuilder._programs[group, units] = rebuilder._dealt(group, units)[-1:]
    rebuilder.rebuild(MIXED)
    group_count = -(-(lead % 128 + count) // 128)
    first = (group_count - 1) // units * units * 128 - lead % 128  # in the buffer
    assert 2**31 < first < count
    dealt = count - first
    assert dealt < seen
    assert (live[-seen:-dealt] == POISON).all()
    assert_reference([(Segment("w", lead + first, 1, dealt, 0), base[-dealt:], live[-dealt:])], MIXED)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_more_than_32_bits_of_weights_on_a_gpu():
    if not fused.COMPILED:
        pytest.skip("too many weights for the interpreter")
    width = 2**21
    height = 2**11 + 3  # 4.3G weights, 8.6 GB; base and live are one buffer
    buffer = torch.zeros(height * width, dtype=torch.bfloat16, device="cuda")
    segment = Segment("w", 2**40 + 8, height, width, width + 128)
    fused.Rebuilder([(segment, buffer, buffer)]).rebuild(SIGNS)
    for row in (0, 1023, 1024, 2047, 2048, height - 1):
        one = Segment("w", segment.start + row * segment.row_stride, 1, width, 0)
        zeros = torch.zeros(width, dtype=torch.bfloat16)
        assert_reference([(one, zeros, buffer[row * width : (row + 1) * width])], SIGNS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_base_in_pinned_host_memory(dtype):
    if not fused.COMPILED:
        pytest.skip("the interpreter reads no memory of a GPU")
    base = weights(5000, dtype).pin_memory()
    live = torch.full_like(base, POISON, device="cuda")
    parts = [(Segment.whole("w", 5000), base, live)]
    fused.Rebuilder(parts).rebuild(MIXED)
    assert_reference(parts, MIXED)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_switching_waits_for_nothing_and_keeps_its_tables():
    """Many rebuilds queued behind a slow one: each must still see its own terms."""
    if not fused.COMPILED:
        pytest.skip("needs a stream")
    parts = parts_of([Segment.whole("w", 4_000_000)], torch.bfloat16, "cuda")
    rebuilder = fused.Rebuilder(parts)
    rebuilder.rebuild(many_terms(300))
    kept = []
    for k in range(20):
        rebuilder.rebuild([("rademacher", k, 0.1), ("rademacher", k + 100, 0.2)])
        kept.append(parts[0][2][:1000].clone())
    for k, live in enumerate(kept):
        terms = [("rademacher", k, 0.1), ("rademacher", k + 100, 0.2)]
        assert_reference([(Segment.whole("w", 1000), parts[0][1][:1000], live)], terms)


@triton.jit
def _philox(counters, keys, words):
    case = tl.arange(0, 4)
    c0 = tl.load(counters + 4 * case).to(tl.uint32, bitcast=True)
    c1 = tl.load(counters + 4 * case + 1).to(tl.uint32, bitcast=True)
    c2 = tl.load(counters + 4 * case + 2).to(tl.uint32, bitcast=True)
    c3 = tl.load(counters + 4 * case + 3).to(tl.uint32, bitcast=True)
    k0 = tl.load(keys + 2 * case).to(tl.uint32, bitcast=True)
    k1 = tl.load(keys + 2 * case + 1).to(tl.uint32, bitcast=True)
    w0, w1, w2, w3 = tl.philox_impl(c0, c1, c2, c3, k0, k1)
    tl.store(words + 4 * case, w0.to(tl.int32, bitcast=True))
    tl.store(words + 4 * case + 1, w1.to(tl.int32, bitcast=True))
    tl.store(words + 4 * case + 2, w2.to(tl.int32, bitcast=True))
    tl.store(words + 4 * case + 3, w3.to(tl.int32, bitcast=True))


def test_tritons_generator_is_the_one_that_noise_is_defined_by(device):
    """Known answers of docs/noise.md, and one counter with four different words against the oracle."""
    ones = 0xFFFFFFFF
    counters = [(0,) * 4, (ones,) * 4, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (1, 2, 3, 4)]
    keys = [(0, 0), (ones, ones), (0xA4093822, 0x299F31D0), (5, 6)]
    answers = [
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        tuple(noise_oracle.philox(counters[3], keys[3])),
    ]
    inputs = (torch.tensor(numbers).to(torch.int32).to(device) for numbers in (counters, keys))
    words = torch.zeros(4, 4, dtype=torch.int32, device=device)
    _philox[(1,)](*inputs, words)
    assert [tuple(word & ones for word in row) for row in words.tolist()] == answers


def test_knows():
    assert fused.knows([])
    assert fused.knows(MIXED)
    assert not fused.knows([*MIXED, ("low-rank", 1, 0.1)])


def part(**change):
    arguments = {"segment": Segment.whole("w", 8), "base": torch.zeros(8), "live": torch.zeros(8), **change}
    return tuple(arguments.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"live": torch.zeros(8, dtype=torch.float16)}, "dtype of live is float16; give float32"),
        ({"base": torch.zeros(8, dtype=torch.float64)}, "dtype of base is float64"),
        ({"base": torch.zeros(16)[::2]}, "strides of base"),
        ({"live": torch.zeros(16)[::2]}, "strides of live"),
        ({"base": torch.zeros(9)}, "size of base is 9; give 8"),
        ({"live": torch.zeros(8, device="meta")}, "base of w is on cpu; give it on meta"),
        ({"base": torch.zeros(8, device="meta")}, "base of w is on meta; give it on cpu"),
    ],
)
def test_bad_parts_are_the_users_to_mend(change, said):
    with pytest.raises(UserError) as error:
        fused.Rebuilder([part(**change)])
    assert str(error.value).startswith(said)


def test_parts_on_two_devices(device):
    here = {"base": torch.zeros(8, device=device), "live": torch.zeros(8, device=device)}
    first = part(segment=Segment.whole("v", 8), **here)
    with pytest.raises(UserError, match=f"live of w is on meta; give all on one device, here {device}"):
        fused.Rebuilder([first, part(live=torch.zeros(8, device="meta"))])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"terms": [("gaussian", 1, float("nan"))]}, "scale is nan"),
        ({"terms": [("gaussian", 1, 1e39)]}, "scale is 1e+39"),
        ({"terms": [("gaussian", 1, 1e30)], "factors": {"w": 1e20}}, "scale is 1e+50"),
        ({"terms": [("gaussian", 1, 1e30)], "factors": {"w": float("nan")}}, "scale is nan"),
        ({"factors": {"v": 1.0}}, "factors has no w"),
        ({"terms": [("gaussian", -1, 1.0)]}, "seed is -1"),
        ({"terms": [("gaussian", 2**64, 1.0)]}, "seed is"),
        ({"terms": [("cauchy", 1, 1.0)]}, "family is 'cauchy'"),
        ({"rounding": "up"}, "rounding is 'up'"),
        ({"dither_seed": 2**64}, "dither_seed is"),
    ],
)
def test_bad_arguments_are_the_users_to_mend(device, change, said):
    segment, base, live = parts_of([Segment.whole("w", 8)], torch.bfloat16, device)[0]
    rebuilder = fused.Rebuilder([(segment, base, live)])
    with pytest.raises(UserError) as error:
        rebuilder.rebuild(**{"terms": MIXED, **change})
    assert str(error.value).startswith(said)
    assert (live == POISON).all()


def test_a_registered_family_without_a_kernel(device, monkeypatch):
    from seedfold.noise import registry

    monkeypatch.setattr(registry, "_MODULES", {**registry._MODULES, "signs": ("seedfold.noise.rademacher", "")})
    rebuilder = fused.Rebuilder(parts_of([Segment.whole("w", 8)], torch.bfloat16, device))
    with pytest.raises(UserError, match="'signs', which has no fused kernel; give one of rademacher, gaussian"):
        rebuilder.rebuild([("signs", 1, 0.1)])
