"""Sampled answers that depend on nothing else that is sampled: each (example, sample) has random numbers of its own."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from seedfold.engines.base import Decoding


def draws(key: str, sample: int, count: int) -> np.ndarray:
    """float64 (count,) in [0, 1): a Philox stream whose key is a digest of the example and the sample number."""
    digest = hashlib.blake2b(f"{key}\0{sample}".encode(), digest_size=16).digest()
    stream = np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64))
    return np.random.Generator(stream).random(count)


def choose(logits: torch.Tensor, drawn: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Invert the cumulative distribution of the next token: logits (n, vocabulary), drawn (n,) -> token ids (n,).

    With a nucleus, the least probable tokens beyond `decoding.top_p` are cut.
    """
    chances = (logits.float() / decoding.temperature).softmax(-1)
    tokens = None
    if decoding.top_p < 1:
        chances, tokens = torch.sort(chances, dim=-1, descending=True, stable=True)
    sums = chances.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    if tokens is not None:
        total = sums.gather(1, (sums < decoding.top_p * total).sum(-1, keepdim=True).clamp_(max=sums.shape[1] - 1))
    found = torch.searchsorted(sums, drawn.to(sums.device)[:, None] * total, right=True).clamp_(max=sums.shape[1] - 1)
    return (found if tokens is None else tokens.gather(1, found))[:, 0]
