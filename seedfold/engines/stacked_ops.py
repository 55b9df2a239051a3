"""The operations of a decoder with several copies of its weights, in torch: what the kernels must equal.

Rows are tokens, copy after copy: row r of C * B belongs to copy r // B. `stacked_kernels.py` has the same functions, fused,
for GPUs; `ops(device)` gives the ones to use.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch.nn.functional import silu


def ops(device: torch.device) -> ModuleType | Any:
    """This module, or its fused twin on a GPU."""
    if device.type == "cuda":
        from seedfold.engines import stacked_kernels

        return stacked_kernels
    import sys

    return sys.modules[__name__]


def product(x: torch.Tensor, weight: torch.Tensor, busy: torch.Tensor | None = None) -> torch.Tensor:
    """Rows of each copy times its weight transposed: (C * n, k), (C, m, k) -> (C * n, m).

    Args:
        busy: (C,) int32, 1 or 0: rows of copies that are not busy may be anything, so that their weights need not be read.
    """
    copies, width, _ = weight.shape
    return torch.bmm(x.view(copies, -1, x.shape[-1]), weight.transpose(1, 2)).view(-1, width)


def add_norm(hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Add `delta` to `hidden` in place and return its root-mean-square norm times the copy's weight.

    Args:
        hidden, delta: (rows, width). weight: (C, width). eps: added to the mean square.
    """
    if delta is not None:
        hidden.add_(delta)
    wide = hidden.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    copies = len(weight)
    normed = wide.to(hidden.dtype).view(copies, -1, hidden.shape[-1]) * weight[:, None]
    return normed.view_as(hidden)


def rope_and_store(
    qkv: torch.Tensor,
    bias: torch.Tensor | None,
    norms: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """Add the bias, normalise and turn queries and keys, write keys and values to the cache, return the queries.

    Args:
        qkv: (rows, (heads + 2 * key heads) * size). bias: (C, the same width) or None.
        norms: weights of the norms of queries and keys over a head, (C, size) each, or None. eps: of those norms.
        cos, sin: (positions, size). slots, positions: (rows,) int32, where in the cache a row's key and value belong.
        keys, values: (slots, key heads, positions, size), overwritten there.

    Returns:
        (rows, heads, size).
    """
    rows, size, key_heads = len(qkv), keys.shape[-1], keys.shape[1]
    heads = qkv.shape[1] // size - 2 * key_heads
    if bias is not None:
        qkv = (qkv.view(len(bias), -1, qkv.shape[1]) + bias[:, None]).view(rows, -1)
    query, key, value = qkv.view(rows, -1, size).split([heads, key_heads, key_heads], dim=1)
    if norms is not None:
        query, key = (
            add_norm(x.reshape(-1, size).clone(), None, weight, eps).view_as(x)
            for x, weight in zip((query, key), norms, strict=True)
        )
    at = positions.long()
    turn_cos, turn_sin = cos[at][:, None], sin[at][:, None]
    query, key = (x * turn_cos + _half_turned(x) * turn_sin for x in (query, key))
    keys[slots.long(), :, at] = key
    values[slots.long(), :, at] = value
    return query.contiguous()


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat([-right, left], -1)


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of one token per slot over the slot's first `lengths` positions; zeros where that is none.

    Args:
        query: (slots, heads, size). keys, values: (slots, key heads, positions, size). lengths: (slots,) int32.

    Returns:
        (slots, heads * size).
    """
    slots, heads, size = query.shape
    grouped = query.view(slots, keys.shape[1], -1, size).float()
    scores = grouped @ keys.float().transpose(-1, -2) * scale
    reach = torch.arange(keys.shape[2], device=query.device)
    seen = (reach < lengths[:, None])[:, None, None]
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0)
    return (weights @ values.float()).to(query.dtype).view(slots, heads * size)


def silu_multiply(gate_up: torch.Tensor) -> torch.Tensor:
    """silu of the left half times the right half: (rows, 2 * width) -> (rows, width)."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def advance(
    tokens: torch.Tensor,
    ends: torch.Tensor,
    active: torch.Tensor,
    ids: torch.Tensor,
    positions: torch.Tensor,
    counts: torch.Tensor,
    limits: torch.Tensor,
    made: torch.Tensor,
) -> None:
    """Take the chosen token of each active slot: keep it, move on, stop at an end token or at the limit.

    Args:
        tokens: (slots,) int64, the choice. ends: (n,) int64, the tokens that end an answer.
        active, ids, positions, counts, limits: (slots,) int32, the state; all but `limits` are updated. counts: tokens
            made so far. made: (slots, room) int32, the tokens themselves.
    """
    on = active.bool()
    rows = on.nonzero()[:, 0]
    made[rows, counts[rows].long()] = tokens[rows].int()
    counts += active
    positions += active
    ids.copy_(torch.where(on, tokens.int(), ids))
    going = ~torch.isin(tokens, ends) & (counts < limits)
    active *= going.int()
