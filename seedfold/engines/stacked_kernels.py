"""`stacked_ops.py` for GPUs: one Triton kernel per function. Shapes, dtypes and meaning are documented there."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from seedfold.engines import stacked_ops as plain

# Keys read at once by one program of `attend`.
_KEYS = 64


# Rows per copy up to which `product` may be the kernel below; with more, and in prefills, it is the vendor's library.
_FEW_ROWS = 256

# Whether the vendor's batched product has the kernel's bits, by shapes, dtype and device.
_agreed: dict[tuple[Any, ...], bool] = {}


class Tile(NamedTuple):
    """What a program of `own_product` computes: so many columns for all rows of a copy, so much of the depth at a time.

    stages: steps of the depth that are being loaded at once.
    """

    columns: int = 64
    depth: int = 64
    warps: int = 4
    stages: int = 4

    def room(self, rows: int) -> int:
        """Bytes of shared memory for so many rows of 2-byte numbers."""
        return 2 * (rows + self.columns) * self.depth * self.stages


def product(x: torch.Tensor, weight: torch.Tensor, busy: torch.Tensor | None = None) -> torch.Tensor:
    """The vendor's, which is a little faster, where it has the bits of ours and no copy is to be left out."""
    copies, _, depth = weight.shape
    if len(x) // copies > _FEW_ROWS or depth % Tile().depth:
        return plain.product(x, weight)
    if busy is None and copies > 1 and vendor_agrees(x, weight):
        return plain.product(x, weight)
    return own_product(x, weight, busy)


