"""Reading numbers in model answers: exact, in linear time, and without evaluating anything.

Values are `fractions.Fraction`, so `18.`, `18.00` and `18` are one number and `1.5` is `3/2`. Powers (`9**9**9`,
`10^6`) and multiples of π and of roots (`12\\pi`) are recognised and refused, never computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

MAX_DIGITS = 100
"""A longer run of digits is no answer (and Python refuses to convert strings of more than 4,300 digits)."""

MAX_TEXT = 20_000
"""Only the last characters of a text are read, so that a runaway completion costs no time."""

# Signs, separators and digits' neighbours as models write them. Digits need no table: \d and int() know all scripts.
_PLAIN = str.maketrans(
    {"−": "-", "–": "-", "－": "-", "﹣": "-", "＋": "+", "，": ",", "．": ".", "／": "/", "＄": "$"}
)

_FRAC = re.compile(r"(?P<whole>\d ?)?\\[dt]?frac ?\{ ?(?P<top>-?\d{1,100}) ?\} ?\{ ?(?P<bottom>\d{1,100}) ?\}")

# What makes a number a part of a formula: 10^6, 12\pi, 3\sqrt{2}.
_POWER = r"(?:(?:\ ?\^\ ?|\*\*|\ \*\*\ )[{(]?[-+]?\d|[⁰¹²³⁴⁵⁶⁷⁸⁹]|\ ?(?:\\pi|\\sqrt|π|√))"

# One pass over the text. Possessive quantifiers (++, *+, ?+) never give back what they matched: no backtracking.
_TOKEN = re.compile(
    rf"""
    # An exponent is not a number of the text: x^{{-3}}, cm^2, 9**9. But **18** is a bold 18, even glued to a word.
      (?P<exponent> \^\ ?[{{(]?[-+]?\d++ (?:\.\d++)?+
                  | (?<=[\d)])\*\*[{{(]?[-+]?\d++
                  | (?<=[\d)]\ )\*\*\ [{{(]?[-+]?\d++
                  | (?<=[a-zA-Z])\*\*[{{(]?[-+]?\d++ (?![\d.,%]*\*\*) )
    # Nothing glued to a word (x3, CO2), no third part of 1.2.3, nothing under a root.
    | (?<!\w) (?<!\d\.) (?<!\\sqrt\{{)
      (?P<sign> (?<![)\]}}])[-+] )?+ (?:\\?[$€£¥]\ ?)?+ (?P<sign2> (?<=[$€£¥])[-+] )?+
      (?:
        (?P<whole>\d++)\ (?P<top>\d++)/(?P<bottom>\d++) (?![.,]?\d|/)                         # 1 1/2
      | (?P<number> (?: \d{{1,3}}(?:,\d{{3}}){{1,33}}(?!,?\d) | \d++ )(?:\.\d++)?+ | \.\d++ )
        (?: [eE](?P<exp>[-+]?\d{{1,2}})(?!\w) )?+
        (?: \ ?/\ ?(?P<over>\d++)(?!\.\d|\ ?/) )?
      )
      (?P<power>{_POWER})?+
    """,
    re.VERBOSE,
)


def plain(text: str) -> str:
    """The end of the text with typographic signs and LaTeX spacing and fractions written plainly."""
    if len(text) > MAX_TEXT:
        text = text[-MAX_TEXT:].lstrip("0123456789.,")  # the cut may go through a number: its rest is no number
    if not text.isascii():
        text = text.translate(_PLAIN)
    if "\\" in text or "{,}" in text:
        text = text.replace("{,}", ",").replace("\\,", "").replace("\\!", "")
        text = _FRAC.sub(_plain_fraction, text)
    return text


def find(text: str) -> Iterator[tuple[Fraction | None, int, int]]:
    """(value, start, end) of every number in `plain(text)`; the value is None where it is a power, 1/0 or too long."""
    for match in _TOKEN.finditer(plain(text)):
        if match["exponent"] is None:
            yield _value(match), match.start(), match.end()


def last(text: str) -> Fraction | None:
    """The last number in the text."""
    value = None
    for value, _, _ in find(text):  # noqa: B007
        pass
    return value


def first(text: str) -> Fraction | None:
    """The first number in the text."""
    return next((value for value, _, _ in find(text)), None)


def parse(text: str) -> Fraction | None:
    """The number that the text is: one number, a currency sign or markup before it, a unit or a full stop after it."""
    found = list(find(text))
    if len(found) != 1:
        return None
    value, start, _ = found[0]
    return None if any(char.isalpha() for char in plain(text)[:start]) else value


def boxed(text: str) -> str | None:
    r"""What stands in the last complete `\boxed{...}`, braces matched."""
    text = text[-MAX_TEXT:]
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for end in range(start, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start:end]
    return None


def after_hashes(text: str) -> str | None:
    """What follows the last `####`, to the end of its line."""
    _, found, rest = text[-MAX_TEXT:].rpartition("####")
    return (rest.strip().splitlines() or [""])[0] if found else None


_ANSWER_IS = re.compile(r"\banswer\b(?: is\b)?", re.IGNORECASE)


def after_answer(text: str) -> str | None:
    """What follows the last "answer is", "answer:" or "answer", to the end of its line and past its last `=`."""
    text = text[-MAX_TEXT:]
    ends = [match.end() for match in _ANSWER_IS.finditer(text)]
    if not ends:
        return None
    line = (text[ends[-1] :].lstrip(" :*\n").splitlines() or [""])[0]
    return line.rpartition("=")[2]


def normal(value: Fraction) -> str:
    """The one spelling of a value, to vote on: `132`, `-3/2`."""
    return str(value)


def _plain_fraction(match: re.Match[str]) -> str:
    whole = f"{match['whole'].strip()} " if match["whole"] else ""
    return f"{whole}{match['top']}/{match['bottom']}"


def _value(match: re.Match[str]) -> Fraction | None:
    parts = [match[name] for name in ("whole", "top", "bottom", "number", "over") if match[name] is not None]
    if match["power"] is not None or any(sum(map(str.isdigit, part)) > MAX_DIGITS for part in parts):
        return None
    below = match["bottom"] or match["over"]
    if below is not None and int(below) == 0:
        return None
    if match["number"] is not None:
        value = _decimal(match["number"].replace(",", ""))
        value *= Fraction(10) ** int(match["exp"] or 0)
        value /= int(match["over"] or 1)
    else:
        value = int(match["whole"]) + Fraction(int(match["top"]), int(match["bottom"]))
    return -value if "-" in (match["sign"], match["sign2"]) else value


def _decimal(digits: str) -> Fraction:
    units, _, decimals = digits.partition(".")
    return Fraction(int(units + decimals), 10 ** len(decimals))
