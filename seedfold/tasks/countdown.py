"""Countdown: combine the given numbers with + - * / to reach the target. Generated, solvable by construction."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from random import Random

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import expression
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.expression import Node
from seedfold.tasks.generate import distinct, whole_numbers
from seedfold.tasks.latex_text import boxed

INSTRUCTION = (
    "Use each of the given numbers exactly once, with + - * / and parentheses, to make the target. Think step by step, "
    "then write the expression as <answer> expression </answer>, for example <answer> (7 + 5) * 2 </answer> for the "
    "numbers 2, 5, 7 and the target 24.\n\nNumbers: {numbers}\nTarget: {target}"
)
OPTIONS = {"fewest": 3, "most": 4, "low": 1, "high": 99, "target": 99}
"""How many numbers at least and at most, the range they come from, and the largest target."""

MAX_TEXT = 20_000
_TAG = re.compile(r"<answer>((?:(?!<answer>).){0,1000}?)</answer>", re.IGNORECASE | re.DOTALL)
_TAG_MARK = re.compile(r"</?answer>", re.IGNORECASE)
_LABEL = re.compile(r"\banswer\b(?: is\b)?[ *:]*([^\n]*)", re.IGNORECASE)


class Countdown(Task):
    """Right is an expression of the given numbers, each used once, that equals the target exactly.

    Strict: inside the last `<answer>` tag. Lenient: that, or in the last `\\boxed{}`, or after "answer:", else the last
    line that is an expression. The vote pools expressions that are the same up to order, parentheses and spelling. It
    does not pool by value: that would be a verifier, which every right answer passes, and no vote.
    """

    name = "countdown"
    max_tokens = 400

    def messages(self, example: Example) -> list[Message]:
        numbers = ", ".join(map(str, example.columns["numbers"]))
        return self.ask(INSTRUCTION.format(numbers=numbers, target=example.columns["target"]))

    def grade(self, completion: str, example: Example) -> Grade:
        numbers, target = example.columns["numbers"], example.columns["target"]
        text = completion[-MAX_TEXT:]
        tags = _TAG.findall(text)
        formal = read(tags[-1], target) if tags else None
        strict = float(formal is not None and right(formal, numbers, target))
        found = formal or substance(text, target)
        lenient = max(strict, float(found is not None and right(found, numbers, target)))
        return Grade(strict, lenient, None if formal is None else expression.normal(formal))


def load(settings: Settings, count: int) -> Countdown:
    options = whole_numbers("countdown", settings.options, OPTIONS)
    for below, above in (("fewest", "most"), ("low", "high")):
        if options[below] > options[above]:
            raise UserError(
                f'"task.options.{below}" is {options[below]}, above "task.options.{above}", which is {options[above]}; '
                "lower it"
            )
    if not 2 <= options["fewest"] <= options["most"] <= 8:
        raise UserError(
            f'"task.options.fewest" and "task.options.most" are {options["fewest"]} and {options["most"]}; '
            "use 2 to 8 numbers"
        )

    def draw(random: Random) -> dict[str, object]:
        for _ in range(10_000):
            numbers = [
                random.randint(options["low"], options["high"])
                for _ in range(random.randint(options["fewest"], options["most"]))
            ]
            target = reachable(numbers, random)
            if target is not None and target <= options["target"] and target not in numbers:
                # Sorted: an example is a set of numbers and a target, and their order would give the solution away.
                return {"numbers": sorted(numbers), "target": target}
        raise UserError(
            f'task "countdown" finds no target up to {options["target"]} for its numbers; '
            'raise "task.options.target" or lower "task.options.low"'
        )

    return Countdown(distinct(draw, count, settings.seed, "countdown"))


def reachable(numbers: Sequence[int], random: Random) -> int | None:
    """A whole number above 0 that random operations on all the numbers lead to; None where a step leaves those."""
    values = list(numbers)
    while len(values) > 1:
        a = values.pop(random.randrange(len(values)))
        b = values.pop(random.randrange(len(values)))
        result = _apply(random.choice("+-*/"), a, b)
        if result is None or result <= 0:
            return None
        values.append(result)
    return values[0]


def _apply(sign: str, a: int, b: int) -> int | None:
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    if sign == "*":
        return a * b
    return a // b if a % b == 0 else None


def read(text: str, target: int) -> Node | None:
    """The expression in the text, which may say `= target` after it; None when it is none or claims another result."""
    left, equals, claim = expression.plain(text).partition("=")
    if equals and claim.strip() != str(target):
        return None
    return expression.parse(left)


def right(node: Node, numbers: Sequence[int], target: int) -> bool:
    return Counter(expression.literals(node)) == Counter(numbers) and expression.value(node) == target


def substance(text: str, target: int) -> Node | None:
    """The expression however it is marked: in the last box, after the last "answer", else the last line that is one."""
    marked = [boxed(text) or "", *_LABEL.findall(text)[-1:]]
    for line in [*marked, *reversed(text.splitlines()[-50:])]:
        node = read(_TAG_MARK.sub("", line), target)
        if node is not None and len(expression.literals(node)) > 1:
            return node
    return None
