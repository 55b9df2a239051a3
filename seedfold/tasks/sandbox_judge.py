"""Inside a sandbox of its own: hold the tests of an example, and judge values that a model's program returned.

Run as a script, for many questions one after the other. The model's program is not here and never was: the judge runs the
example's tests twice, with stand-ins for the names that the program is to define. At first the stand-ins note how they
are called; the solver makes these calls; then the tests run again and the stand-ins return what the solver sent. Values
come as data (`decode`), so that an object that equals everything, or a patched `assert`, has no way in.

stdin, a line of JSON: {"setup", "tests", "names", "results"}. setup: code that runs before the tests. names: what the
program defines, though Python has it too. results: the solver's lines; null asks for the calls.
stdout: "ready", then a line of JSON for each question: {"calls": hex} or {"passed", "outputs"}, or {"error"}.
"""

import ast
import builtins
import hashlib
import json
import marshal
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from typing import Any

LONGEST_OUTPUT = 200
"""Characters of what the calls returned, as text; beyond them a digest stands for it."""

CHECK = "__check__"


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    null, seconds, memory = map(int, sys.argv[1:])
    os.dup2(null, 1)
    os.dup2(null, 2)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=replies, flush=True)
    for line in sys.stdin.buffer:
        # The tests may take long with what a program returned (`x ** i`); the signal ends the process, even inside C.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = judge(**json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


def judge(setup: str, tests: str, names: list[str], results: str | None) -> dict[str, Any]:
    """Collect the calls (results: None), or run the tests with what came back."""
    if results is None:
        log = Log()
        try:
            checks = run(setup, tests, names, log)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        if not checks or not log.calls:
            return {"error": "they assert nothing about the program"}
        return {"calls": marshal.dumps(log.calls).hex()}
    try:
        values = [json.loads(line) for line in results.split("\n")[:-1]]
        checks = run(setup, tests, names, Replay(values))
        outputs = show_all(values)
    except (Exception, RecursionError):  # the program's doing: values that the tests cannot handle, or no values
        return {"passed": False, "outputs": None}
    return {"passed": bool(checks) and all(checks), "outputs": outputs}