def vendor_agrees(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the vendor's product of these shapes adds up in our order: tried once, with random numbers for x."""
    key = (x.shape, weight.shape, x.dtype, x.device)
    if key not in _agreed:
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        _agreed[key] = torch.equal(plain.product(drawn, weight), own_product(drawn, weight))
    return _agreed[key]


def own_product(
    x: torch.Tensor,
    weight: torch.Tensor,
    busy: torch.Tensor | None = None,
    tile: Tile = Tile(),  # noqa: B008
) -> torch.Tensor:
    """`product` by our kernel: the same bits for any number of copies, in any tile of the same depth. The tile's depth must
    divide the weights'."""
    copies, width, depth = weight.shape
    rows = len(x) // copies
    out = torch.empty(len(x), width, dtype=x.dtype, device=x.device)
    block = min(128, max(16, triton.next_power_of_2(rows)))
    grid = (triton.cdiv(width, tile.columns), triton.cdiv(rows, block), copies)
    cut = {"ROWS": block, "COLUMNS": tile.columns, "DEPTH": tile.depth, "SKIP": busy is not None}
    skip = x if busy is None else busy
    _product[grid](x, weight, skip, out, rows, width, depth, **cut, num_warps=tile.warps, num_stages=tile.stages)
    return out


@triton.jit
def _product(
    x,
    weight,
    busy,
    out,
    rows,
    width,
    depth,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    SKIP: tl.constexpr,
):
    """Every tile adds its products in the same order, whatever stands in the others; `depth` is a multiple of DEPTH."""
    copy = tl.program_id(2).to(tl.int64)
    reach = depth
    if SKIP:
        reach = depth * tl.load(busy + copy)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    along = tl.arange(0, DEPTH)
    here, there = (row < rows)[:, None], (column < width)[:, None]
    left = x + copy * rows * depth + row[:, None] * depth + along[None, :]
    right = weight + copy * width * depth + column[:, None] * depth + along[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(0, reach, DEPTH):
        a = tl.load(left, here, 0.0)
        b = tl.load(right, there, 0.0)
        total = tl.dot(a, tl.trans(b), total, input_precision="ieee")
        left += DEPTH
        right += DEPTH
    at = out + (copy * rows + row[:, None]) * width + column[None, :]
    tl.store(at, total.to(out.dtype.element_ty), here & (column < width)[None, :])


def add_norm(hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float) -> torch.Tensor:
    rows, width = hidden.shape
    out = torch.empty_like(hidden)
    _add_norm[(rows,)](
        hidden,
        delta if delta is not None else hidden,
        weight,
        out,
        rows // len(weight),
        width,
        eps,
        ADD=delta is not None,
        BLOCK=triton.next_power_of_2(width),
        num_warps=4,
    )
    return out


@triton.jit
def _add_norm(hidden, delta, weight, out, rows_per_copy, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(hidden + row * width + columns, inside, 0.0)
    if ADD:
        x = (x.to(tl.float32) + tl.load(delta + row * width + columns, inside, 0.0).to(tl.float32)).to(x.dtype)
        tl.store(hidden + row * width + columns, x, inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + eps)
    scaling = tl.load(weight + row // rows_per_copy * width + columns, inside, 0.0)
    normed = (wide * scale).to(x.dtype).to(tl.float32) * scaling.to(tl.float32)
    tl.store(out + row * width + columns, normed.to(x.dtype), inside)


def rope_and_store(qkv, bias, norms, eps, cos, sin, slots, positions, keys, values):  # type: ignore[no-untyped-def]
    rows = len(qkv)
    _, key_heads, room, size = keys.shape
    heads = qkv.shape[1] // size - 2 * key_heads
    query = torch.empty(rows, heads, size, dtype=qkv.dtype, device=qkv.device)
    query_norm, key_norm = norms if norms is not None else (qkv, qkv)
    copies = len(bias) if bias is not None else len(query_norm) if norms is not None else 1
    every = heads + 2 * key_heads
    _rope_and_store[(rows,)](
        qkv,
        bias if bias is not None else qkv,
        query_norm,
        key_norm,
        cos,
        sin,
        slots,
        positions,
        query,
        keys,
        values,
        rows // copies,
        room,
        eps,
        HEADS=heads,
        KEY_HEADS=key_heads,
        EVERY=triton.next_power_of_2(every),
        HALF=size // 2,
        BIAS=bias is not None,
        NORM=norms is not None,
        num_warps=4,
    )
    return query


@triton.jit
def _rope_and_store(
    qkv,
    bias,
    query_norm,
    key_norm,
    cos,
    sin,
    slots,
    positions,
    query,
    keys,
    values,
    rows_per_copy,
    room,
    eps,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    EVERY: tl.constexpr,
    HALF: tl.constexpr,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
):
    """One row: all heads of its queries, keys and values, left and right half apart, (EVERY, HALF)."""
    dtype = query.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    copy = row // rows_per_copy
    size: tl.constexpr = 2 * HALF
    width: tl.constexpr = (HEADS + 2 * KEY_HEADS) * size
    head = tl.arange(0, EVERY)[:, None]
    lane = tl.arange(0, HALF)[None, :]
    real = head < HEADS + 2 * KEY_HEADS
    at = head * size + lane
    a = tl.load(qkv + row * width + at, real, 0.0).to(tl.float32)
    b = tl.load(qkv + row * width + at + HALF, real, 0.0).to(tl.float32)
    if BIAS:  # rounded to the dtype of the weights, as a bias added by itself would be
        a = (a + tl.load(bias + copy * width + at, real, 0.0).to(tl.float32)).to(dtype).to(tl.float32)
        b = (b + tl.load(bias + copy * width + at + HALF, real, 0.0).to(tl.float32)).to(dtype).to(tl.float32)
    turned = head < HEADS + KEY_HEADS
    if NORM:
        scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / size + eps)[:, None]
        asks = head < HEADS
        of_query, of_key = query_norm + copy * size + lane, key_norm + copy * size + lane
        left = tl.where(asks, tl.load(of_query).to(tl.float32), tl.load(of_key).to(tl.float32))
        right = tl.where(asks, tl.load(of_query + HALF).to(tl.float32), tl.load(of_key + HALF).to(tl.float32))
        a = tl.where(turned, (a * scale).to(dtype).to(tl.float32) * left, a)
        b = tl.where(turned, (b * scale).to(dtype).to(tl.float32) * right, b)
    position = tl.load(positions + row).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    turn = position * size + lane
    cos_a, cos_b = tl.load(cos + turn).to(tl.float32), tl.load(cos + turn + HALF).to(tl.float32)
    sin_a, sin_b = tl.load(sin + turn).to(tl.float32), tl.load(sin + turn + HALF).to(tl.float32)
    new_a = tl.where(turned, a * cos_a - b * sin_a, a).to(dtype)
    new_b = tl.where(turned, b * cos_b + a * sin_b, b).to(dtype)
    to_query = query + row * HEADS * size + at
    tl.store(to_query, new_a, head < HEADS)
    tl.store(to_query + HALF, new_b, head < HEADS)
    to_key = keys + ((slot * KEY_HEADS + head - HEADS) * room + position) * size + lane
    tl.store(to_key, new_a, (head >= HEADS) & turned)
    tl.store(to_key + HALF, new_b, (head >= HEADS) & turned)
    to_value = values + ((slot * KEY_HEADS + head - HEADS - KEY_HEADS) * room + position) * size + lane
    tl.store(to_value, new_a, (head >= HEADS + KEY_HEADS) & real)
    tl.store(to_value + HALF, new_b, (head >= HEADS + KEY_HEADS) & real)


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    slots, heads, size = query.shape
    key_heads, room = keys.shape[1], keys.shape[2]
    out = torch.empty(slots, heads * size, dtype=query.dtype, device=query.device)
    group = heads // key_heads
    _attend[(slots, key_heads)](
        query,
        keys,
        values,
        lengths,
        out,
        scale,
        room,
        GROUP=group,
        QUERIES=max(16, triton.next_power_of_2(group)),  # the least that the matrix units take
        SIZE=size,
        KEYS=_KEYS,
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit
def _attend(
    query,
    keys,
    values,
    lengths,
    out,
    scale,
    room,
    GROUP: tl.constexpr,
    QUERIES: tl.constexpr,
    SIZE: tl.constexpr,
    KEYS: tl.constexpr,
):
    slot = tl.program_id(0).to(tl.int64)
    key_head = tl.program_id(1)
    key_heads = tl.num_programs(1)
    length = tl.load(lengths + slot)
    member = tl.arange(0, QUERIES)
    lane = tl.arange(0, SIZE)
    reach = tl.arange(0, KEYS)
    asked = (slot * key_heads + key_head) * GROUP + member
    real = (member < GROUP)[:, None]
    q = tl.load(query + asked[:, None] * SIZE + lane[None, :], real, 0.0)
    first = (slot * key_heads + key_head) * room * SIZE
    top = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, SIZE), tl.float32)
    for start in range(0, length, KEYS):
        place = start + reach
        seen = place < length
        at = first + place[:, None] * SIZE + lane[None, :]
        k = tl.load(keys + at, seen[:, None], 0.0)
        v = tl.load(values + at, seen[:, None], 0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - higher)
        weights = tl.exp(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        top = higher
    mixed = tl.where(length > 0, mixed / tl.where(total > 0, total, 1.0)[:, None], 0.0)
    tl.store(out + asked[:, None] * SIZE + lane[None, :], mixed.to(out.dtype.element_ty), real)


def silu_multiply(gate_up: torch.Tensor) -> torch.Tensor:
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, width, dtype=gate_up.dtype, device=gate_up.device)
    block = min(1024, triton.next_power_of_2(width))
    _silu_multiply[(rows, triton.cdiv(width, block))](gate_up, out, width, BLOCK=block, num_warps=4)
    return out


@triton.jit
def _silu_multiply(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up + row * 2 * width + columns, inside, 0.0)
    up = tl.load(gate_up + row * 2 * width + width + columns, inside, 0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    soft = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype).to(tl.float32)
    tl.store(out + row * width + columns, (soft * up).to(gate.dtype), inside)


def advance(tokens, ends, active, ids, positions, counts, limits, made):  # type: ignore[no-untyped-def]
    block = 128
    _advance[(triton.cdiv(len(tokens), block),)](
        tokens,
        ends,
        active,
        ids,
        positions,
        counts,
        limits,
        made,
        len(tokens),
        made.shape[1],
        len(ends),
        BLOCK=block,
        num_warps=4,
    )


@triton.jit
def _advance(tokens, ends, active, ids, positions, counts, limits, made, slots, room, n_ends, BLOCK: tl.constexpr):
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = slot < slots
    on = (tl.load(active + slot, inside, 0) != 0) & inside
    token = tl.load(tokens + slot, inside, 0).to(tl.int32)
    count = tl.load(counts + slot, inside, 0)
    tl.store(made + slot.to(tl.int64) * room + count, token, on)
    tl.store(ids + slot, token, on)
    tl.store(positions + slot, tl.load(positions + slot, inside, 0) + 1, on)
    tl.store(counts + slot, count + 1, on)
    going = count + 1 < tl.load(limits + slot, inside, 0)
    for number in range(0, n_ends):
        going = going & (token != tl.load(ends + number).to(tl.int32))
    tl.store(active + slot, going.to(tl.int32), on)
