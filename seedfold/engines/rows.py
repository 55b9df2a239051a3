"""Linear layers whose rows do not mind how many stand beside them, on CPUs.

The vendor's products add a row up in an order that depends on the number of rows, though not on the row's place among them:
those of 2-byte numbers on CPUs with matrix units (AMX), and any in vLLM, which puts together whatever has arrived. So a
layer multiplies `BLOCK` rows at a time, the last of them filled up with zeros. With matrix units that costs about two
fifths of the speed (`benchmarks/rows.py`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

BLOCK = 32


def fix(model: torch.nn.Module) -> None:
    """Have the model's linear layers multiply so, where that is needed."""
    weight = next(model.parameters())
    if weight.device.type == "cpu" and weight.dtype in (torch.bfloat16, torch.float16) and matrix_units():
        for layer in model.modules():
            if type(layer) is torch.nn.Linear:
                layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def matrix_units() -> bool:
    """Whether this CPU has them, as far as torch knows."""
    known: Any = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(known and known())


def in_blocks(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The linear map of x, of shape (…, features), every product one of `BLOCK` rows."""
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    if short := -count % BLOCK:
        rows = torch.cat([rows, rows.new_zeros(short, rows.shape[1])])
    if len(rows) == BLOCK:
        out = linear(rows, weight, bias)
    else:
        out = rows.new_empty(len(rows), len(weight))
        for start in range(0, len(rows), BLOCK):
            out[start : start + BLOCK] = linear(rows[start : start + BLOCK], weight, bias)
    return out[:count].view(*x.shape[:-1], len(weight))


def _forward(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return in_blocks(x, layer.weight, layer.bias)
