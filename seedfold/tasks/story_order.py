"""Story order: put five shuffled sentences of a story in order (ROCStories, Mostafazadeh et al., 2016)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise, permutations
from typing import Any

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import data, numbers
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.generate import whole_numbers

# The instruction comes first: what all prompts share at their beginning is computed once.
INSTRUCTION = (
    "The five sentences of a story are out of order. Find the order in which they tell the story. Reason briefly, then "
    "end with the numbers of the sentences in story order, as in <answer>3 1 5 2 4</answer>.\n\n{sentences}"
)
COLUMNS = tuple(f"sentence{number}" for number in range(1, 6))

MAX_STORY = 20_000
"""Characters of a text that are looked at for its first five sentences."""

ALIKE = 0.8
"""Share of different words in common, from which a line of an answer counts as a copy of a sentence."""

Order = tuple[int, ...]
"""The numbers 1 to 5 of the sentences as shown, in the order in which they tell the story."""

_SHUFFLES = list(permutations(range(5)))[1:]  # all but the identity, which would need no work
_RIGHT = set(permutations(range(1, 6)))
_TAG = re.compile(r"<answer>((?:(?!<answer>).){0,1000}?)</answer>", re.IGNORECASE | re.DOTALL)


class StoryOrder(Task):
    """Strict: the reward of the order in the last `<answer>` tag. Lenient: that of the order found however written.

    The reward is `score`, RandOpt's: 0.6 for places and 0.4 for neighbours. What is no order of 1 to 5 earns 0. The
    vote pools equal orders, right or wrong: were any answer counted as right, the vote would always win.
    """

    name = "story-order"
    max_tokens = 256

    def messages(self, example: Example) -> list[Message]:
        lines = [f"{number}. {sentence}" for number, sentence in enumerate(example.columns["sentences"], 1)]
        return self.ask(INSTRUCTION.format(sentences="\n".join(lines)))

    def grade(self, completion: str, example: Example) -> Grade:
        right = example.columns["order"]
        text = completion[-numbers.MAX_TEXT :]
        tags = _TAG.findall(text)
        formal = read(tags[-1]) if tags else None
        found = formal or substance(text, example.columns["sentences"])
        strict = score(formal, right) if formal else 0.0
        lenient = score(found, right) if found else 0.0
        return Grade(strict, lenient, " ".join(map(str, formal)) if formal else None)


def load(settings: Settings, count: int) -> StoryOrder:
    whole_numbers("story-order", settings.options, {})  # it has no options: any is refused
    if not settings.path:
        raise UserError(
            '"task.path" is empty, and task "story-order" has no published dataset to fall back on; give a .jsonl or '
            '.parquet file or a Hugging Face dataset with the columns "sentence1" to "sentence5", or with "text"'
        )
    examples = []
    for number, row in data.rows(settings.path, settings.hub_split, settings.examples):
        story = story_of(row)
        if story is None:
            raise UserError(
                f'"{settings.path}" row {number} is no story (columns {", ".join(row) or "none"}); '
                'it needs texts in the columns "sentence1" to "sentence5", or a column "text"'
            )
        if len(story) == 5 and len({sentence.casefold() for sentence in story}) == 5:
            examples.append(shuffled(story))
    if not examples:
        raise UserError(
            f'"{settings.path}" has no story of five different sentences in the rows read; '
            'give longer stories or raise "task.examples"'
        )
    return StoryOrder(examples)


def story_of(row: Mapping[str, Any]) -> list[str] | None:
    """The story's sentences, at most five; None where the row has neither the five columns nor a text."""
    parts = [row.get(name) for name in COLUMNS]
    if all(isinstance(part, str) and part.strip() for part in parts):
        return [" ".join(str(part).split()) for part in parts]
    return list(islice(sentences(row["text"][:MAX_STORY]), 5)) if isinstance(row.get("text"), str) else None


