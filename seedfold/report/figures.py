"""The figures of a report, as inline SVG strings: made for a screen of any width, light or dark, and for paper.

A figure is a function of the record. Each is 400 units wide with text of 13, so that on a narrow phone it is still
legible. Colours come from `STYLE`, which the page holds once; blue and vermilion are told apart by every common kind of
colour vision, and shape or place always says the same as colour. A record without the numbers for a figure gives a
figure that says so.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from seedfold.report.lines import best, level_text, minus, of_kind, passes, percent, plain, points, span

WIDTH, HEIGHT = 400, 300
LINE = 15
"""Least distance between two lines of text."""
MANY = 1000
"""Above so many marks they are thinner and have no tooltips, which would be most of the page's bytes."""

STYLE = """
.figure { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
.figure text { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
.figure .quiet { fill: var(--quiet); }
.figure .blue { fill: var(--blue); }
.figure .red { fill: var(--red); }
.figure line, .figure path { fill: none; stroke: var(--quiet); stroke-width: 1; }
.figure .grid { stroke: var(--grid); }
.figure .axis { stroke: var(--quiet); }
.figure .dashed { stroke: var(--ink); stroke-dasharray: 5 4; }
.figure .line { stroke: var(--ink); stroke-width: 1.5; }
.figure .line-blue { stroke: var(--blue); stroke-width: 2; }
.figure .line-red { stroke: var(--red); stroke-width: 2; }
.figure .bar-blue { stroke: var(--blue); stroke-width: 10; }
.figure .bar-quiet { stroke: var(--quiet); stroke-width: 10; }
.figure .dot { fill: var(--blue); fill-opacity: .5; }
.figure .dots { stroke: var(--blue); stroke-opacity: .35; stroke-width: 2.4; stroke-linecap: round; }
.figure .dot-blue { fill: var(--blue); }
.figure .dot-red { fill: var(--red); }
"""


class Axis:
    """A linear or logarithmic map from values to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log = log
        self.low, self.high = (math.log(low), math.log(high)) if log else (low, high)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        value = math.log(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class Drawing:
    """SVG elements, collected. `label` is what a screen reader says."""

    def __init__(self, label: str, height: float = HEIGHT) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 {WIDTH} {height:g}" role="img" '
            f"aria-label={quoteattr(plain(label))}>"
        ]

    def add(self, tag: str, style: str, title: str = "", text: str = "", **attributes: float | str) -> None:
        shown = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
        inside = escape(minus(plain(text))) + (f"<title>{escape(minus(plain(title)))}</title>" if title else "")
        self.parts.append(
            f'<{tag} class="{style}"{shown}>{inside}</{tag}>' if inside else f'<{tag} class="{style}"{shown}/>'
        )

    def line(self, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self.add("line", style, x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2))

    def dot(self, style: str, x: float, y: float, r: float = 4, title: str = "") -> None:
        self.add("circle", style, title, cx=_px(x), cy=_px(y), r=r)

    def text(self, x: float, y: float, text: str, anchor: str = "start", style: str = "") -> None:
        self.add("text", style, text=text, x=_px(x), y=_px(y), text_anchor=anchor)

    def path(self, style: str, places: Iterable[tuple[float, float]]) -> None:
        self.add("path", style, d="M" + "L".join(f"{_px(x):g} {_px(y):g}" for x, y in places))

    def y_axis(self, axis: Axis, left: float, right: float, title: str) -> None:
        """Grid lines with percent labels, and the title above them, where it needs no rotation."""
        values = ticks(axis.low, axis.high)
        for value in values:
            self.line("grid", left, axis(value), right, axis(value))
            self.text(left - 6, axis(value) + 4.5, _percent_tick(value, values), "end", "quiet")
        self.text(4, 16, title)

    def x_axis(self, axis: Axis, bottom: float, labels: Sequence[tuple[float, str]], title: str) -> None:
        """A base line with labelled ticks, as many as fit, and the title below."""
        self.line("axis", axis.start, bottom, axis.end, bottom)
        taken = -math.inf
        for value, label in labels:
            x, half = axis(value), 3.7 * len(label)
            self.line("axis", x, bottom, x, bottom + 4)
            if x - half > taken:
                self.text(x, bottom + 18, label, "middle", "quiet")
                taken = x + half + 4
        self.text((axis.start + axis.end) / 2, bottom + 38, title, "middle")

    def done(self) -> str:
        return "\n".join([*self.parts, "</svg>"])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values within [low, high], 1, 2 or 5 times a power of ten apart, roughly `about` of them."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / about))
    step *= min((1, 2, 5, 10), key=lambda factor: abs(math.log(span / about / (step * factor))))
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def spread(wanted: Sequence[float], low: float, high: float, gap: float = LINE) -> list[float]:
    """Places as near as possible to those wanted, in the same order, at least `gap` apart, within [low, high]."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [0.0] * len(wanted)
    floor = low
    for i in order:
        places[i] = floor = max(wanted[i], floor)
        floor += gap
    ceiling = high
    for i in reversed(order):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places


