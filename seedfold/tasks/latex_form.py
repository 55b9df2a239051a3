r"""What an answer in LaTeX is: a number, a word, a list, a tuple or interval, a matrix, or an expression.

Read by structure, from the outside in; bounded in length, depth and number of parts. Text that is nothing, or too much
for the bounds, gives None; nothing raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from seedfold.tasks import rational
from seedfold.tasks.latex_text import clean, closing, trim

MAX_TEXT = 1000
"""Characters of an answer."""

MAX_DEPTH = 20
"""Brackets within brackets."""

MAX_PARTS = 200
"""Parts of an answer, all lists and matrices together."""


@dataclass(frozen=True)
class Form:
    """kind: "number", "word", "expression", "list" (a set: any order), "tuple" (text: its brackets) or "matrix" (text:
    its shape). text: the cleaned LaTeX of the leaf. value: of a number. name: the left side of an equation, as x or f(x).
    base: of `101_2`. percent: a percent sign stood there. whole: the text with its name."""

    kind: str
    text: str
    value: Fraction | None = None
    parts: tuple[Form, ...] = ()
    name: str = ""
    base: int = 0
    percent: bool = False
    whole: str = ""


class _Unreadable(Exception):
    pass


def read(text: str, many: bool = False, unit: str = "") -> Form | None:
    """The form of an answer; None where there is nothing, or too much.

    many: commas between digits separate, `100,200` is two numbers. unit: may stand at the end and means nothing.
    """
    if len(text) > MAX_TEXT or _depth(text) > MAX_DEPTH or not balanced(text):
        return None
    text = clean(text)
    if unit:
        text = trim(text.removesuffix(clean(unit)))
    try:
        return _Reader().read(text, many) if text else None
    except _Unreadable:
        return None


_RELATION = re.compile(r"\\(?:le|ge)(?![a-z])|(?<![<>])[<>](?![<>])")
_NAME = re.compile(  # x, x_1, f(x), \theta, \angle ABC, \text{Area}, P(A)
    r"\\?[A-Za-z]+'*(?: ?_ ?(?:\w|\{[^{}]*\}))?(?: ?\( ?[A-Za-z](?: ?, ?[A-Za-z])* ?\))?"
    r"|\\(?:angle|overline|triangle|text|widehat|vec|mathbf) ?\{?[A-Za-z _{}\d]+\}?"
    r"|[A-Z] ?\([^()=]*\)"
)
_TEXT = re.compile(r"\(? ?\\text ?\{([^{}\\]*)\} ?\)?")
_WORD = re.compile(r"(?: ?\\text ?\{[^{}\\]*\})+|\\emptyset")
_LETTERS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]+)*")
_MATRIX = re.compile(r"\\begin ?\{(?:[pbBv]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end ?\{\w+\}", re.DOTALL)
_UNIT = re.compile(
    r" ?(?:\\text ?\{[^{}]*\} ?(?:\^ ?\{? ?-?\d ?\}?)?"
    r"|\^\{\\circ\} ?[CF]?"
    r"|(?<=[\d}) ]) ?(?:sq(?:uare)? ?\.? |cu(?:bic)? ?\.? )?"
    r"(?:cm|mm|km|kg|ft|mph|km ?/ ?h|m ?/ ?s|lbs?|mL|[A-Za-z]{4,})(?:\^ ?\{? ?\d ?\}?)? ?)$"
)
_BASE = re.compile(r"(\d+) ?_ ?\{ ?(?:\\text ?\{)? ?(\d{1,2}|ten|two)\ ?\}?\}?")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-z])")
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")


class _Reader:
    def __init__(self) -> None:
        self.parts = 0

    def read(self, text: str, many: bool, depth: int = 0) -> Form:
        self.parts += 1
        text = trim(text)
        if self.parts > MAX_PARTS or depth > MAX_DEPTH or not text:
            raise _Unreadable
        if text.startswith("\\text{") and "\\" in text[1:] and closing(text, 5) == len(text) - 1:
            text = trim(text[6:-1])  # bold print of a formula
        wrapped = _TEXT.fullmatch(text)
        if wrapped and rational.value(wrapped[1]) is not None:
            text = wrapped[1]
        elif wrapped and not wrapped[1].strip():
            raise _Unreadable
        elif wrapped or _WORD.fullmatch(text):
            return Form("word", text, whole=text)
        text = "(-\\infty,\\infty)" if text == "\\mathbb{R}" else text
        if _LETTERS.fullmatch(text):
            return Form("expression", text, whole=text)
        # Of "x = 2/3 \approx 0.667" the exact part counts, of "x \approx 0.667" the only one.
        exact, about, near = text.partition("\\approx")
        text = trim(near if about and (not exact.strip() or _NAME.fullmatch(exact.strip())) else exact)
        sets = split(text, r"\cup")
        if len(sets) > 1:
            return self.list_of(sets, many, depth)
        member = text.partition("\\in ")
        if member[1] and _NAME.fullmatch(member[0].strip()):
            return replace(self.read(member[2], many, depth + 1), name=_spaceless(member[0]), whole=text)
        items = split(text, ",", ";") if many or not is_grouped(text) else [text]
        if len(items) > 1:
            if ", " in text:  # then a comma without space may separate thousands
                items, many = _join_thousands(items), False
            return self.list_of(items, many, depth)
        return self.relation(text) or self.equation(text, many, depth) or self.bracketed(text, depth) or self.leaf(text)

    def list_of(self, items: list[str], many: bool, depth: int) -> Form:
        """A list, its lists dissolved, what stands in it twice once; of one part, that part."""
        found: dict[Form, None] = {}
        for item in items:
            if item.strip():
                part = self.read(item, many, depth + 1)
                found.update(dict.fromkeys(part.parts if part.kind == "list" and not part.name else (part,)))
        if not found:
            raise _Unreadable
        parts = tuple(found)
        return parts[0] if len(parts) == 1 else Form("list", "", parts=parts)

    def relation(self, text: str) -> Form | None:
        r"""`2 \le x < 5` as an interval."""
        signs = _RELATION.findall(text)
        sides = [side.strip() for side in _RELATION.split(text)]
        if not 1 <= len(signs) <= 2 or "=" in text or not all(sides):
            return None
        upwards = ["ge" not in sign and ">" not in sign for sign in signs]
        closed = ["\\" in sign for sign in signs]
        if len(set(upwards)) > 1:
            return None
        if not upwards[0]:
            sides, closed = sides[::-1], closed[::-1]
        if len(signs) == 2 and _NAME.fullmatch(sides[1]):
            low, name, high = sides
        elif len(signs) == 1 and _NAME.fullmatch(sides[0]):
            name, low, high, closed = sides[0], "-\\infty", sides[1], [False, closed[0]]
        elif len(signs) == 1 and _NAME.fullmatch(sides[1]):
            name, low, high, closed = sides[1], sides[0], "\\infty", [closed[0], False]
        else:
            return None
        brackets = ("[" if closed[0] else "(") + ("]" if closed[1] else ")")
        return Form("tuple", brackets, parts=(self.leaf(low), self.leaf(high)), name=_spaceless(name), whole=text)

    def equation(self, text: str, many: bool, depth: int) -> Form | None:
        """`x = 5` as 5 with a name, and any equation likewise; `6 * 3 = 18` as 18."""
        sides = [side.strip() for side in split(text, "=")]
        if len(sides) < 2 or not all(sides) or _RELATION.search(text):
            return None
        right = self.read(sides[-1], many, depth + 1)
        if all(rational.value(side) is not None for side in sides):
            return right
        return replace(right, name=_spaceless(sides[0]), whole=text)

    def bracketed(self, text: str, depth: int) -> Form | None:
        """A tuple, an interval, a set, a matrix, or what stands alone in brackets."""
        matrix = _MATRIX.fullmatch(text)
        if matrix and "\\begin" not in matrix[1] and not text.startswith("\\begin{v"):
            rows = [row.split("&") for row in re.split(r"\\\\(?:\[\w*\])?", matrix[1].strip().removesuffix("\\\\"))]
            cells = tuple(self.read(cell, False, depth + 1) for row in rows for cell in row)
            return Form("matrix", f"[;{len(rows)}x{len(cells) / len(rows):g}]", parts=cells)
        text = text.replace("\\langle", "(").replace("\\rangle", ")")
        if text.startswith("\\{") and text.endswith("\\}"):
            inner = text[2:-2]
            return self.list_of(split(inner, ",", ";"), True, depth) if balanced(inner) and inner.strip() else None
        if text[:1] not in _PAIRS or text[-1:] not in ")]}" or not balanced(text[1:-1]):
            return None
        inner = text[1:-1]
        items = split(inner, ",")
        brackets = text[0] + text[-1]
        if len(items) == 1 or brackets == "{}":
            return self.read(inner, True, depth + 1) if _PAIRS[text[0]] == text[-1] and inner.strip() else None
        return Form("tuple", brackets, parts=tuple(self.read(item, True, depth + 1) for item in items))

    def leaf(self, text: str) -> Form:
        """A number, a pair written with plus-minus, or an expression."""
        found = _PLUS_MINUS.findall(text)
        if found and len(found) <= 3:
            return self.plus_minus(text, linked="mp" in found, count=len(found))
        text = _without_units(text)
        base = _BASE.fullmatch(text)
        if base and (base[2].isdigit() or base[2] in ("ten", "two")):
            digits = rational.value(base[1])
            number = {"ten": 10, "two": 2}.get(base[2]) or int(base[2])
            return Form("number", base[1], digits, base=number, whole=text)
        percent = text.endswith("%")
        text = trim(text.removesuffix("%"))
        if not text:
            raise _Unreadable
        value = rational.value(text)
        if value is not None:
            return Form("number", text, value, percent=percent, whole=text)
        return Form("expression", _spelled(text), percent=percent, whole=text)

    def plus_minus(self, text: str, linked: bool, count: int) -> Form:
        """All the values meant. Several plus-minus are independent, unless a minus-plus links them."""
        choices = range(2) if linked else range(2**count)
        variants = []
        for choice in choices:
            signs = iter(range(count))

            def sign(match: re.Match[str], choice: int = choice, signs: object = signs) -> str:
                bit = choice if linked else choice >> next(signs) & 1  # type: ignore[call-overload]
                return "-" if (bit == 1) == (match[1] == "pm") else "+"

            variants.append(trim(_PLUS_MINUS.sub(sign, text)).removeprefix("+"))
        parts = tuple(dict.fromkeys(self.leaf(variant) for variant in variants))
        return parts[0] if len(parts) == 1 else Form("list", "", parts=parts, whole=text)


def split(text: str, *separators: str) -> list[str]:
    """The text cut at the separators that stand in no brackets."""
    parts, start, depth, index = [], 0, 0, 0
    while index < len(text):
        char = text[index]
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0:
            found = next((mark for mark in separators if text.startswith(mark, index)), None)
            if found:
                parts.append(text[start:index])
                index += len(found)
                start = index
                continue
        index += 1
    return [*parts, text[start:]]


def balanced(text: str) -> bool:
    """Does no bracket close that the text has not opened, and the other way round? `[0,1)` is balanced."""
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
    return depth == 0


def is_grouped(text: str) -> bool:
    """Is it one number with its thousands separated by commas?"""
    return re.fullmatch(r"[-+]? ?\d{1,3}(?:, ?\d{3})+(?:\.\d+)?(?![\d,]).*", text) is not None and ", " not in text


def _join_thousands(items: list[str]) -> list[str]:
    """Items of `1,000, 2,000` put together again: after a comma without space stand the next three digits."""
    joined: list[str] = []
    for item in items:
        if joined and re.fullmatch(r"\d{3}", item) and re.fullmatch(r" ?-?\d{1,3}(?:,\d{3})*", joined[-1]):
            joined[-1] += "," + item
        else:
            joined.append(item)
    return joined


def _without_units(text: str) -> str:
    """Degrees are kept, as a factor, where an angle's function needs them."""
    if _TRIGONOMETRY.search(text):
        text = re.sub(r"(\d+(?:\.\d+)?) ?\^\{\\circ\}", r"{\\frac{\1 \\pi}{180}}", text)
    while (match := _UNIT.search(text)) and match.start() > 0:
        if re.search(r"\\[A-Za-z]+$", text[: match.end()].rstrip()) and not match[0].strip().startswith("\\"):
            break  # the end of a command: \sin, \theta
        text = trim(text[: match.start()])
    return text.replace("^{\\circ}", "")


def _spelled(text: str) -> str:
    """Spaces mean nothing but between a command and a letter."""
    return re.sub(r"(?<![a-zA-Z]) | (?![a-zA-Z])", "", text)


def _spaceless(text: str) -> str:
    return re.sub(r"[ {}]|\\text", "", text)


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest
