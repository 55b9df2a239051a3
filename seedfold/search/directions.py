"""The directions that a subspace combines: recipe files, folders of them, or terms written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seedfold import config
from seedfold.errors import UserError
from seedfold.noise import families
from seedfold.recipe import Base, Recipe, Term


def read(settings: config.Search, base: Base) -> list[Sequence[Term]]:
    """One list of terms per direction, in the order given; of a folder, its recipes in the order of their names.

    Raises:
        UserError: no direction; what is neither a recipe file, a folder with some, nor terms; a recipe of another base or
            of other tensors or scale than the search has, under which its terms would mean something else.
    """
    if not settings.directions:
        raise UserError(
            '"search.family" is "subspace", but "search.directions" is empty; give recipe files, a folder of them, or terms'
            ' such as "rademacher 7 1.0, gaussian 9 -0.5"'
        )
    found: list[Sequence[Term]] = []
    for text in settings.directions:
        path = Path(text)
        if path.is_dir():
            files = sorted(path.glob("*.json"))
            if not files:
                raise UserError(f'"search.directions" has folder "{text}", which holds no .json; give recipe files')
            found += [_recipe(file, settings, base) for file in files]
        else:
            found.append(_recipe(path, settings, base) if text.endswith(".json") else _terms(text))
    return found


def _recipe(path: Path, settings: config.Search, base: Base) -> Sequence[Term]:
    recipe = Recipe.load(path)
    if recipe.base.fingerprint != base.fingerprint:
        raise UserError(
            f'"search.directions" has "{path}" on base {recipe.base.fingerprint} ({recipe.base.name}), but the model is '
            f"{base.fingerprint} ({base.name}); give recipes of this model"
        )
    for name in ("include", "exclude", "scale"):
        theirs, ours = getattr(recipe, name), getattr(settings, name)
        if theirs != ours:
            raise UserError(
                f'"search.directions" has "{path}" with {name} {theirs!r}, but "search.{name}" is {ours!r}; let them agree'
            )
    if not recipe.norm():
        raise UserError(f'"search.directions" has "{path}", which is the base itself; leave it out')
    return recipe.terms


def _terms(text: str) -> Sequence[Term]:
    found = []
    for item in text.split(","):
        family, *numbers = item.split() or [""]
        try:
            seed, scale = int(numbers[0]), float(numbers[1]) if len(numbers) == 2 else 1.0
            good = family in families() and len(numbers) < 3
        except (ValueError, IndexError):
            good = False
        if not good:
            raise UserError(
                f'"search.directions" has "{text}"; give a recipe file (.json), a folder of them, or terms such as '
                '"rademacher 7 1.0, gaussian 9 -0.5"'
            )
        found.append(Term(family, seed, scale))
    return found
