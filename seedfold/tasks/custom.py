"""A user's own task: a data file or Hugging Face dataset, and one Python function that gives the reward."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import data, functions, numbers, reward, template
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.functions import Function
from seedfold.tasks.reward import Item

MAX_KEY = 200
"""Characters of a default vote answer."""


class Rows(Task):
    """Examples that are rows of the user's data, with the prompts that stand there."""

    def __init__(self, examples: Sequence[Example], items: Sequence[Item]) -> None:
        super().__init__(examples)
        self._items: dict[str, Item] = {}
        for example, item in zip(examples, items, strict=True):
            self._items.setdefault(example.id, item)  # a row that stands twice is known by its first number

    def messages(self, example: Example) -> list[Message]:
        return self.ask(self._items[example.id].prompt)


class Custom(Rows):
    """Strict: the user's reward. Lenient: the function `lenient` of the same file, else the reward as well.

    The vote pools what the function `answer(completion, example) -> str | None` of the same file gives, else the last
    line, see `last_line`.
    """

    name = "custom"

    def __init__(self, examples: Sequence[Example], items: Sequence[Item], spec: str) -> None:
        super().__init__(examples, items)
        self._columns = list(dict.fromkeys(name for item in items for name in item.row))
        self._spec = spec
        module, self._reward = functions.load(spec)
        self.digest = functions.digest(module)
        self._lenient = _optional(module, "lenient", self._reward)
        self._answer = _optional(module, "answer", self._reward)
        for function in (self._reward, self._lenient):
            if function is not None:
                reward.check(function, spec, list(self._items.values()))

    def grade(self, completion: str, example: Example) -> Grade:
        return self.grade_many([completion], [example])[0]

    def grade_many(self, completions: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
        if not examples:
            return []
        items = [self._items[example.id] for example in examples]
        strict = self._rewards(self._reward, completions, items)
        lenient = strict if self._lenient is None else self._rewards(self._lenient, completions, items)
        answers = [self._key(completion, item) for completion, item in zip(completions, items, strict=True)]
        return [Grade(*values) for values in zip(strict, lenient, answers, strict=True)]

    def _rewards(self, function: Function, completions: Sequence[str], items: Sequence[Item]) -> list[float]:
        if not reward.is_trl(function):
            return reward.single(function, self._spec, completions, items)
        try:
            return reward.batch(function, self._spec, completions, items, self._columns)
        except UserError:
            # Which row is it? Each alone, to name it; where each alone is fine, the batch is the news.
            if len(items) > 1:
                for completion, item in zip(completions, items, strict=True):
                    reward.batch(function, self._spec, [completion], [item], self._columns)
            raise

    def _key(self, completion: str, item: Item) -> str | None:
        if self._answer is None:
            return last_line(completion)
        place = f"{self._spec.rpartition(':')[0]}:answer"
        value = reward.call(self._answer, place, item.where, completion, reward.row_of(item))
        if value is None or isinstance(value, str):
            return value or None
        raise UserError(
            f'function "{place}" gives a {type(value).__name__} on {item.where}; give a string to vote on, or None'
        )


def load(settings: Settings, count: int) -> Custom:
    for field, value in (("path", settings.path), ("reward", settings.reward)):
        if not value:
            raise UserError(f'task "custom" needs "task.{field}", which is empty; give your {_WANTED[field]}')
    return Custom(*read(settings), settings.reward)


def read(settings: Settings) -> tuple[list[Example], list[Item]]:
    """The rows with their prompts: the template `task.prompt` filled in, else the column `prompt`."""
    pieces = template.parse(settings.prompt) if settings.prompt else None
    examples: list[Example] = []
    items: list[Item] = []
    for number, row in data.rows(settings.path, settings.hub_split, settings.examples):
        example = Example.of(row)
        where = f"row {number} (example {example.id})"
        place = f'"{settings.path}" {where}'
        prompt = template.column(row, place) if pieces is None else template.fill(pieces, row, place)
        if items and isinstance(prompt, str) != isinstance(items[0].prompt, str):
            raise UserError(f"{place} mixes texts and lists of messages in its prompts; use one of them throughout")
        examples.append(example)
        items.append(Item(row, prompt, where))
    return examples, items


_WANTED = {"path": "data file or dataset", "reward": "reward function as FILE.py:FUNCTION"}


def last_line(completion: str) -> str | None:
    """The default vote answer: the last line that is not empty, without markup, case or final full stop.

    A line that is one number gives its normal form, so that 18, $18.00 and **18** pool.
    """
    line = next((line for line in reversed(completion[-numbers.MAX_TEXT :].splitlines()) if line.strip()), None)
    if line is None:
        return None
    value = numbers.parse(line)
    if value is not None and not any(map(str.isalpha, line)):
        return numbers.normal(value)
    return " ".join(line.split()).strip(" *_`#>.").casefold()[:MAX_KEY] or None


def _optional(module: ModuleType, name: str, taken: Function) -> Function | None:
    function = getattr(module, name, None)
    return function if callable(function) and function is not taken else None
