"""USPTO-50K: which of ten classes a reaction belongs to (Lowe, 2012; classes of Schneider et al., 2016)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import data, numbers
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.generate import whole_numbers

CLASSES = (
    "heteroatom alkylation and arylation",
    "acylation and related processes",
    "C-C bond formation",
    "heterocycle formation",
    "protections",
    "deprotections",
    "reductions",
    "oxidations",
    "functional group interconversion",
    "functional group addition",
)
"""The classes in order: the first is class 1."""

# The instruction comes first: what all prompts share at their beginning is computed once.
INSTRUCTION = (
    "A chemical reaction is given in SMILES as reactants>reagents>product. Name its class, one of these ten:\n"
    + "\n".join(f"{number}. {name}" for number, name in enumerate(CLASSES, 1))
    + "\nReason briefly, then end with the number of the class as <answer>N</answer>.\n\nReaction: {reaction}"
)
COLUMNS = ("reactants>reagents>production", "rxn_smiles")
"""Columns that may hold the reaction; else the columns `reactants` and `product` do."""

_MAP = re.compile(r":\d+\]")
_CLASS = re.compile(r"(?:<RX_)?(10|[1-9])>?", re.ASCII)
_TAG = re.compile(r"<answer>((?:(?!<answer>).){0,1000}?)</answer>", re.IGNORECASE | re.DOTALL)

# As models write the names: singular or plural, with other hyphens, "FGI" for the interconversion.
_NAMES = (
    r"heteroatom\W{1,3}alkylations?(?:\W{1,3}(?:and\W{1,3})?arylations?)?|heteroatom\W{1,3}arylations?",
    r"acylations?(?:\W{1,3}and\W{1,3}related\W{1,3}processes)?",
    r"(?:c|carbon)\W{0,3}(?:c|carbon)\W{1,3}bond\W{1,3}(?:formation|forming|coupling)s?",
    r"heterocycle\W{1,3}(?:formation|synthesis)s?",
    r"protections?",
    r"de-?protections?",
    r"reductions?",
    r"oxidations?",
    r"functional\W{1,3}group\W{1,3}inter-?conversions?|FGI",
    r"functional\W{1,3}group\W{1,3}additions?|FGA",
)
_NAME = "|".join(f"(?P<c{number}>{name})" for number, name in enumerate(_NAMES, 1))
_NUMBER = r"(?<![\w.,/+\-−–%)\]])(?P<number>\d{1,2})(?!\w|[.,/]\d|%)"
_MENTION = re.compile(
    rf"\b(?:{_NAME})\b|\bclass\b\W{{0,5}}(?:(?:is|number|no)\b\W{{0,5}}){{0,2}}{_NUMBER}", re.IGNORECASE
)
_ANY = re.compile(rf"\b(?:{_NAME})\b|{_NUMBER}", re.IGNORECASE)


class USPTO50K(Task):
    """Strict: the number in the last `<answer>` tag. Lenient: that, or what `substance` finds: a number or a name."""

    name = "uspto50k"
    max_tokens = 256

    def messages(self, example: Example) -> list[Message]:
        return self.ask(INSTRUCTION.format(reaction=example.columns["reaction"]))

    def grade(self, completion: str, example: Example) -> Grade:
        text = completion[-numbers.MAX_TEXT :]
        tags = _TAG.findall(text)
        formal = number(tags[-1]) if tags else None
        found = formal or substance(text, tags)
        right = example.columns["class"]
        return Grade(float(formal == right), float(found == right), None if formal is None else str(formal))


def load(settings: Settings, count: int) -> USPTO50K:
    whole_numbers("uspto50k", settings.options, {})  # it has no options: any is refused
    if not settings.path:
        raise UserError(
            '"task.path" is empty, and task "uspto50k" has no published dataset to fall back on; give a .jsonl or '
            f'.parquet file or a Hugging Face dataset with the columns "class" and "{COLUMNS[0]}"'
        )
    examples = []
    for row_number, row in data.rows(settings.path, settings.hub_split, settings.examples):
        reaction, kind = reaction_of(row), class_of(row.get("class"))
        if reaction is None or kind is None:
            raise UserError(
                f'"{settings.path}" row {row_number} is no USPTO-50K row (class {row.get("class")!r}, columns '
                f'{", ".join(row) or "none"}); it needs a "class" from 1 to 10 and a reaction SMILES '
                f'"{COLUMNS[0]}" or "{COLUMNS[1]}", or "reactants" and "product"'
            )
        examples.append(Example.of({"reaction": unmapped(reaction), "class": kind}))
    return USPTO50K(examples)


def unmapped(smiles: str) -> str:
    """The SMILES without atom mapping: `[CH3:1]` becomes `[CH3]`, nothing else changes.

    It is the same molecule exactly: brackets stay, so that no hydrogen is added or lost.
    """
    return _MAP.sub("]", smiles)


def reaction_of(row: Mapping[str, Any]) -> str | None:
    """`reactants>reagents>product` of a row; None where there is none."""
    for name in COLUMNS:
        if isinstance(row.get(name), str) and row[name].count(">") == 2:
            return str(row[name]).strip()
    sides = [row.get("reactants"), row.get("product")]
    return ">>".join(str(side).strip() for side in sides) if all(isinstance(s, str) and s for s in sides) else None


def class_of(value: object) -> int | None:
    """1 to 10 from a whole number, its text, or `<RX_3>`; None for anything else, 0 included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value).strip()
    match = _CLASS.fullmatch(text)
    return int(match[1]) if match else None


def number(text: str) -> int | None:
    """The class that the text is: one whole number from 1 to 10, the name or a full stop after it."""
    value = numbers.parse(text)
    return int(value) if value is not None and value.denominator == 1 and 1 <= value <= len(CLASSES) else None


def substance(text: str, tags: list[str]) -> int | None:
    """The class however it is written.

    Where an answer is marked (tag, box, "answer is"), the first number or name in it. Otherwise the last "class N" or
    name of a class in the text, else its last number from 1 to 10.
    """
    for marked in (tags[-1] if tags else None, numbers.boxed(text), numbers.after_answer(text)):
        for match in _ANY.finditer(marked or ""):
            if (kind := _kind(match)) is not None:
                return kind
    for pattern in (_MENTION, _ANY):
        found = [kind for match in pattern.finditer(text) if (kind := _kind(match)) is not None]
        if found:
            return found[-1]
    return None


def _kind(match: re.Match[str]) -> int | None:
    if match["number"] is None:
        return int(str(match.lastgroup)[1:])
    return int(match["number"]) if 1 <= int(match["number"]) <= len(CLASSES) else None
