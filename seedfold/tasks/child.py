"""A child process that answers questions about a model's text, with bounds.

Packages that grade (Reasoning Gym, sympy) may hang on a short text: `9**9**9`. A thread cannot be stopped, and a time
limit by signals works only in the main thread and not inside C code. So the package runs in a child. That child imports
it once, and then forks a worker that answers; when a worker exceeds its bounds, the kernel ends it, and the next one is
forked within milliseconds. This bounds accidents; it is no jail for hostile code.

The file is both sides: `Child` in the study, `serve` in the child, which needs no model code.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any, BinaryIO

from seedfold.errors import UserError

WALL_SECONDS = 60.0
"""Backstop for a worker that sleeps, and for the child's start. The bound proper is on CPU time: a busy machine must not
change a reward."""

MEMORY_BYTES = 4 << 30

MAX_REPLY = 100_000

_LENGTH = struct.Struct("<q")
_DIED = _LENGTH.pack(-1)
_READY = _LENGTH.pack(0)


class Child:
    """Runs `function`, named as "module:function", whose body is `serve(...)`; started when it is first asked."""

    def __init__(self, function: str, header: object, failure: str) -> None:
        """header: what the child is told once, at its start. failure: the `UserError` where it does not start."""
        self._made_of = (function, header, failure)
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: object) -> bytes | None:
        """The answer to a question (anything that pickles); None where it exceeds a bound."""
        if self._process is None:
            self._process = self._start()
        with contextlib.suppress(OSError):  # the child died before it read all
            send(self._process.stdin, question)
        answer = _reply(self._process)
        if answer is None and self._process.poll() is not None:
            self.close()
        return answer

    def close(self) -> None:
        """End the child; the next question starts a new one."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_made_of": self._made_of, "_process": None}  # a copy in another process starts its own child

    def _start(self) -> subprocess.Popen[bytes]:
        function, header, failure = self._made_of
        process = python(function)
        weakref.finalize(self, _end, process)
        with contextlib.suppress(OSError):
            send(process.stdin, header)
        if _reply(process) is None:
            raise UserError(failure)
        return process


def serve(prepare: Callable[[Any], Callable[[Any], bytes]], cpu_seconds: float) -> None:
    """The child's side: `prepare` gets the header and gives the function that answers. Ends when the study does.

    cpu_seconds: bound on the CPU time of one answer.
    """
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a package prints must not mix with the replies
    questions = os.fdopen(os.dup(0), "rb")
    answer = prepare(receive(questions))
    replies.write(_READY)
    while True:
        worker = os.fork()
        if worker == 0:
            _work(answer, questions, replies, cpu_seconds)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
        if status == 0:
            return
        replies.write(_DIED)


def _work(
    answer: Callable[[Any], bytes], questions: BinaryIO | io.BufferedReader, replies: io.FileIO, cpu_seconds: float
) -> None:
    _limit()
    while True:
        try:
            question = receive(questions)
        except EOFError:
            return
        # A timer's signal ends the process, even inside a long computation in C where no exception could be raised.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        data = answer(question)[:MAX_REPLY]
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(_LENGTH.pack(len(data)) + data)


def _limit() -> None:
    import resource

    no_more = [(resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, MEMORY_BYTES)]
    for which, limit in [*no_more, (resource.RLIMIT_NPROC, 0)]:
        with contextlib.suppress(OSError, ValueError):  # a lower limit is set already
            resource.setrlimit(which, (limit, limit))


def _reply(process: subprocess.Popen[bytes]) -> bytes | None:
    """The child's answer; None when a bound was exceeded. A child that is silent for too long is ended."""
    assert process.stdout is not None
    if select.select([process.stdout], [], [], 2 * WALL_SECONDS)[0]:
        header = process.stdout.read(_LENGTH.size)
        length = _LENGTH.unpack(header)[0] if len(header) == _LENGTH.size else None
        if length == -1:
            return None
        if length is not None and 0 <= length <= MAX_REPLY:
            return process.stdout.read(length)
    _end(process)
    return None


def python(function: str) -> subprocess.Popen[bytes]:
    """A Python that runs "module:function", reproducibly: one thread, a fixed hash seed."""
    # Not a file as a script: its folder would come first on the path, and reasoning_gym.py hide the package.
    module, _, name = function.partition(":")
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import {name}; {name}()"
    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **fixed},
        process_group=0,  # so that child and worker can be ended together
    )


def packed(message: object) -> bytes:
    """The message with its length before it."""
    data = pickle.dumps(message)
    return _LENGTH.pack(len(data)) + data


def send(stream: Any, message: object) -> None:
    """Write a message."""
    stream.write(packed(message))
    stream.flush()


def receive(stream: BinaryIO | io.BufferedIOBase) -> Any:
    """Read a message, from a sender that is trusted: it is unpickled. Raises EOFError where none follows."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(_LENGTH.unpack(header)[0]))


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if process.returncode is None:  # else its number may be another's by now
            os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()
