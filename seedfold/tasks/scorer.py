"""Reasoning Gym's own generators and scorers, run in child processes, see `child`.

Several scorers (countdown, puzzle24, the integration tasks, polynomial_multiplication and others) hand the model's text
to Python's `eval` or to sympy: `9**9**9` would hang the study, and a text could run code in it. A scorer that exceeds its
bounds counts as 0.

Generators run in a child too, with Python's hash seed fixed: half a dozen of them iterate over sets, so that the same
seed gave other questions in every process.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

from seedfold.tasks.child import Child, packed, python, receive, send, serve
from seedfold.tasks.functions import reason

MAX_ANSWER = 10_000
"""Characters of an answer; longer ones score 0."""

CPU_SECONDS = 1.0
"""For one answer."""


class Scorer:
    """`score_answer` of one Reasoning Gym dataset, with bounds."""

    def __init__(self, dataset: str, parameters: Mapping[str, Any]) -> None:
        failure = (
            f'the scorer of Reasoning Gym dataset "{dataset}" does not start; '
            f"check that {sys.executable} can import reasoning_gym"
        )
        self._child = Child(f"{__name__}:main", (dataset, dict(parameters)), failure)

    def __call__(self, answer: str, entry: Mapping[str, Any]) -> float | None:
        """The reward; 0 where the scorer raises or gives no finite number, None where it exceeds a bound."""
        if len(answer) > MAX_ANSWER:
            return None
        score = self._child.ask((answer, dict(entry)))
        return float(struct.unpack("<d", score)[0]) if score is not None and len(score) == 8 else None


def generate(dataset: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dataset's entries. Raises ValueError with the reason where it refuses its parameters."""
    child = python(f"{__name__}:make")
    output, _ = child.communicate(packed((dataset, dict(parameters))))
    # Unpickled without fear: this child has seen no text of a model.
    made = receive(io.BytesIO(output)) if output else "it ended without a word"
    if isinstance(made, str):
        raise ValueError(made)
    return list(made)


def make() -> None:
    """The generating child: read the name and parameters, write the entries, or the reason why there are none."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    name, parameters = receive(os.fdopen(os.dup(0), "rb"))

    import random

    import numpy
    import reasoning_gym

    random.seed(0)  # some generators draw from the global generators by mistake
    numpy.random.seed(0)
    try:
        dataset = reasoning_gym.create_dataset(name, **parameters)
        # By index, to the size asked for: the iterators of some datasets end elsewhere.
        made: Any = [dataset[index] for index in range(parameters["size"])]
    except Exception as error:  # parameters are checked by assertions, type errors and whatever the dataset raises
        made = reason(error)
    send(reply, made)


def main() -> None:
    """The scoring child: told the dataset's name and parameters, it gives one float64 for each answer."""
    serve(_scorer, CPU_SECONDS)


def _scorer(header: tuple[str, dict[str, Any]]) -> Callable[[tuple[str, dict[str, Any]]], bytes]:
    import reasoning_gym

    name, parameters = header
    dataset = reasoning_gym.create_dataset(name, **parameters)

    def score(question: tuple[str, dict[str, Any]]) -> bytes:
        try:
            value = float(dataset.score_answer(*question))
        except (Exception, SystemExit):  # the text was not what the scorer expected: a wrong answer
            value = 0.0
        return struct.pack("<d", value if math.isfinite(value) else 0.0)

    return score
