"""Populations, racing and votes."""

import pytest

from seedfold import UserError, config
from seedfold.recipe import Base
from seedfold.search import racing
from seedfold.search.population import SEED_BITS, draw
from seedfold.search.vote import majority, vote
from seedfold.tasks.base import Grade

BASE = Base("m", "", "f" * 32)


def population(**settings: object) -> list[tuple[int, float]]:
    chosen = config.Search(**{"votes": (1,), **settings})  # type: ignore[arg-type]
    return [(recipe.terms[0].seed, recipe.terms[0].scale) for recipe in draw(chosen, BASE, "bfloat16")]


def test_seeds_differ_and_sigmas_are_taken_in_turn() -> None:
    drawn = population(candidates=7, sigmas=(1e-3, 2e-3))
    assert len({seed for seed, _ in drawn}) == 7
    assert [scale for _, scale in drawn] == [1e-3, 2e-3, 1e-3, 2e-3, 1e-3, 2e-3, 1e-3]
    assert all(0 <= seed < 2**SEED_BITS for seed, _ in drawn)


def test_a_larger_population_begins_with_the_smaller_one() -> None:
    assert population(candidates=20)[:5] == population(candidates=5)
    assert population(candidates=5, seed=1) != population(candidates=5)


def test_antithetic_pairs_share_the_noise_and_differ_in_sign() -> None:
    drawn = population(candidates=6, sigmas=(1e-3, 2e-3), antithetic=True)
    for (seed, scale), (other, opposite) in zip(drawn[::2], drawn[1::2], strict=True):
        assert (seed, scale) == (other, -opposite)
    assert [scale for _, scale in drawn[::2]] == [1e-3, 2e-3, 1e-3]


def test_unknown_family() -> None:
    with pytest.raises(UserError, match=r'"search.family" is "cauchy"; use one of rademacher, gaussian'):
        population(family="cauchy")


def test_racing_halves_and_doubles() -> None:
    rounds = racing.schedule(candidates=64, examples=100, block=16, keep=0.5, finalists=4)
    assert rounds == [(64, 16), (32, 32), (16, 64), (8, 100)]
    assert racing.evaluations(rounds) == 64 * 16 + 32 * 16 + 16 * 32 + 8 * 36


def test_racing_keeps_the_finalists() -> None:
    assert racing.schedule(10, 40, 10, 0.5, finalists=8) == [(10, 10), (8, 20), (8, 40)]
    assert racing.schedule(3, 40, 10, 0.5, finalists=8) == [(3, 10), (3, 20), (3, 40)]


def test_one_block_is_no_race() -> None:
    assert racing.schedule(10, 20, 32, 0.5, 2) == [(10, 20)]


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["a", "b", "b"], "b"),
        (["b", "a", "a", "b"], "b"),  # a tie goes to the answer of the best voter
        ([None, "a", None], "a"),
        ([None, None], None),
        ([], None),
    ],
)
def test_majority(answers: list[str | None], winner: str | None) -> None:
    assert majority(answers) == winner


def test_a_vote_is_worth_what_its_answer_is_worth() -> None:
    right, wrong = Grade(1.0, 1.0, "7"), Grade(0.0, 0.0, "8")
    assert vote([wrong, right, right]) == right
    assert vote([wrong, right]) == wrong
    silent = Grade(0.0, 1.0, None)
    assert vote([silent, right]) == right
    assert vote([silent, silent]) == silent
