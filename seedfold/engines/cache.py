"""A key-value cache whose slots are positions, so that sharing, padding and batching never change a number.

Layout of a batch: slots [0, P) hold the prefix that all prompts share; slots [P, P + S) the rest of each prompt, from the
left, padded on the right; generated tokens follow from the next multiple of `BUCKET` in every row. P and S are multiples of
`ALIGN`, and the prompts of a batch agree in that multiple, so that every token sits in a slot that its own prompt decides:
reductions over slots add the same numbers in the same order whatever the batch. Layers hand out whole multiples of `ALIGN`
slots; what is empty is masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from seedfold.engines.base import ALIGN
from seedfold.errors import UserError

BUCKET = 64
"""Prompts that agree in their length up to the next multiple of this are answered together. Masked slots are not free of
consequences: kernels were seen to sum 192 slots and more in another order (torch 2.13), so a gap must not depend on the
batch. Buffers grow by as much."""


class BufferedLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, slots, head size), in buffers with room to grow."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.buffers: list[torch.Tensor] | None = None
        self.filled = 0

    def get_seq_length(self) -> int:
        return self.filled

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self.filled, self.filled + key_states.shape[-2]
        if self.buffers is None or self.buffers[0].shape[-2] < stop:
            self._grow(stop, key_states, value_states)
        assert self.buffers is not None
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., start:stop, :] = new
        self.filled = stop
        return self._show()

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.buffers is not None
        keys, values = (buffer[..., : aligned(self.filled), :] for buffer in self.buffers)
        self.keys, self.values = keys, values
        return keys, values

    def _grow(self, slots: int, *states: torch.Tensor) -> None:
        room = bucket(slots)
        old = self.buffers
        self.buffers = []
        for number, state in enumerate(states):
            rows, heads, _, size = state.shape
            buffer = state.new_zeros(rows, heads, room, size)  # masked slots are multiplied by zero: never NaN
            if old is not None:
                buffer[..., : old[number].shape[-2], :] = old[number]
            self.buffers.append(buffer)

    def load(self, keys: torch.Tensor, values: torch.Tensor, rows: int) -> None:
        """Start with slots computed before, (1, heads, slots, head size), the same in every row."""
        self.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))

    def skip(self, slots: int) -> None:
        """Leave slots empty up to this number."""
        if self.buffers is not None:
            if self.buffers[0].shape[-2] < slots:
                self._grow(slots, *self.buffers)
            self.filled = slots
            self._show()

    def take(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        if self.buffers is not None:
            self.buffers = [buffer.index_select(0, rows) for buffer in self.buffers]
            self._show()


def layer_count(config: Any) -> int:
    """Number of layers that keep keys and values. Raises `UserError` for models that keep anything else."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if getattr(config, "is_encoder_decoder", False) or kinds - {"full_attention", "sliding_attention"}:
        raise UserError(
            f'model type "{config.model_type}" is not a decoder of attention layers only '
            f"({', '.join(sorted(kinds)) or 'encoder-decoder'}); give a causal language model with plain attention"
        )
    return int(text.num_hidden_layers)


def new_cache(layers: int) -> Any:
    return Cache(layers=[BufferedLayer() for _ in range(layers)])


def aligned(count: int) -> int:
    """The next multiple of `ALIGN`."""
    return -(-count // ALIGN) * ALIGN


def bucket(count: int) -> int:
    """The next multiple of `BUCKET`."""
    return -(-count // BUCKET) * BUCKET


def batches(lengths: Sequence[int], size: int, tokens: int = 0) -> Iterator[list[int]]:
    """Numbers of texts, so many `at_once`, that agree in their length up to the next multiple of `BUCKET`."""
    groups: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        groups.setdefault(bucket(length), []).append(number)
    for width, numbers in sorted(groups.items()):
        most = at_once(width, size, tokens)
        for start in range(0, len(numbers), most):
            yield numbers[start : start + most]


def at_once(width: int, size: int, tokens: int = 0) -> int:
    """At most `size` texts of `width` tokens, and with `tokens` no more than have so many together, but one at least."""
    return min(size, max(1, tokens // max(1, width))) if tokens else size


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The tokens that all prompts start with, down to a multiple of `ALIGN`; at least a prompt's last token is left."""
    first, last = min(prompts), max(prompts)
    length = min(len(first), len(last), *(len(prompt) - 1 for prompt in prompts))
    same = next((i for i in range(length) if first[i] != last[i]), length)
    return tuple(first[: same // ALIGN * ALIGN])
