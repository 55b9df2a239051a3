r"""LaTeX text of answers: finding it in a completion, and one spelling for what is written in many ways. All of it is
text processing in linear time; nothing is understood here."""

from __future__ import annotations

import re
import unicodedata

from seedfold.tasks import numbers

_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_GROUPED = re.compile(r"(?<![\d.,}])[1-9]\d{0,2}(?:(?:,|\{,\})\d{3})+(?!\d|,\d|\{,)")
_FORMULA = re.compile(
    r"\$\$(.{1,500}?)\$\$|(?<![\\$])\$([^$\n]{1,500})(?<!\\)\$|\\\((.{1,500}?)\\\)|\\\[(.{1,500}?)\\\]", re.DOTALL
)


def boxed(text: str) -> str | None:
    r"""What stands in the last complete `\boxed{...}`, the outer one of nested boxes. Escaped braces do not count."""
    box = None
    open_braces: list[tuple[bool, int]] = []
    for match in _BRACE.finditer(text):
        if match["box"] or match["open"]:
            open_braces.append((match["box"] is not None, match.end()))
        elif match["close"] and open_braces:
            is_box, start = open_braces.pop()
            if is_box:
                box = text[start : match.start()]
    return box


def ungrouped(text: str) -> str:
    """The text with the commas taken out that may separate thousands: for where one number is expected."""
    return _GROUPED.sub(lambda number: re.sub(r"\D", "", number[0]), text)


def last_formula(text: str) -> str | None:
    r"""What stands in the last `$...$`, `\(...\)` or `\[...\]`; None where there is none or a number follows it."""
    last = None
    for last in _FORMULA.finditer(text):  # noqa: B007
        pass
    if last is None or numbers.last(text[last.end() :]) is not None:
        return None
    return next(part for part in last.groups() if part is not None)


_CHARACTERS = {
    **dict.fromkeys("−–—－﹣", "-"),
    **dict.fromkeys("×·⋅∙∗＊", "*"),
    **dict.fromkeys("÷∕／", "/"),
    **{"＋": "+", "＝": "=", "，": ",", "．": ".", "（": "(", "）": ")", "％": "%", "：": ":"},
    **{"π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ", "√": r"\sqrt ", "°": r"^{\circ}", "∪": r"\cup ", "∈": r"\in "},
    **{
        "±": r"\pm ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "⩽": r"\le ",
        "⩾": r"\ge ",
        "∅": r"\emptyset ",
        "′": "'",
        "≈": r"\approx ",
    },
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
    **dict.fromkeys("\u00a0\u2009\u202f\u200a\u2002\u2003\u3000\t\r\n", " "),
    **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060", ""),
}

_RAISED, _LOWERED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+"), re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_LEVEL = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")

_TEXTS = r"(?:text(?:normal|rm|bf|it|sf|tt)?|mbox|hbox|math(?:rm|bf|it|sf|tt)|operatorname\*?|boldsymbol|bm|emph)"