def transfer(record: dict[str, Any]) -> str:
    """Search score against select score: whether what scored well does well again."""
    both = [one for one in record["candidates"] if one.get("select") is not None]
    base = record["base"]
    if not both:
        return _empty("No candidate was scored on select.")
    values = [one[split] for one in both for split in ("search", "select")]
    low, high = _domain([*values, base["search"], base["select"]])
    drawing = Drawing("Score on search against score on select, one dot per candidate", height=356)
    left, right, top, bottom = 52, WIDTH - 72, 32, 308
    x, y = Axis(low, high, left, right), Axis(low, high, bottom, top)
    drawing.y_axis(y, left, right, "score on select")
    values = ticks(low, high)
    drawing.x_axis(x, bottom, [(value, _percent_tick(value, values)) for value in values], "score on search")
    drawing.line("dashed", x(low), y(low), x(high), y(high))
    marks = Counter((one["search"], one["select"]) for one in both)
    seeds = {(one["search"], one["select"]): one for one in both}
    for (search, select), number in marks.items():
        title = f"{number} candidates" if number > 1 else _named(seeds[search, select])
        title = f"{title}: search {percent(search)}, select {percent(select)}" if len(marks) <= MANY else ""
        radius = min(12, (4 if len(marks) <= MANY else 2) * math.sqrt(number))
        drawing.dot("dot", x(search), y(select), round(radius, 1), title)
    _cross(drawing, x(base["search"]), y(base["select"]))
    drawing.text(x(base["search"]) + 8, y(base["select"]) - 8, "base")
    labels = [(y(high), "as on", ""), (y(high) + LINE, "search", "")]
    trust = record["search"].get("reliability")
    if trust is not None:
        scores = [one["search"] for one in record["candidates"]]
        centre = sum(scores) / len(scores)
        expected = [min(high, max(low, centre + trust * (score - centre))) for score in (low, high)]
        drawing.path("line-red", [(x(low), y(expected[0])), (x(high), y(expected[1]))])
        labels.append((y(expected[1]), "expected", "red"))
    _beside(drawing, right + 6, labels, top, bottom)
    return drawing.done()


def gains(record: dict[str, Any]) -> str:
    """Difference to the base on test of every method, with its interval: a line per method, the base a dashed line."""
    lines = [line for line in record["results"] if line.get("difference") is not None and line.get("ci95")]
    if not lines:
        return _empty("Nothing was compared with the base.")
    ends = [end for line in lines for end in line["ci95"]]
    low, high = _domain([0.0, *ends])
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
        name = plain(line["method"])
        drawing.text(
            12, y - 12, name if len(name) <= 40 else name[:37] + "...", style="" if line["passes"] == 1 else "quiet"
        )
        drawing.text(WIDTH - 12, y - 12, f"{points(line['difference'])} {span(line['ci95'])}", "end")
    labels = [(value, points(value).removesuffix(".0") if value else "0") for value in values]
    drawing.x_axis(x, bottom, labels, "difference to the base on test, points")
    return drawing.done()


def votes(record: dict[str, Any]) -> str:
    """Accuracy on select against K, for the vote and for self-consistency, with intervals."""
    lines = sorted(record["votes"], key=lambda line: line["k"])
    series = [("vote", "vote", "blue", -3.0), ("self_consistency", "self-consistency", "red", 3.0)]
    known = [line for line in lines if line.get("vote") is not None and line.get("self_consistency") is not None]
    if not known:
        return _empty("No vote was counted on select.")
    ends = [end for line in known for name, *_ in series for end in (line.get(f"{name}_ci95") or [line[name]])]
    base = record["base"].get("select")
    low, high = _domain([*ends, *([] if base is None else [base])])
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
    _beside(drawing, right + 8, labels, top, bottom)
    return drawing.done()


def scales(record: dict[str, Any]) -> str:
    """Score on search by noise scale: a dot per candidate, the mean of each scale, and the base."""
    groups: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for one in record["candidates"]:
        groups[abs(one["scale"])].append(one)
    if not groups:
        return _empty("There are no candidates.")
    base, total = record["base"]["search"], len(record["candidates"])
    low, high = _domain([base, *(one["search"] for one in record["candidates"])])
    drawing = Drawing("Score on search by noise scale, one dot per candidate, with means and the base")
    left, right, top, bottom = 52, WIDTH - 50, 32, 252
    x, y = Axis(0, len(groups), left, right), Axis(low, high, bottom, top)
    drawing.y_axis(y, left, right, "score on search")
    drawing.x_axis(x, bottom, [(i + 0.5, f"{sigma:g}") for i, sigma in enumerate(sorted(groups))], "noise scale σ")
    most = max(one["examples"] for one in record["candidates"])
    thin = []
    for i, sigma in enumerate(sorted(groups)):
        for number, one in enumerate(groups[sigma]):
            # Multiples of the golden ratio fill an interval evenly however many there are, and are always the same.
            place = (x(i + 0.15 + 0.7 * (number * 0.6180339887 % 1)), y(one["search"]))
            if total > MANY:
                thin.append(place)
            else:
                asked = f", {one['examples']} examples" if one["examples"] < most else ""
                drawing.dot("dot", *place, r=3, title=f"{_named(one)}: {percent(one['search'])}{asked}")
    if thin:
        drawing.add("path", "dots", d="".join(f"M{_px(a):g} {_px(b):g}h0" for a, b in thin))
    drawing.line("dashed", left, y(base), right, y(base))
    for i, sigma in enumerate(sorted(groups)):
        mean = sum(one["search"] for one in groups[sigma]) / len(groups[sigma])
        drawing.line("line-red", x(i + 0.1), y(mean), x(i + 0.9), y(mean))
    _beside(drawing, right + 6, [(y(base), "base", ""), (y(mean), "mean", "red")], top, bottom)
    return drawing.done()


