"""The report: one HTML file with everything in it, which opens anywhere, prints, and asks nothing of the network."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from seedfold.report import figures
from seedfold.report.lines import (
    count,
    cut_share,
    level_text,
    minus,
    p_text,
    percent,
    plain,
    points,
    sentences,
    span,
    verdict,
)

TOP = 20
"""Rows of the table of candidates."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --quiet: #59626d; --grid: #e3e6ea;
  --panel: #f5f7f9; --blue: #0067a8; --red: #c04a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e8eaed; --quiet: #a3adb8; --grid: #2c323a;
  --panel: #1d2127; --blue: #5cb3ef; --red: #f0904c; } }
@media print { :root { --paper: #ffffff; --ink: #000000; --quiet: #444444; --grid: #dddddd; --panel: #ffffff;
  --blue: #0067a8; --red: #c04a00; } figure, tr { break-inside: avoid; } }
body { margin: 0 auto; padding: 24px 16px 64px; max-width: 960px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; }
h2 { font-size: 20px; margin: 40px 0 8px; }
h3 { font-size: 16px; margin: 0 0 4px; }
.quiet, figcaption { color: var(--quiet); }
figcaption, .notes, .small { font-size: 14px; }
.verdict { font-size: 18px; border-left: 4px solid var(--blue); background: var(--panel); padding: 12px 16px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 6px 10px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--grid); }
td, tbody th { white-space: nowrap; }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
small { display: block; color: var(--quiet); font-size: 13px; font-weight: 400; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 32px; }
figure { margin: 0; max-width: 480px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; font-size: 14px; }
dt { color: var(--quiet); }
dd { margin: 0; }
pre { background: var(--panel); padding: 12px; font-size: 13px; white-space: pre-wrap; }
summary { cursor: pointer; }
"""

GAINS = (
    "What each method gained",
    "An interval that holds the dashed line does not tell the method from the base. Names in grey take several forward "
    "passes per answer.",
)

FIGURES: list[tuple[Callable[[dict[str, Any]], str], str, str]] = [
    (
        figures.lead,
        "How much of the winner's lead is luck",
        "A lead on search that stays within the whisker of the grey bar is what the best of as many equal candidates "
        "would show; the last bar is what the best single model gains on examples never used to choose.",
    ),
    (
        figures.votes,
        "Vote or sample",
        "Where the whiskers of vote and self-consistency overlap widely, sampling the unchanged base does about as "
        "well at the same cost; the dashed line is the base answering once.",
    ),
    (
        figures.transfer,
        "Does a good score come again",
        "Each dot is a candidate: dots along the dashed line score on select what they scored on search; the solid "
        "line is what the reliability of the scores leads one to expect; the cross is the base.",
    ),
    (
        figures.scales,
        "Which noise scale",
        "Each dot is a candidate: a good scale lifts the mean (solid) or at least puts more dots above the base "
        "(dashed); too large a scale lets both sink.",
    ),
    (
        figures.progress,
        "Would more candidates help",
        "A curve still climbing at its end says that more candidates would score higher on search, though the best of "
        "more also owes more to luck.",
    ),
]


def write(record: dict[str, Any], path: Path) -> None:
    """Write the report of a record, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(html(record), encoding="utf-8")
    os.replace(partial, path)


def html(record: dict[str, Any]) -> str:
    """The report as text. Whatever comes from the record is escaped, and the page may load nothing."""
    name = _text(record["name"])
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            'img-src data:">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{name} · seedfold</title>\n<style>{STYLE}{figures.STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{name}</h1>",
            f'<p class="quiet">{_text(_subtitle(record))}</p>',
            f'<p class="verdict">{_prose(verdict(record))}</p>',
            _results(record),
            '<ul class="notes">' + "".join(f"<li>{_prose(text)}</li>" for text in _notes(record)) + "</ul>",
            _figure(figures.gains(record), *GAINS),
            '<h2>What the search saw</h2>\n<div class="figures">',
            *(_figure(draw(record), title, caption) for draw, title, caption in FIGURES),
            "</div>",
            _candidates(record),
            _recipes(record),
            _measured(record),
            "</main>\n</body>\n</html>\n",
        ]
    )


def toml(tree: dict[str, Any], section: str = "") -> str:
    """A config as TOML-like text: values first, then a section for each table. JSON strings are TOML strings."""
    values = [f"{_key(key)} = {_value(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    tables = [(f"{section}.{_key(key)}".lstrip("."), value) for key, value in tree.items() if isinstance(value, dict)]
    blocks = ["\n".join(([f"[{section}]"] if section else []) + values)] if values or not tables else []
    return "\n\n".join([*blocks, *(toml(table, name) for name, table in tables)])


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key)


def _value(value: Any) -> str:
    return '"" # not set' if value is None else json.dumps(value, ensure_ascii=False)


def _results(record: dict[str, Any]) -> str:
    level = f"<small>{_text(level_text(record))} interval</small>"
    head = [
        "method",
        f"accuracy {level}",
        f"difference to base, points {level}",
        "p",
        "fixed / broken",
        "substance + format",
        "lenient accuracy",
        "cut off",
        "passes per answer",
        "answers to find",
    ]
    rows = [
        [
            _text(line["method"]),
            percent(line["accuracy"]) + _small(span(line.get("interval"), percent)),
            _blank(line["difference"], points) + _small(span(line.get("ci95"))),
            _blank(line.get("p"), lambda p: p_text(p).removeprefix("p=").replace("p<", "< ")),
            "" if line.get("fixed") is None else f"{count(line['fixed'])} / {count(line['broken'])}",
            ""
            if line.get("substance_gain") is None
            else minus(f"{points(line['substance_gain'])} {points(line['format_gain'])}"),
            percent(line["lenient"]),
            percent(cut_share(line)),
            count(line["passes"]),
            count(line.get("evaluations")),
        ]
        for line in record["results"]
    ]
    examples = next((line["n"] for line in record["results"]), 0)
    return f"<h2>Results on {count(examples)} test examples</h2>\n" + _table("Results", head, rows)


