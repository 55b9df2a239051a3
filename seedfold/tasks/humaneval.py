"""HumanEval: Python functions to complete from signature and docstring (Chen et al., 2021, arXiv:2107.03374), zero-shot."""

from __future__ import annotations

import re

from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import code, data
from seedfold.tasks.base import Example, Message
from seedfold.tasks.sandbox import Checks

INSTRUCTION = (
    "Complete the function. Answer with one block of code that begins with ```python and ends with ```, and that "
    "contains the whole function.\n\n```python\n{prompt}\n```"
)
HUB = "openai/openai_humaneval"
COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


class HumanEval(code.CodeTask):
    """Strict: the last block of Python defines the function, which passes the test; what stands before the function in
    the prompt is there. Lenient: that, or all blocks together, or code without a block, or a text or block that only
    goes on where the prompt ends."""

    name = "humaneval"
    max_tokens = 512

    def messages(self, example: Example) -> list[Message]:
        return self.ask(INSTRUCTION.format(prompt=example.columns["prompt"].strip()))

    def tests(self, example: Example) -> Checks:
        name, test = example.columns["entry_point"], example.columns["test"]
        return Checks(f"{test}\n\ncheck({name})\n", (name,), before(example))

    def readings(self, completion: str, example: Example) -> tuple[str | None, list[str]]:
        found = code.blocks(completion)
        formal = code.last_python(found)
        texts = ["\n".join(text for _, text in found), found[-1][1]] if found else [completion]
        others = [whole(text if found else code.unfenced(text), example) for text in texts]
        others += [continued(text, example) for text in texts]
        return None if formal is None else before(example) + formal, [text for text in others if text]


def load(settings: Settings, count: int) -> HumanEval:
    path = settings.path or HUB
    task = HumanEval([], code.opened(settings))
    examples = []
    for number, row in data.published(settings, HUB, "test"):
        columns = {name: row.get(name) for name in COLUMNS}
        texts = [columns[name] for name in ("prompt", "entry_point", "test")]
        if not all(isinstance(text, str) for text in texts) or f"def {texts[1]}(" not in str(texts[0]):
            raise UserError(
                f'"{path}" row {number} is no HumanEval row (columns {", ".join(row) or "none"}); it needs "test", '
                '"entry_point", and a "prompt" that begins that function'
            )
        examples.append(task.check(Example.of(columns), f'"{path}" row {number}'))
    return HumanEval(examples, task.sandbox)


def before(example: Example) -> str:
    """What stands before the function in the prompt: imports and helpers."""
    prompt: str = example.columns["prompt"]
    return prompt[: prompt.rindex(f"def {example.columns['entry_point']}(")]


def whole(text: str, example: Example) -> str:
    """The program, if the text defines the function; else empty."""
    defined = re.search(rf"^def {re.escape(example.columns['entry_point'])}\b", text, re.MULTILINE)
    return before(example) + text if defined else ""


def continued(text: str, example: Example) -> str:
    """The prompt and then the text, up to its first line that is not indented: the function's body. A first line that
    lost its indentation gets it back. Empty if the text defines the function itself."""
    if whole(text, example) or not text.strip():
        return ""
    first, *rest = text.lstrip("\n").split("\n")
    end = next((number for number, line in enumerate(rest) if line.strip() and not line[0].isspace()), len(rest))
    indented = first if first[:1].isspace() else "    " + first
    return example.columns["prompt"].rstrip() + "\n" + "\n".join([indented, *rest[:end]]) + "\n"
