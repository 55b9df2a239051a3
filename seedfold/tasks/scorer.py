"""Reasoning Gym's own generators and scorers, run in child processes.

Several of them (countdown, puzzle24, the integration tasks, polynomial_multiplication and others) hand the model's text
to Python's `eval` or to sympy: `9**9**9` would hang the study, and a text could run code in it. So they run in a child
with bounds on CPU time, memory, files and processes; a scorer that dies or takes too long counts as 0 and the child is
started again. That bounds accidents; it is no jail for hostile code.

Generators run in a child too, with Python's hash seed fixed: half a dozen of them iterate over sets, so that the same
seed gave other questions in every process.

The file is both sides: `generate` and `Scorer` in the study, `make` and `main` in the child, which needs Reasoning Gym
and no model code.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import Any, BinaryIO

from seedfold.errors import UserError
from seedfold.tasks.functions import reason

MAX_ANSWER = 10_000
"""Characters of an answer; longer ones score 0."""

CPU_SECONDS = 1.0
"""For one answer. CPU time and not wall time: a busy machine must not change a reward."""

WALL_SECONDS = 60.0
"""Backstop for a scorer that sleeps, and for the child's start."""

MEMORY_BYTES = 4 << 30

_READY = struct.pack("<d", 0.0)


class Scorer:
    """`score_answer` of one Reasoning Gym dataset, with bounds."""

    def __init__(self, dataset: str, parameters: Mapping[str, Any]) -> None:
        self._header = (dataset, dict(parameters))
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, answer: str, entry: Mapping[str, Any]) -> float | None:
        """The reward; 0 where the scorer raises or gives no finite number, None where it exceeds a bound."""
        if len(answer) > MAX_ANSWER:
            return None
        if self._child is None:
            self._child = self._start()
        with contextlib.suppress(OSError):  # the child died before it read all
            _send(self._child.stdin, (answer, dict(entry)))
        score = _reply(self._child)
        if score is None:
            self.close()
        return score

    def close(self) -> None:
        """End the child; the next answer starts a new one."""
        if self._child is not None:
            _end(self._child)
            self._child = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_header": self._header, "_child": None}  # a copy in another process starts its own child

    def _start(self) -> subprocess.Popen[bytes]:
        child = _python("main")
        weakref.finalize(self, _end, child)
        _send(child.stdin, self._header)
        if _reply(child) is None:
            raise UserError(
                f'the scorer of Reasoning Gym dataset "{self._header[0]}" does not start; '
                f"check that {sys.executable} can import reasoning_gym"
            )
        return child


def generate(dataset: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dataset's entries. Raises ValueError with the reason where it refuses its parameters."""
    child = _python("make")
    output, _ = child.communicate(_packed((dataset, dict(parameters))))
    # Unpickled without fear: this child has seen no text of a model.
    made = _receive(io.BytesIO(output)) if output else "it ended without a word"
    if isinstance(made, str):
        raise ValueError(made)
    return list(made)


def make() -> None:
    """The generating child: read the name and parameters, write the entries, or the reason why there are none."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    name, parameters = _receive(os.fdopen(os.dup(0), "rb"))

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
    _send(reply, made)


def main() -> None:
    """The scoring child: read the dataset's name and parameters, then answers; write one float64 for each."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a scorer prints must not mix with the replies
    questions = os.fdopen(os.dup(0), "rb")
    name, parameters = _receive(questions)

    import reasoning_gym

    dataset = reasoning_gym.create_dataset(name, **parameters)
    _limit()
    replies.write(_READY)
    while True:
        try:
            answer, entry = _receive(questions)
        except EOFError:
            return
        # The timer's signal ends the process, even inside a long computation in C where no exception could be raised.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            score = float(dataset.score_answer(answer, entry))
        except (Exception, SystemExit):  # the text was not what the scorer expected: a wrong answer
            score = 0.0
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(struct.pack("<d", score if math.isfinite(score) else 0.0))


def _limit() -> None:
    import resource

    no_more = [(resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, MEMORY_BYTES)]
    for which, limit in [*no_more, (resource.RLIMIT_NPROC, 0)]:
        with contextlib.suppress(OSError, ValueError):  # a lower limit is set already
            resource.setrlimit(which, (limit, limit))


def _reply(child: subprocess.Popen[bytes]) -> float | None:
    """One number from the child; None when it died or is silent for too long."""
    assert child.stdout is not None
    if not select.select([child.stdout], [], [], WALL_SECONDS)[0]:
        return None
    data = child.stdout.read(8)
    return float(struct.unpack("<d", data)[0]) if len(data) == 8 else None


def _python(function: str) -> subprocess.Popen[bytes]:
    """A Python that runs one function of this file, reproducibly: one thread, a fixed hash seed."""
    # Not this file as a script: its folder would come first on the path, and reasoning_gym.py hide the package.
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import {function}; {function}()"
    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **fixed},
    )


def _packed(message: object) -> bytes:
    data = pickle.dumps(message)
    return struct.pack("<q", len(data)) + data


def _send(stream: Any, message: object) -> None:
    stream.write(_packed(message))
    stream.flush()


def _receive(stream: BinaryIO | io.BytesIO) -> Any:
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    return pickle.loads(stream.read(struct.unpack("<q", header)[0]))


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    child.wait()
