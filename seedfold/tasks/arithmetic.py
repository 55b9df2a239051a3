"""Additions and subtractions of whole numbers: the quick task, generated, small enough for the smallest models."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import numbers
from seedfold.tasks.base import Example, Grade, Message, Task
from seedfold.tasks.generate import distinct, whole_numbers

INSTRUCTION = "Compute {problem}."
SHOTS = (("23 + 45", "23 + 45 = 68"), ("71 - 28", "71 - 28 = 43"), ("36 + 57", "36 + 57 = 93"))
"""Worked problems that show the format, as earlier turns of the chat. All prompts share them."""
OPTIONS = {"low": 10, "high": 99}
"""Smallest and largest operand. The larger one comes first in a difference."""


class Arithmetic(Task):
    """`a + b` and `a - b`. Strict: one line, the number alone or the equation that ends in it. Lenient: last number."""

    name = "arithmetic"
    max_tokens = 24
    stop = ("\n",)

    def messages(self, example: Example) -> list[Message]:
        *system, question = self.ask(INSTRUCTION.format(problem=example.columns["problem"]))
        for problem, answer in SHOTS:
            system.append({"role": "user", "content": INSTRUCTION.format(problem=problem)})
            system.append({"role": "assistant", "content": answer})
        return [*system, question]

    def grade(self, completion: str, example: Example) -> Grade:
        right = Fraction(example.columns["answer"])
        formal = read(completion)
        strict = float(formal == right)
        lenient = max(strict, float(numbers.last(completion) == right))
        return Grade(strict, lenient, None if formal is None else numbers.normal(formal))


def load(settings: Settings, count: int) -> Arithmetic:
    options = whole_numbers("arithmetic", settings.options, OPTIONS)
    low, high = options["low"], options["high"]
    if low > high:
        raise UserError(f'"task.options.low" is {low}, above "task.options.high", which is {high}; lower it')

    def draw(random: Random) -> dict[str, str]:
        a, b = random.randint(low, high), random.randint(low, high)
        sign = random.choice("+-")
        if sign == "-":
            a, b = max(a, b), min(a, b)
        return {"problem": f"{a} {sign} {b}", "answer": str(a + b if sign == "+" else a - b)}

    return Arithmetic(distinct(draw, count, settings.seed, "arithmetic"))


def read(completion: str) -> Fraction | None:
    """The number under the asked-for format; None when there are words, several lines or no number."""
    line = completion.strip()
    if len(line) > numbers.MAX_TEXT or len(line.splitlines()) != 1 or any(map(str.isalpha, line)):
        return None
    return numbers.parse(line.rpartition("=")[2])
