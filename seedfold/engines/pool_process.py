"""The processes of a pool as the pool sees them: how they are started, ended, and dealt over the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from seedfold import config
from seedfold.errors import UserError


@dataclass(eq=False)
class Process:
    """A process with an engine, and what the pool knows of it.

    number: from 0. log: the file it prints to. width: jobs that its engine does at once. run, lists: the last run it was
    given work of, and the prompt lists it has of that. assignments: what it is to do, in order: number -> units.
    """

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    log: Any
    alive: bool = True
    width: int = 1
    run: int = -1
    lists: set[int] = field(default_factory=set)
    assignments: dict[int, list[Any]] = field(default_factory=dict)

    def said(self, lines: int = 3) -> str:
        """The last lines it printed."""
        size = os.fstat(self.log.fileno()).st_size
        # Not by seeking: the process writes where this file stands.
        text = os.pread(self.log.fileno(), 4096, max(0, size - 4096)).decode("utf-8", "replace")
        kept = [line.strip() for line in text.splitlines() if line.strip()]
        return " / ".join(kept[-lines:])[-600:] or "nothing"

    def ended(self) -> str:
        """How the process, which is ending, ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        code = self.process.returncode
        if code is None:
            return "stopped answering"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def end(self, deadline: float) -> None:
        """Wait until the process, which was told to, ends, with whatever it started; from the deadline on, kill."""
        with suppress(EOFError, OSError):
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()  # it may be waiting to be heard
        self.kill()
        self.connection.close()
        self.log.close()

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(number: int, environment: Mapping[str, str]) -> Process:
    """A process that waits to be told which engine to open.

    A plain one, not multiprocessing's: it does not run the caller's main module again, and may have children itself. In a
    session of its own, so that Ctrl-C reaches this process alone, which then ends the others in order.
    """
    mine, other = socket.socketpair()
    log = tempfile.TemporaryFile()  # noqa: SIM115
    with other:
        descriptor = other.fileno()
        source = (
            f"import sys; sys.path[:] = {sys.path!r}; from seedfold.engines.pool_child import main; main({descriptor})"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            pass_fds=[descriptor],
            start_new_session=True,
        )
    return Process(number, process, Connection(mine.detach()), log)


def send(child: Process, *message: Any) -> None:
    with suppress(OSError):  # it is dead, and whoever listens learns it
        child.connection.send(message)


def threads(count: int) -> int:
    """CPU threads for each of several engines; 0: as one alone would choose."""
    if count == 1 or "OMP_NUM_THREADS" in os.environ:
        return 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // count)


def environments(model: config.Model, engine: config.Engine, count: int) -> list[dict[str, str]]:
    """For each engine, what is different in its environment: the GPUs it sees, where there are several to choose from."""
    if model.device not in ("auto", "cuda"):
        return [{}] * count
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    each = engine.tensor_parallel
    if each > max(1, len(gpus)):
        raise UserError(
            f'"engine.tensor_parallel" is {each}, but this machine shows {len(gpus)} GPUs; use at most as many as there are'
        )
    if len(gpus) <= each:
        return [{}] * count
    places = [",".join(gpus[first : first + each]) for first in range(0, len(gpus) - each + 1, each)]
    return [{"CUDA_VISIBLE_DEVICES": places[number % len(places)]} for number in range(count)]
