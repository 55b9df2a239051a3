"""Splits are disjoint, fixed by seed and content, and never smaller than asked for."""

import random

import pytest

from seedfold import UserError, config
from seedfold.splits import needed, split
from seedfold.tasks.base import Example

SIZES = config.Splits(search=10, select=7, gate=3, test=5, seed=1)
EXAMPLES = [Example.of({"n": number}) for number in range(40)]


def ids(part: tuple[Example, ...]) -> list[str]:
    return [example.id for example in part]


def test_disjoint_and_of_the_sizes_asked_for() -> None:
    parts = split(EXAMPLES, SIZES)
    dealt = [ids(part) for part in (parts.search, parts.select, parts.gate, parts.test)]
    assert [len(part) for part in dealt] == [10, 7, 3, 5]
    assert len({example for part in dealt for example in part}) == needed(SIZES) == 25


def test_the_order_of_the_data_does_not_matter() -> None:
    shuffled = random.Random(0).sample(EXAMPLES, len(EXAMPLES))
    assert split(shuffled, SIZES) == split(EXAMPLES, SIZES)


def test_the_seed_does() -> None:
    assert ids(split(EXAMPLES, SIZES).test) != ids(split(EXAMPLES, config.Splits(10, 7, 3, 5, seed=2)).test)


def test_too_few_examples_are_refused_with_the_number_needed() -> None:
    with pytest.raises(UserError, match=r"the data has 24 different examples but the splits need 25"):
        split(EXAMPLES[:24], SIZES)
