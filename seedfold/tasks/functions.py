"""A user's function, named as FILE.py:FUNCTION or package.module:FUNCTION."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from seedfold.errors import UserError
from seedfold.tasks.generate import hint

Function = Callable[..., Any]


def load(spec: str, setting: str = "task.reward") -> tuple[ModuleType, Function]:
    """Import the file or module and find the function; all that can go wrong is a `UserError`."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UserError(f'"{setting}" is "{spec}"; write FILE.py:FUNCTION or package.module:FUNCTION')
    module = _import(place, spec, setting)
    function = getattr(module, name, None)
    if function is None:
        here = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f'"{setting}" is "{spec}", but "{place}" has no function "{name}"; {hint(name, here)}')
    if not callable(function):
        raise UserError(f'"{setting}" is "{spec}", but "{name}" is a {type(function).__name__}; name a function')
    return module, function


def digest(module: ModuleType) -> str:
    """16 hex digits that stand for the module's source text; empty where it has none."""
    file = getattr(module, "__file__", None)
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest() if file else ""


def reason(error: BaseException) -> str:
    """The exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _import(place: str, spec: str, setting: str) -> ModuleType:
    file = Path(place).resolve()
    is_file = place.endswith(".py")
    if is_file and not file.is_file():
        raise UserError(f'"{setting}" is "{spec}", but the file "{place}" does not exist; check the path')
    # As when Python runs a script: the modules beside it can be imported. Last, so that they shadow nothing.
    folder = str(file.parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return _import_file(file) if is_file else importlib.import_module(place)
    except ModuleNotFoundError as error:
        if not is_file and error.name and (place == error.name or place.startswith(error.name + ".")):
            raise UserError(f'"{setting}" is "{spec}", but there is no module "{place}"; check the name') from None
        raise _failed(place, setting, error) from None
    except (Exception, SystemExit) as error:  # the user's code: whatever it raises is reported, sys.exit included
        raise _failed(place, setting, error) from None


def _import_file(file: Path) -> ModuleType:
    name = f"seedfold_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up while it runs
    spec.loader.exec_module(module)
    return module


def _failed(place: str, setting: str, error: BaseException) -> UserError:
    line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    return UserError(f'"{setting}": importing "{place}" fails{line} with {reason(error)}; mend it and run again')
