"""What an engine is: the protocol, and the plain data that goes in and out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from seedfold.recipe import Recipe

ALIGN = 16
"""Rows and cache slots come in multiples of this: CPU and GPU matrix kernels then treat every row alike."""


@dataclass(frozen=True)
class Image:
    """A picture as the bytes of its file (PNG, JPEG, …); `digest` stands for its content in ids and texts."""

    data: bytes = field(repr=False, compare=False)
    digest: str

    def __str__(self) -> str:
        return self.digest

    def open(self) -> Any:
        """The picture as a `PIL.Image.Image`: RGB, upright, the first frame. Raises what Pillow raises."""
        from PIL import Image as pillow
        from PIL import ImageOps

        return ImageOps.exif_transpose(pillow.open(BytesIO(self.data))).convert("RGB")


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt. `key` names the example: sampled answers draw their random numbers from it.

    images, chat: the pictures of a chat in their order, and the chat as JSON with their digests in their places: what a
    model that sees reads besides the tokens. Empty where there are none.
    """

    tokens: tuple[int, ...]
    key: str
    images: tuple[Image, ...] = ()
    chat: str = ""


@dataclass(frozen=True)
class Decoding:
    """How to generate.

    max_tokens: limit per answer. stop: strings that end an answer; it is cut before the first of them. temperature: 0 is
    greedy. top_p: share of probability kept when sampling. samples: the sample numbers to draw for each prompt; sample k
    of a prompt is the same whatever else is drawn. Greedy answers are sample 0.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    samples: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Answer:
    """One completion: of prompt number `index`, sample number `sample`.

    text: without special tokens and without the stop string. tokens: generated, the end token included. finish: "stop"
    (the end token or a stop string) or "length" (cut off at the limit).
    """

    index: int
    sample: int
    text: str
    prompt_tokens: int
    tokens: int
    finish: str


@dataclass(frozen=True)
class Job:
    """A recipe, None for the base, and the prompts it is to answer. `done`: as in `Engine.generate`."""

    recipe: Recipe | None
    prompts: Sequence[Prompt]
    decoding: Decoding
    done: frozenset[tuple[int, int]] = frozenset()


class Engine(Protocol):
    """Same (recipe, prompt, sample), same answer: whatever is evaluated beside it, before it, or in another run."""

    @property
    def name(self) -> str:
        """The model's name, as configured."""
        ...

    @property
    def revision(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Of the base's weights, in the dtype they are held in."""
        ...

    @property
    def positions(self) -> int | None:
        """Tokens that a prompt and its answer may have together; None where there is no limit."""
        ...

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Token ids of a chat, by the tokenizer's own template, ready for the model's turn."""
        ...

    def become(self, recipe: Recipe | None) -> None:
        """Make the weights those of the recipe; None is the base."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, done: Collection[tuple[int, int]] = ()
    ) -> Iterator[list[Answer]]:
        """Answer every prompt, yielding answers batch by batch as they are done, in no particular order.

        done: (index, sample) pairs that are known. Batches are the same with and without it; those that are wholly
        known are left out.
        """
        ...

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Answer]]]:
        """Do many jobs, in whatever order and overlap is fastest here: (number of the job, some of its answers).

        Answers come in no particular order. An empty list is a sign of life: a recipe may be long to become. Afterwards the
        engine is any of the recipes, or the base. An engine whose `sizes` tell of several copies also takes a function that
        it calls while some have nothing to do, and which gives further jobs; their numbers follow on.
        """
        ...

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural-log probabilities of each token of each continuation, given its prompt, teacher-forced."""
        ...

    def export(self, recipe: Recipe, folder: Path, card: str) -> None:
        """Write the recipe's model as an ordinary checkpoint with `card` as its model card."""
        ...

    def sizes(self) -> dict[str, int]:
        """ "weights": bytes of the parameters; "cache_bytes_per_token": of keys and values, all layers, one row."""
        ...

    def describe(self) -> dict[str, Any]:
        """Versions, device and numerics, for the record."""
        ...


def pictures(messages: Sequence[Mapping[str, Any]]) -> tuple[tuple[Image, ...], str]:
    """`Prompt.images` and `Prompt.chat` of a chat.

    A message's content is a text, or a list of parts as Hugging Face processors take them: {"type": "text", "text": …} and
    {"type": "image", "image": an `Image`}.
    """
    lists = [parts for message in messages if not isinstance(parts := message.get("content"), str) and parts]
    images = tuple(part["image"] for parts in lists for part in parts if part["type"] == "image")
    return images, json.dumps(list(messages), default=str) if images else ""


def in_turn(engine: Engine, jobs: Iterable[Job]) -> Iterator[tuple[int, list[Answer]]]:
    """`Engine.run` for an engine that does one job at a time."""
    for number, job in enumerate(jobs):
        engine.become(job.recipe)
        for answers in engine.generate(job.prompts, job.decoding, job.done):
            yield number, answers
