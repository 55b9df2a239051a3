"""The fused kernels against plain torch: in Triton's interpreter on a CPU, and on a GPU where there is one."""

import pytest
import torch

from seedfold.engines import stacked_ops as plain

pytest.importorskip("triton", reason="needs Triton, if only its interpreter")
from seedfold.engines import stacked_kernels as fused

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
# The interpreter truncates where a GPU rounds to bfloat16; there, bfloat16 is compared loosely.
DTYPES = [torch.float32, torch.bfloat16]
# It multiplies no matrices of bfloat16 at all.
MATRICES = [torch.float32, torch.bfloat16 if GPU else torch.float16]
COPIES, SLOTS = 2, 3


def close(a, b, dtype):
    torch.testing.assert_close(a.float(), b.float(), **({"rtol": 0.03, "atol": 0.03} if dtype != torch.float32 else {}))


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize(("rows", "width", "depth"), [(5, 100, 64), (130, 64, 192), (300, 30, 64), (4, 33, 48)])
def test_product(dtype, rows, width, depth):
    x, weight = draw(COPIES * rows, depth, dtype=dtype), draw(COPIES, width, depth, dtype=dtype)
    close(fused.product(x, weight) / depth**0.5, plain.product(x, weight) / depth**0.5, dtype)


@pytest.mark.parametrize("tile", [fused.Tile(), fused.Tile(128, 64, 8, 3), fused.Tile(256, 128, 8, 2)])
def test_a_product_is_the_same_in_other_tiles(tile):
    """Bit for bit where each entry is added up along the depth in turn: so a tile is a matter of speed alone."""
    x, weight = draw(COPIES * 17, 384, dtype=MATRICES[1]), draw(COPIES, 140, 384, dtype=MATRICES[1])
    assert torch.equal(
        fused.own_product(x, weight, None, tile), fused.own_product(x, weight, None, fused.Tile(depth=tile.depth))
    )


@pytest.mark.parametrize("gap", [0, 1e-3])
def test_the_vendors_product_is_taken_where_it_has_our_bits(monkeypatch, gap):
    x, weight = draw(COPIES * 17, 384, dtype=MATRICES[1]), draw(COPIES, 140, 384, dtype=MATRICES[1])
    asked = []

    def vendor(x, weight):
        asked.append(x)
        return fused.own_product(x, weight) + gap

    monkeypatch.setattr(fused, "_agreed", {})
    monkeypatch.setattr(fused.plain, "product", vendor)
    ours = fused.own_product(x, weight)
    for _ in range(2):
        assert torch.equal(fused.product(x, weight), ours)
    assert len(asked) == (1 if gap else 3)  # the first time to compare
    everybody = torch.ones(COPIES, dtype=torch.int32, device=DEVICE)
    assert torch.equal(fused.product(x, weight, everybody), ours)
    fused.product(x[:17], weight[:1])  # of one copy: as in prefills, where the number of rows varies
    assert len(asked) == (1 if gap else 3)


