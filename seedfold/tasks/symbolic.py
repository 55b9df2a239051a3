"""Equality of expressions by algebra: the child's side of `latex`, run with bounds on time and memory.

Of math-verify two parts are used: its LaTeX grammar (latex2sympy2_extended), and its comparison of equations and
inequalities. Its search for the answer in a text and its comparison of numbers are not: the one drops letters that look
like units (`6m` is 6), the other rounds (0.333333 is 1/3) and takes what is small for zero.

Two expressions are equal when they take the same values, to 50 digits, at several points; that settles almost every pair
in milliseconds, without `simplify`, whose time nobody can foretell. Where no values can be had, equal structure or
math-verify decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from seedfold.tasks.child import serve
from seedfold.tasks.latex import Form, exact, same, spell
from seedfold.tasks.latex import Undecided as Unlike

CPU_SECONDS = 0.45
"""For one comparison; a grade asks for two at most."""

DIGITS = 60
PRECISION = 1e-50
SMALL = 1e-200
"""Relative difference from which on values differ, and size below which they tell nothing."""

MAX_BITS = 50_000
"""Size of a power or factorial; larger ones are refused before they are computed."""

POINTS = ((1.37, 0.61, 2.93, 1.73), (0.47, 3.31, 1.19, 0.83), (-1.71, -0.53, 2.39, -0.91))
WHOLE_POINTS = ((17, 6, 29, 11), (30, 13, 8, 21), (101, 44, 15, 9))
"""Values of the variables in alphabetical order, taken in turn and shifted; whole where a floor or a factorial stands."""

WARM = (r"\frac{1}{2}", r"3\sqrt{2}+i", r"x^{2}+2x+1", r"\binom{2n}{n}-\log_{2}(n)", r"y=\sin(2x)", r"x\ge 2")


_MIXED = re.compile(r"(?<![\d}.])(\d+) ?\\frac\{(\d+)\}\{(\d+)\}")


def main() -> None:
    """The child: each question is (answer, reference or None, tolerance), its reply JSON [equal, normal form]."""
    serve(_prepare, CPU_SECONDS)


def _prepare(_: object) -> Callable[[tuple[Form, Form | None, float]], bytes]:
    for text in WARM:  # the parser builds its tables as it reads; workers are forked with them
        parse(text)

    def answer(question: tuple[Form, Form | None, float]) -> bytes:
        form, right, tolerance = question
        try:
            equal = right is not None and same(form, right, leaf_equal(tolerance))
        except Exception:  # text that is no formula, in the words of a dozen exceptions
            equal = False
        return json.dumps([equal, spell(form, canonical)]).encode()

    return answer


def leaf_equal(tolerance: float) -> Callable[[Form, Form], bool]:
    """Equality of two leaves."""
    plain = exact(tolerance)

    def equal(answer: Form, right: Form) -> bool:
        try:
            return plain(answer, right)
        except Unlike:
            pass
        scales = [1] if answer.percent == right.percent else [1, 100]
        return any(
            equal_texts(answer.text, right.text, scale if right.percent else 1 / scale, tolerance) for scale in scales
        )

    return equal


def equal_texts(one: str, other: str, scale: float = 1, tolerance: float = 0.0) -> bool:
    """Are the two formulas equal, `one` times `scale` being meant?"""
    import sympy

    left, right = parse(one), parse(other)
    if left is None or right is None:
        return False
    if scale != 1:
        left = left * sympy.nsimplify(scale, rational=True)
    if _is_relation(left) or _is_relation(right):
        return _is_relation(left) and _is_relation(right) and _verified(left, right)
    if left == right:
        return True
    if not isinstance(left, sympy.Expr) or not isinstance(right, sympy.Expr):
        return False
    return _same_values(left, right, tolerance)


@lru_cache(maxsize=1000)
def parse(text: str) -> Any:
    """The sympy object; None where the text is no formula or computes something too large."""
    import sympy
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text).replace("*", "\\cdot ")
    try:
        found = latex2sympy(
            text,
            is_real=None,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False, interpret_as_mixed_fractions=False),
        )
        if isinstance(found, sympy.MatrixBase) or not isinstance(found, sympy.Basic) or _is_large(found):
            return None
        numbers = {number: sympy.Rational(str(number)) for number in found.atoms(sympy.Float)}
        found = found.xreplace(numbers)
        return found.xreplace({symbol: sympy.I for symbol in found.free_symbols if symbol.name == "i"})
    except Exception:
        return None


def _is_large(expression: Any) -> bool:
    import sympy

    for node in sympy.preorder_traversal(expression):
        if isinstance(node, sympy.Pow) and node.is_number:
            base, exponent = (abs(part.evalf(5, maxn=50)) for part in node.args)
            if not exponent < MAX_BITS or not exponent * sympy.log(base + 2, 2).evalf(5) < MAX_BITS:
                return True
        if isinstance(node, sympy.factorial) and node.is_number and not abs(node.args[0].evalf(5)) < 1000:
            return True
    return False


def _is_relation(expression: Any) -> bool:
    from sympy.core.relational import Relational

    return isinstance(expression, Relational)


def _verified(left: Any, right: Any) -> bool:
    """Equations and inequalities: math-verify's comparison, without its own time limit."""
    from math_verify import verify

    return bool(verify(right, left, timeout_seconds=None))


def _same_values(left: Any, right: Any, tolerance: float) -> bool:
    import sympy

    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    whole = (left + right).has(sympy.floor, sympy.ceiling, sympy.factorial, sympy.binomial)
    compared = 0
    for point in (WHOLE_POINTS if whole else POINTS) if symbols else ((),):
        values = _assigned(symbols, point)
        one, other = (sympy.N(side.xreplace(values).doit(), DIGITS) for side in (left, right))
        if not one.is_number or not other.is_number or one.has(sympy.nan, sympy.zoo) or other.has(sympy.nan, sympy.zoo):
            continue
        if one.is_infinite or other.is_infinite:
            return bool(one == other)
        # sympy's numbers throughout: a float would overflow, and infinities look alike.
        size = sympy.Max(abs(one), abs(other))
        if bool(size > SMALL):
            if not bool(abs(one - other) <= sympy.Max(tolerance, size * sympy.Float(PRECISION, DIGITS))):
                return False
            compared += 1
    if compared:
        return True
    return bool(sympy.simplify(left - right) == 0)


def _assigned(symbols: Sequence[Any], point: Sequence[float]) -> dict[Any, Any]:
    import sympy

    return {
        symbol: sympy.Rational(str(point[place % len(point)])) + place // len(point)
        for place, symbol in enumerate(symbols)
    }


def canonical(leaf: Form) -> str:
    """One spelling for expressions that are equal up to simple algebra; the text itself where that fails."""
    import sympy

    found = parse(leaf.text)
    if found is None or _is_relation(found) or not isinstance(found, sympy.Expr):
        return leaf.text
    try:
        found = found.doit()
        sums = [power.exp for power in found.atoms(sympy.Pow) if power.base.is_Add]
        if len(sums) <= 4 and all(exponent.is_Rational and abs(exponent) <= 6 for exponent in sums):
            found = sympy.expand(sympy.radsimp(sympy.cancel(found) if found.is_rational_function() else found))
        return str(found) + ("%" if leaf.percent else "")
    except Exception:
        return leaf.text
