"""The report: one HTML file with everything in it, which opens anywhere, prints, and asks nothing of the network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedfold.report import answers, figures, parts
from seedfold.report.lines import (
    count,
    cut_share,
    level_text,
    minus,
    one_pass,
    p_text,
    percent,
    points,
    sentences,
    span,
    verdict,
)
from seedfold.report.parts import blank, code, prose, small, table, text

if TYPE_CHECKING:
    from seedfold.splits import Dealt

TOP = 20
"""Rows of the table of candidates."""

GAINS = (
    "What each method gained",
    "An interval that holds the dashed line does not tell the method from the base. Names in grey take several forward "
    "passes per answer.",
)

BUSY = (
    "How busy the engines were",
    "A stretch of time is the darker, the more of it the engine worked; the share at the right is of the whole time. Pale "
    "stretches in all rows at once are waiting for the rest of the program: grading, or the end of a phase.",
)

VOTES = (
    "Vote or sample",
    "Where the whiskers of vote and self-consistency overlap widely, sampling the unchanged base does about as well at the "
    "same cost; the dashed line is the base answering once.",
)

FIGURES: list[tuple[Callable[[dict[str, Any]], str], str, str]] = [
    (
        figures.lead,
        "How much of the winner's lead is luck",
        "A lead on search that stays within the whisker of the grey bar is what the best of as many equal candidates "
        "would show; the last bar is what the best single model gains on examples never used to choose.",
    ),
    (
        figures.transfer,
        "Does a good score come again",
        "Each dot is a candidate, by how far it is above the base (the cross): dots along the dashed line lead on select "
        "by what they led on search; the solid line is what the reliability of the scores leads one to expect.",
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


def of_folder(record: dict[str, Any], folder: Path, dealt: Dealt | None = None) -> None:
    """Write the report of a study into its folder, with the answers its journal has and how busy its engines were.

    dealt: the study's task and splits, where they are loaded already.
    """
    write(record, folder / "report.html", answers.collect(folder, record, dealt), engines(folder))


def engines(folder: Path) -> dict[str, Any] | None:
    """What the engines of a study did, where its folder tells: names by number, and rows of `figures.busy`."""
    try:
        told = json.loads((folder / "engines.json").read_text(encoding="utf-8"))
        rows = [(str(engine), *map(float, rest)) for engine, *rest in told["rows"]]
        return {"engines": {str(number): str(name) for number, name in told["engines"].items()}, "rows": rows}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # a study of one engine has none, and nothing else rests on it


def write(
    record: dict[str, Any],
    path: Path,
    found: dict[str, Any] | None = None,
    busy: dict[str, Any] | None = None,
) -> None:
    """Write the report of a record, whole or not at all; see `html`."""
    parts.write(html(record, found, busy), path)


def html(record: dict[str, Any], found: dict[str, Any] | None = None, busy: dict[str, Any] | None = None) -> str:
    """The report as text. Whatever comes from a study is escaped, and the page may load nothing.

    Args:
        found: answers to show side by side, of `answers.collect`.
        busy: what the engines did, of `engines`.
    """
    body = [
        f"<h1>{text(record['name'])}</h1>",
        f'<p class="quiet">{text(_subtitle(record))}</p>',
        f'<p class="verdict">{prose(verdict(record))}</p>',
        _deploy(record),
        f"<h2>Results on {count(record['results'][0]['n'])} test examples</h2>\n{results(record)}",
        '<ul class="notes">' + "".join(f"<li>{prose(one)}</li>" for one in _notes(record)) + "</ul>",
        '<div class="figures">',
        parts.figure(figures.gains(record), *GAINS),
        parts.figure(figures.votes(record), *VOTES),
        "</div>",
        '<h2>What the search saw</h2>\n<div class="figures">',
        *(parts.figure(draw(record), title, caption) for draw, title, caption in FIGURES),
        "</div>",
        answers.section(found),
        _candidates(record),
        f'<h2>The engines</h2>\n<div class="figures">{parts.figure(figures.busy(busy), *BUSY)}</div>' if busy else "",
        _recipes(record),
        _measured(record),
        parts.data("candidates", _numbers(record)),
    ]
    return parts.document(record["name"], body, script=True)


def _numbers(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What the script says of each candidate, in the record's order; seeds as text, for they have 64 bits."""
    return [
        {
            "rank": one["rank"],
            "seed": str(one["seed"]),
            "scale": one["scale"],
            "search": _rounded(one["search"]),
            "examples": one["examples"],
            "expected": _rounded(one["shrunk"]),
            "select": _rounded(one.get("select")),
        }
        for one in record["candidates"]
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _deploy(record: dict[str, Any]) -> str:
    """How to get the weights of what the verdict says to deploy."""
    chosen = one_pass(record)
    if not chosen:
        return ""
    return f'<pre class="command">seedfold export {text(chosen["recipes"][0])} DIR</pre>'


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


def results(record: dict[str, Any]) -> str:
    """The table of result lines."""
    level = f"<small>{text(level_text(record))} interval</small>"
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
            text(line["method"]),
            percent(line["accuracy"]) + small(span(line.get("interval"), lambda share: f"{100 * share:.1f}")),
            blank(line["difference"], points) + small(span(line.get("ci95"))),
            blank(line.get("p"), lambda p: p_text(p).removeprefix("p=").replace("p<", "< ")),
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
    return table("Results", head, rows)


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


def _candidates(record: dict[str, Any]) -> str:
    every = record["candidates"]
    places = sorted(range(len(every)), key=lambda place: every[place]["rank"])[:TOP]
    top = [every[place] for place in places]
    head = ["rank", "seed", "σ", "search", "examples", "expected", "select", "lenient", "cut off", "recipe"]
    rows = [
        [
            count(one["rank"]),
            text(one["seed"]),
            minus(f"{one['scale']:g}"),
            blank(one["search"], percent) + small("" if one.get("se") is None else f"± {percent(one['se'])}")
            if one.get("nats") is None
            else minus(f"{one['nats']:+.3f} nats"),
            count(one["examples"]),
            blank(one["shrunk"], percent),
            blank(one.get("select"), percent),
            blank(one["lenient"], percent),
            "" if one["truncated"] is None else count(one["truncated"]),
            code(one["recipe"]) if one.get("recipe") else "",
        ]
        for one in top
    ]
    total = len(every)
    shown = f"The best {len(top)} of {total:,} candidates" if len(top) < total else "Candidates"
    note = (
        '<p class="small quiet">Ordered by the score to expect: that on search, less what chance has probably '
        "added to it. ± is one standard error.</p>"
    )
    return f"<h2>{shown}</h2>\n{note}\n" + table(shown, head, rows, places)


def _recipes(record: dict[str, Any]) -> str:
    items = [
        f"<dt>{text(line['method'])}</dt><dd>{', '.join(map(code, line['recipes']))}</dd>"
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
    return (
        f"<h2>How it was measured</h2>\n{parts.facts(facts)}\n"
        f"<details><summary>Config</summary><pre>{escape(toml(config))}</pre></details>"
    )


def _subtitle(record: dict[str, Any]) -> str:
    search = record["config"].get("search", {})
    tried = f"{len(record['candidates']):,} perturbation{'s' * (len(record['candidates']) != 1)}"
    spent = f"{count(record['evaluations'])} answers, {_duration(record['seconds'])}"
    family = search.get("family", "noise")
    return f"{record['model']['name']} · {tried} ({family}) · {spent} · {record['created'][:10]}"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
