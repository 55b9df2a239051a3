"""Checks that every engine makes: of the length of a text, and of whether it keeps its word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seedfold.engines.base import ALIGN, Answer, Decoding, Engine, Prompt
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


def is_exact(engine: Engine, recipe: Recipe | None, vocabulary: int, crowd: int = 0) -> bool:
    """Whether answers and scores are alike in any batch on this machine: probed with random texts on the base.

    Short texts are answered together and alone, and scored. A crowd answers twice, in opposite orders: what goes wrong
    once in thousands of tokens, and only among many, shows there.

    Args:
        recipe: what the engine is, and is made again.
        vocabulary: number of tokens.
        crowd: texts of up to 128 tokens with answers of 192; 0: none, where they would take too long.
    """
    engine.become(None)
    draw = np.random.Generator(np.random.PCG64(0))

    def random_prompts(lengths: Sequence[int]) -> list[Prompt]:
        texts = [tuple(draw.integers(0, vocabulary, length).tolist()) for length in lengths]
        return [Prompt(text, str(i)) for i, text in enumerate(texts)]

    def answers(prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """In the order of the prompts."""
        found = [answer for batch in engine.generate(prompts, decoding) for answer in batch]
        return sorted(found, key=lambda answer: answer.index)

    prompts = random_prompts([3 + 3 * i for i in range(ALIGN + 3)])
    tails = [tuple(reversed(prompt.tokens[:3])) for prompt in prompts]
    decoding = Decoding(ALIGN + 2, temperature=1.0)
    scores, together = engine.logprobs(prompts, tails), answers(prompts, decoding)
    alike = all(
        engine.logprobs([prompts[i]], [tails[i]])[0] == scores[i]
        and replace(answers([prompts[i]], decoding)[0], index=i) == together[i]
        for i in range(0, len(prompts), 6)
    )
    if alike and crowd:
        prompts = random_prompts([16 + i % 113 for i in range(crowd)])
        decoding = Decoding(192)
        one, other = answers(prompts, decoding), answers(prompts[::-1], decoding)
        alike = all(replace(b, index=a.index) == a for a, b in zip(one, reversed(other), strict=True))
    engine.become(recipe)
    return alike
