"""The arms of a comparison of families: read from a config or the command line, and drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedfold.config import Config, Search, _build
from seedfold.errors import UserError
from seedfold.recipe import Base, Recipe
from seedfold.search.population import draw
from seedfold.settings import above_zero, at_least, each, not_empty, setting

LEAST = 4
"""Seeds of an arm: fewer have no best quarter."""


def _positive(values: Sequence[float]) -> str | None:
    return each(above_zero)(values) if values else None


@dataclass(frozen=True)
class Arm:
    """What is not given is that of [search]."""

    family: str = setting("", "noise family", not_empty)
    name: str = setting(
        "", "what it is called; by default the family, with scale and rounding where they are not usual"
    )
    sigmas: tuple[float, ...] = setting((), "sizes, from which search chooses one", _positive)
    norms: tuple[float, ...] = setting(
        (), "sizes in place of sigmas: norm of the step, as a share of the norm of the base's weights", _positive
    )
    scale: str = setting("", "absolute or rms")
    rounding: str = setting("", "nearest or dither")
    include: tuple[str, ...] = setting((), "patterns of tensor names to perturb")
    exclude: tuple[str, ...] = setting((), "patterns of tensor names to leave alone")
    directions: tuple[str, ...] = setting((), "subspace: recipe files, folders or terms")

    def search(self, whole: Search) -> Search:
        """The settings of a search, with this arm's in place of its own."""
        own = {name: value for name, value in vars(self).items() if name not in ("name", "norms") and value}
        if "directions" not in own and own["family"] != whole.family:
            own["directions"] = ()
        merged = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)} | own
        kept = {"votes": (1,), "racing": False, "antithetic": False, "candidates": LEAST}
        found = _build(Search, {**merged, **kept}, f"families.arms ({self.label})")
        assert isinstance(found, Search)
        return found

    @property
    def label(self) -> str:
        unusual = [word for word in (self.scale, self.rounding) if word not in ("", "absolute", "nearest")]
        return self.name or " ".join([self.family, *unusual])


@dataclass(frozen=True)
class Arms:
    """What [families] of a config holds."""

    seeds: int = setting(32, "seeds of each arm at each sigma", at_least(LEAST))
    norms: tuple[float, ...] = setting((), "those of arms that state neither sigmas nor norms", _positive)


@dataclass(frozen=True, eq=False)
class Cell:
    """One arm at one σ, drawn: the same seeds in all cells of a comparison."""

    arm: str
    sigma: float
    recipes: list[Recipe]


def read(chosen: Config, extra: Sequence[str] = (), only: Sequence[str] = ()) -> tuple[list[Arm], int]:
    """(arms, seeds): those of the config's [families], then those of the command line.

    Args:
        extra: arms as the command line has them, such as "gaussian sigmas=0.002,0.004 scale=rms".
        only: the names of the arms to keep; none: all.

    Raises:
        UserError: no arm, names that are not unique or not there, or grids of different lengths, which would not cost the
            same.
    """
    tree = dict(chosen.families)
    listed = tree.pop("arms", [])
    if not isinstance(listed, list) or not all(isinstance(item, Mapping) for item in listed):
        raise UserError(
            f'"families.arms" is {listed!r}; write [[families.arms]] and its fields below, once for each arm'
        )
    settings: Arms = _build(Arms, tree, "families")
    arms: list[Arm] = [_build(Arm, {"family": "", **item}, "families.arms") for item in listed]
    arms += [parse(text) for text in extra]
    arms = [arm if arm.sigmas or arm.norms else dataclasses.replace(arm, norms=settings.norms) for arm in arms]
    if both := [arm for arm in arms if arm.sigmas and arm.norms]:
        raise UserError(f'arm "{both[0].label}" has sigmas and norms; give one of them')
    names = [arm.label for arm in arms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f'two arms are called "{twice[0]}"; give them a name each')
    if unknown := [name for name in only if name not in names]:
        raise UserError(f'"--only" has "{unknown[0]}", which is no arm; use any of {", ".join(names)}')
    arms = [arm for arm in arms if arm.label in only or not only]
    if not arms:
        raise UserError("there is no arm to compare; write [[families.arms]] into the config, or give --arm gaussian")
    sizes = {arm.label: len(arm.norms or arm.search(chosen.search).sigmas) for arm in arms}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f'"{name}" {count}' for name, count in sizes.items())
        raise UserError(f"arms have different numbers of sizes ({told}); give all as many, so that they cost the same")
    return arms, settings.seeds


def parse(text: str) -> Arm:
    """An arm as the command line has it: a family, then field=value, lists with commas between."""
    family, *fields = text.split() or [""]
    tree: dict[str, Any] = {"family": family}
    kinds = {field.name: field.type for field in dataclasses.fields(Arm)}
    for item in fields:
        name, equals, value = item.partition("=")
        if not equals or name not in kinds:
            raise UserError(f'"--arm" has {item!r}; give field=value, the field any of {", ".join(kinds)}')
        if name in ("sigmas", "norms"):
            try:
                tree[name] = [float(number) for number in value.split(",")]
            except ValueError:
                raise UserError(f'"--arm" has {item!r}; give {name} as in {name}=0.002,0.004') from None
        else:
            tree[name] = value.split(",") if "tuple" in str(kinds[name]) else value
    found = _build(Arm, tree, "--arm")
    assert isinstance(found, Arm)
    return found


def sized(arm: Arm, unit: float) -> Arm:
    """The arm with sigmas, to three digits, in place of norms; `unit`: the norm of its step of σ = 1."""
    return dataclasses.replace(arm, norms=(), sigmas=tuple(float(f"{norm / unit:.3g}") for norm in arm.norms))


def drawn(arms: Sequence[Arm], chosen: Config, base: Base, dtype: str, seeds: int) -> list[Cell]:
    """All arms at all their sizes. A seed is the same at every size, so that more seeds or sizes keep what was answered."""
    cells = []
    for arm in arms:
        whole = arm.search(chosen.search)
        for sigma in whole.sigmas:
            one = dataclasses.replace(whole, sigmas=(sigma,), candidates=seeds)
            source = {"study": chosen.name, "method": "diagnose families", "arm": arm.label}
            cells.append(Cell(arm.label, sigma, draw(one, base, dtype, source)))
    return cells
