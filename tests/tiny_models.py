"""Tiny random models of several shapes, and a tokenizer whose text is the token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

VOCABULARY = 320


class IdTokenizer:
    """Text is token ids in decimal, with a space after each; there is no end token and no chat template."""

    eos_token_id = None

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return "".join(f"{token} " for token in tokens)

    def save_pretrained(self, folder: Any) -> None:
        """Nothing to save."""


def tiny_model(kind: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A random model of two or three layers. Its weights are large, so that its answers vary."""
    import transformers as hf

    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 100,
        "num_hidden_layers": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        # groups of 3 heads share keys and values; the head is the embedding
        "llama": (
            hf.LlamaForCausalLM,
            hf.LlamaConfig,
            {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True},
        ),
        # groups of 7, biases, a head of its own, an odd vocabulary
        "qwen2": (
            hf.Qwen2ForCausalLM,
            hf.Qwen2Config,
            {
                "hidden_size": 112,
                "num_attention_heads": 7,
                "num_key_value_heads": 1,
                "vocab_size": VOCABULARY + 11,
                "tie_word_embeddings": False,
            },
        ),
        # every layer sees the last 8 tokens
        "mistral": (
            hf.MistralForCausalLM,
            hf.MistralConfig,
            {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8},
        ),
        # some layers see the last 8 tokens, one sees all
        "gemma3": (
            hf.Gemma3ForCausalLM,
            hf.Gemma3TextConfig,
            {
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "head_dim": 16,
                "num_hidden_layers": 3,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
        ),
        # queries and keys normed over each head, the head size not that of the width
        "qwen3": (
            hf.Qwen3ForCausalLM,
            hf.Qwen3Config,
            {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True},
        ),
        "gpt2": (
            hf.GPT2LMHeadModel,
            hf.GPT2Config,
            {"num_attention_heads": 3},
        ),
        "gpt_neox": (
            hf.GPTNeoXForCausalLM,
            hf.GPTNeoXConfig,
            {"num_attention_heads": 3, "tie_word_embeddings": False},
        ),
    }
    model_class, config_class, own = kinds[kind]
    torch.manual_seed(0)
    model = model_class(config_class(**{**common, **own, **changes})).to(dtype).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # biases and norms start as zeros and ones; these matter
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
