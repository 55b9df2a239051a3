"""Tasks by name. A module is imported when its task is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks.base import Example, Grade, Message, Task, grade_of_vote, need

__all__ = ["Example", "Grade", "Message", "Task", "grade_of_vote", "load", "names"]

USES: dict[str, tuple[str, ...]] = {
    "arithmetic": ("options",),
    "countdown": ("options",),
    "reasoning-gym": ("options",),
    "gsm8k": ("path",),
    "math500": ("path", "options"),
    "olympiadbench": ("path", "options"),
    "mbpp": ("path", "options", "allow_unsafe_execution"),
    "humaneval": ("path", "options", "allow_unsafe_execution"),
    "uspto50k": ("path", "options"),
    "story-order": ("path", "options"),
    "writing": ("path", "prompt", "reward", "options"),
    "gqa": ("path", "options"),
    "custom": ("path", "prompt", "reward"),
}
"""Tasks, and the settings of [task] that not all of them use. A task's module has its name, "-" written "_"."""


def names() -> tuple[str, ...]:
    """What `task.name` may be."""
    return tuple("reasoning-gym:NAME" if kind == "reasoning-gym" else kind for kind in USES)


def load(config: Settings, needed: int) -> Task:
    """Build the task that the config names, with at least `needed` different examples.

    Generated tasks make the larger of `config.examples` and `needed`; the others read `config.examples` rows, or all.
    Raises `UserError` for an unknown name, settings the task does not use, unusable data, and too few examples.
    """
    kind, colon, _ = config.name.partition(":")
    if kind not in USES or bool(colon) != (kind == "reasoning-gym"):
        raise UserError(f'"task.name" is "{config.name}", which is no task; {_suggestion(config.name)}')
    _refuse_unused(config, kind)
    module = import_module(f"seedfold.tasks.{kind.replace('-', '_')}")
    task = cast(Task, module.load(config, max(config.examples, needed)))
    limited = f' ("task.examples" is {config.examples})' if config.examples and "path" in USES[kind] else ""
    need(needed, len(task.examples), f'task "{config.name}"{limited}')
    task.system = config.system or task.system
    task.max_tokens = config.max_tokens or task.max_tokens
    task.stop = config.stop or task.stop
    return task


def _suggestion(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else f"use one of {', '.join(names())}"


def _refuse_unused(config: Settings, kind: str) -> None:
    """A setting that would do nothing is a mistake that the user should hear of."""
    for field in sorted(set().union(*USES.values())):
        value = getattr(config, field)
        if value and field not in USES[kind]:
            raise UserError(f'"task.{field}" is {value!r}, but task "{config.name}" does not use it; remove it')
