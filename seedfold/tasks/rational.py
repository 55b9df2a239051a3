r"""Exact values of numbers written in LaTeX or plainly: `\frac{4}{3}`, `1\frac{1}{2}`, `3*2^{10}`, `10!`, `\sqrt{16}`.

A parser with bounds on depth and on the size of what it computes; what is no rational number, or too large, gives None.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

MAX_DEPTH = 30
MAX_BITS = 10_000
"""Size of numerators and denominators."""

MAX_DIGITS = 1000
MAX_FACTORIAL = 500

_TOKEN = re.compile(r" *(?:(\d+(?:\.\d*)?|\.\d+)|(\\[a-zA-Z]+)|([-+*/^!(){}\[\]]))")
_MIXED = re.compile(r"(\d+) (\d+) ?/ ?(\d+)")
_REPEATING = re.compile(r"(\d*)\.(\d*) ?\\overline ?\{ ?(\d+) ?\}")
_GROUPED = re.compile(r"\d{1,3}(?:(?:, ?\d{3})+|(?: \d{3})+)(?:\.\d+)?")


class _NoNumber(Exception):
    pass


def value(text: str) -> Fraction | None:
    """The value of the whole text, or None."""
    text = text.strip()
    sign = -1 if text.startswith("-") else 1
    body = text[1:].strip() if text[:1] in ("-", "+") else text
    if len(body) > MAX_DIGITS:
        return None
    if mixed := _MIXED.fullmatch(body):
        whole, top, bottom = map(int, mixed.groups())
        return sign * (whole + Fraction(top, bottom)) if bottom else None
    if repeating := _REPEATING.fullmatch(body):
        units, fixed, again = repeating.groups()
        tail = Fraction(int(again), 10 ** len(fixed) * (10 ** len(again) - 1))
        return sign * (Fraction(int((units + fixed) or "0"), 10 ** len(fixed)) + tail)
    if _GROUPED.fullmatch(body):
        return sign * Fraction(body.replace(",", "").replace(" ", ""))
    try:
        parser = _Parser(_tokens(text))
        result = parser.sum(0)
    except _NoNumber:
        return None
    return result if not parser.tokens else None


def _tokens(text: str) -> list[str]:
    tokens, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _NoNumber
        tokens.append(match[1] or match[2] or match[3])
        place = match.end()
    return tokens


class _Parser:
    """Recursive descent: sum of products of powers of atoms; a product may lack its sign, as 2(3) does."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]  # the next one last

    def next(self) -> str:
        return self.tokens[-1] if self.tokens else ""

    def take(self, wanted: str) -> None:
        if self.next() != wanted:
            raise _NoNumber
        self.tokens.pop()

    def sum(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise _NoNumber
        total = self.product(depth)
        while self.next() in ("+", "-"):
            sign = self.tokens.pop()
            part = self.product(depth)
            total = _bounded(total + part if sign == "+" else total - part)
        return total

    def product(self, depth: int) -> Fraction:
        sign = 1
        while self.next() in ("+", "-"):
            sign = -sign if self.tokens.pop() == "-" else sign
        total = self.power(depth)
        while self.tokens:
            if self.next() in ("*", "/"):
                operator = self.tokens.pop()
                negative = self.next() == "-"
                if negative:
                    self.tokens.pop()
                part = self.power(depth)
                part = -part if negative else part
            elif self.next() in ("(", "{") or self.next().startswith("\\"):
                operator, part = "*", self.power(depth)
            else:
                break
            if operator == "/" and part == 0:
                raise _NoNumber
            total = _bounded(total / part if operator == "/" else total * part)
        return sign * total

    def power(self, depth: int) -> Fraction:
        base = self.atom(depth)
        while self.next() == "!":
            self.tokens.pop()
            base = Fraction(math.factorial(_whole(base, MAX_FACTORIAL)))
        if self.next() != "^":
            return base
        self.tokens.pop()
        exponent = self.group(depth) if self.next() in ("{", "(") else self.power(depth + 1)
        if self.next() in ("^", "!"):
            raise _NoNumber
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) * size > MAX_BITS or (base == 0 and exponent <= 0):
            raise _NoNumber
        return _bounded(base ** int(exponent))

    def group(self, depth: int) -> Fraction:
        opening = self.next()
        if opening not in ("{", "("):
            raise _NoNumber
        self.tokens.pop()
        inner = self.sum(depth + 1)
        self.take("}" if opening == "{" else ")")
        return inner

    def atom(self, depth: int) -> Fraction:
        token = self.next()
        if token[:1].isdigit() or token[:1] == ".":
            return self.number(depth)
        if token in ("(", "{"):
            return self.group(depth)
        if token == "\\frac":
            self.tokens.pop()
            top, bottom = self.group(depth), self.group(depth)
            if bottom == 0:
                raise _NoNumber
            return top / bottom
        if token == "\\binom":
            self.tokens.pop()
            top, bottom = self.group(depth), self.group(depth)
            return Fraction(math.comb(_whole(top, MAX_FACTORIAL), _whole(bottom, MAX_FACTORIAL)))
        if token == "\\sqrt":
            self.tokens.pop()
            return _root(self.group(depth))
        raise _NoNumber

    def number(self, depth: int) -> Fraction:
        token = self.tokens.pop()
        if len(token) > MAX_DIGITS:
            raise _NoNumber
        number = Fraction(token)
        # A fraction of numerals after a whole number is the rest of a mixed number, as everyone reads 1\frac{1}{2}.
        ahead = self.tokens[: -8 - 1 : -1]
        if token.isdigit() and len(ahead) >= 7 and ahead[0] == "\\frac":
            brace, top, close, brace2, bottom, close2 = ahead[1:7]
            if (brace, close, brace2, close2) == ("{", "}", "{", "}") and top.isdigit() and bottom.isdigit():
                if int(bottom) == 0:
                    raise _NoNumber
                del self.tokens[-7:]
                return number + Fraction(int(top), int(bottom))
        return number


def _root(square: Fraction) -> Fraction:
    if square < 0:
        raise _NoNumber
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    if root * root != square:
        raise _NoNumber
    return root


def _whole(number: Fraction, most: int) -> int:
    if number.denominator != 1 or not 0 <= number <= most:
        raise _NoNumber
    return int(number)


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise _NoNumber
    return number
