"""A running study told: in one line, as a dashboard, and as a page that is loaded again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seedfold.progress import duration
from seedfold.report import figures, parts
from seedfold.report.lines import count, percent, plain, points, span

if TYPE_CHECKING:
    from seedfold.watch import View


def status(view: View) -> str:
    """One line: what a script or a log needs."""
    share = f" ({view.done / view.planned:.0%})" if view.planned else ""
    told = [f"{view.phase}: {count(view.done)} of {count(view.planned)} answers{share}"]
    if not view.finished:
        told.append(f"{view.rate:.3g}/s" if view.rate else "rate not known yet")
        if view.left is not None:
            told.append(f"{duration(view.left)} left at most")
    if view.top:
        told.append(f"best of {count(view.scored)}: {percent(view.top[0].search)}, base {percent(view.base)}")
    return ", ".join(told)


def dashboard(view: View, width: int = 100) -> str:
    """Everything, as lines of a terminal."""
    filled = round(40 * view.done / view.planned) if view.planned else 0
    share = f"{100 * view.done / view.planned:.0f} %" if view.planned else ""
    run = f" · process {view.process}" if view.process else " · no process on this machine"
    lines = [
        f"{plain(view.name)} · {view.phase}{'' if view.finished else run}",
        f"[{'#' * filled}{'.' * (40 - filled)}] {share}",
        f"{count(view.done)} of at most {count(view.planned)} answers, {count(view.tokens)} tokens"
        + (f", {view.rate:.3g} answers/s" if view.rate and not view.finished else "")
        + (f", {duration(view.left)} left at most" if view.left is not None else ""),
    ]
    if view.engines:
        lines.append("engines busy " + ", ".join(view.engines))
    if view.base is not None and view.base_interval:
        lines.append(
            f"\nbase on search: {percent(view.base)} {span(view.base_interval, _share)} on {count(view.examples)} examples"
        )
    if view.top:
        lines += [
            f"the best {len(view.top)} of {count(view.scored)} candidates scored, of {count(view.candidates)}; the best of "
            "many owes much to luck:",
            f"{'seed':>20} {'sigma':>8} {'search':>7} {'interval':>14} {'to base':>8} {'interval':>14} {'expected':>8} "
            f"{'n':>5}",
        ]
        lines += [
            f"{one.seed:>20} {one.sigma:>8g} {percent(one.search):>7} {span(one.interval, _share):>14} "
            f"{points(one.difference):>8} {span(one.difference_interval):>14} {percent(one.expected):>8} {one.examples:>5}"
            for one in view.top
        ]
    return "\n".join(line[:width] for text in lines for line in text.split("\n"))


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def page(view: View, every: float) -> str:
    """The same as a page that a browser loads again every few seconds, until the study is finished."""
    facts = [("now", status(view)), ("tokens", count(view.tokens))]
    if view.engines:
        facts.append(("engines busy", ", ".join(view.engines)))
    body = [f"<h1>{parts.text(view.name)}</h1>", parts.facts(facts)]
    if view.finished:
        body.append('<p class="verdict">The study is finished: <a href="report.html">its report</a>.</p>')
    if view.base is not None:
        interval = span(view.base_interval, _share)
        body.append(f"<p>The base on search: {parts.prose(f'{percent(view.base)} {interval}')}.</p>")
    if view.top:
        drawn = {"candidates": view.drawn, "base": {"search": view.base}, "progress": view.best}
        head = ["seed", "σ", "search", "to the base, points", "expected", "examples"]
        rows = [
            [
                parts.text(one.seed),
                f"{one.sigma:g}",
                percent(one.search) + parts.small(span(one.interval, _share)),
                parts.minus(points(one.difference)) + parts.small(span(one.difference_interval)),
                percent(one.expected),
                count(one.examples),
            ]
            for one in view.top
        ]
        shown = f"The best {len(view.top)} of {count(view.scored)} candidates so far"
        body += [
            '<div class="figures">',
            parts.figure(
                figures.scales(drawn), "Scores on search", "A dot per candidate that answered the first round."
            ),
            parts.figure(figures.progress(drawn), "The best so far", "The best of more candidates owes more to luck."),
            f"</div>\n<h2>{shown}</h2>\n{parts.table(shown, head, rows)}",
        ]
    return parts.document(view.name, body, refresh=0 if view.finished else max(1, round(every)))
