"""Attention that computes a row alike in any batch: masks from positions, and shapes the kernels treat evenly."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from seedfold.engines.base import ALIGN

NAME = "seedfold_sdpa"

QUERIES = 8
"""Queries per head come in multiples of this. Matrix kernels for 1 or 3 rows were seen to depend on memory alignment, and
so on a row's place in the batch (torch 2.13, float32); for multiples of 4 and slots in multiples of 16 none did."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention as transformers calls it.

    Queries of the heads that share keys and values stand side by side, so that keys and values are never copied.

    Args:
        query: (rows, heads, n, size), n one or a multiple of `ALIGN`. key, value: (rows, key heads, slots, size), slots
            a multiple of `ALIGN`; if n is not one, the queries are of the last n slots, in order.
        attention_mask: additive, (rows, 1, n, slots).
        scaling: of the products; by default 1 / sqrt(size).

    Returns:
        (rows, n, heads, size), and None in place of the weights.
    """
    if attention_mask is None or attention_mask.dtype == torch.bool:  # somebody calls the model without our masks
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
    n, slots = query.shape[2], key.shape[2]
    if n > ALIGN:
        # Matrix kernels sum in another order when there are more rows or slots: from about 200 slots on, a token was seen
        # to depend on the length of the text around it. So it is computed in a block that its own position decides.
        blocks = []
        for start in range(0, n, ALIGN):
            block, end = slice(start, start + ALIGN), slots - n + start + ALIGN
            mask = attention_mask[:, :, block, :end]
            blocks.append(_attend(query[:, :, block], key[:, :, :end], value[:, :, :end], mask, scaling))
        return torch.cat(blocks, 1), None
    return _attend(query, key, value, attention_mask, scaling), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    rows, heads, n, size = query.shape
    group = heads // key.shape[1]
    packed = query.reshape(rows, key.shape[1], group * n, size)
    mask = attention_mask if n == 1 else attention_mask.repeat(1, 1, group, 1)
    extra = -packed.shape[2] % QUERIES
    if extra:
        packed = pad(packed, (0, 0, 0, extra))
        if n > 1:
            mask = pad(mask, (0, 0, 0, extra))
    output = scaled_dot_product_attention(packed, key, value, attn_mask=mask, scale=scaling)
    output = output[:, :, : group * n].reshape(rows, heads, n, -1)
    return output.transpose(1, 2).contiguous()


def install(model: Any) -> None:
    """Make a model that uses torch's attention use `attend`; models that need another kind keep theirs."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)  # for calls without our masks
        model.set_attn_implementation(NAME)


class Masks:
    """Attention masks from positions: a query sees the filled slots whose position is not after its own.

    Slot numbers play no part, so that padding between prompt and answer is no distance: sliding windows stay right.
    """

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        text = config.get_text_config()
        self.dtype = dtype
        self.window: int | None = getattr(text, "sliding_window", None)
        if getattr(text, "use_sliding_window", True) is False:
            self.window = None
        self.kinds = set(getattr(text, "layer_types", None) or ())

    def __call__(self, queries: torch.Tensor, slots: torch.Tensor) -> Any:
        """Additive masks, (rows, 1, queries, slots).

        Args:
            queries: (rows, queries) positions.
            slots: (rows, slots) positions, -1 where a slot is empty.
        """
        distance = queries[:, :, None] - slots[:, None, :]
        seen = (distance >= 0) & (slots >= 0)[:, None, :]
        if not self.window:
            return self._additive(seen)
        near = seen & (distance < self.window)
        if not self.kinds:
            return self._additive(near)
        return {"full_attention": self._additive(seen), "sliding_attention": self._additive(near)}

    def _additive(self, seen: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(self.dtype).min)[:, None]
