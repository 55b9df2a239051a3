"""Arithmetic expressions of whole numbers with + - * / and parentheses: parsed, never evaluated by Python.

Everything is bounded (length, depth, digits), exact (fractions), and raises nothing: text that is no expression gives
None. There is no power operator, so no short text stands for a long computation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 200
"""Characters of an expression. Eight numbers of two digits with all parentheses need about 50."""

MAX_DEPTH = 20
"""Parentheses and signs inside one another."""

_PLAIN = str.maketrans({"×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", "－": "-"})
_LATEX = (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\left", ""), ("\\right", ""))
_MARKUP = " \t\r\n`$."
_TOKEN = re.compile(r"\s*(?:(\d{1,9})(?![\d.])|([-+*/()]))")


@dataclass(frozen=True)
class Node:
    """A literal (sign "#"), or a sign of + - * / with two sides."""

    sign: str
    number: int = 0
    left: Node | None = None
    right: Node | None = None


def plain(text: str) -> str:
    """The text with typographic and LaTeX operators written as + - * / and without markup around it."""
    text = text.strip(_MARKUP)
    if text.startswith("**") and text.endswith("**"):
        text = text[2:-2]
    if len(text) > 2 * MAX_LENGTH:
        return text
    for latex, sign in _LATEX:
        text = text.replace(latex, sign)
    return text.translate(_PLAIN).strip(_MARKUP)


def parse(text: str) -> Node | None:
    """The expression that the whole text is, or None."""
    if len(text) > MAX_LENGTH:
        return None
    tokens: list[str] = []
    text, place = text.strip(), 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            return None
        tokens.append(match[1] or match[2])
        place = match.end()
    try:
        parser = _Parser(tokens)
        node = parser.sum(0)
    except _NoExpression:
        return None
    return node if not parser.tokens else None


def value(node: Node) -> Fraction | None:
    """The exact value; None where it divides by zero."""
    if node.left is None or node.right is None:
        return Fraction(node.number)
    left, right = value(node.left), value(node.right)
    if left is None or right is None:
        return None
    if node.sign == "+":
        return left + right
    if node.sign == "-":
        return left - right
    if node.sign == "*":
        return left * right
    return left / right if right else None


def literals(node: Node) -> list[int]:
    """The numbers in the expression, as often as they stand there; the 0 of a leading sign is none."""
    if node.left is None or node.right is None:
        return [] if node is _ZERO else [node.number]
    return literals(node.left) + literals(node.right)


def normal(node: Node) -> str:
    """One spelling for expressions that differ only in order, parentheses or spelling: `8 + 4*2`, `(2*4)+8`."""
    return _spell(node, +1)


class _NoExpression(Exception):
    pass


_ZERO = Node("#", 0)
"""The left side of a leading minus: -3 is 0 - 3. Compared by identity, for the 0 of an answer counts as a number."""


class _Parser:
    """Recursive descent: sum = product {(+|-) product}; product = atom {(*|/) atom}; atom = [+|-] atom | (sum) | n."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]  # the next one last

    def sum(self, depth: int) -> Node:
        node = self.product(depth)
        while self.tokens and self.tokens[-1] in "+-":
            node = Node(self.tokens.pop(), 0, node, self.product(depth))
        return node

    def product(self, depth: int) -> Node:
        node = self.atom(depth)
        while self.tokens and self.tokens[-1] in "*/":
            node = Node(self.tokens.pop(), 0, node, self.atom(depth))
        return node

    def atom(self, depth: int) -> Node:
        if not self.tokens or depth > MAX_DEPTH:
            raise _NoExpression
        token = self.tokens.pop()
        if token.isdigit():
            return Node("#", int(token))
        if token == "(":
            node = self.sum(depth + 1)
            if not self.tokens or self.tokens.pop() != ")":
                raise _NoExpression
            return node
        if token == "-":
            return Node("-", 0, _ZERO, self.atom(depth + 1))
        if token == "+":
            return self.atom(depth + 1)
        raise _NoExpression


def _spell(node: Node, sign: int) -> str:
    return "".join(sorted(_terms(node, sign))).removeprefix("+")


def _terms(node: Node, sign: int) -> list[str]:
    """The signed products that a sum consists of, nested sums and differences dissolved."""
    if node.sign in "+-" and node.left is not None and node.right is not None:
        left = [] if node.left is _ZERO else _terms(node.left, sign)
        return left + _terms(node.right, sign if node.sign == "+" else -sign)
    negative, above, below = _factors(node)
    text = "*".join(sorted(above)) + "".join("/" + factor for factor in sorted(below))
    return [("+" if (sign > 0) != negative else "-") + text]


def _factors(node: Node) -> tuple[bool, list[str], list[str]]:
    """(negative, numerator, denominator) of a product, nested products and quotients dissolved."""
    if node.left is None or node.right is None:
        return False, [str(node.number)], []
    if node.sign == "-" and node.left is _ZERO:
        negative, above, below = _factors(node.right)
        return not negative, above, below
    if node.sign in "*/":
        negative, above, below = _factors(node.left)
        other, top, bottom = _factors(node.right)
        if node.sign == "/" and value(node.right) is None:
            top, bottom = [], [f"({_spell(node.right, +1)})"]  # turned over, a division by zero would look like none
        elif node.sign == "/":
            top, bottom = bottom, top
        return negative != other, above + top, below + bottom
    return False, [f"({_spell(node, +1)})"], []