def shuffled(story: Sequence[str]) -> Example:
    """The example of a story: its sentences out of order, always in the same way, and the order that is asked for."""
    digest = hashlib.blake2b("\n".join(story).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    places = _SHUFFLES[int.from_bytes(digest, "little") % len(_SHUFFLES)]
    order = [places.index(place) + 1 for place in range(5)]
    return Example.of({"sentences": [story[place] for place in places], "order": order})


def score(order: Sequence[int], right: Sequence[int]) -> float:
    """0.6 · share of the five places with the right sentence + 0.4 · share of the four neighbour pairs kept.

    A pair is kept when its second sentence directly follows its first. A random order earns 0.2 on average.
    """
    places = sum(a == b for a, b in zip(order, right, strict=True))
    pairs = len(set(pairwise(order)) & set(pairwise(right)))
    return (12 * places + 10 * pairs) / 100


# Reading an order

# A number alone, or five digits in one: 31524, 3.1.5.2.4.
_DIGIT = re.compile(r"(?<![\w.])(?:\d|\d{5}|\d(?:\.\d){4})(?!\w|\.\d)")
_BETWEEN = re.compile(
    r"(?:[\W_]|\b(?:sentences?|number|no|and|then|next|finally|lastly|last|followed|by|before|comes?|is|first|second"
    r"|third|fourth|fifth|1st|2nd|3rd|4th|5th)\b){0,60}",
    re.IGNORECASE,
)
# A number that begins a line, or what follows the end of a sentence or a colon within one: "The order is: 1. It rained."
_ITEM = re.compile(
    r"""(?:^|(?<=[:.!?…"”'’)]\s)(?=\S{1,20}\s))[ \t*_#>\-(\[]{0,12}(?:sentence )?(\d)[*_]{0,2}[.):\]]""", re.IGNORECASE
)


def read(text: str) -> Order | None:
    """The order that the text is: five numbers, or five digits in one, with signs and spaces around; no words."""
    if any(map(str.isalpha, text)):
        return None
    found = tuple(int(digit) for run in re.findall(r"\d+", text) for digit in (run if len(run) == 5 else [run]))
    return found if found in _RIGHT else None


def substance(text: str, sentences: Sequence[str] = ()) -> Order | None:
    """The last order of 1 to 5 in the text.

    Either five numbers in a row, between which stand only signs, spaces, line ends and words such as "then" or
    "sentence"; or a list of five items, in lines of their own or within one. Its numbers are the order unless they are
    1 to 5 themselves: then the order is that in which it copies the sentences.
    """
    found = [(end, order) for chain in _chains(text) for end, order in [_last_order(chain)] if order]
    for items in _lists(text):
        end, order = _last_order([item[:2] for item in items])
        if order == (1, 2, 3, 4, 5):
            order = _copied([item[2] for item in items if item[1] <= end][-5:], sentences)
        if order:
            found.append((end, order))
    return max(found, key=lambda one: one[0])[1] if found else None


Chain = list[tuple[int, int]]
"""(digit, where it ends in the text) of numbers that belong together."""


def _last_order(chain: Chain) -> tuple[int, Order | None]:
    """(where it ends in the text, order) of the last five in a row that are one."""
    digits = [digit for digit, _ in chain]
    for end in range(len(digits), 4, -1):
        ten = digits[max(0, end - 10) : end]
        if ten[::2] == [1, 2, 3, 4, 5] and tuple(ten[1::2]) in _RIGHT:  # a numbered list: 1. 3, 2. 1 …
            return chain[end - 1][1], tuple(ten[1::2])
        if tuple(digits[end - 5 : end]) in _RIGHT:
            return chain[end - 1][1], tuple(digits[end - 5 : end])
    return 0, None


def _chains(text: str) -> Iterator[Chain]:
    chain: Chain = []
    end = 0
    for match in _DIGIT.finditer(text):
        if chain and not (match.start() - end <= 60 and _BETWEEN.fullmatch(text, end, match.start())):
            yield chain
            chain = []
        end = match.end()
        chain += [(int(digit), end) for digit in match[0] if digit != "."]
    yield chain


def _lists(text: str) -> Iterator[list[tuple[int, int, str]]]:
    """(number, where it ends in the text, what follows it in its line) of the items that belong together."""
    items: list[tuple[int, int, str]] = []
    start = 0
    for line in text.splitlines(keepends=True):
        found = list(_ITEM.finditer(line))
        ends = [match.start() for match in found[1:]] + [len(line)]
        if line.strip() and not found:
            yield items
            items = []
        for match, end in zip(found, ends, strict=False):
            if tuple(item[0] for item in items[-5:]) in _RIGHT:  # that list is whole: another begins
                yield items
                items = []
            items.append((int(match[1]), start + match.end(1), line[match.end() : end]))
        start += len(line)
    yield items


def _copied(items: Sequence[str], sentences: Sequence[str]) -> Order | None:
    """The order in which items repeat the sentences; None where one is missing, or given twice.

    A copy may be cut short or go on, so words in common count against the shorter of the two, and then against both.
    """
    known = [_words(sentence) for sentence in sentences]
    order = []
    for words in map(_words, items):
        alike = [
            (len(words & other) / (min(len(words), len(other)) or 1), len(words & other) / (len(words | other) or 1))
            for other in known
        ]
        best = max(alike, default=(0.0, 0.0))
        order.append(alike.index(best) + 1 if best[0] >= ALIKE else 0)
    return tuple(order) if tuple(order) in _RIGHT else None


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


# Cutting a text into sentences

_ABBREVIATIONS = frozenset(
    ["Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Sr", "Jr", "Capt", "Lt", "Sgt", "Rev", "Mt", "vs", "etc"]
)
_END = re.compile(r"(?<![.!?…])([.!?…]++)([\"”»’')\]]*+)\s++(?=[\"“«‘'(\[]*+(\w))")
_WRAPPED = re.compile(r"([,;:])[ \t]*(?:\r?\n[ \t]*)++")
_WORD = re.compile(r"(?:\w\.)*\w+$")
_ATTRIBUTION = re.compile(
    r"(?:\w+ ){1,3}?(?:said|says|asked|asks|cried|cries|shouted|shouts|yelled|yells|called|calls|replied|replies"
    r"|answered|answers|whispered|whispers|exclaimed|exclaims|added|adds|thought|thinks|screamed|laughed)\b"
)


def sentences(text: str) -> Iterator[str]:
    """The sentences of English prose, by rule.

    A sentence ends at . ! ? or … (with closing quotes and brackets) before a capital letter or a digit, and at the end
    of a line, unless a comma, colon or semicolon stands there. It does not end inside a quotation in double marks,
    whatever stands there; after an abbreviation or an initial ("Mr. Fox", "J. Smith", "the U.S. Army"); or between a
    question or exclamation and who said it ('"Why?" Lily asked.'). At a line where quotation marks do not match the
    text ends: where a quotation ends is not known there.
    """
    for line in _WRAPPED.sub(r"\1 ", text).splitlines():
        if line.count('"') % 2 or line.count("“") != line.count("”") or line.count("«") != line.count("»"):
            return
        yield from _split(line)


def _split(line: str) -> Iterator[str]:
    start = seen = marks = depth = 0
    for match in _END.finditer(line):
        piece = line[seen : match.end(2)]
        seen = match.end(2)
        marks += piece.count('"')
        depth += piece.count("“") + piece.count("«") - piece.count("”") - piece.count("»")
        if marks % 2 or depth or _goes_on(line, match):
            continue
        yield " ".join(line[start : match.end(2)].split())
        start = match.end()
    if rest := line[start:].split():
        yield " ".join(rest)


def _goes_on(line: str, match: re.Match[str]) -> bool:
    """Whether the sentence goes on after what looks like its end."""
    signs, closing, following = match.groups()
    if not (following.isupper() or following.isdigit()):
        return True
    if signs == "." and not closing:
        word = _WORD.search(line, max(0, match.start() - 20), match.start())
        before = word[0] if word else ""
        initial = len(before) == 1 and before.isupper() and before != "I"
        dotted = "." in before and before.casefold() not in ("a.m", "p.m")
        numbered = before == "No" and following.isdigit()
        return initial or dotted or numbered or before in _ABBREVIATIONS
    spoken = any(mark in closing for mark in '"”»') and signs != "."
    return spoken and _ATTRIBUTION.match(line, match.end()) is not None
