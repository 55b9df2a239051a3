"""The figures of a report, as inline SVG strings: made for a screen of any width, light or dark, and for paper.

A figure is a function of the record. Each is 400 units wide with text of 13, so that on a narrow phone it is still
legible. Colours come from `STYLE`, which the page holds once; blue and vermilion are told apart by every common kind of
colour vision, and shape or place always says the same as colour. A record without the numbers for a figure gives a
figure that says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from seedfold.report.drawing import (
    LINE,
    STYLE,
    WIDTH,
    Axis,
    Drawing,
    beside,
    cross,
    domain,
    empty,
    points_tick,
    px,
    short,
    spread,
    ticks,
)
from seedfold.report.lines import best, level_text, of_kind, passes, percent, plain, points, span

__all__ = ["STYLE", "busy", "gains", "lead", "progress", "scales", "spread", "ticks", "transfer", "votes"]

STRIPS, STRETCHES = 16, 80
"""Engines that have a strip of their own, at most, and the stretches of time that a strip is made of."""
MANY = 1000
"""Above so many marks they are thinner and have no tooltips, which would be most of the page's bytes."""


def transfer(record: dict[str, Any]) -> str:
    """Lead over the base on search against that on select: whether what scored well does well again."""
    base = record["base"]
    marks: dict[tuple[float, float], list[int]] = defaultdict(list)
    for place, one in enumerate(record["candidates"]):
        if one.get("select") is not None and one["search"] is not None:
            marks[one["search"] - base["search"], one["select"] - base["select"]].append(place)
    if not marks:
        return empty("No candidate was scored on select.")
    # Splits differ in how hard they are, so that only leads over the base can be compared.
    across, up = ([lead[axis] for lead in marks] for axis in (0, 1))
    drawing = Drawing("Lead over the base on search against lead on select, one dot per candidate", height=356)
    left, right, top, bottom = 52, WIDTH - 72, 32, 308
    x, y = (
        Axis(*domain([0.0, *across], within=False), left, right),
        Axis(*domain([0.0, *up], within=False), bottom, top),
    )
    drawing.y_axis(y, left, right, "points above the base, on select", points_tick)
    values = ticks(x.low, x.high)
    drawing.x_axis(x, bottom, [(one, points_tick(one, values)) for one in values], "points above the base, on search")
    labels = []
    trust, scores = record["search"].get("reliability"), [one["search"] for one in record["candidates"]]
    centre = sum(scores) / len(scores) - base["search"]
    lines = [("dashed", "as on search", "", 0.0, 1.0)]
    if trust is not None:
        lines.append(("line-red", "expected", "red", centre * (1 - trust), trust))
    for style, name, colour, start, slope in lines:
        ends = _within(start, slope, x, y)
        if ends:
            drawing.path(style, [(x(lead), y(start + slope * lead)) for lead in ends])
            labels.append((y(start + slope * ends[1]), name, colour))
    for (search, select), places in marks.items():
        title = f"{len(places)} candidates" if len(places) > 1 else _named(record["candidates"][places[0]])
        one = record["candidates"][places[0]]
        title += f": search {percent(one['search'])}, select {percent(one['select'])}"
        radius = min(12, (4 if len(marks) <= MANY else 2) * math.sqrt(len(places)))
        drawing.dot("dot", x(search), y(select), round(radius, 1), title if len(marks) <= MANY else "", places)
    cross(drawing, x(0), y(0))
    drawing.text(x(0) + 8, y(0) - 8, "base")
    beside(drawing, right + 6, [part for label in labels for part in _lines(*label)], top, bottom)
    return drawing.done()


def _within(start: float, slope: float, x: Axis, y: Axis) -> tuple[float, float] | None:
    """The part of x's range where start + slope · x is within y's; slope ≥ 0."""
    low, high = x.low, x.high
    if slope > 0:
        low, high = max(low, (y.low - start) / slope), min(high, (y.high - start) / slope)
    return (low, high) if low < high else None


def _lines(y: float, text: str, colour: str) -> list[tuple[float, str, str]]:
    """A label of a narrow margin, a word or two a line."""
    first, _, rest = text.rpartition(" ")
    return [(y, first, colour), (y + LINE, rest, colour)] if first else [(y, rest, colour)]


