"""An announcement as a JSON object of four fields, with a share of the reward for each."""

import json

FIELDS = ("event", "city", "day", "price")


def reward(completion: str, example: dict) -> float:
    """The share of fields that are right, if the answer is a JSON object and nothing else; else 0."""
    return score(parse(completion.strip()), example["answer"])


def lenient(completion: str, example: dict) -> float:
    """The same for the first object in the text: in a code block, or between words."""
    start, end = completion.find("{"), completion.find("}")
    return max(reward(completion, example), score(parse(completion[start : end + 1]), example["answer"]))


def answer(completion: str, example: dict) -> str | None:
    """What the vote counts: the object in one spelling. Answers that differ in one field are different answers."""
    found = parse(completion.strip())
    return None if found is None else json.dumps(found, sort_keys=True)


def parse(text: str) -> dict | None:
    """A JSON object, or None. No text may make a reward raise, however it is nested and however long its numbers."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def score(found: dict | None, right: dict) -> float:
    """Each right field earns a quarter, each field that nobody asked for costs one. Never below 0."""
    if found is None:
        return 0.0
    good = sum(same(found.get(field), right[field]) for field in FIELDS)
    return max(0, good - len(found.keys() - set(FIELDS))) / len(FIELDS)


def same(one: object, two: object) -> bool:
    """Texts up to case and space at the ends; numbers by value; a number in quotes is a text, and wrong."""
    if isinstance(one, str) and isinstance(two, str):
        return one.strip().lower() == two.strip().lower()
    return type(one) in (int, float) and type(two) in (int, float) and one == two
