r"""Mathematical equality of answers written in LaTeX.

An answer is read into a `Form`: numbers (exact fractions), words, lists, tuples and intervals, matrices, and expressions,
which are what is left. What forms of numbers and words say is decided here, at once and exactly. Expressions go to
`symbolic`, in a child process with bounds. Nothing a model wrote is ever evaluated in the study's own process.

What equals what:
- numbers by value: `1/2`, `0.5`, `\frac12`; `1.41` is not `\sqrt{2}`. Units, currency and degrees are left out: `18\text{
  cm}` is 18. `50\%` equals both 50 and 0.5, for references are written either way.
- `x=5` equals 5, also where the reference says so, but not `y=5`. `101_2` equals 101, never 5: the base is a unit.
- lists (`1, -2`; `\{-2, 1\}`; `x=1 \text{ or } x=-2`; `(0,1) \cup (2,3)`; `\pm 3`) as sets, brackets in order.
- `2 \le x < 5` and `x \in [2,5)` are intervals.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from seedfold.errors import UserError
from seedfold.tasks import numbers
from seedfold.tasks.child import Child
from seedfold.tasks.latex_form import Form, balanced, read
from seedfold.tasks.latex_text import boxed, last_formula, ungrouped

__all__ = ["Form", "Judge", "Reference", "Verdict", "boxed", "need_package", "readable", "same", "spell", "substance"]


@dataclass(frozen=True)
class Reference:
    """A right answer. many: it has several parts, so that each of its commas separates. tolerance: absolute, where
    positive. unit: what an answer may have behind it."""

    text: str
    many: bool = False
    tolerance: float = 0.0
    unit: str = ""


@dataclass(frozen=True)
class Verdict:
    """equal: is the answer the reference? key: its normal form, None where nothing was read. exhausted: the comparison
    exceeded its bounds, which counts as wrong."""

    equal: bool
    key: str | None
    exhausted: bool = False


class Undecided(Exception):
    """Two expressions that are not spelled alike: a question for `symbolic`."""


class Judge:
    """Compares answers to references; remembers what it was asked."""

    def __init__(self) -> None:
        failure = (
            'the comparison of formulas does not start; check that math-verify works: pip install "seedfold[tasks]"'
        )
        self._child = Child("seedfold.tasks.symbolic:main", None, failure)
        self._known: dict[tuple[str, Reference], Verdict] = {}

    def __call__(self, answer: str, reference: Reference) -> Verdict:
        if (answer, reference) not in self._known:
            if len(self._known) >= 100_000:
                self._known.clear()
            self._known[answer, reference] = self._compare(answer, reference)
        return self._known[answer, reference]

    def _compare(self, answer: str, reference: Reference) -> Verdict:
        right = _read_reference(reference)
        if right.kind == "number":
            answer = ungrouped(answer)
        form = read(answer, many=right.kind in ("list", "tuple"), unit=reference.unit)
        if form is None:
            return Verdict(False, None)
        form = aligned(form, right)
        plain = spell(form)
        try:
            equal = same(form, right, exact(reference.tolerance))
        except Undecided:
            reply = self._child.ask((form, right, reference.tolerance))
            if reply is None:
                return Verdict(False, plain, exhausted=True)
            equal, key = json.loads(reply)
            return Verdict(bool(equal), str(key))
        if not any(node.kind == "expression" for node in nodes(form)):
            return Verdict(equal, plain)
        reply = self._child.ask((form, None, 0.0))
        return Verdict(equal, plain if reply is None else str(json.loads(reply)[1]), exhausted=reply is None)


@lru_cache(maxsize=10_000)
def _read_reference(reference: Reference) -> Form:
    form = read(reference.text, many=reference.many, unit=reference.unit)
    return form or Form("word", reference.text)


def need_package(task: str) -> None:
    """Refuse to start without math-verify."""
    if importlib.util.find_spec("math_verify") is None:
        raise UserError(f'task "{task}" needs the package math-verify; pip install "seedfold[tasks]"')


def readable(reference: str) -> bool:
    """Can the text be a reference?"""
    return read(reference) is not None


_NUMBER_FIRST = re.compile(r"[ *:$\\]*(-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?)[*$]*(?:[.,;]? +[A-Za-z(].*)?")


def substance(text: str) -> str | None:
    """The answer however it is written: after "####" or "answer is", else the last formula, else the last number."""
    rest = numbers.after_hashes(text)
    if not rest:
        rest = numbers.after_answer(text)
    if rest and rest.strip(" *:$.\\"):
        number = _NUMBER_FIRST.fullmatch(rest)  # and a sentence after it
        named = number[1] if number else last_formula(rest) or rest
        if balanced(named):  # `\boxed{18` is not: the text was cut off
            return named
    found = last_formula(text)
    if found is not None:
        return found
    value = numbers.last(text)
    return None if value is None else numbers.normal(value)


def nodes(form: Form) -> Iterator[Form]:
    """The form and all its parts."""
    yield form
    for part in form.parts:
        yield from nodes(part)


def aligned(form: Form, reference: Form) -> Form:
    """The answer without what the reference leaves to the reader: the name of the variable, the base, marks of a word."""
    expected = list(nodes(reference))
    names = {node.name for node in expected}
    bases = {node.base for node in expected}

    def align(part: Form) -> Form:
        # Names of a reference with several, as "x=1, y=2", say which is which. No name is dropped that is part of an
        # equation proper, as in 2x=5.
        named = part.name[:1].isdigit() or not names <= {"", part.name}
        base = part.base if bases - {0, part.base} else 0
        return replace(part, parts=tuple(map(align, part.parts)), name=part.name if named else "", base=base)

    if reference.kind == "word" and form.kind == "expression" and is_letters(form.text):
        return replace(form, kind="word")
    return align(form)


Equal = Callable[[Form, Form], bool]


def exact(tolerance: float = 0.0) -> Equal:
    """Equality of leaves, as far as it can be told without algebra. It raises `Undecided` where it cannot."""

    def equal(answer: Form, right: Form) -> bool:
        if "word" in (answer.kind, right.kind):
            return (answer.kind == right.kind or is_letters(answer.text + right.text)) and (
                letters(answer.text) == letters(right.text)
            )
        if answer.value is not None and right.value is not None:
            # A percent sign on one side only: either reading of the other side is meant.
            scale = 100 if answer.percent != right.percent else 1
            differences = {abs(answer.value - right.value)}
            if answer.percent:
                differences.add(abs(answer.value / scale - right.value))
            if right.percent:
                differences.add(abs(answer.value - right.value / scale))
            return min(differences) <= tolerance
        if answer.text == right.text and answer.percent == right.percent:
            return True
        raise Undecided

    return equal


def same(answer: Form, right: Form, equal: Equal) -> bool:
    """Are the forms equal, given the equality of leaves?"""
    if answer.name and answer.name != right.name:
        # Other letters, or another way to write the equation.
        return bool(right.name) and equal(_equation(answer), _equation(right))
    if answer.base and answer.base != right.base:
        return False
    kinds = (answer.kind, right.kind)
    if kinds == ("list", "list"):
        return _same_sets(answer.parts, right.parts, equal)
    if kinds in (("tuple", "tuple"), ("matrix", "matrix")):
        return (
            answer.text == right.text
            and len(answer.parts) == len(right.parts)
            and all(same(one, other, equal) for one, other in zip(answer.parts, right.parts, strict=True))
        )
    if any(kind in ("list", "tuple", "matrix") for kind in kinds):
        return False
    return equal(answer, right)


def _equation(form: Form) -> Form:
    return Form("expression", form.whole, whole=form.whole)


def _same_sets(answer: tuple[Form, ...], right: tuple[Form, ...], equal: Equal) -> bool:
    if len(answer) != len(right):
        return False
    rest = list(right)
    for part in answer:
        found = next((index for index, other in enumerate(rest) if same(part, other, equal)), None)
        if found is None:
            return False
        del rest[found]
    return True


def letters(text: str) -> str:
    """What a word is compared by: its letters and digits, or all of it where it has none."""
    plain = text.replace("\\text", "")
    return "".join(filter(str.isalnum, plain)).casefold() or plain


def is_letters(text: str) -> bool:
    """Could the text be a word, written without `\\text` perhaps?"""
    return all(char.isalpha() or char in " (){}" for char in text.replace("\\text", ""))


def spell(form: Form, leaf: Callable[[Form], str] = lambda part: part.text) -> str:
    """The normal form, given the spelling of expressions: `1/2`, `-2,1`, `[2,5)`."""
    if form.kind == "list":
        body = ",".join(sorted(spell(part, leaf) for part in form.parts))
    elif form.kind in ("tuple", "matrix"):
        inner = ",".join(spell(part, leaf) for part in form.parts)
        body = f"{form.text[0]}{inner}{form.text[1:]}"
    elif form.value is not None:
        body = numbers.normal(form.value) + ("%" if form.percent else "")
    elif form.kind == "word":
        body = letters(form.text)
    else:
        body = leaf(form)
    name = f"{form.name}=" if form.name else ""
    return name + body + (f"_{form.base}" if form.base else "")
