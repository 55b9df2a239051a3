"""MBPP: short Python functions from a sentence and three assertions (Austin et al., 2021, arXiv:2108.07732), zero-shot."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Mapping
from typing import Any

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import code, data
from seedfold.tasks.base import Example, Message
from seedfold.tasks.sandbox import Checks

INSTRUCTION = (
    "Solve the task in Python. Answer with one block of code that begins with ```python and ends with ```, and define "
    "in it all that the tests use.\n\nTask: {text}\n\nTests:\n{tests}"
)
HUB = "google-research-datasets/mbpp"


class MBPP(code.CodeTask):
    """Strict: the last block of Python passes all assertions. Lenient: that, or all blocks together, or the code in a
    text without blocks."""

    name = "mbpp"
    max_tokens = 400

    def messages(self, example: Example) -> list[Message]:
        columns = example.columns
        tests = "\n".join(part for part in (columns["setup"], *columns["tests"]) if part)
        return self.ask(INSTRUCTION.format(text=columns["text"], tests=tests))

    def tests(self, example: Example) -> Checks:
        columns = example.columns
        imports = "\n".join(line for line in columns["setup"].split("\n") if line.startswith(("import ", "from ")))
        return Checks("\n".join(columns["tests"]), tuple(columns["shadows"]), imports, columns["setup"])

    def readings(self, completion: str, example: Example) -> tuple[str | None, list[str]]:
        found = code.blocks(completion)
        others = ["\n".join(text for _, text in found), found[-1][1]] if found else [code.unfenced(completion)]
        return code.last_python(found), [text for text in others if text.strip()]


def load(settings: Settings, count: int) -> MBPP:
    path = settings.path or HUB
    task = MBPP([], code.opened(settings))
    examples = []
    for number, row in data.published(settings, HUB):
        columns = read(row)
        if columns is None:
            raise UserError(
                f'"{path}" row {number} is no MBPP row (columns {", ".join(row) or "none"}); it needs "text" or "prompt", '
                'and "test_list", a list of assertions'
            )
        examples.append(task.check(Example.of(columns), f'"{path}" row {number}'))
    return MBPP(examples, task.sandbox)


def read(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The columns that count, of the full form or the sanitized one; None where they are missing."""
    text, tests = row.get("text") or row.get("prompt"), row.get("test_list")
    setup = row.get("test_setup_code") or row.get("test_imports") or ""
    setup = "\n".join(setup) if isinstance(setup, list) else setup
    reference = row.get("code") or ""
    if not isinstance(tests, list) or not tests or not all(isinstance(part, str) for part in (text, setup, *tests)):
        return None
    plain = [str(part).replace("\r\n", "\n").strip() for part in (text, setup, reference)]
    return {
        "text": plain[0],
        "setup": plain[1],
        "code": plain[2],
        "shadows": shadows(plain[2]),
        "tests": [test.replace("\r\n", "\n").strip() for test in tests],
        "task_id": row.get("task_id"),
    }


def shadows(reference: str) -> list[str]:
    """Names of Python's own that the reference defines anew: one task wants a function called `sum`."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in strings
            body = ast.parse(reference).body
    except (SyntaxError, ValueError):
        return []
    defined = (node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return [name for name in defined if hasattr(builtins, name)]