def gains(record: dict[str, Any], axis: str = "difference to the base on test, points") -> str:
    """Difference to the base on test of every method, with its interval: a line per method, the base a dashed line."""
    lines = [line for line in record["results"] if line.get("difference") is not None and line.get("ci95")]
    if not lines:
        return empty("Nothing was compared with the base.")
    ends = [end for line in lines for end in line["ci95"]]
    low, high = domain([0.0, *ends])
    top, row = 12, 44
    bottom = top + row * len(lines)
    drawing = Drawing("Difference to the base on test, with intervals, method by method", height=bottom + 48)
    x = Axis(low, high, 12, WIDTH - 12)
    values = ticks(low, high)
    for value in values:
        drawing.line("grid", x(value), top, x(value), bottom)
    drawing.line("dashed", x(0), top, x(0), bottom)
    for number, line in enumerate(lines):
        y = top + row * number + 32
        colour = "blue" if line["kind"] in ("single", "vote", "fold") else "red"
        drawing.line(f"line-{colour}", x(line["ci95"][0]), y, x(line["ci95"][1]), y)
        title = f"{line['method']}: {points(line['difference'])} {span(line['ci95'])} points, {passes(line)} per answer"
        drawing.dot(f"dot-{colour}", x(line["difference"]), y, title=title)
        name, told = plain(line["method"]), f"{points(line['difference'])} {span(line['ci95'])}"
        room = 52 - len(told)  # letters that fit beside the numbers
        name = name if len(name) <= room else name[: room - 3] + "..."
        drawing.text(12, y - 12, name, style="" if line["passes"] == 1 else "quiet")
        drawing.text(WIDTH - 12, y - 12, told, "end")
    labels = [(value, points(value).removesuffix(".0") if value else "0") for value in values]
    drawing.x_axis(x, bottom, labels, axis)
    return drawing.done()


def votes(record: dict[str, Any]) -> str:
    """Accuracy on select against K, for the vote and for self-consistency, with intervals."""
    lines = sorted(record["votes"], key=lambda line: line["k"])
    series = [("vote", "vote", "blue", -3.0), ("self_consistency", "self-consistency", "red", 3.0)]
    known = [line for line in lines if line.get("vote") is not None and line.get("self_consistency") is not None]
    if not known:
        return empty("No vote was counted on select.")
    ends = [end for line in known for name, *_ in series for end in (line.get(f"{name}_ci95") or [line[name]])]
    base = record["base"].get("select")
    low, high = domain([*ends, *([] if base is None else [base])])
    drawing = Drawing("Accuracy on select against K, for the vote and for self-consistency of the base")
    left, right, top, bottom = 52, WIDTH - 124, 44, 252
    sizes = [line["k"] for line in known]
    edge = 1.12
    x = Axis(min(sizes) / edge, max(sizes) * edge, left, right, log=True)
    y = Axis(low, high, bottom, top)
    drawing.y_axis(y, left, right, "accuracy on select")
    drawing.x_axis(x, bottom, [(k, str(k)) for k in sizes], "K, forward passes per answer")
    chosen = record.get("chosen_k")
    if chosen is not None and chosen in sizes:
        drawing.line("line", x(chosen), top, x(chosen), bottom)
        drawing.text(min(right + 40, max(left + 40, x(chosen))), top - 8, f"chosen: K = {chosen}", "middle")
    labels = []
    if base is not None:
        drawing.line("dashed", left, y(base), right, y(base))
        labels.append((y(base), "base", ""))
    for name, label, colour, aside in series:
        # The two stand side by side at each K, so that neither hides the other's interval.
        drawing.path(f"line-{colour}", [(x(line["k"]) + aside, y(line[name])) for line in known])
        for line in known:
            place = x(line["k"]) + aside
            span = line.get(f"{name}_ci95")
            if span:
                drawing.line(f"line-{colour}", place, y(span[0]), place, y(span[1]))
            title = f"{label} of {line['k']}: {percent(line[name])}"
            title += f", {level_text(record)} interval {percent(span[0])} to {percent(span[1])}" if span else ""
            drawing.dot(f"dot-{colour}", place, y(line[name]), title=title)
        labels.append((y(known[-1][name]), label, colour))
    beside(drawing, right + 8, labels, top, bottom)
    return drawing.done()


