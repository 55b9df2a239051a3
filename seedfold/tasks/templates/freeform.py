"""A sentence or two with words that must be in it: a reward for free text, from what can be counted."""

import re

MOST_WORDS = 40


def reward(completion: str, example: dict) -> float:
    """The share of the asked-for words that are used; a text that is too long earns half of that."""
    words, wanted = (re.findall(r"\w+", text.lower()) for text in (completion, example["words"]))
    used = sum(word in words for word in wanted) / len(wanted)
    return used if len(words) <= MOST_WORDS else used / 2


def answer(completion: str, example: dict) -> str | None:
    """Free texts are all different: there is nothing to vote on, and the best candidate's text stands."""
    return None
