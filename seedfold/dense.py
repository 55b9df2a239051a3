"""Dense scores: log-probabilities of the base's own sampled answers, for a prefill per candidate and no decoding.

A graded greedy answer is one noisy bit per example. Here the base draws S answers to each example once, they are graded,
and a candidate scores the weighted sum of their log-probabilities in its model:

    reference    weight 1 / (number of right answers) on the right ones: is what is right more probable?
    advantage    weight (reward − the example's mean reward) / S: is right more probable against wrong? The gradient of the
                 expected reward at the base, estimated by REINFORCE with the mean as its baseline (Williams 1992)

Both are smooth in the weights and reliable, but they do not measure quite what is graded; what they predict is measured by
`benchmarks/dense.py`. Examples that give every weight 0 say nothing and are left out. Log-probabilities are kept in a
journal of their own in the study's folder, a recipe at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seedfold.engines.base import Engine, Prompt
from seedfold.errors import UserError
from seedfold.evaluate import Evaluator
from seedfold.journal import Journal, Row
from seedfold.recipe import Recipe
from seedfold.tasks.base import Example, Message

if TYPE_CHECKING:
    from seedfold.config import Config

Array = NDArray[np.float64]

KINDS = ("reference", "advantage")
FOLDER = "dense"
"""Where the log-probabilities are, below the study's folder."""


@dataclass(frozen=True)
class Text:
    """One answer of the base: of which example (its place), and its weight of each kind."""

    example: int
    sample: int
    tokens: tuple[int, ...]
    weights: dict[str, float]


@dataclass(frozen=True)
class Bank:
    """The base's graded answers to n examples. answers, tokens: what drawing them cost."""

    examples: Sequence[Example]
    texts: list[Text]
    answers: int
    tokens: int

    def of(self, kind: str) -> Bank:
        """The same with only the texts that this score weighs."""
        return replace(self, texts=[text for text in self.texts if text.weights[kind]])

    def informative(self, kind: str) -> NDArray[np.intp]:
        """Places of the examples that have a weight that is not 0."""
        return np.array(sorted({text.example for text in self.of(kind).texts}), dtype=np.intp)


def score(
    evaluator: Evaluator,
    config: Config,
    kind: str,
    examples: Sequence[Example],
    base: Recipe,
    candidates: Sequence[Recipe],
) -> tuple[Bank, Array]:
    """The base's answers, and (1 + candidates, examples that tell) scores by them, the base's first.

    Raises:
        UserError: fewer than two examples tell right from wrong.
    """
    assert evaluator.journal is not None
    evaluator.progress.enter("answers of the base")
    bank = draw(evaluator, base, examples, config.fold.samples, config.engine.temperature).of(kind)
    if len(bank.informative(kind)) < 2:
        raise UserError(
            f'the score is "{kind}", but the base answers no two examples of search in a way that tells right from wrong; '
            'use reward, more "fold.samples" or a higher "engine.temperature"'
        )
    evaluator.progress.enter("log-probabilities")
    return bank, scores(bank, logprobs(evaluator, bank, [base, *candidates], evaluator.journal.folder), kind)


def draw(evaluator: Evaluator, base: Recipe, examples: Sequence[Example], samples: int, temperature: float) -> Bank:
    """Have the base answer each example `samples` times, and weigh the answers. Equal texts of an example are one.

    Raises:
        UserError: the chat template does not show an answer as it is, so that its tokens cannot be told.
    """
    texts: list[Text] = []
    lines = evaluator.sampled(base, examples, samples, temperature, 1.0)
    for place, (example, rows) in enumerate(zip(examples, lines, strict=True)):
        rewards = np.array([row.reward for row in rows])
        best = rewards >= rewards.max() if rewards.max() > 0 else np.zeros(len(rows), dtype=bool)
        merged: dict[str, tuple[int, dict[str, float]]] = {}
        for row, reward, right in zip(rows, rewards, best, strict=True):
            sample, weights = merged.setdefault(row.completion, (row.sample, dict.fromkeys(KINDS, 0.0)))
            weights["reference"] += float(right) / max(1, int(best.sum()))
            weights["advantage"] += float(reward - rewards.mean()) / samples
        for completion, (sample, weights) in merged.items():
            if not completion.strip() or not any(weights.values()):
                continue
            tokens = continuation(evaluator.engine, evaluator.task.messages(example), completion)
            if tokens is None:
                raise UserError(
                    f'a dense score needs the tokens of an answer, which the chat template of "{evaluator.engine.name}" '
                    "does not show as it is; use reward"
                )
            texts.append(Text(place, sample, tokens, weights))
    return Bank(examples, texts, sum(map(len, lines)), sum(row.tokens for line in lines for row in line))


def logprobs(evaluator: Evaluator, bank: Bank, recipes: Sequence[Recipe], folder: Path) -> Array:
    """(recipes, texts) natural-log probabilities of the bank's texts; what is known is not computed again."""
    assert evaluator.journal is not None
    table = np.zeros((len(recipes), len(bank.texts)))
    prompts: list[Prompt] = [evaluator.prompt(bank.examples[text.example]) for text in bank.texts]
    tails = [text.tokens for text in bank.texts]
    places = {(bank.examples[text.example].id, text.sample): i for i, text in enumerate(bank.texts)}
    with Journal.open(folder / FOLDER, evaluator.journal.config) as journal:
        for number, recipe in enumerate(recipes):
            rows = journal.rows(recipe.key)
            known = {(row.example, row.sample) for row in rows}
            missing = {place: i for place, i in places.items() if place not in known}
            if missing:
                evaluator.engine.become(recipe)
                asked = list(missing.values())
                found = evaluator.engine.logprobs([prompts[i] for i in asked], [tails[i] for i in asked])
                fresh = [
                    Row(recipe.key, key, sample, value, value, None, "", len(prompts[i].tokens), 0, "stop")
                    for ((key, sample), i), value in zip(missing.items(), map(sum, found), strict=True)
                ]
                journal.add_recipe(recipe.key, recipe.to_json())
                journal.record(fresh)
                rows += fresh
            for row in rows:
                if (place := places.get((row.example, row.sample))) is not None:
                    table[number, place] = row.reward
    return table


def scores(bank: Bank, table: Array, kind: str) -> Array:
    """(recipes, informative examples) weighted sums of log-probabilities `table` (recipes, texts)."""
    places = {place: column for column, place in enumerate(bank.informative(kind).tolist())}
    found = np.zeros((len(table), len(places)))
    for number, text in enumerate(bank.texts):
        if text.weights[kind]:
            found[:, places[text.example]] += text.weights[kind] * table[:, number]
    return found


def continuation(engine: Engine, messages: Sequence[Message], text: str) -> tuple[int, ...] | None:
    """Token ids of `text` as the assistant's answer, by the chat template alone; None where that does not show it.

    An empty answer tells what the template puts before and behind it.
    """
    prompt = engine.encode(messages)
    empty, whole = (
        engine.encode([*messages, {"role": "assistant", "content": content}]) for content in ("", text.strip())
    )
    behind = empty[len(prompt) :]
    end = len(whole) - len(behind)
    if empty[: len(prompt)] != prompt or whole[: len(prompt)] != prompt or whole[end:] != behind or end <= len(prompt):
        return None
    return whole[len(prompt) : end]
