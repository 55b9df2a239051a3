"""Recipes: a model as a base and a list of (family, seed, scale) terms, with its algebra and its file format.

Candidates, merges, members of a vote and folded models are all recipes. Nothing here touches weights or imports torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from seedfold.errors import UserError

FORMAT = "seedfold.recipe/1"


class Term(NamedTuple):
    """One direction: scale times the noise that (family, seed) names. Each (family, seed) is an axis of its own."""

    family: str
    seed: int
    scale: float


@dataclass(frozen=True)
class Base:
    """A pretrained checkpoint. The fingerprint of its weights identifies it; name and revision say where to find it."""

    name: str
    revision: str
    fingerprint: str


@dataclass(frozen=True)
class Recipe:
    """A model of a few bytes.

    Attributes:
        base: the checkpoint that the terms are added to.
        terms: added in this order, in float32, before one rounding.
        include, exclude: patterns (`fnmatch`) of checkpoint tensor names: which tensors the terms perturb.
        scale: "absolute" (a term's scale is the noise's standard deviation) or "rms" (times the tensor's root mean
            square, taken from the base).
        dtype: of the rebuilt weights.
        rounding: "nearest" or "dither".
        source: where the recipe came from (study, method, evaluations spent); not part of its identity.
    """

    base: Base
    terms: tuple[Term, ...] = ()
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    scale: str = "absolute"
    dtype: str = "bfloat16"
    rounding: str = "nearest"
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    def __post_init__(self) -> None:
        # Plain types, so that equal recipes have equal keys and can be written.
        terms = tuple(Term(str(family), int(seed), float(scale)) for family, seed, scale in self.terms)
        object.__setattr__(self, "terms", terms)
        for term in self.terms:
            if not math.isfinite(term.scale):
                raise UserError(f"scale of seed {term.seed} is {term.scale}; give a finite number")
            if not 0 <= term.seed < 2**64:
                raise UserError(f"seed {term.seed} is no unsigned 64-bit number; give one from 0 to 2**64 - 1")

    # Identity

    @property
    def key(self) -> str:
        """32 hex digits that stand for the model this recipe makes: equal models by construction have equal keys."""
        content = self.to_dict()
        del content["source"], content["base"]["name"], content["base"]["revision"]
        return hashlib.blake2b(_canonical(content), digest_size=16).hexdigest()

    @property
    def dither_seed(self) -> int:
        """Seed of the rounding draw: a digest of the terms, so that different recipes are rounded independently."""
        digest = hashlib.blake2b(_canonical([list(term) for term in self.terms]), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    # Algebra, in coefficient space: every (family, seed) is an orthonormal axis

    @property
    def coefficients(self) -> dict[tuple[str, int], float]:
        """(family, seed) -> summed scale."""
        total: dict[tuple[str, int], float] = {}
        for family, seed, scale in self.terms:
            total[family, seed] = total.get((family, seed), 0.0) + scale
        return total

    def __add__(self, other: Recipe) -> Recipe:
        return combine([self, other], [1.0, 1.0])

    def __sub__(self, other: Recipe) -> Recipe:
        return combine([self, other], [1.0, -1.0])

    def __mul__(self, factor: float) -> Recipe:
        return combine([self], [factor])

    __rmul__ = __mul__

    def inner(self, other: Recipe) -> float:
        """Inner product of the two steps in coefficient space: the sum over shared axes of scale times scale.

        It is the expected inner product per weight in weight space, since independent seeds are orthogonal there in
        expectation; `seedfold.weights.sketch` estimates the realised one.
        """
        _same_space(self, other)
        mine, theirs = self.coefficients, other.coefficients
        return math.fsum(scale * theirs[axis] for axis, scale in mine.items() if axis in theirs)

    def norm(self) -> float:
        """Root of the inner product with itself: the step's root mean square per perturbed weight, in expectation."""
        return math.sqrt(self.inner(self))

    def cosine(self, other: Recipe) -> float:
        """Cosine of the two steps in coefficient space; 0 where one of them is the base."""
        inner, norms = self.inner(other), self.norm() * other.norm()
        return inner / norms if norms else 0.0

    # File

    def to_dict(self) -> dict[str, Any]:
        """The file's content, in plain JSON types."""
        return {
            "format": FORMAT,
            "base": {"name": self.base.name, "revision": self.base.revision, "fingerprint": self.base.fingerprint},
            "tensors": {"include": list(self.include), "exclude": list(self.exclude), "scale": self.scale},
            "terms": [list(term) for term in self.terms],
            "dtype": self.dtype,
            "rounding": self.rounding,
            "source": dict(self.source),
        }

    def to_json(self) -> str:
        """The file's text; one term a line, so that files of hundreds of terms stay readable."""
        content = self.to_dict()
        terms = ",\n  ".join(json.dumps(term) for term in content.pop("terms"))
        head = json.dumps(content, indent=1, ensure_ascii=False)
        block = f"[\n  {terms}\n ]" if terms else "[]"
        return head[: head.rindex("\n}")] + f',\n "terms": {block}\n}}\n'

    @staticmethod
    def from_json(text: str, where: str = "recipe") -> Recipe:
        """Parse a recipe file's text; `where` names it in errors. Raises `UserError` on anything but a whole recipe."""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where} is not a whole JSON file ({error}); it may be truncated: write it again"
            ) from None
        if not isinstance(content, dict) or "format" not in content:
            raise UserError(f'{where} has no "format"; a recipe file states "format": "{FORMAT}"')
        if content["format"] != FORMAT:
            raise UserError(
                f'{where} has format "{content["format"]}", but this version reads "{FORMAT}"; update seedfold'
            )
        try:
            tensors = content["tensors"]
            return Recipe(
                base=Base(**{name: str(content["base"][name]) for name in ("name", "revision", "fingerprint")}),
                terms=tuple(_term(item) for item in content["terms"]),
                include=_patterns(tensors["include"]),
                exclude=_patterns(tensors["exclude"]),
                scale=_choice(tensors["scale"], ("absolute", "rms")),
                dtype=_choice(content["dtype"], ("bfloat16", "float32", "float16")),
                rounding=_choice(content["rounding"], ("nearest", "dither")),
                source=dict(content.get("source", {})),
            )
        except KeyError as error:
            raise UserError(f"{where} has no field {error}; it may be truncated or edited: write it again") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{where} has a bad field ({error}); write it again") from None

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self.to_json(), encoding="utf-8")
        os.replace(partial, path)

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Read a recipe file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'recipe file "{path}" cannot be read ({error}); give the path of a recipe file') from None
        return Recipe.from_json(text, f'recipe file "{path}"')


