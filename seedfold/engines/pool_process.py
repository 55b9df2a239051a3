"""Engines on this machine, each in a process of its own: how they are started, ended, and dealt over its GPUs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

from seedfold import config
from seedfold.engines import memory
from seedfold.engines.pool_worker import Worker
from seedfold.errors import UserError


class Process(Worker):
    """A plain process, not multiprocessing's: it does not run the caller's main module again, and may have children itself.

    In a session of its own, so that Ctrl-C reaches the caller alone, which then ends the others in order.
    """

    def __init__(self, number: int, name: str, environment: Mapping[str, str]) -> None:
        super().__init__(number, name)
        mine, other = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        with other:
            descriptor = other.fileno()
            source = "from seedfold.engines.pool_child import main"
            source = f"import sys; sys.path[:] = {sys.path!r}; {source}; main({descriptor})"
            self.process = subprocess.Popen(
                [sys.executable, "-c", source],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                env={**os.environ, **environment},
                pass_fds=[descriptor],
                start_new_session=True,
            )
        self.connection = Connection(mine.detach())

    def open(self) -> None:
        pass

    def gone(self) -> bool:
        return self.process.poll() is not None

    def ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        code = self.process.returncode
        if code is None:
            return "stopped answering"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def said(self, lines: int = 3) -> str:
        size = os.fstat(self.log.fileno()).st_size
        # Not by seeking: the process writes where this file stands.
        text = os.pread(self.log.fileno(), 4096, max(0, size - 4096)).decode("utf-8", "replace")
        kept = [line.strip() for line in text.splitlines() if line.strip()]
        return " / ".join(kept[-lines:])[-600:] or "nothing"

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        super().close()
        self.log.close()


class Local:
    """The places of this machine: `engine.count` processes."""

    share = 0

    def __init__(self, model: config.Model, engine: config.Engine) -> None:
        self.model, self.count = model, max(1, engine.count)
        self.environments = environments(model, engine, self.count)
        self.engine = replace(engine, count=1, threads=engine.threads or threads(self.count))
        if engine.name == "vllm" and not engine.memory and self.count > 1 and (found := memory.gpus(model.device)):
            self.engine = replace(self.engine, memory=memory.cache_share(model, engine, found))

    def wanted(self) -> int:
        return self.count

    def fit(self) -> int:
        return self.count

    def start(self, number: int) -> Worker:
        return Process(number, f"engine {number + 1} of {self.count}", self.environments[number])

    def waiting(self) -> str:
        return "this machine"

    def close(self) -> None:
        pass


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
