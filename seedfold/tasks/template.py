"""Prompts of a user's task: a template with {column} placeholders, or the column `prompt`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Formatter
from typing import Any

from seedfold.errors import UserError
from seedfold.tasks.base import Message

_COLUMN = "prompt"


def parse(template: str) -> list[tuple[str, str | None]]:
    """(text, column after it or None) pieces. `{{` and `}}` stand for braces; attributes and formats are refused."""
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(
            f'"task.prompt" is no valid template ({error}); write {{column}} for a column and {{{{ }}}} for braces'
        ) from None
    for _, name, form, conversion in pieces:
        if name == "" or form or conversion:
            raise UserError(
                f'"task.prompt" has the placeholder "{{{name}{"!" + conversion if conversion else ""}'
                f'{":" + form if form else ""}}}"; write {{column}} with the name of a column and nothing else'
            )
    return [(text, name) for text, name, _, _ in pieces]


def fill(pieces: list[tuple[str, str | None]], row: Mapping[str, Any], where: str) -> str:
    """Put the row's values in. They are inserted as they are: braces in the data mean nothing."""
    parts = []
    for text, name in pieces:
        parts.append(text)
        if name is not None:
            if row.get(name) is None:
                raise UserError(f'{where} has no column "{name}", which "task.prompt" asks for; {_columns(row)}')
            value = row[name]
            plain = isinstance(value, str | int | float)
            parts.append(str(value) if plain else json.dumps(value, ensure_ascii=False, default=str))
    return "".join(parts)


def column(row: Mapping[str, Any], where: str) -> str | list[Message]:
    """The column `prompt`: a text, or a list of messages."""
    value = row.get(_COLUMN)
    if value is None:
        raise UserError(f'{where} has no column "prompt"; set "task.prompt" to a template, {_columns(row)}')
    if isinstance(value, str):
        return value
    good = isinstance(value, list) and value and all(isinstance(message, dict) for message in value)
    if not good or not all(
        isinstance(message.get("role"), str) and isinstance(message.get("content"), str) for message in value
    ):
        raise UserError(
            f'{where} has a column "prompt" that is neither a text nor a list of messages; '
            'write messages as {"role": ..., "content": ...} with a text as content'
        )
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _columns(row: Mapping[str, Any]) -> str:
    return f"its columns are {', '.join(row) or 'none'}"
