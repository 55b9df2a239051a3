"""What the tasks share whose answers are programs: finding code in a text, and grading by running it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import numbers
from seedfold.tasks.base import Example, Grade, Task
from seedfold.tasks.generate import whole_numbers
from seedfold.tasks.sandbox import Checks, Limits, Sandbox, Verdict, cores, open_sandbox

PYTHON = ("python", "py", "python3")
"""How a block of Python may be marked."""

KEPT = 1 << 16
"""Verdicts that are remembered; those on outputs of more than `LONG` characters are not."""
LONG = 2000

OPTIONS = {"seconds": Limits.seconds, "memory": Limits.memory}

_FENCE = re.compile(r"( {0,3})(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*)")
_START = re.compile(r"(?:async def|def|class|import|from|@)\b|@")
_CODE = re.compile(r"[ \t)\]}#@]|$|(?:async def|def|class|import|from|if|else|elif|for|while|try|except|with)\b|\w+ *=")


class CodeTask(Task):
    """Strict: the last block of Python passes all tests. Lenient: that, or another reading of the text does. The answer
    to vote on is what the strict reading's functions returned to the tests' calls."""

    graders = 32  # which wait for the runners

    def __init__(self, examples: Sequence[Example], sandbox: Sandbox) -> None:
        super().__init__(examples)
        self.sandbox = sandbox
        self._verdicts: dict[tuple[str, bytes], Verdict] = {}

    def tests(self, example: Example) -> Checks:
        """What the example asserts."""
        raise NotImplementedError

    def readings(self, completion: str, example: Example) -> tuple[str | None, list[str]]:
        """The program under the asked-for format, and others that the text may mean."""
        raise NotImplementedError

    def grade(self, completion: str, example: Example) -> Grade:
        """Takes as long as the code runs, within its limits."""
        formal, others = self.readings(completion[-numbers.MAX_TEXT :], example)
        answer = None
        if formal is not None:
            verdict = self._judge(formal, example)
            if verdict.passed:
                return Grade(1.0, 1.0, verdict.outputs)
            answer = verdict.outputs
        different = [program for program in dict.fromkeys(others) if program != formal]
        lenient = any(self._judge(program, example).passed for program in different)
        return Grade(0.0, float(lenient), answer)

    def _judge(self, program: str, example: Example) -> Verdict:
        """The sandbox's verdict, asked for once: perturbed models answer most examples with programs seen before."""
        key = (example.id, hashlib.sha256(program.encode("utf-8", "surrogatepass")).digest())
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self.sandbox.judge(program, self.tests(example))
            if len(verdict.outputs or "") <= LONG:
                if len(self._verdicts) >= KEPT:
                    self._verdicts.clear()
                self._verdicts[key] = verdict
        return verdict

    def grade_many(self, completions: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
        return list(runners().map(self.grade, completions, examples))

    def check(self, example: Example, what: str) -> Example:
        """The example. Raises UserError where its tests cannot be run; `what` names it."""
        try:
            self.sandbox.prepare(self.tests(example))
        except ValueError as error:
            raise UserError(f"{what} has tests that cannot be run ({error}); mend or remove it") from None
        return example


@functools.cache
def runners() -> ThreadPoolExecutor:
    """Threads that start programs and wait for them, one for each core, whoever asks."""
    return ThreadPoolExecutor(cores(), "runner")


os.register_at_fork(after_in_child=runners.cache_clear)  # threads stay with the parent


def opened(settings: Settings) -> Sandbox:
    """The sandbox that the settings ask for."""
    options = whole_numbers(settings.name, settings.options, OPTIONS)
    return open_sandbox(settings.name, Limits(**options), settings.allow_unsafe_execution)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language in lower case, code) of each fenced block, as Markdown reads them: three or more backticks or tildes,
    closed by as many, or by the end of the text."""
    found: list[tuple[str, list[str]]] = []
    fence, indent = "", 0
    for line in text.split("\n"):
        match = _FENCE.fullmatch(line.rstrip())
        if not fence and match:
            indent, fence = len(match[1]), match[2]
            found.append(((match[3].split() or [""])[0].lower(), []))
        elif fence and match and match[2].startswith(fence) and not match[3]:
            fence = ""
        elif fence:  # as much indentation goes as the fence had
            found[-1][1].append(line[min(indent, len(line) - len(line.lstrip(" "))) :])
    return [(language, "\n".join(lines)) for language, lines in found]


def last_python(found: Sequence[tuple[str, str]]) -> str | None:
    """The code of the last block that is marked as Python."""
    return next((code for language, code in reversed(found) if language in PYTHON), None)


def unfenced(text: str) -> str:
    """The code in a text without fences: from the first line that begins like a program to the first that is prose."""
    lines = text.split("\n")
    start = next((number for number, line in enumerate(lines) if _START.match(line)), len(lines))
    end = next((number for number in range(start, len(lines)) if not _CODE.match(lines[number])), len(lines))
    return "\n".join(lines[start:end])
