"""What settings are made of: fields with their documentation and a check. `seedfold.config` puts them together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any


def setting(default: Any, doc: str, check: Callable[[Any], str | None] | None = None) -> Any:
    """A dataclass field with its documentation and a check that returns what is wanted, or None when satisfied."""
    metadata = {"doc": doc, "check": check}
    if isinstance(default, (list, dict, tuple)):
        value = tuple(default) if isinstance(default, list) else default
        return dataclasses.field(default_factory=lambda: value, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def at_least(low: float) -> Callable[[Any], str | None]:
    return lambda value: None if math.isfinite(value) and value >= low else f"use a number of at least {low:g}"


def above_zero(value: float) -> str | None:
    return None if math.isfinite(value) and value > 0 else "use a finite number above 0"


def fraction(value: float) -> str | None:
    return None if 0 < value < 1 else "use a number between 0 and 1"


def seed64(value: int) -> str | None:
    return None if 0 <= value < 2**64 else "use a whole number from 0 to 2**64 - 1"


def one_of(*names: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in names else "use one of " + ", ".join(names)


def each(check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """Every item passes, and there is at least one."""

    def check_all(values: Sequence[Any]) -> str | None:
        if not values:
            return "give at least one value"
        return next((wanted for value in values if (wanted := check(value))), None)

    return check_all


def not_empty(value: str) -> str | None:
    return None if value.strip() else "give a name"


def none_empty(values: Sequence[str]) -> str | None:
    return None if all(values) else "leave out the empty one"