def combine(recipes: Sequence[Recipe], weights: Sequence[float]) -> Recipe:
    """The weighted sum of steps on one base: axes in order of first appearance, zero coefficients dropped.

    Raises:
        UserError: recipes of different bases or tensors, an empty list, or weights that are not one finite number each.
    """
    if not recipes or len(recipes) != len(weights):
        raise UserError(f"{len(weights)} weights were given for {len(recipes)} recipes; give one weight per recipe")
    if not all(map(math.isfinite, weights)):
        raise UserError(f"weights are {list(weights)}; give one finite number per recipe")
    total: dict[tuple[str, int], float] = {}
    for recipe, weight in zip(recipes, weights, strict=True):
        _same_space(recipes[0], recipe)
        for axis, scale in recipe.coefficients.items():
            total[axis] = total.get(axis, 0.0) + weight * scale
    terms = tuple(Term(family, seed, scale) for (family, seed), scale in total.items() if scale != 0.0)
    return replace(recipes[0], terms=terms, source={})


def _same_space(one: Recipe, other: Recipe) -> None:
    if one.base.fingerprint != other.base.fingerprint:
        raise UserError(
            f"recipes are on different bases, {one.base.fingerprint} ({one.base.name}) and "
            f"{other.base.fingerprint} ({other.base.name}); combine recipes of one base"
        )
    for name in ("include", "exclude", "scale", "dtype", "rounding"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            raise UserError(f'recipes differ in "{name}", {mine!r} and {theirs!r}; combine recipes that agree in it')


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _term(item: Iterable[Any]) -> Term:
    family, seed, scale = item
    if not isinstance(family, str) or isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"term {item!r} is not [family, seed, scale]")
    return Term(family, seed, float(scale))


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{value!r} is no list of patterns")
    return tuple(value)


def _choice(value: Any, names: tuple[str, ...]) -> str:
    if value not in names:
        raise ValueError(f"{value!r} is none of {', '.join(names)}")
    return str(value)
