"""The population of RandOpt (Gan and Isola, 2026, arXiv:2603.12228): seeded perturbations around the base."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from seedfold import config
from seedfold.errors import UserError
from seedfold.noise import families, subspace
from seedfold.recipe import Base, Recipe, Term
from seedfold.search import directions

SEED_BITS = 53
"""Seeds stay below 2**53, so that every JSON reader keeps them whole."""


def draw(settings: config.Search, base: Base, dtype: str, source: Mapping[str, Any] | None = None) -> list[Recipe]:
    """N recipes of one term each, or of a subspace's terms. The first n of a larger population are the population of n.

    Sigmas are taken in turn. With `antithetic`, candidates 2i and 2i + 1 are plus and minus the same noise.
    """
    family = settings.family
    combined = family == subspace.FAMILY
    if not combined and family not in families():
        raise UserError(f'"search.family" is "{family}"; use one of {", ".join([*families(), subspace.FAMILY])}')
    if settings.directions and not combined:
        raise UserError(f'"search.directions" is given, but "search.family" is "{family}"; use family subspace')
    given = directions.read(settings, base) if combined else []
    recipes = []
    for number in range(settings.candidates):
        draws, sign = (number // 2, 1 - number % 2 * 2) if settings.antithetic else (number, 1)
        sigma = settings.sigmas[draws % len(settings.sigmas)]
        own = seed(settings.seed, draws)
        terms = subspace.expand(given, own, sign * sigma) if combined else [Term(family, own, sign * sigma)]
        recipes.append(
            Recipe(
                base=base,
                terms=tuple(Term(*term) for term in terms),
                include=settings.include,
                exclude=settings.exclude,
                scale=settings.scale,
                dtype=dtype,
                rounding=settings.rounding,
                source=dict(source or {}) | ({"subspace_seed": own} if combined else {}),
            )
        )
    return recipes


def sigma_of(recipe: Recipe, sigmas: Sequence[float]) -> float:
    """Which of the sigmas a candidate was drawn with: the one that is its size, which a subspace meets but for rounding."""
    size = recipe.norm()
    return min(sigmas, key=lambda sigma: abs(sigma - size))


def seed_of(recipe: Recipe) -> int:
    """The seed that a candidate was drawn with."""
    return int(recipe.source.get("subspace_seed", recipe.terms[0].seed))


def seed(root: int, number: int) -> int:
    """The seed of candidate `number` of the population that grows from `root`."""
    digest = hashlib.blake2b(f"{root}\0{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - SEED_BITS)
