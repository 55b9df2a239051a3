"""A user's reward function, in either form, called on a batch; what comes back is checked number by number."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from seedfold.errors import UserError
from seedfold.tasks.functions import Function, reason

_NOT_PASSED = {"prompt", "completion", "completion_ids"}  # columns that TRL keeps to itself


@dataclass(frozen=True)
class Item:
    """One call's data: the row, its prompt as text or messages, and how messages name it (`row 3, example 0f…`)."""

    row: Mapping[str, Any]
    prompt: str | list[dict[str, str]]
    where: str


def is_trl(function: Function) -> bool:
    """Whether the signature is TRL's: a parameter `completions` or `prompts`, or keyword arguments only."""
    parameters = _parameters(function)
    keywords_only = bool(parameters) and all(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return keywords_only or "completions" in parameters or "prompts" in parameters


def check(function: Function, spec: str, items: Sequence[Item]) -> None:
    """Refuse a signature that cannot be called, and rows without a column that it asks for."""
    parameters = _parameters(function)
    if not is_trl(function):
        try:
            inspect.signature(function).bind("", {})
        except TypeError:
            raise UserError(
                f'"task.reward" is "{spec}" with the parameters ({", ".join(parameters)}); write '
                "reward(completion, example) -> float or reward(completions, **columns) -> list[float]"
            ) from None
        return
    wanted = [
        name
        for name, parameter in parameters.items()
        if name not in ("completions", "prompts")
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    for name in wanted:
        for item in items:
            if name in _NOT_PASSED or name not in item.row:
                raise UserError(
                    f'reward "{spec}" asks for the column "{name}", which {item.where} does not have; '
                    f"its columns are {', '.join(item.row) or 'none'}"
                )


def single(function: Function, spec: str, completions: Sequence[str], items: Sequence[Item]) -> list[float]:
    """`function(completion, example) -> float`, once for each."""
    return [
        number(call(function, spec, item.where, completion, row_of(item)), spec, item.where)
        for completion, item in zip(completions, items, strict=True)
    ]


def batch(
    function: Function, spec: str, completions: Sequence[str], items: Sequence[Item], columns: Sequence[str]
) -> list[float]:
    """`function(prompts, completions, **columns) -> list[float]` as TRL's GRPOTrainer calls it.

    Completions are strings where prompts are strings, and lists of one assistant message where prompts are messages.
    A column that a row lacks is None. Keywords that the function has no parameter for are left out.
    """
    where = items[0].where if len(items) == 1 else f"{items[0].where} to {items[-1].where}"
    rows = [row_of(item) for item in items]
    keywords: dict[str, Any] = {name: [row.get(name) for row in rows] for name in columns if name not in _NOT_PASSED}
    keywords["prompts"] = [copy.deepcopy(item.prompt) for item in items]
    keywords["completions"] = [
        text if isinstance(item.prompt, str) else [{"role": "assistant", "content": text}]
        for text, item in zip(completions, items, strict=True)
    ]
    parameters = _parameters(function)
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        keywords = {name: value for name, value in keywords.items() if name in parameters}
    values = call(function, spec, where, **keywords)
    try:
        values = list(values)
    except TypeError:
        raise UserError(
            f'reward "{spec}" gives {_show(values)} on {where}; a TRL-style reward gives a list of numbers'
        ) from None
    if len(values) != len(items):
        raise UserError(
            f'reward "{spec}" gives {len(values)} values for {len(items)} completions on {where}; give one for each'
        )
    return [number(value, spec, item.where) for value, item in zip(values, items, strict=True)]


def call(function: Callable[..., Any], spec: str, where: str, *args: Any, **keywords: Any) -> Any:
    """Call the user's code; what it raises becomes a `UserError`, `sys.exit` included: it must not end the study."""
    try:
        result = function(*args, **keywords)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    except (Exception, SystemExit) as error:
        line = _last_line(error)
        raise UserError(f'reward "{spec}" fails on {where} with {reason(error)}{line}; mend the function') from None


def number(value: Any, spec: str, where: str) -> float:
    """A finite float from a number, a bool, or a NumPy or torch scalar."""
    if not isinstance(value, Real) and hasattr(value, "item"):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # an array: refused below
            value = value.item()
    if not isinstance(value, Real):
        raise UserError(f'reward "{spec}" gives {_show(value)} on {where}, which is no number; give a float')
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise UserError(f'reward "{spec}" gives {result} on {where}; give a finite number')
    return result


def row_of(item: Item) -> dict[str, Any]:
    """A copy of the row: what the user's function does to it must not reach the next call."""
    return copy.deepcopy(dict(item.row))


def _parameters(function: Function) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def _last_line(error: BaseException) -> str:
    """Where in the user's file it happened."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" (line {trace.tb_lineno} of {trace.tb_frame.f_code.co_filename})" if trace is not None else ""


def _show(value: object) -> str:
    text = repr(value)
    return f"{text[:60]}… ({type(value).__name__})" if len(text) > 60 else f"{text} ({type(value).__name__})"