def scales(record: dict[str, Any]) -> str:
    """Score on search by noise scale: a dot per candidate, the mean of each scale, and the base."""
    groups: dict[float, list[float]] = defaultdict(list)
    for one in record["candidates"]:
        if one["search"] is not None:
            groups[abs(one["scale"])].append(one["search"])
    if not groups:
        return empty("No candidate gave graded answers to search.")
    base, many = record["base"]["search"], len(record["candidates"]) > MANY
    low, high = domain([base, *(one["search"] for one in record["candidates"])])
    drawing = Drawing("Score on search by noise scale, one dot per candidate, with means and the base")
    left, right, top, bottom = 52, WIDTH - 50, 32, 252
    x, y = Axis(0, len(groups), left, right), Axis(low, high, bottom, top)
    drawing.y_axis(y, left, right, "score on search")
    drawing.x_axis(x, bottom, [(i + 0.5, f"{sigma:g}") for i, sigma in enumerate(sorted(groups))], "noise scale σ")
    most = max(one["examples"] for one in record["candidates"])
    column = {sigma: i for i, sigma in enumerate(sorted(groups))}
    drawn: dict[float, int] = defaultdict(int)
    places = []
    for number, one in enumerate(record["candidates"]):
        # Multiples of the golden ratio fill an interval evenly however many there are, and are always the same.
        sigma = abs(one["scale"])
        place = (x(column[sigma] + 0.15 + 0.7 * (drawn[sigma] * 0.6180339887 % 1)), y(one["search"]))
        drawn[sigma] += 1
        places.append(place)
        if not many:
            asked = f", {one['examples']} examples" if one["examples"] < most else ""
            title = f"{_named(one)}: {percent(one['search'])}{asked}"
            drawing.dot("dot", *place, r=3, title=title, of=[number])
    if many:
        # A vertex per candidate, in their order.
        drawing.add("path", "dots", d="".join(f"M{px(a):g} {px(b):g}h0" for a, b in places), data_all="")
    drawing.line("dashed", left, y(base), right, y(base))
    for i, sigma in enumerate(sorted(groups)):
        mean = sum(groups[sigma]) / len(groups[sigma])
        drawing.line("line-red", x(i + 0.1), y(mean), x(i + 0.9), y(mean))
    beside(drawing, right + 6, [(y(base), "base", ""), (y(mean), "mean", "red")], top, bottom)
    return drawing.done()


def progress(record: dict[str, Any]) -> str:
    """Best score so far against answers spent on the search."""
    steps = record["progress"]
    if not steps:
        return empty("No progress was recorded.")
    base = record["base"]["search"]
    low, high = domain([base, *(score for _, score in steps)])
    drawing = Drawing("Best search score so far against evaluations")
    left, right, top, bottom = 52, WIDTH - 50, 32, 252
    x, y = Axis(0, steps[-1][0] or 1, left, right), Axis(low, high, bottom, top)
    drawing.y_axis(y, left, right, "best score on search so far")
    values = ticks(0, steps[-1][0] or 1, 4)
    drawing.x_axis(x, bottom, [(value, short(value)) for value in values], "evaluations")
    drawing.line("dashed", left, y(base), right, y(base))
    # A step only where the best changes: the same curve as with a point per candidate.
    places, score = [(x(steps[0][0]), y(steps[0][1]))], steps[0][1]
    for spent, now in steps[1:]:
        if now != score:
            places += [(x(spent), y(score)), (x(spent), y(now))]
            score = now
    places.append((x(steps[-1][0]), y(score)))
    drawing.path("line-blue", places)
    drawing.dot("dot-blue", *places[-1], title=f"{percent(score)} after {steps[-1][0]:,} evaluations")
    beside(drawing, right + 8, [(y(base), "base", ""), (y(score), "best", "blue")], top, bottom)
    return drawing.done()


