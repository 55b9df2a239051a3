"""Writing: open-ended texts, scored by the user's own reward function or by a judge model."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import judge
from seedfold.tasks.base import Example, Grade
from seedfold.tasks.custom import Custom, Rows, read
from seedfold.tasks.generate import hint
from seedfold.tasks.judge import Judge
from seedfold.tasks.reward import Item

MAX_TOKENS = 512
RUBRIC = (
    "How good is the text as an answer to the request? Weigh: it does what the request asks; it is original and vivid; "
    "it is coherent and complete; its language is correct, varied and fit for the purpose."
)
OPTIONS: dict[str, Any] = {
    "judge_url": "",
    "judge_model": "",
    "rubric": RUBRIC,
    "key_variable": "",
    "scale": 10,
    "refused": 0,
    "parallel": 8,
    "timeout_seconds": 60.0,
    "retries": 5,
}
"""Of the judge. refused: the score of a text that the judge gives none; 0: the study stops there."""

_LEAST = {"scale": 2, "parallel": 1}


class Rewarded(Custom):
    """Strict and lenient as in the task custom. Free text does not vote, unless the user's file has an `answer`."""

    name = "writing"
    max_tokens = MAX_TOKENS

    def _key(self, completion: str, item: Item) -> str | None:
        return None if self._answer is None else super()._key(completion, item)


class Judged(Rows):
    """Strict and lenient: the judge's score, moved to 0 (worst) to 1 (best). There is no answer to vote on.

    An empty text earns 0 unasked. A (prompt, text) pair is judged once in the life of the task: greedy answers repeat.
    """

    name = "writing"
    max_tokens = MAX_TOKENS
    graders = 1  # which sends as many requests at once as it may

    def __init__(self, examples: Sequence[Example], items: Sequence[Item], judge_: Judge, refused: int) -> None:
        super().__init__(examples, items)
        self._judge = judge_
        self._refused = refused
        self._known: dict[bytes, float] = {}
        # Not the address: the same judge may move to another port or host.
        rules = [judge_.model, judge_.rubric, judge_.scale, refused, judge.INSTRUCTION, judge.MATERIAL, judge.AGAIN]
        self.digest = hashlib.blake2b(json.dumps(rules).encode(), digest_size=8).hexdigest()

    def grade(self, completion: str, example: Example) -> Grade:
        return self.grade_many([completion], [example])[0]

    def grade_many(self, completions: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
        pairs = [(self._request(example), text) for text, example in zip(completions, examples, strict=True)]
        todo = {_key(pair): pair for pair in pairs if pair[1].strip() and _key(pair) not in self._known}
        for key, score in zip(todo, self._judge.scores(list(todo.values())), strict=True):
            if score is not None or self._refused:
                value = self._refused if score is None else score
                self._known[key] = (value - 1) / (self._judge.scale - 1)
        rewards = []
        for pair, example in zip(pairs, examples, strict=True):
            reward = self._known.get(_key(pair)) if pair[1].strip() else 0.0
            if reward is None:
                raise UserError(
                    f'judge "{self._judge.model}" at "{self._judge.place}" gives no score for an answer to '
                    f'{self._items[example.id].where}, even when asked again; set "task.options.refused" to the score that '
                    "such texts get, or take another judge, in a new study"
                )
            rewards.append(reward)
        return [Grade(reward, reward, None) for reward in rewards]

    def _request(self, example: Example) -> str:
        """The prompt as the judge is shown it."""
        prompt = self._items[example.id].prompt
        if isinstance(prompt, str):
            return prompt
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def load(settings: Settings, count: int) -> Rewarded | Judged:
    if not settings.path:
        raise UserError('task "writing" needs "task.path", which is empty; give your data file or dataset of prompts')
    if settings.reward:
        for key, value in settings.options.items():
            shown = "" if key == "key_variable" else f" = {value!r}"
            raise UserError(
                f'"task.options" has "{key}"{shown}, but "task.reward" is given, which scores without a judge; '
                "remove one of them"
            )
        return Rewarded(*read(settings), settings.reward)
    options = options_of(settings.options)
    judge_ = Judge(
        url=options["judge_url"],
        model=options["judge_model"],
        rubric=options["rubric"],
        key=key_of(options["key_variable"]),
        scale=options["scale"],
        parallel=options["parallel"],
        timeout=options["timeout_seconds"],
        retries=options["retries"],
    )
    return Judged(*read(settings), judge_, options["refused"])


def options_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The judge's options, checked, with the defaults. What may hold a secret is not repeated in a message."""
    for key, value in given.items():
        if key not in OPTIONS:
            raise UserError(f'task "writing" has no option "{key}" in "task.options"; {hint(key, OPTIONS)}')
        place = f'"task.options.{key}"'
        default = OPTIONS[key]
        if isinstance(default, str) and not (isinstance(value, str) and value.strip()):
            raise UserError(f"{place} is {value!r}; give a text")
        if isinstance(default, int) and (type(value) is not int or not _LEAST.get(key, 0) <= value <= 1000):
            raise UserError(f"{place} is {value!r}; use a whole number from {_LEAST.get(key, 0)} to 1000")
        if isinstance(default, float) and (type(value) not in (int, float) or not 0 < value < math.inf):
            raise UserError(f"{place} is {value!r}; use a number of seconds above 0")
    options = {**OPTIONS, **given}
    if not options["judge_url"] or not options["judge_model"]:
        missing = "judge_model" if options["judge_url"] else "judge_url"
        raise UserError(
            f'task "writing" has no "task.options.{missing}" and no "task.reward"; give "task.reward" a function, or '
            '"task.options" the judge_url and judge_model of an OpenAI-compatible endpoint'
        )
    if wanted := _wrong_url(options["judge_url"]):
        raise UserError(f'"task.options.judge_url" is no address that can be used; {wanted}')
    if options["refused"] > options["scale"]:
        raise UserError(
            f'"task.options.refused" is {options["refused"]}, above the scale of {options["scale"]}; lower it'
        )
    return options


def key_of(variable: str) -> str:
    """The API key from the environment; "" where no variable is named. The message shows no lower-case name: it may be
    the key itself."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip() if re.fullmatch(r"[A-Za-z_]\w*", variable, re.ASCII) else ""
    if not key or not (key.isascii() and key.isprintable()):
        shown = f'"{variable}"' if re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable) else "of lower-case letters or signs"
        raise UserError(
            f'"task.options.key_variable" is {shown}, which names no environment variable that holds a key; '
            "set that variable and give its name here, never the key"
        )
    return key


def _wrong_url(url: str) -> str | None:
    """What is wanted in place of a bad address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "mend its host and port"
    if parts.username is not None or parts.password is not None:
        return "leave the user and password out of it"
    good = parts.scheme in ("http", "https") and parts.hostname and port != 0 and url.isascii() and url.isprintable()
    return None if good and " " not in url else 'write "http://host:port/v1" or "https://host/v1"'


def _key(pair: tuple[str, str]) -> bytes:
    """Digests, not texts: a long study judges millions of them."""
    return hashlib.blake2b(
        f"{len(pair[0])}\0{pair[0]}{pair[1]}".encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
