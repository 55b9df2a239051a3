"""Bits per byte of models on the same scored bytes: Σ −log p(token) / (ln 2 · bytes), whatever the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seedfold import stats
from seedfold.engines.base import Engine, Prompt
from seedfold.recipe import Recipe
from seedfold.text.tokens import Windows

Array = NDArray[np.float64]

AT_ONCE = 64
"""Windows given to the engine at once: always the same ones together, so that the numbers are the same; and not all, for
an engine in another process must not be silent for long."""


@dataclass(frozen=True)
class Bits:
    """Bits per byte, and the difference to another model with its interval; None where a number is not finite."""

    value: float | None
    difference: float | None = None
    interval: tuple[float, float] | None = None


def logprobs(engine: Engine, recipe: Recipe, windows: Windows) -> Array:
    """(tokens,) natural-log probabilities of all scored tokens, window by window, in the recipe's model."""
    engine.become(recipe)
    found: list[float] = []
    for start in range(0, len(windows.windows), AT_ONCE):
        some = windows.windows[start : start + AT_ONCE]
        prompts = [Prompt(window.context, f"{start + i}") for i, window in enumerate(some)]
        for each in engine.logprobs(prompts, [window.scored for window in some]):
            found += each
    return np.array(found)


def mixture(members: Sequence[Array]) -> Array:
    """(tokens,) log of the members' mean probability of each token: the vote of models, as one model of text."""
    return np.asarray(np.logaddexp.reduce(np.stack(members), axis=0) - math.log(len(members)))


def by_document(scores: Array, windows: Windows) -> tuple[Array, Array]:
    """((documents,) bits, (documents,) bytes) of the documents that have something scored."""
    ends = np.cumsum([len(window.scored) for window in windows.windows])
    parts = np.split(scores, ends[:-1])
    bits: dict[int, float] = {}
    sizes: dict[int, int] = {}
    for window, part in zip(windows.windows, parts, strict=True):
        bits[window.document] = bits.get(window.document, 0.0) - float(part.sum()) / math.log(2)
        sizes[window.document] = sizes.get(window.document, 0) + window.bytes
    return np.array(list(bits.values())), np.array(list(sizes.values()), dtype=np.float64)


def bits(
    scores: Array,
    windows: Windows,
    base: Array | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Bits:
    """Bits per byte of (tokens,) log-probabilities, and what they are more than those of `base`.

    The interval resamples documents. A mean of bits over a mean of bytes varies, to first order, as the mean of
    difference − ratio · bytes, over the mean of bytes (the linearised ratio; Cochran, Sampling Techniques, 1977, 6.4).
    """
    needed, sizes = by_document(scores, windows)
    value = float(needed.sum() / sizes.sum())
    if not math.isfinite(value):
        return Bits(None)
    if base is None:
        return Bits(value)
    more = needed - by_document(base, windows)[0]
    difference = float(more.sum() / sizes.sum())
    if not math.isfinite(difference):
        return Bits(value)
    if not more.any():  # the base itself: nothing that another sample could change
        return Bits(value, difference)
    linear = difference + (more - difference * sizes) / sizes.mean()
    low, high = stats.bootstrap_mean(linear, level, resamples, seed)
    return Bits(value, difference, (low, high) if math.isfinite(low) and math.isfinite(high) else None)