@pytest.mark.parametrize("busy", [(1, 0), (0, 1), (0, 0), (1, 1)])
def test_weights_of_copies_without_answers_are_not_read(busy):
    x, weight = draw(COPIES * 17, 384, dtype=MATRICES[1]), draw(COPIES, 140, 384, dtype=MATRICES[1])
    expected = fused.own_product(x, weight).view(COPIES, 17, 140)
    for copy, wanted in enumerate(busy):
        if not wanted:
            weight[copy] = float("nan")
            expected[copy] = 0
    flags = torch.tensor(busy, dtype=torch.int32, device=DEVICE)
    assert torch.equal(fused.own_product(x, weight, flags).view(COPIES, 17, 140), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("add", [False, True])
def test_add_norm(dtype, add):
    hidden, weight = draw(COPIES * SLOTS, 48, dtype=dtype), draw(COPIES, 48, dtype=dtype)
    delta = 2 * hidden.flip(0) if add else None
    other = hidden.clone()
    out = fused.add_norm(hidden, delta, weight, 1e-5)
    close(out, plain.add_norm(other, delta, weight, 1e-5), dtype)
    close(hidden, other, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_rope_and_store(dtype, bias, norm):
    heads, key_heads, size, room, rows = 6, 2, 16, 32, COPIES * SLOTS
    qkv = draw(rows, (heads + 2 * key_heads) * size, dtype=dtype)
    extra = draw(COPIES, qkv.shape[1], dtype=dtype) if bias else None
    norms = (draw(COPIES, size, dtype=dtype), draw(COPIES, size, dtype=dtype) + 1) if norm else None
    angles = torch.arange(room)[:, None] * torch.linspace(1, 0.1, size // 2).repeat(2)
    cos, sin = angles.cos().to(DEVICE, dtype), angles.sin().to(DEVICE, dtype)
    slots = torch.tensor([4, 0, 5, 1, 3, 2], dtype=torch.int32, device=DEVICE)
    positions = torch.tensor([0, 31, 7, 8, 1, 2], dtype=torch.int32, device=DEVICE)
    made = []
    for operations in (plain, fused):
        keys, values = (torch.full((6, key_heads, room, size), 9.0, dtype=dtype, device=DEVICE) for _ in range(2))
        query = operations.rope_and_store(qkv, extra, norms, 1e-6, cos, sin, slots, positions, keys, values)
        made.append((query, keys, values))
    for one, other in zip(*made, strict=True):
        close(one, other, dtype)


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("group", [1, 7])
def test_attend(dtype, group):
    key_heads, size, room = 2, 16, 200
    lengths = torch.tensor([0, 1, 64, 65, 200], dtype=torch.int32, device=DEVICE)
    query = draw(5, key_heads * group, size, dtype=dtype)
    keys, values = draw(5, key_heads, room, size, dtype=dtype), draw(5, key_heads, room, size, dtype=dtype) + 1
    values[4, :, 150] += 50
    for slot, length in enumerate(lengths.tolist()):  # what lies beyond must not matter
        keys[slot, :, length:], values[slot, :, length:] = 1e4, torch.nan
    out = fused.attend(query, keys, values, lengths, 0.25)
    assert not out[0].any()
    close(out, plain.attend(query, keys, values.nan_to_num(0.0), lengths, 0.25), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_multiply(dtype):
    gate_up = 3 * draw(5, 2 * 100, dtype=dtype)
    close(fused.silu_multiply(gate_up), plain.silu_multiply(gate_up), dtype)


def test_advance():
    names = ("active", "ids", "positions", "counts", "limits")
    start = {
        "active": [1, 1, 1, 0, 1, 1],
        "ids": [9, 9, 9, 9, 9, 9],
        "positions": [4, 5, 6, 7, 8, 9],
        "counts": [0, 1, 2, 0, 3, 4],
        "limits": [5, 5, 3, 5, 5, 5],
    }
    tokens = torch.tensor([7, 50, 8, 9, 51, 10], device=DEVICE)
    ends = torch.tensor([50, 51], device=DEVICE)
    results = []
    for operations in (plain, fused):
        state = {name: torch.tensor(start[name], dtype=torch.int32, device=DEVICE) for name in names}
        made = torch.zeros(6, 5, dtype=torch.int32, device=DEVICE)
        operations.advance(tokens, ends, *(state[name] for name in names), made)
        results.append({name: values.tolist() for name, values in state.items()} | {"made": made.tolist()})
    assert results[0] == results[1]
    assert results[0]["active"] == [1, 0, 0, 0, 0, 0]
    assert results[0]["ids"] == [7, 50, 8, 9, 51, 10]
    assert results[0]["positions"] == [5, 6, 7, 7, 9, 10]
    assert results[0]["made"][4] == [0, 0, 0, 51, 0]
