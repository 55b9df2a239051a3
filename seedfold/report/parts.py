"""What pages are made of: the document around them, tables, figures, text made safe. Cells and bodies are HTML already."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from seedfold.report import figures
from seedfold.report.lines import minus, plain


@cache
def asset(name: str) -> str:
    """A file beside this one: the style sheet or the script."""
    return files("seedfold.report").joinpath(name).read_text(encoding="utf-8")


def document(title: str, body: Iterable[str], script: bool = False, refresh: int = 0) -> str:
    """A page that loads nothing and runs, if anything, the one script whose digest it names.

    Args:
        title: plain text.
        body: HTML, part by part.
        script: whether `script.js` is in it.
        refresh: seconds after which a browser loads the file anew; 0: never.
    """
    style, code = asset("style.css") + figures.STYLE, asset("script.js") if script else ""
    allowed = f"; script-src {_digest(code)}" if script else ""
    policy = (
        f"default-src 'none'; style-src {_digest(style)}{allowed}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            *([f'<meta http-equiv="refresh" content="{refresh}">'] if refresh else []),
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{text(title)} · seedfold</title>\n<style>{style}</style>\n</head>\n<body>\n<main>",
            *(part for part in body if part),
            "</main>",
            *([f"<script>{code}</script>"] if script else []),
            "</body>\n</html>\n",
        ]
    )


def _digest(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def write(content: str, path: Path) -> None:
    """Write a file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def data(name: str, value: Any) -> str:
    """JSON for the script, as an element that a browser does not run; nothing in it can end the element."""
    shown = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{name}">{shown}</script>'


def table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]], marks: Sequence[int] = ()) -> str:
    """Wide tables scroll on their own, and by keyboard, so that the page never does.

    marks: the candidate that each row is of, by its place in the record.
    """
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = []
    for number, row in enumerate(rows):
        mark = f' data-c="{marks[number]}"' if marks else ""
        lines.append(
            f'<tr{mark}><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        )
    return (
        f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0">\n<table>\n<thead><tr>{top}</tr>'
        "</thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>\n</div>"
    )


def figure(svg: str, title: str, caption: str) -> str:
    return f"<figure>\n<h3>{text(title)}</h3>\n{svg}\n<figcaption>{text(caption)}</figcaption>\n</figure>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, both plain text."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs) + "</dl>"


def text(value: Any) -> str:
    return escape(plain(value))


def prose(sentence: str) -> str:
    """Sentences in which a number keeps its percent sign beside it."""
    return text(minus(sentence)).replace(" %", "&nbsp;%")


def code(value: Any) -> str:
    return f"<code>{text(value)}</code>"


def small(shown: str) -> str:
    return f"<small>{minus(shown)}</small>" if shown else ""


def blank(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None else minus(show(value))
