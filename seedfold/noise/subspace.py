"""Subspace noise: a random combination of given directions, each a list of terms.

A seed of a subspace stands for one weight per direction. It is no family of the registry, for its numbers depend on the
directions as well: it *expands* to terms over the directions' own terms, and the recipe holds those. So engines need not
know it, a recipe needs no other file, and coefficient space sees which candidates overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from seedfold.errors import UserError
from seedfold.noise import values

FAMILY = "subspace"
"""What it is called where a family is named."""

TENSOR = "#subspace"
"""The weight of direction k is the gaussian noise at index k of a tensor of this name, which no checkpoint has."""

Term = tuple[str, int, float]


def expand(directions: Sequence[Sequence[Term]], seed: int, size: float) -> list[Term]:
    """The terms of the point that a seed picks: of norm |size|, uniformly distributed in direction if the given directions
    are orthogonal.

    Σ wₖ dₖ / ‖dₖ‖, with wₖ standard normal, scaled to the norm. Norms are in coefficient space, where each (family, seed)
    is an orthonormal axis, so a step is as large as one of another family's of the same σ. float64, in the order given.

    Args:
        directions: lists of (family, seed, scale); their lengths do not matter.
        seed: 64-bit unsigned.
        size: its sign is that of the whole step.

    Returns:
        (family, seed, scale), axes in order of first appearance, none of scale 0.

    Raises:
        UserError: no direction, one without a step, a seed outside its range, or a sum that vanishes.
    """
    if not directions:
        raise UserError("there are 0 directions for a subspace; give at least 1")
    drawn = values("gaussian", seed, TENSOR, 0, len(directions)).tolist()
    total: dict[tuple[str, int], float] = {}
    for number, (direction, weight) in enumerate(zip(directions, drawn, strict=True)):
        own: dict[tuple[str, int], float] = {}
        for family, axis, scale in direction:
            own[family, axis] = own.get((family, axis), 0.0) + scale
        length = _norm(own.values())
        if not length > 0:
            raise UserError(f"direction {number} of a subspace has no step; leave it out")
        for place, scale in own.items():
            total[place] = total.get(place, 0.0) + weight * (scale / length)
    length = _norm(total.values())
    if not length > 1e-9 * max(map(abs, drawn)):
        raise UserError(f"the directions of a subspace cancel under seed {seed}; leave out those that repeat others")
    return [(family, axis, size * (scale / length)) for (family, axis), scale in total.items() if scale]


def _norm(scales: Iterable[float]) -> float:
    return math.sqrt(math.fsum(scale * scale for scale in scales))