def run(setup: str, tests: str, names: Sequence[str], call: Callable[..., Any]) -> list[bool]:
    """Whether each assertion held. One that fails does not stop the others, so that what the program returned is known
    for all of them, and a vote on that does not depend on the right answers."""
    checks: list[bool] = []
    space: dict[str, Any] = {"__name__": "tests", CHECK: lambda value: checks.append(bool(value))}
    random.seed(0)
    exec(compile(setup, "setup.py", "exec", dont_inherit=True), space)
    tree = ast.fix_missing_locations(Assertions().visit(ast.parse(tests)))
    bases = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    modules = {base.id for base in bases if isinstance(base, ast.Name)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or node.id in space or (hasattr(builtins, node.id) and node.id not in names):
            continue
        if node.id in modules and node.id in sys.stdlib_module_names:
            space[node.id] = import_module(node.id)  # the reference imports it, and the tests rely on that
        else:
            space[node.id] = Remote(node.id, call)  # where the tests assign it, they overwrite this
    exec(compile(tree, "tests.py", "exec", dont_inherit=True), space)
    return checks


class Assertions(ast.NodeTransformer):
    """`assert x` becomes `try: __check__(x)` and, where that raises, `__check__(False)`."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        def check(value: ast.expr) -> ast.stmt:
            return ast.Expr(ast.Call(ast.Name(CHECK, ast.Load()), [value], []))

        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [check(ast.Constant(False))])
        return ast.copy_location(ast.Try([check(node.test)], [handler], [], []), node)


class Remote:
    """Stands for a name of the program."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name, self._call = name, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self.name, args, kwargs)


class Result:
    """What a call will have returned, while the calls are being collected."""

    def __init__(self, index: int) -> None:
        self.index = index


class Log:
    """Notes calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []

    def __call__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        self.calls.append((name, wire(args), wire(kwargs)))
        return Result(len(self.calls) - 1)


class Replay:
    """Returns, or raises, what the calls gave, in their order."""

    def __init__(self, values: list[Any]) -> None:
        self._values = iter(values)

    def __call__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for value in self._values:
            if isinstance(value, list) and value[0] == "raised":
                kind = getattr(builtins, _text(value[1]), None)
                if isinstance(kind, type) and issubclass(kind, Exception):
                    raise kind()
                raise RuntimeError
            return decode(value)
        raise RuntimeError("the program ended before this call")


def wire(value: Any) -> Any:
    """Arguments as the solver's `resolve` reads them. Raises TypeError for what cannot be sent."""
    if isinstance(value, Remote):
        return (..., "name", value.name)
    if isinstance(value, Result):
        return (..., "result", value.index)
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if type(value) in (list, tuple):
        return type(value)(map(wire, value))
    if type(value) is dict:
        return {key: wire(item) for key, item in value.items()}
    if type(value) in (set, frozenset):
        marshal.dumps(value)
        return value
    name = getattr(value, "__name__", "")
    if getattr(builtins, name, None) is value:
        return (..., "name", name)  # int, len
    raise TypeError(f"an argument of type {type(value).__name__} cannot be sent to the program")


def decode(value: Any) -> Any:
    """A value as the solver's `encode` wrote it. An iterable that is no container becomes an iterator; an object that
    is nothing of this equals nothing."""
    if not isinstance(value, list):
        return value
    tag, *parts = value
    if tag == "dict":
        return {decode(key): decode(item) for key, item in zip(parts[::2], parts[1::2], strict=True)}
    return READ[tag](parts)


def _text(part: str) -> str:
    return bytes.fromhex(part).decode("utf-8", "surrogatepass")


READ: dict[str, Callable[[list[Any]], Any]] = {
    "int": lambda parts: int(parts[0], 16),
    "float": lambda parts: float.fromhex(parts[0]),
    "complex": lambda parts: complex(float.fromhex(parts[0]), float.fromhex(parts[1])),
    "str": lambda parts: _text(parts[0]),
    "bytes": lambda parts: bytes.fromhex(parts[0]),
    "Decimal": lambda parts: Decimal(_text(parts[0])),
    "Fraction": lambda parts: Fraction(_text(parts[0])),
    "list": lambda parts: [decode(part) for part in parts],
    "tuple": lambda parts: tuple(decode(part) for part in parts),
    "set": lambda parts: {decode(part) for part in parts},
    "frozenset": lambda parts: frozenset(decode(part) for part in parts),
    "iter": lambda parts: iter([decode(part) for part in parts]),
    "object": lambda parts: object(),
}


def show_all(values: list[Any]) -> str | None:
    """What the calls returned, as the text that votes pool; None when none returned anything."""
    if not any(not isinstance(value, list) or value[0] != "raised" for value in values):
        return None
    text = "; ".join(map(show, values))
    if len(text) > LONGEST_OUTPUT:
        return "blake2b:" + hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return text


def show(value: Any) -> str:
    """Equal values in the same words: 2.0 as 2, sets and dictionaries sorted."""
    if not isinstance(value, list):
        return str(value)
    tag, *parts = value
    if tag in ("raised", "object"):
        return f"{tag} {_text(parts[0])}"
    if tag == "dict":
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return "{" + ", ".join(sorted(f"{show(key)}: {show(item)}" for key, item in pairs)) + "}"
    if tag in ("set", "frozenset"):
        return "set{" + ", ".join(sorted(map(show, parts))) + "}"
    if tag in ("list", "tuple", "iter"):
        inner = ", ".join(map(show, parts))
        return {"list": f"[{inner}]", "tuple": f"({inner})", "iter": f"iter({inner})"}[tag]
    plain = READ[tag](parts)
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    # Python refuses to write longer numbers in decimal
    return hex(plain) if isinstance(plain, int) and plain.bit_length() > 10_000 else ascii(plain)


if __name__ == "__main__":
    main()
