"""A decoder with several copies of its weights side by side, so that one pass runs several recipes at once.

Linear layers of the copies are one batched matrix product. A copy's weights are rebuilt in place while the others' go on.
Decoders of the Llama shape: root-mean-square norms, rotary positions, grouped queries, a gated SiLU layer; biases on
queries, keys and values, and norms over their heads, where the model has them (Llama, Mistral, Qwen2, Qwen3, SmolLM2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from seedfold.engines.stacked_ops import ops
from seedfold.errors import UserError
from seedfold.weights import Part, Tensor, Weights

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass
class Layer:
    """One layer's weights, (C, ...) each; None where the model has none."""

    norm: torch.Tensor
    qkv: torch.Tensor
    bias: torch.Tensor | None
    heads_norm: tuple[torch.Tensor, torch.Tensor] | None
    out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor

    def of(self, copy: int) -> Layer:
        """The same of one copy."""
        one = slice(copy, copy + 1)
        return Layer(
            *(
                None if field is None else tuple(x[one] for x in field) if isinstance(field, tuple) else field[one]
                for field in vars(self).values()
            )  # type: ignore[arg-type]
        )


class StackedModel:
    """C copies of a model's weights, the base they are rebuilt from, and the passes over them.

    Args:
        model: a transformers model of one of `FAMILIES`, on any device; its weights are copied, it is not kept.
        copies: C.
        device: where the copies and the base live.
    """

    def __init__(self, model: Any, copies: int, device: torch.device) -> None:
        check(model)
        self.copies, self.device, self.dtype = copies, device, model.dtype
        attention = model.model.layers[0].self_attn
        self.size = int(attention.head_dim)
        self.heads = attention.q_proj.out_features // self.size
        self.key_heads = attention.k_proj.out_features // self.size
        self.scale, self.eps = float(attention.scaling), float(model.model.norm.variance_epsilon)
        self._rotary = model.model.rotary_emb
        self._ops = ops(device)
        self._parts: list[list[Part]] = [[] for _ in range(copies)]
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._tensors: dict[str, Tensor] = {}
        self.layers = [self._layer(layer) for layer in model.model.layers]
        self.norm = self._stack(model.model.norm.weight)
        self.embedding = self._stack(model.model.embed_tokens.weight)
        tied = model.lm_head.weight is model.model.embed_tokens.weight
        self.head = self.embedding if tied else self._stack(model.lm_head.weight)
        plan = {name: self._tensors[name] for name, _ in model.named_parameters()}  # in the model's order
        first = Weights.of_parts(plan, self._parts[0])
        rest = (Weights.of_parts(plan, parts, first.fingerprint) for parts in self._parts[1:])
        self.weights: list[Weights] = [first, *rest]
        for weights in self.weights:
            weights.known_rms = first.known_rms  # they have one base

    def _layer(self, layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        normed = hasattr(attention, "q_norm")
        return Layer(
            norm=self._stack(layer.input_layernorm.weight),
            qkv=self._stack(*(p.weight for p in projections)),
            bias=None if projections[0].bias is None else self._stack(*(p.bias for p in projections)),
            heads_norm=(self._stack(attention.q_norm.weight), self._stack(attention.k_norm.weight)) if normed else None,
            out=self._stack(attention.o_proj.weight),
            mlp_norm=self._stack(layer.post_attention_layernorm.weight),
            gate_up=self._stack(mlp.gate_proj.weight, mlp.up_proj.weight),
            down=self._stack(mlp.down_proj.weight),
        )

    def _stack(self, *parameters: torch.Tensor) -> torch.Tensor:
        """Storage for all copies of the parameters, one below the other: (C, sum of rows, ...), set to the base."""
        base = torch.cat([parameter.detach() for parameter in parameters]).to(self.device)
        live = base.expand(self.copies, *base.shape).contiguous()
        row = 0
        for parameter in parameters:
            name, rows = self._names[id(parameter)], slice(row, row + len(parameter))
            tensor = Tensor(name, tuple(parameter.shape), str(parameter.dtype).removeprefix("torch."))
            self._tensors[name] = tensor
            for copy, parts in enumerate(self._parts):
                parts.append(Part(tensor.segment(), live[copy, rows].view(-1), base[rows].view(-1)))
            row += len(parameter)
        return live

    def rotary(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, (positions, size) each, in the dtype of the weights, as the model's own module gives them."""
        at = torch.arange(positions)[None]
        cos, sin = self._rotary.to("cpu")(torch.zeros(1, dtype=self.dtype), at)
        return cos[0].to(self.device).contiguous(), sin[0].to(self.device).contiguous()

    def decode(
        self, ids: torch.Tensor, state: Cache, positions: torch.Tensor, lengths: torch.Tensor, whole: bool
    ) -> torch.Tensor:
        """One token for every slot of every copy.

        Args:
            ids, positions, lengths: (C * B,) int32: the tokens, their positions, how many positions they see, 0 for slots
                that are not in use.
            whole: compute all copies, those without a slot in use too.

        Returns:
            logits, (C * B, vocabulary), in the dtype of the weights; of copies without a slot in use they mean nothing.
        """
        hidden = self.embedding.view(-1, self.embedding.shape[-1])[state.vocabulary + ids]
        busy = None if whole else lengths.view(self.copies, -1).amax(1).clamp_(max=1)
        delta = None
        for layer, (keys, values) in zip(self.layers, state.layers(), strict=True):
            query = self._queries(layer, hidden, delta, state, state.every, positions, keys, values, busy)
            seen = self._ops.attend(query, keys, values, lengths, self.scale)
            delta = self._rest(layer, hidden, seen, busy)
        normed = self._ops.add_norm(hidden, delta, self.norm, self.eps)
        return self._ops.product(normed, self.head, busy)

    def prefill(self, copy: int, ids: torch.Tensor, state: Cache, slots: torch.Tensor, start: int) -> torch.Tensor:
        """Run texts through one copy, so that the cache holds them.

        Args:
            ids: (R, S) token ids, at positions [start, start + S); earlier positions are in the cache.
            slots: (R,) int32.

        Returns:
            hidden states before the last norm, (R * S, width).
        """
        rows, length = ids.shape
        at = torch.arange(start, start + length, device=self.device, dtype=torch.int32).repeat(rows)
        row_slots = slots.repeat_interleave(length)
        hidden = self.embedding[copy][ids.view(-1)]
        mask = causal_lower_right(length, start + length)
        groups = self.heads // self.key_heads
        delta = None
        for stacked, (keys, values) in zip(self.layers, state.layers(), strict=True):
            layer = stacked.of(copy)
            query = self._queries(layer, hidden, delta, state, row_slots, at, keys, values)
            query = query.view(rows, length, self.heads, self.size).transpose(1, 2)
            key, value = (x[slots.long(), :, : start + length].repeat_interleave(groups, 1) for x in (keys, values))
            seen = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
            delta = self._rest(layer, hidden, seen.transpose(1, 2).reshape(rows * length, -1))
        assert delta is not None
        return hidden.add_(delta)

    def logits(self, copy: int, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states of one copy: (n, width) -> (n, vocabulary). `hidden` may be overwritten."""
        normed = self._ops.add_norm(hidden, None, self.norm[copy : copy + 1], self.eps)
        return self._ops.product(normed, self.head[copy : copy + 1])

    def _queries(
        self,
        layer: Layer,
        hidden: torch.Tensor,
        delta: torch.Tensor | None,
        state: Cache,
        slots: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        busy: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Add what the layer before gave, store this layer's keys and values, return its queries."""
        normed = self._ops.add_norm(hidden, delta, layer.norm, self.eps)
        qkv = self._ops.product(normed, layer.qkv, busy)
        query: torch.Tensor = self._ops.rope_and_store(
            qkv, layer.bias, layer.heads_norm, self.eps, state.cos, state.sin, slots, positions, keys, values
        )
        return query

    def _rest(
        self, layer: Layer, hidden: torch.Tensor, seen: torch.Tensor, busy: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What follows attention; the last product is not added yet."""
        normed = self._ops.add_norm(hidden, self._ops.product(seen, layer.out, busy), layer.mlp_norm, self.eps)
        wide = self._ops.silu_multiply(self._ops.product(normed, layer.gate_up, busy))
        return self._ops.product(wide, layer.down, busy)


class Cache:
    """Keys and values of every slot of every copy, and the turns of every position.

    Args:
        model: whose layers.
        slots: C * B.
        room: positions per slot.
    """

    def __init__(self, model: StackedModel, slots: int, room: int) -> None:
        shape = (2, len(model.layers), slots, model.key_heads, room, model.size)
        self.whole = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.every = torch.arange(slots, dtype=torch.int32, device=model.device)
        # Where the embedding of each slot's copy begins, in rows.
        self.vocabulary = self.every.long() // (slots // model.copies) * model.embedding.shape[1]
        self.room = room
        self.cos, self.sin = model.rotary(room)

    def layers(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(keys, values) of each layer, (slots, key heads, room, size) each."""
        return zip(self.whole[0], self.whole[1], strict=True)

    def share(self, source: int, slots: torch.Tensor, length: int) -> None:
        """Copy the first positions of one slot to others."""
        self.whole[:, :, slots.long(), :, :length] = self.whole[:, :, source, None, :, :length]


def check(model: Any) -> None:
    """Raise `UserError` for a model that this forward pass would compute wrongly."""
    settings = model.config
    name = f'model type "{settings.model_type}"'
    if settings.model_type not in FAMILIES:
        raise UserError(
            f'{name} is not one the stacked engine knows ({", ".join(FAMILIES)}); use engine "transformers"'
        )
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    turns = (getattr(settings, "rope_parameters", None) or getattr(settings, "rope_scaling", None) or {}).get(
        "rope_type"
    )
    reasons = {
        f'activation "{settings.hidden_act}"': settings.hidden_act != "silu",
        "a bias on an output or gated layer": attention.o_proj.bias is not None or mlp.down_proj.bias is not None,
        "sliding windows": _window(settings),
        f'rotary positions of type "{turns}"': turns not in (None, "default", "linear", "llama3", "yarn"),
        "a head size that is no power of two": attention.head_dim & (attention.head_dim - 1) != 0,
    }
    for reason, bad in reasons.items():
        if bad:
            raise UserError(
                f'{name} has {reason}, which the stacked engine does not compute; use engine "transformers"'
            )


def _window(settings: Any) -> bool:
    kinds = set(getattr(settings, "layer_types", None) or ())
    if kinds:
        return kinds != {"full_attention"}
    return bool(getattr(settings, "sliding_window", None)) and getattr(settings, "use_sliding_window", True)
