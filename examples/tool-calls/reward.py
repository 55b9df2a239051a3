"""A request as a call of a tool. The reward has the form of TRL's GRPOTrainer, and runs there unchanged.

It rises in steps, so that an answer that is nearly right is better than none: 0 for no call, 0.2 for a well-formed one,
0.5 for one of the right tool, and from there to 1 by the share of arguments that are right.
"""

import json

TOOLS = ("set_timer", "get_weather", "send_message", "play_music")


def reward(completions: list, answer: list[dict], **kwargs: object) -> list[float]:
    """One number for each completion; `answer` is the column of that name, a list as long."""
    return [score(call(text(completion)), right) for completion, right in zip(completions, answer, strict=True)]


def text(completion: str | list[dict]) -> str:
    """A completion is a text, or a list of one message where prompts are lists of messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def call(completion: str) -> dict | None:
    """The tool and its arguments; None where the answer is not one JSON object of just these two."""
    try:
        found = json.loads(completion)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"tool", "arguments"}:
        return None
    return found if found["tool"] in TOOLS and isinstance(found["arguments"], dict) else None


def score(found: dict | None, right: dict) -> float:
    if found is None:
        return 0.0
    if found["tool"] != right["tool"]:
        return 0.2
    wanted, given = right["arguments"], found["arguments"]
    good = sum(same(given.get(name), value) for name, value in wanted.items())
    return 0.5 + 0.5 * good / max(len(wanted), len(given))


def same(one: object, two: object) -> bool:
    """Texts up to case, space and a full stop at the end; numbers by value."""
    if isinstance(one, str) and isinstance(two, str):
        return one.strip(" .").lower() == two.strip(" .").lower()
    return type(one) in (int, float) and type(two) in (int, float) and one == two
