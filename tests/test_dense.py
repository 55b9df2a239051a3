"""Dense scores by hand, and their tokens on the real tokenizer."""

import numpy as np
import pytest

from seedfold.dense import Bank, Text, scores
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
