"""Inside the sandbox: run one program of a model, call its functions, write what they returned. Run as a script.

Nothing here has to be trusted once the program runs. The program may change this module, write results of its own, or end
the process: all it can do is to give values, and right values are known only to the judge, in another sandbox. Imports are
few because each costs milliseconds of every run: json or typing cost as much as Python's start.

stdin: marshal of (program, after, seconds, memory, calls), calls being marshal of a list of (name, args, kwargs).
stdout: the line "ready" before the program starts, then a line of JSON for each call, see `encode`.
"""

from __future__ import annotations

import builtins
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE_BYTES = 8 << 20
OPEN_FILES = 64
MOST_ITEMS = 100_000
"""Taken of a generator or another iterable that is no container."""

ANSWER = "answer"
"""The module that the program becomes. Not "__main__": what stands under such a guard is not asked for."""


def main() -> None:
    results = os.dup(1)
    null = int(sys.argv[1])
    os.dup2(null, 1)  # what the program prints goes nowhere
    os.dup2(null, 2)
    program, after, seconds, memory, packed = marshal.loads(sys.stdin.buffer.read())
    calls = marshal.loads(packed)
    if "random" in program:  # the same program must earn the same, run after run
        import random

        random.seed(0)
    limit(seconds, memory)
    os.write(results, b"ready\n")
    module = type(sys)(ANSWER)
    sys.modules[ANSWER] = module  # dataclasses look their module up
    try:
        exec(compile(program, f"{ANSWER}.py", "exec", dont_inherit=True), module.__dict__)
        exec(compile(after, "setup.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException:  # SystemExit too: ending early is no way to pass
        os._exit(1)
    answer(module, calls, results)
    os._exit(0)


def answer(module: Any, calls: list[tuple[str, Any, Any]], results: int) -> None:
    """Make the calls in their order; each result is written at once, so that a later crash does not lose it."""
    values: list[Any] = []
    for name, args, kwargs in calls:
        try:
            function = find(module, name)
            values.append(None)
            values[-1] = function(*resolve(args, module, values), **resolve(kwargs, module, values))
            text = encode(values[-1])
        except BaseException as error:
            text = tagged("raised", hexed(type(error).__name__))
        data = text.encode("ascii") + b"\n"
        while data:
            data = data[os.write(results, data) :]


def limit(seconds: int, memory: int) -> None:
    """Bounds that the program cannot raise: it lacks the capability. Whoever exceeds the CPU time is killed."""
    for which, bound in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        try:  # noqa: SIM105 - contextlib would cost milliseconds
            resource.setrlimit(which, (bound, bound))
        except (OSError, ValueError):  # a lower limit is set already
            pass


def find(module: Any, name: str) -> Any:
    try:
        return module.__dict__[name]
    except KeyError:
        return getattr(builtins, name)


def resolve(value: Any, module: Any, values: list[Any]) -> Any:
    """Arguments as the program gets them: (..., "name", n) is what the program calls n, (..., "result", i) what its
    i-th call returned."""
    if isinstance(value, tuple):
        if len(value) == 3 and value[0] is ...:
            return find(module, value[2]) if value[1] == "name" else values[value[2]]
        return tuple(resolve(item, module, values) for item in value)
    if isinstance(value, list):
        return [resolve(item, module, values) for item in value]
    if isinstance(value, dict):
        return {key: resolve(item, module, values) for key, item in value.items()}
    return value


def encode(value: Any) -> str:
    """A value as JSON: null, true, false, or [tag, ...]. Text and numbers are in hexadecimal, so that nothing needs
    escaping and no number is too long; subclasses count as their base; the rest is ["object", its type's name]."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return tagged("int", f'"{int(value):x}"')
    if isinstance(value, float):
        return tagged("float", f'"{float(value).hex()}"')
    if isinstance(value, complex):
        return tagged("complex", f'"{value.real.hex()}"', f'"{value.imag.hex()}"')
    if isinstance(value, str):
        return tagged("str", hexed(value))
    if isinstance(value, bytes | bytearray):
        return tagged("bytes", f'"{bytes(value).hex()}"')
    if isinstance(value, dict):
        return tagged("dict", *(encode(part) for item in value.items() for part in item))
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return tagged(kind.__name__, *map(encode, value))
    name = type(value).__name__
    if type(value).__module__ in ("decimal", "fractions") and name in ("Decimal", "Fraction"):
        return tagged(name, hexed(str(value)))
    if hasattr(type(value), "__iter__"):
        items: list[str] = []
        for item in value:
            if len(items) == MOST_ITEMS:
                return tagged("object", hexed(name))
            items.append(encode(item))
        return tagged("iter", *items)
    return tagged("object", hexed(name))


def tagged(tag: str, *parts: str) -> str:
    return f"[{','.join((chr(34) + tag + chr(34), *parts))}]"


def hexed(text: str) -> str:
    return f'"{text.encode("utf-8", "surrogatepass").hex()}"'


if __name__ == "__main__":
    main()
