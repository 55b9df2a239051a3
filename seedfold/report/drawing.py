"""What figures are drawn with: axes, marks and text as SVG, and the colours of a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

from seedfold.report.lines import minus, plain

WIDTH, HEIGHT = 400, 300
LINE = 15
"""Least distance between two lines of text."""
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
.figure .busy { fill: var(--blue); shape-rendering: crispEdges; }
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
        self.add("line", style, x1=px(x1), y1=px(y1), x2=px(x2), y2=px(y2))

    def dot(self, style: str, x: float, y: float, r: float = 4, title: str = "", of: Sequence[int] = ()) -> None:
        """of: the candidates that the dot stands for, by their places in the record; the page's script asks."""
        places = {"data_c": " ".join(map(str, of))} if of else {}
        self.add("circle", style, title, cx=px(x), cy=px(y), r=r, **places)

    def text(self, x: float, y: float, text: str, anchor: str = "start", style: str = "") -> None:
        self.add("text", style, text=text, x=px(x), y=px(y), text_anchor=anchor)

    def path(self, style: str, places: Iterable[tuple[float, float]]) -> None:
        self.add("path", style, d="M" + "L".join(f"{px(x):g} {px(y):g}" for x, y in places))

    def y_axis(
        self,
        axis: Axis,
        left: float,
        right: float,
        title: str,
        tick: Callable[[float, Sequence[float]], str] | None = None,
    ) -> None:
        """Grid lines with labels, percent unless `tick` says, and the title above them, where it needs no rotation."""
        values = ticks(axis.low, axis.high)
        for value in values:
            self.line("grid", left, axis(value), right, axis(value))
            self.text(left - 6, axis(value) + 4.5, (tick or percent_tick)(value, values), "end", "quiet")
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


def empty(text: str) -> str:
    drawing = Drawing(text, height=60)
    drawing.text(WIDTH / 2, 34, text, "middle", "quiet")
    return drawing.done()


def beside(drawing: Drawing, x: float, labels: Sequence[tuple[float, str, str]], top: float, bottom: float) -> None:
    """Labels to the right of the lines they name, moved apart where lines end close together."""
    for place, (_, text, style) in zip(spread([y for y, *_ in labels], top, bottom), labels, strict=True):
        drawing.text(x, place + 4.5, text, style=style)


def cross(drawing: Drawing, x: float, y: float) -> None:
    drawing.line("line", x - 6, y, x + 6, y)
    drawing.line("line", x, y - 6, x, y + 6)


def domain(values: Sequence[float], within: bool = True) -> tuple[float, float]:
    """An axis range with air around the values, at least 4 points; fractions keep within [0, 1]."""
    low, high = min(values), max(values)
    air = max(0.08 * (high - low), (0.04 - (high - low)) / 2, 0.005)
    if within and low >= 0 and high <= 1:
        return max(0.0, low - air), min(1.0, high + air)
    return low - air, high + air


def _decimals(values: Sequence[float]) -> int:
    """Decimals, as percent, that tell neighbouring ticks apart."""
    step = 100 * (values[1] - values[0]) if len(values) > 1 else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-9))


def percent_tick(value: float, values: Sequence[float]) -> str:
    return f"{100 * value:.{_decimals(values)}f} %"


def points_tick(value: float, values: Sequence[float]) -> str:
    return f"{100 * value:+.{_decimals(values)}f}" if value else "0"


def short(value: float) -> str:
    """12000 → '12k'."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def px(value: float) -> float:
    """A tenth of a pixel is enough, and keeps the file small."""
    return round(float(value), 1)