# In this order: what a rule writes, a later one may read.
_RULES = [
    (re.compile(pattern), text)
    for pattern, text in [
        # Layout. A backslash before means a new row of a matrix.
        (r"(?<!\\)\\[()\[\]]|(?<!\\)\\!", ""),
        (r"\{,\}", ","),
        (r"(?<!\\)\\(?:[,;:> ]|(?:q?quad|displaystyle|textstyle|limits|nolimits|thinspace)(?![a-zA-Z]))|~", " "),
        (r"\\[hv]space\*?\{[^{}]*\}", " "),
        (r"\\m?(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?", ""),
        (r"\\(?:boxed|fbox)(?![a-zA-Z])", ""),
        # Synonyms.
        (r"\\lbrace(?![a-z])", r"\\{"),
        (r"\\rbrace(?![a-z])", r"\\}"),
        (r"\\lbrack(?![a-z])", "["),
        (r"\\rbrack(?![a-z])", "]"),
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\\[dt]binom(?![a-z])", r"\\binom"),
        (r"\\(?:geqslant|geqq|geq)(?![a-z])|>=", r"\\ge "),
        (r"\\(?:leqslant|leqq|leq)(?![a-z])|<=", r"\\le "),
        (r"\\lt(?![a-z])", "<"),
        (r"\\gt(?![a-z])", ">"),
        (r"\\neq(?![a-z])", r"\\ne "),
        (r"\*\*", "^"),
        (r"\\(?:times|cdot|ast)(?![a-z])", "*"),
        (r"\\div(?![a-z])", "/"),
        (r"\\mathbb ([A-Z])", r"\\mathbb{\1}"),
        (r"\\varnothing(?![a-z])", r"\\emptyset "),
        (r"\\bigcup(?![a-z])|(?<=[)\]}]) ?[Uu] ?(?=[(\[{\\])", r"\\cup "),
        (rf"\\{_TEXTS}\s*(?=\{{)", r"\\text"),
        (r"\^ ?\{? ?\\circ ?\}?|\\degrees?(?![a-z])", r"^{\\circ}"),
        (r"\\text\{ ?(?:degrees?|deg)\.? ?\}|(?<=[\d}) ]) ?degrees?(?![a-z])", r"^{\\circ}"),
        (r"\\text\{ ?,? ?(?:and|or),? ?\}|(?<![a-zA-Z\\]),? ?(?:and|or) ", ","),
        (r"\\text\{ ?(?:percent|per cent)\.? ?\}|(?<=[\d}) ]) ?(?:percent|per cent)(?![a-z])|\\%", "%"),
        (r"\\text\{([ei])\}", r"\1"),
        (r"\\?[$€£¥]", ""),
        # Words for commands.
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![a-zA-Z\\])(?:infinity|infty|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (r"(?<![a-zA-Z\\])(sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan)(?![a-zA-Z])", r"\\\1 "),
        (r"\\sqrt ?\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<=[\[(, ])\+ ?(?=\\infty)", ""),
        (r"\^ ?(\d+) ?\^ ?(\d+)", r"^{\1^{\2}}"),
        (r"\^ ?(-?\d+)", r"^{\1}"),
        (r"_ ?(\d+)", r"_{\1}"),
        (r" +", " "),
    ]
]
_ARGUMENT = re.compile(r"\\(frac|binom|sqrt)(?![a-zA-Z])")


def clean(text: str) -> str:
    """The answer in one spelling: without layout, markup, currency and boxes, all arguments in braces."""
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_LEVEL)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_LEVEL)}}}", text)
    text = trim("".join(map(_character, text)))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return trim(braced(text))


def trim(text: str) -> str:
    """Without markup and punctuation around it."""
    text = text.strip(" *`,;:=")
    while text.endswith((".", "\\")) and not text.endswith("\\right."):
        text = text[:-1].rstrip(" *`,;:=")
    return text


def _character(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() or char in "\t\r\n" else " "
    if char in _CHARACTERS:
        return _CHARACTERS[char]
    digit = unicodedata.decimal(char, None)
    return char if digit is None else str(digit)


def braced(text: str) -> str:
    r"""`\frac43` and `\sqrt3` with braces around their arguments: `\frac{4}{3}`, `\sqrt{3}`."""
    parts: list[str] = []
    place = 0
    wanted = 0  # arguments that the last command still takes
    while place < len(text):
        match = _ARGUMENT.match(text, place)
        if wanted and text[place] == " ":
            place += 1
        elif wanted and text[place] == "{":
            wanted -= 1
            end = closing(text, place)
            inner = braced(text[place + 1 : end]) if text.find("\\", place, end) >= 0 else text[place + 1 : end]
            parts.append("{" + inner + "}")
            place = end + 1
        elif wanted and (text[place].isalnum() or match):
            wanted -= 1
            if match:
                return "".join(parts) + text[place:]  # \sqrt\frac12: left to whoever reads it
            parts.append("{" + text[place] + "}")
            place += 1
        elif match:
            parts.append(match[0])
            place = match.end()
            wanted = 1 if match[1] == "sqrt" else 2
            if match[1] == "sqrt" and text[place : place + 1] == "[":
                end = text.find("]", place)
                end = len(text) if end < 0 else end
                parts.append(text[place : end + 1])
                place = end + 1
        else:
            wanted = 0
            parts.append(text[place])
            place += 1
    return "".join(parts)


def closing(text: str, place: int) -> int:
    """Where the brace that opens at `place` closes; the end of the text where it does not."""
    depth = 0
    for index in range(place, len(text)):
        if text[index] in "{}" and (index == 0 or text[index - 1] != "\\"):
            depth += 1 if text[index] == "{" else -1
            if depth == 0:
                return index
    return len(text)
