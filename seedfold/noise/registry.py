"""The registry of noise families. A family is one module and one registration."""

from __future__ import annotations

from importlib import import_module
from operator import index
from typing import TYPE_CHECKING, Protocol, cast

from seedfold.errors import UserError

if TYPE_CHECKING:
    import torch

_MODULES: dict[str, str] = {}


class Family(Protocol):
    """What the module of a family defines.

    ``BLOCK`` is the number of consecutive weights that one generator call serves, a power of two.
    """

    BLOCK: int

    def fill(
        self,
        out: torch.Tensor,
        *,
        seed: int,
        tensor: str,
        first: int,
        stride: int,
        scale: float,
        shape: tuple[int, ...] | None,
    ) -> None:
        """Overwrite ``out`` with scale * noise, each product rounded once to float32.

        Args:
            out: float32, contiguous, shape (rows, columns), on any device; element (r, c) is the weight at flat index
                first + r * stride + c. ``first``, ``stride`` and ``columns`` are multiples of ``BLOCK``.
            seed: 64-bit unsigned.
            tensor: checkpoint name.
            scale: absolute; exactly a float32.
            shape: the full tensor's shape where the caller knows it. A family that cannot do without raises UserError.
        """
        ...


def register(name: str, module: str) -> None:
    """Add a family: ``module`` is the import path of a module that is a ``Family``. It is imported at first use.

    Raises:
        UserError: the name is empty or belongs to another module.
    """
    if not name or _MODULES.get(name, module) != module:
        raise UserError(f"family name is {name!r}, which is empty or taken; give another one")
    _MODULES[name] = module


def families() -> tuple[str, ...]:
    """The registered names, in order of registration."""
    return tuple(_MODULES)


def family(name: str) -> Family:
    """The family of that name, imported.

    Raises:
        UserError: no such family.
    """
    if name not in _MODULES:
        raise UserError(f"family is {name!r}; give one of {', '.join(_MODULES)}")
    return cast(Family, import_module(_MODULES[name]))


def check_seed(seed: int, field: str = "seed") -> int:
    """The seed as a Python int.

    Raises:
        UserError: it is outside [0, 2**64).
    """
    try:
        number = index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**64:
        raise UserError(f"{field} is {seed!r}; give an integer in [0, 2**64)")
    return number
