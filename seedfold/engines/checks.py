"""Checks that every engine makes: of the length of a text, and of whether it keeps its word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seedfold.engines.base import ALIGN, Decoding, Engine, Prompt
from seedfold.errors import UserError
from seedfold.recipe import Recipe


def check_length(engine: Engine, prompt: int, answer: int) -> None:
    """Refuse a prompt and an answer, in tokens, that the model has no positions for."""
    if engine.positions and prompt + answer > engine.positions:
        raise UserError(
            f"a prompt of {prompt} tokens and an answer of {answer} exceed the {engine.positions} positions of "
            f'model "{engine.name}"; shorten the prompts or lower "task.max_tokens"'
        )


def check_pairs(prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> None:
    """Refuse continuations that are not one for each prompt."""
    if len(prompts) != len(continuations):
        raise UserError(f"{len(continuations)} continuations were given for {len(prompts)} prompts; give one each")


def is_exact(engine: Engine, recipe: Recipe | None, vocabulary: int) -> bool:
    """Whether answers and scores are alike in any batch on this machine: probed with short random texts on the base.

    Args:
        recipe: what the engine is, and is made again.
        vocabulary: number of tokens.
    """
    engine.become(None)
    draw = np.random.Generator(np.random.PCG64(0))
    texts = [tuple(draw.integers(0, vocabulary, 3 + 3 * i).tolist()) for i in range(ALIGN + 3)]
    prompts = [Prompt(text, str(i)) for i, text in enumerate(texts)]
    tails = [tuple(reversed(text[:3])) for text in texts]
    decoding = Decoding(ALIGN + 2, temperature=1.0)
    scores = engine.logprobs(prompts, tails)
    answers = {answer.index: answer for batch in engine.generate(prompts, decoding) for answer in batch}
    alike = all(
        engine.logprobs([prompts[i]], [tails[i]])[0] == scores[i]
        and replace(next(engine.generate([prompts[i]], decoding))[0], index=i) == answers[i]
        for i in range(0, len(prompts), 6)
    )
    engine.become(recipe)
    return alike