def _notes(record: dict[str, Any]) -> list[str]:
    tests = sum(line.get("p") is not None for line in record["results"])
    notes = sentences(record)
    if tests > 1:
        notes.append(f"Each p is of one comparison; for all {tests} together, multiply it by {tests} (Bonferroni).")
    racing = record.get("racing")
    if racing:
        rounds = ", then ".join(f"{count(one['candidates'])} to {count(one['examples'])}" for one in racing["rounds"])
        notes.append(
            f"Racing saved {percent(racing['saved'])} of the answers on search: {count(racing['evaluated'])} in place "
            f"of {count(racing['full'])} (candidates to examples: {rounds}). Scores of candidates that stopped early "
            "rest on fewer examples."
        )
    return notes


def _figure(svg: str, title: str, caption: str) -> str:
    return f"<figure>\n<h3>{_text(title)}</h3>\n{svg}\n<figcaption>{_text(caption)}</figcaption>\n</figure>"


def _candidates(record: dict[str, Any]) -> str:
    top = sorted(record["candidates"], key=lambda one: one["rank"])[:TOP]
    head = ["rank", "seed", "σ", "search", "examples", "expected", "select", "lenient", "cut off", "recipe"]
    rows = [
        [
            count(one["rank"]),
            _text(one["seed"]),
            minus(f"{one['scale']:g}"),
            percent(one["search"]) + _small("" if one.get("se") is None else f"± {percent(one['se'])}"),
            count(one["examples"]),
            percent(one["shrunk"]),
            _blank(one.get("select"), percent),
            percent(one["lenient"]),
            count(one["truncated"]),
            _code(one["recipe"]) if one.get("recipe") else "",
        ]
        for one in top
    ]
    total = len(record["candidates"])
    shown = f"The best {len(top)} of {total:,} candidates" if len(top) < total else "Candidates"
    note = (
        '<p class="small quiet">Ordered by the score to expect: that on search, less what chance has probably '
        "added to it. ± is one standard error.</p>"
    )
    return f"<h2>{shown}</h2>\n{note}\n" + _table(shown, head, rows)


def _recipes(record: dict[str, Any]) -> str:
    items = [
        f"<dt>{_text(line['method'])}</dt><dd>{', '.join(map(_code, line['recipes']))}</dd>"
        for line in record["results"]
        if line.get("recipes")
    ]
    if not items:
        return ""
    return (
        "<h2>Recipes</h2>\n<p>The weights of each method, rebuilt from the base and these files beside this one.</p>\n"
        f"<dl>{''.join(items)}</dl>"
    )


def _measured(record: dict[str, Any]) -> str:
    config, model, machine = record["config"], record["model"], dict(record["machine"])
    engine = config.get("engine", {})
    exact = machine.pop("exact", None)
    left_out = (record.get("leakage") or {}).get("repeated_prompts")
    spent = (
        f"{count(record['evaluations'])} answers, {count(record['tokens'])} tokens generated and "
        f"{count(record['prompt_tokens'])} read, {_duration(record['seconds'])}"
    )
    sampling = f"temperature {engine.get('temperature', '?')}, top-p {engine.get('top_p', '?')}"
    same = {
        True: "an answer is the same in any batch",
        False: "answers may change with the batch they are computed in",
        None: "whether answers depend on their batch was not recorded",
    }[exact]
    facts = [
        ("splits", "; ".join(f"{name}: {count(size)} examples" for name, size in record["splits"].items())),
        (
            "",
            "search scores candidates, select chooses K, test was answered once; no prompt is in two splits"
            + (f", for which {count(left_out)} examples were left out" if left_out else ""),
        ),
        ("decoding", f"greedy; self-consistency samples at {sampling}"),
        ("sameness", same),
        (
            "model",
            f"{model['name']} {model.get('revision') or ''} · {model['dtype']} · fingerprint {model['fingerprint']}",
        ),
        ("spent", spent),
        ("machine", _pairs(machine)),
        ("versions", _pairs(record["versions"])),
        ("made", record["created"]),
    ]
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts)
    return (
        f"<h2>How it was measured</h2>\n<dl>{rows}</dl>\n"
        f"<details><summary>Config</summary><pre>{escape(toml(config))}</pre></details>"
    )


def _subtitle(record: dict[str, Any]) -> str:
    search = record["config"].get("search", {})
    tried = f"{len(record['candidates']):,} perturbation{'s' * (len(record['candidates']) != 1)}"
    return f"{record['model']['name']} · {tried} ({search.get('family', 'noise')}) · {record['created'][:10]}"


def _table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already. Wide tables scroll on their own, and by keyboard, so that the page never does."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{_text(label)}" tabindex="0">\n<table>\n<thead><tr>{top}</tr>'
        f"</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _text(value: Any) -> str:
    return escape(plain(value))


def _prose(text: str) -> str:
    """Sentences in which a number keeps its percent sign beside it."""
    return _text(minus(text)).replace(" %", "&nbsp;%")


def _code(value: Any) -> str:
    return f"<code>{_text(value)}</code>"


def _small(text: str) -> str:
    return f"<small>{minus(text)}</small>" if text else ""


def _blank(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None else minus(show(value))


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
