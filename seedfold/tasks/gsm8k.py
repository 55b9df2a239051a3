"""GSM8K: grade-school word problems (Cobbe et al., 2021, arXiv:2110.14168), zero-shot, reasoning before the answer."""

from __future__ import annotations

import re
from fractions import Fraction

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import data, numbers
from seedfold.tasks.base import Example, Grade, Message, Task

# The instruction comes first: what all prompts share at their beginning is computed once.
INSTRUCTION = (
    'Solve the problem. Reason step by step, and end with one last line: "#### " followed by the answer, a number '
    "without unit.\n\nProblem: {question}"
)
HUB = "openai/gsm8k:main"

_HEADING = re.compile(r"\W*\d+\W*[.):]\W*\s\W*[^\W\d_]")
"""`#### 6. Final answer`: models number the headings of their reasoning, and 6 is no answer."""


class GSM8K(Task):
    """Strict: the number after the last `####`. Lenient: that, or `\\boxed{}`, "answer is", else the last number."""

    name = "gsm8k"
    max_tokens = 300

    def messages(self, example: Example) -> list[Message]:
        return self.ask(INSTRUCTION.format(question=example.columns["question"]))

    def grade(self, completion: str, example: Example) -> Grade:
        right = reference(example.columns["answer"])
        formal = reference(completion)
        strict = float(formal is not None and formal == right)
        lenient = max(strict, float(substance(completion) == right))
        return Grade(strict, lenient, None if formal is None else numbers.normal(formal))


def load(settings: Settings, count: int) -> GSM8K:
    examples = []
    for number, row in data.published(settings, HUB):
        question, answer = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str) or reference(answer) is None:
            raise UserError(
                f'"{settings.path or HUB}" row {number} is no GSM8K row (columns {", ".join(row) or "none"}); '
                'it needs "question" and an "answer" that ends in "#### number"'
            )
        examples.append(Example.of({"question": question, "answer": answer}))
    return GSM8K(examples)


def reference(text: str) -> Fraction | None:
    """The number after the last `####`; None without one, or where a formula, a sentence or a heading stands there."""
    rest = numbers.after_hashes(text)
    return None if rest is None or _HEADING.match(rest) else numbers.parse(rest)


def substance(text: str) -> Fraction | None:
    """The answer however it is written: the first of the readings that finds a number."""
    value = reference(text)
    if value is None and (box := numbers.boxed(text)) is not None:
        value = numbers.parse(box)
    if value is None and (rest := numbers.after_answer(text)) is not None:
        value = numbers.first(rest)
    return numbers.last(text) if value is None else value
