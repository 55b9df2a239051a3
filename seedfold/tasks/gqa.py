"""GQA: questions on images, answered by a word or a phrase (Hudson and Manning, 2019, arXiv:1902.09506)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedfold.config import Task as Settings
from seedfold.engines.base import Image
from seedfold.errors import UserError
from seedfold.tasks import data
from seedfold.tasks.base import Example, Grade, Task
from seedfold.tasks.generate import hint
from seedfold.tasks.images import Images

# The wording that LLaVA was trained with, and that lmms-eval asks GQA with.
INSTRUCTION = "{question}\nAnswer the question using a single word or phrase."
MAX_TEXT = 2_000
"""Characters of a completion that are read."""
MAX_KEY = 200
"""Characters of a vote answer; a longer text is no word or phrase, and does not vote."""


class GQA(Task):
    """Strict: the whole completion is the reference, but for case, a final full stop and a leading article.

    Lenient: the reference stands in it as a word or phrase; yes and no only as its first word.
    """

    name = "gqa"
    max_tokens = 16

    def __init__(self, examples: Sequence[Example], images: Mapping[str, Image]) -> None:
        super().__init__(examples)
        self._images = images

    def messages(self, example: Example) -> list[Any]:
        """The system message, where there is one, and a user message of two parts: the image, then the question."""
        parts = [
            {"type": "image", "image": self._images[example.columns["image"]]},
            {"type": "text", "text": INSTRUCTION.format(question=example.columns["question"])},
        ]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": parts}]

    def grade(self, completion: str, example: Example) -> Grade:
        completion = completion[:MAX_TEXT]
        given, right = normal(completion), normal(example.columns["answer"])
        strict = float(given == right)
        lenient = max(strict, float(contains(completion, right)))
        return Grade(strict, lenient, given if 0 < len(given) <= MAX_KEY else None)


def normal(answer: str) -> str:
    """Unicode NFKC, no case, single spaces, no final full stop, no leading article."""
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().split()).rstrip(" .")
    return re.sub(r"^(an?|the) (?=.)", "", text)


def contains(text: str, answer: str) -> bool:
    """Whether a normal answer stands in a text, word by word; yes and no only at its beginning."""
    found, wanted = _words(text), _words(answer)
    if wanted in (["yes"], ["no"]):
        return found[:1] == wanted
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(found)} "


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def load(settings: Settings, count: int) -> GQA:
    if not settings.path:
        raise UserError(
            'task "gqa" needs "task.path", which is empty; give a .jsonl or .parquet file of questions with their images'
        )
    images = Images(_folder(settings))
    examples = []
    for number, row in data.rows(settings.path, settings.hub_split, settings.examples):
        question, answer = row.get("question"), row.get("answer")
        if not _text(question) or not _text(answer) or not _words(str(answer)) or "image" not in row:
            raise UserError(
                f'"{settings.path}" row {number} is no GQA row (columns {", ".join(row) or "none"}); it needs the texts '
                '"question" and "answer", and "image"'
            )
        image = images.read(row["image"], f'"{settings.path}" row {number}')
        examples.append(Example.of({"question": question, "answer": answer, "image": image.digest}))
    return GQA(examples, images.known)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _folder(settings: Settings) -> Path:
    """Where relative paths of images begin: `task.options.images`, or the data file's folder."""
    for key in settings.options:
        if key != "images":
            raise UserError(
                f'task "gqa" has no option "{key}" = {settings.options[key]!r} in "task.options"; {hint(key, ["images"])}'
            )
    folder = settings.options.get("images", "")
    if not isinstance(folder, str):
        raise UserError(f'"task.options.images" is {folder!r}; give the folder of the images')
    if folder and not Path(folder).expanduser().is_dir():
        raise UserError(
            f'"task.options.images" is "{folder}", but there is no such folder; give the folder of the images'
        )
    return Path(folder).expanduser() if folder else Path(settings.path).parent