def lead(record: dict[str, Any]) -> str:
    """The winner's lead over the base: observed on search, what chance gives, and what is left of it on test."""
    search, single = record["search"], of_kind(record, "single")
    observed, mean, high = (search.get(name) for name in ("lead", "chance_mean", "chance_high"))
    if observed is None or mean is None or high is None:
        return empty("The winner's lead was not compared with chance.")
    rows = [
        (f"observed on search: {points(observed)}", observed, None, "blue"),
        (f"by chance alone: {points(mean)}, {level_text(record)} below {points(high)}", mean, (mean, high), "quiet"),
    ]
    winner = best(record)
    if winner and winner.get("shrunk") is not None and not record.get("racing"):
        believed = winner["shrunk"] - record["base"]["search"]
        rows.append((f"expected after shrinkage: {points(believed)}", believed, None, "blue"))
    if single and single.get("difference") is not None:
        text, span = f"on test: {points(single['difference'])}", single.get("ci95")
        text += f", {level_text(record)} interval {points(span[0])} to {points(span[1])}" if span else ""
        rows.append((text, single["difference"], span, "blue"))
    ends = [end for _, value, span, _ in rows for end in (value, *(span or ()))]
    low, high = domain([0, *ends], within=False)
    bottom = 18 + 48 * len(rows)
    drawing = Drawing("Lead of the best candidate over the base, observed and by chance", bottom + 50)
    x = Axis(low, high, 12, WIDTH - 12)
    values = ticks(low, high)
    for value in values:
        drawing.line("axis" if value == 0 else "grid", x(value), 8, x(value), bottom)
    drawing.x_axis(x, bottom, [(value, points_tick(value, values)) for value in values], "points above the base")
    for number, (text, value, span, colour) in enumerate(rows):
        height = 22 + 48 * number
        drawing.text(12, height, text)
        drawing.line(f"bar-{colour}", x(0), height + 15, x(value), height + 15)
        if span:
            drawing.line("line", x(span[0]), height + 15, x(span[1]), height + 15)
            for end in span:
                drawing.line("line", x(end), height + 9, x(end), height + 21)
    return drawing.done()


def busy(told: dict[str, Any]) -> str:
    """How much of each stretch of time each engine worked: a strip per engine, or, of many, one for all and the idlest.

    told: engines: number -> name, and rows of (engine, start s, end s, busy s, units ended).
    """
    rows = [row for row in told["rows"] if row[2] > row[1]]
    if not rows:
        return empty("Nothing was recorded of the engines.")
    first, last = min(row[1] for row in rows), max(row[2] for row in rows)
    numbers = sorted({row[0] for row in rows}, key=lambda number: (len(number), number))
    worked = {number: _shares([row for row in rows if row[0] == number], first, last) for number in numbers}
    total = {number: sum(shares) / len(shares) for number, shares in worked.items()}
    shown = numbers
    if len(numbers) > STRIPS:
        shown = sorted(sorted(numbers, key=total.__getitem__)[: STRIPS - 1], key=numbers.index)
    strips = [(f"{n}: {plain(told['engines'].get(n, ''))}".rstrip(": "), worked[n]) for n in shown]
    if len(numbers) > 1:
        every = [sum(shares) / len(numbers) for shares in zip(*worked.values(), strict=True)]
        strips.insert(0, (f"all {len(numbers)} engines", every))
    top, row_height = 8, 36
    bottom = top + row_height * len(strips) + 4
    drawing = Drawing("Share of the time that each engine worked, over the study's time", height=bottom + 44)
    x = Axis(first, last, 12, WIDTH - 12)
    width = (x.end - x.start) / STRETCHES
    for number, (name, shares) in enumerate(strips):
        y = top + row_height * number
        drawing.text(12, y + 12, name if len(name) <= 40 else name[:37] + "...")
        drawing.text(WIDTH - 12, y + 12, f"{percent(sum(shares) / len(shares))}", "end")
        for stretch, share in enumerate(shares):
            drawing.add(
                "rect", "busy", x=px(x.start + stretch * width), y=y + 18, width=px(width), height=12,
                fill_opacity=round(0.06 + 0.94 * share, 2),
            )  # fmt: skip
    unit, letter = next((one for one in ((3600, "h"), (60, "min")) if last - first >= 2 * one[0]), (1, "s"))
    marks = [(first + value * unit, f"{value:g}") for value in ticks(0, (last - first) / unit)]
    drawing.x_axis(x, bottom, marks, f"time the study ran, {letter}")
    return drawing.done()


def _shares(rows: Sequence[Sequence[Any]], first: float, last: float) -> list[float]:
    """Busy share, 0 to 1, of each of `STRETCHES` equal parts of the time, by one engine's rows."""
    width = (last - first) / STRETCHES
    busy = [0.0] * STRETCHES
    for _, start, end, worked, *_ in rows:
        for stretch in range(int((start - first) / width), min(STRETCHES - 1, int((end - first) / width)) + 1):
            low, high = max(start, first + stretch * width), min(end, first + (stretch + 1) * width)
            busy[stretch] += max(0.0, high - low) * worked / (end - start)
    return [min(1.0, one / width) for one in busy]


def _named(candidate: dict[str, Any]) -> str:
    return f"seed {candidate['seed']}, σ {candidate['scale']:g}"
