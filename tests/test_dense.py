"""Dense scores by hand, and their tokens on the real tokenizer."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seedfold.dense import Bank, Text, logprobs, scores
from seedfold.engines.base import Prompt
from seedfold.journal import Journal
from seedfold.recipe import Base, Recipe, Term
from seedfold.tasks.base import Example


def bank() -> Bank:
    """Example 0: right, wrong; example 1: all wrong, says nothing; example 2: right alone, which is no advantage."""
    examples = [Example.of({"prompt": str(i)}) for i in range(3)]
    texts = [
        Text(0, 1, (1,), {"reference": 1.0, "advantage": 0.25}),
        Text(0, 2, (2,), {"reference": 0.0, "advantage": -0.25}),
        Text(2, 1, (3,), {"reference": 1.0, "advantage": 0.0}),
    ]
    return Bank(examples, texts, 6, 60)


def test_scores_by_hand() -> None:
    table = np.array([[-1.0, -2.0, -4.0], [-3.0, -1.0, -8.0]])
    np.testing.assert_allclose(scores(bank(), table, "reference"), [[-1.0, -4.0], [-3.0, -8.0]])
    np.testing.assert_allclose(scores(bank(), table, "advantage"), [[0.25], [-0.5]])


@pytest.mark.parametrize(("kind", "places"), [("reference", [0, 2]), ("advantage", [0])])
def test_examples_that_say_nothing_are_left_out(kind: str, places: list[int]) -> None:
    assert bank().informative(kind).tolist() == places


class Counting:
    """An engine whose log-probability of a text is its first token, negative; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def become(self, recipe: Recipe) -> None:
        pass

    def logprobs(self, prompts: list[Prompt], tails: list[tuple[int, ...]]) -> list[list[float]]:
        assert len(prompts) == len(tails)
        self.asked.append([tail[0] for tail in tails])
        return [[-float(token) for token in tail] for tail in tails]


def test_only_texts_that_a_score_weighs_are_asked_and_none_twice(tmp_path: Path) -> None:
    recipe = Recipe(Base("m", "", "f"), (Term("rademacher", 1, 1e-3),), dtype="float32")
    with Journal.open(tmp_path, {}) as journal:
        engine = Counting()
        evaluator = SimpleNamespace(engine=engine, journal=journal, prompt=lambda example: Prompt((1, 2), example.id))
        told = [
            logprobs(evaluator, part, [recipe], tmp_path).tolist()
            for part in (bank().of("reference"), bank().of("advantage"), bank().of("advantage"), bank())
        ]
    assert told == [[[-1.0, -3.0]], [[-1.0, -2.0]], [[-1.0, -2.0]], [[-1.0, -2.0, -3.0]]]
    assert engine.asked == [[1, 3], [2]]
