"""Leakage between splits: the same question in two of them, under another spelling or with a few other words.

The same question is a prompt with the same normal form (`normal`); the splits keep one of those. A near-duplicate is a
prompt that shares most of its word 5-grams with another: it is counted and shown, never removed, for only a reader can tell
a leak from a task whose problems are alike by design.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WORDS = 5
"""Words of a shingle. A word is a run of letters and digits, or one other sign: 7 + 8 and 7 - 8 are two problems."""

THRESHOLD = 0.7
"""Jaccard similarity of the shingles, from which two prompts are near-duplicates."""

COMMON = 0.03
"""Shingles in more than this share of the prompts are the task's own wording, and are not compared."""

SHOWN = 5
"""Pairs named in a record."""

_WORD = re.compile(r"\w+|[^\w\s]")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: a polynomial in it modulo 2**64 is the shingle's hash
_ROWS = 256


@dataclass(frozen=True)
class Pair:
    """An example and the one most like it in an earlier split; similarity: Jaccard, 0 to 1."""

    example: str
    split: str
    other: str
    other_split: str
    similarity: float


def normal(text: str) -> str:
    """Unicode NFKC, no case, one space for any white space: what two spellings of a prompt have in common."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A chat as one text: a role and a content a line. What is no text (an image's place) counts as its JSON."""
    lines = []
    for message in messages:
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=str)
        lines.append(f"{message.get('role')}: {text}")
    return "\n".join(lines)


def near(
    splits: Mapping[str, Mapping[str, str]], threshold: float = THRESHOLD, words: int = WORDS, common: float = COMMON
) -> list[Pair]:
    """Near-duplicates across splits, the most similar first.

    Exact: every pair whose word `words`-grams have a Jaccard similarity (Broder, 1997) of `threshold` or more; of them,
    each example's most similar one in each earlier split. Texts are padded at both ends, so that every word is in `words`
    shingles; a shingle that stands in a text again counts again. What two prompts share is not counted where more than a
    share of `common` of all prompts has it too; where they differ is counted always. Numbers are words.

    Args:
        splits: name -> (example id -> prompt), in order: a pair is told of the later split.
    """
    from scipy.sparse import csr_matrix

    names = [name for name in splits for _ in splits[name]]
    ids = [example for part in splits.values() for example in part]
    texts = _without_shared_ends([normal(text) for part in splits.values() for text in part.values()])
    owner, shingle = _shingles(texts, words)
    if not len(owner):
        return []
    everything = [
        set(row.tolist()) for row in np.split(shingle, np.cumsum(np.bincount(owner, minlength=len(texts)))[:-1])
    ]
    # Of few prompts, a few percent would be two, which is what a duplicate is: ten may share a shingle, or half of them.
    rare = np.bincount(shingle)[shingle] <= max(common * len(texts), min(len(texts) / 2, 10))
    own = csr_matrix(
        (np.ones(rare.sum(), dtype=np.int32), (owner[rare], shingle[rare])), (len(texts), int(shingle.max()) + 1)
    )
    sizes = np.bincount(owner[rare], minlength=len(texts))
    bounds = np.cumsum([0, *(len(part) for part in splits.values())])
    found: list[Pair] = []
    for later in range(1, len(splits)):
        for earlier in range(later):
            other = own[bounds[earlier] : bounds[earlier + 1]].T.tocsr()
            for start in range(bounds[later], bounds[later + 1], _ROWS):  # in blocks, to bound the memory
                stop = min(start + _ROWS, bounds[later + 1])
                shared = (own[start:stop] @ other).tocoo()
                i, j = shared.row + start, shared.col + bounds[earlier]
                at_most = shared.data / (sizes[i] + sizes[j] - shared.data)  # over rare shingles alone
                best: dict[int, tuple[float, int]] = {}
                for at in np.flatnonzero(at_most >= threshold):
                    one, two = int(i[at]), int(j[at])
                    value = float(shared.data[at]) / (int(shared.data[at]) + len(everything[one] ^ everything[two]))
                    if value >= threshold:
                        best[one] = max(best.get(one, (0.0, 0)), (value, -two))
                found += [
                    Pair(ids[one], names[one], ids[-two], names[-two], value) for one, (value, two) in best.items()
                ]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.example, pair.other))


def summary(pairs: Sequence[Pair], repeated: int) -> dict[str, Any]:
    """What the record says: counts, and the most similar pairs.

    repeated: examples left out because another one's prompt is the same.
    """
    counts: dict[str, int] = {}
    for pair in pairs:
        name = f"{pair.split} like {pair.other_split}"
        counts[name] = counts.get(name, 0) + 1
    return {
        "repeated_prompts": repeated,
        "words": WORDS,
        "threshold": THRESHOLD,
        "near_duplicates": counts,
        "test": len({pair.example for pair in pairs if pair.split == "test"}),
        "pairs": [vars(pair) for pair in pairs[:SHOWN]],
    }


def sentence(found: Mapping[str, Any], tests: int) -> str:
    """What a reader must know of a `summary`: how much of the test split is not wholly new; empty where all of it is."""
    if not found.get("test"):
        return ""
    return (
        f"Leakage: {found['test']:,} of {tests:,} test examples have a near-duplicate in another split, which shares at "
        f"least {100 * found['threshold']:g} % of its {found['words']}-word runs: there the test is not wholly new."
    )


def _without_shared_ends(texts: Sequence[str]) -> list[str]:
    """Leave out the words that all texts begin with, or end with: instructions are long, and the same in all prompts."""
    start = _shared_start(texts)
    rest = [text[start:] for text in texts]
    end = _shared_start([text[::-1] for text in rest])
    return [text[: len(text) - end] for text in rest]


def _shared_start(texts: Sequence[str]) -> int:
    """Characters that all texts begin with, up to the end of a word. What the first and last in order share, all do."""
    first, last = min(texts, default=""), max(texts, default="")
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first.rfind(" ", 0, shared) + 1


def _shingles(texts: Sequence[str], words: int) -> tuple[np.ndarray, np.ndarray]:
    """(text, shingle) as two arrays of the same length, in the order of the texts; shingles are numbered from 0.

    The second time that a text has a shingle counts as another one, and so on: texts of few words differ in how often.
    """
    known: dict[str, int] = {}
    pad = [1] * (words - 1)
    numbers = [
        [*pad, *(known.setdefault(word, len(known) + 2) for word in found), *pad] if found else []
        for found in map(_WORD.findall, texts)
    ]
    place = np.array([number for row in numbers for number in row], dtype=np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(row) for row in numbers])
    count = max(0, len(place) - words + 1)
    hashed = np.zeros(count, dtype=np.uint64)
    for k in range(words):
        hashed = hashed * _BASE + place[k : count + k]
    inside = owner[:count] == owner[words - 1 :]  # no shingle reaches from one text into the next
    owner, hashed = owner[:count][inside], hashed[inside]
    order = np.lexsort((hashed, owner))
    owner, hashed = owner[order], hashed[order]
    fresh = np.ones(len(owner), dtype=bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (hashed[1:] != hashed[:-1])
    first = np.flatnonzero(fresh)
    again = np.arange(len(owner)) - np.repeat(first, np.diff([*first, len(owner)]))
    return owner, np.unique(hashed * _BASE + again.astype(np.uint64), return_inverse=True)[1]
