"""The population of RandOpt (Gan and Isola, 2026, arXiv:2603.12228): seeded perturbations around the base."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from seedfold import config
from seedfold.errors import UserError
from seedfold.noise import families
from seedfold.recipe import Base, Recipe, Term

SEED_BITS = 53
"""Seeds stay below 2**53, so that every JSON reader keeps them whole."""


def draw(settings: config.Search, base: Base, dtype: str, source: Mapping[str, Any] | None = None) -> list[Recipe]:
    """N recipes of one term each. The first n of a larger population are the population of n.

    Sigmas are taken in turn. With `antithetic`, candidates 2i and 2i + 1 are plus and minus the same noise.
    """
    if settings.family not in families():
        raise UserError(f'"search.family" is "{settings.family}"; use one of {", ".join(families())}')
    recipes = []
    for number in range(settings.candidates):
        draws, sign = (number // 2, 1 - number % 2 * 2) if settings.antithetic else (number, 1)
        sigma = settings.sigmas[draws % len(settings.sigmas)]
        recipes.append(
            Recipe(
                base=base,
                terms=(Term(settings.family, seed(settings.seed, draws), sign * sigma),),
                include=settings.include,
                exclude=settings.exclude,
                scale=settings.scale,
                dtype=dtype,
                rounding=settings.rounding,
                source=dict(source or {}),
            )
        )
    return recipes


def seed(root: int, number: int) -> int:
    """The seed of candidate `number` of the population that grows from `root`."""
    digest = hashlib.blake2b(f"{root}\0{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - SEED_BITS)
