"""The registry of noise families. A family, or a kind of them such as all ranks, is one module and one registration."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from operator import index
from typing import TYPE_CHECKING, Protocol, cast

from seedfold.errors import UserError

if TYPE_CHECKING:
    import torch

_MODULES: dict[str, tuple[str, str]] = {}
"""Name -> module and argument, see `register`."""


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


class Names(tuple[str, ...]):
    """Names of families as one reads them, such as "low-rank-RANK"; "low-rank-8" is in them too."""

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            family(name)
        except UserError:
            return False
        return True


def register(name: str, module: str, argument: str = "") -> None:
    """Add a family, or a kind of family of which a number or the like makes one.

    Args:
        name: the family's, or what the names of a kind have before the hyphen.
        module: the import path of a module that is a ``Family``, imported at first use. The module of a kind has a
            function ``of(text)`` instead, which makes the ``Family`` of what follows the hyphen or raises UserError.
        argument: for a kind: what the text is, in capitals, for messages.

    Raises:
        UserError: the name is empty or belongs to another module.
    """
    if not name or _MODULES.get(name, (module, argument)) != (module, argument):
        raise UserError(f"family name is {name!r}, which is empty or taken; give another one")
    _MODULES[name] = (module, argument)


def families() -> Names:
    """The registered names, in order of registration; of a kind, its name and what its argument is."""
    return Names(f"{name}-{argument}" if argument else name for name, (_, argument) in _MODULES.items())


def family(name: str) -> Family:
    """The family of that name, imported.

    Raises:
        UserError: no such family.
    """
    module, argument = _MODULES.get(name, ("", ""))
    if module and not argument:
        return cast(Family, import_module(module))
    for known, (module, argument) in _MODULES.items():
        if argument and name.startswith(f"{known}-"):
            return _made(module, name.removeprefix(f"{known}-"))
    raise UserError(f"family is {name!r}; give one of {', '.join(families())}")


@cache
def _made(module: str, text: str) -> Family:
    return cast(Family, import_module(module).of(text))


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