def progress(record: dict[str, Any]) -> str:
    """Best score so far against answers spent on the search."""
    steps = record["progress"]
    if not steps:
        return _empty("No progress was recorded.")
    base = record["base"]["search"]
    low, high = _domain([base, *(score for _, score in steps)])
    drawing = Drawing("Best search score so far against evaluations")
    left, right, top, bottom = 52, WIDTH - 50, 32, 252
    x, y = Axis(0, steps[-1][0] or 1, left, right), Axis(low, high, bottom, top)
    drawing.y_axis(y, left, right, "best score on search so far")
    values = ticks(0, steps[-1][0] or 1, 4)
    drawing.x_axis(x, bottom, [(value, _short(value)) for value in values], "evaluations")
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
    _beside(drawing, right + 8, [(y(base), "base", ""), (y(score), "best", "blue")], top, bottom)
    return drawing.done()


def lead(record: dict[str, Any]) -> str:
    """The winner's lead over the base: observed on search, what chance gives, and what is left of it on test."""
    search, single = record["search"], of_kind(record, "single")
    observed, mean, high = (search.get(name) for name in ("lead", "chance_mean", "chance_high"))
    if observed is None or mean is None or high is None:
        return _empty("The winner's lead was not compared with chance.")
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
    low, high = _domain([0, *ends], within=False)
    bottom = 18 + 48 * len(rows)
    drawing = Drawing("Lead of the best candidate over the base, observed and by chance", bottom + 50)
    x = Axis(low, high, 12, WIDTH - 12)
    values = ticks(low, high)
    for value in values:
        drawing.line("axis" if value == 0 else "grid", x(value), 8, x(value), bottom)
    drawing.x_axis(x, bottom, [(value, _points_tick(value, values)) for value in values], "points above the base")
    for number, (text, value, span, colour) in enumerate(rows):
        height = 22 + 48 * number
        drawing.text(12, height, text)
        drawing.line(f"bar-{colour}", x(0), height + 15, x(value), height + 15)
        if span:
            drawing.line("line", x(span[0]), height + 15, x(span[1]), height + 15)
            for end in span:
                drawing.line("line", x(end), height + 9, x(end), height + 21)
    return drawing.done()


def _empty(text: str) -> str:
    drawing = Drawing(text, height=60)
    drawing.text(WIDTH / 2, 34, text, "middle", "quiet")
    return drawing.done()


def _beside(drawing: Drawing, x: float, labels: Sequence[tuple[float, str, str]], top: float, bottom: float) -> None:
    """Labels to the right of the lines they name, moved apart where lines end close together."""
    for place, (_, text, style) in zip(spread([y for y, *_ in labels], top, bottom), labels, strict=True):
        drawing.text(x, place + 4.5, text, style=style)


def _cross(drawing: Drawing, x: float, y: float) -> None:
    drawing.line("line", x - 6, y, x + 6, y)
    drawing.line("line", x, y - 6, x, y + 6)


def _domain(values: Sequence[float], within: bool = True) -> tuple[float, float]:
    """An axis range with air around the values, at least 4 points; fractions keep within [0, 1]."""
    low, high = min(values), max(values)
    air = max(0.08 * (high - low), (0.04 - (high - low)) / 2, 0.005)
    if within and low >= 0 and high <= 1:
        return max(0.0, low - air), min(1.0, high + air)
    return low - air, high + air


def _named(candidate: dict[str, Any]) -> str:
    return f"seed {candidate['seed']}, σ {candidate['scale']:g}"


def _decimals(values: Sequence[float]) -> int:
    """Decimals, as percent, that tell neighbouring ticks apart."""
    step = 100 * (values[1] - values[0]) if len(values) > 1 else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _percent_tick(value: float, values: Sequence[float]) -> str:
    return f"{100 * value:.{_decimals(values)}f} %"


def _points_tick(value: float, values: Sequence[float]) -> str:
    return f"{100 * value:+.{_decimals(values)}f}" if value else "0"


def _short(value: float) -> str:
    """12000 → '12k'."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _px(value: float) -> float:
    """A tenth of a pixel is enough, and keeps the file small."""
    return round(float(value), 1)
