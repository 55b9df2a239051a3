"""One engine of a pool, in a process of its own. `seedfold.engines.pool` says what the messages are."""

from __future__ import annotations

import os
import platform
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from seedfold import __version__
from seedfold.engines.base import Engine, Job, Prompt
from seedfold.engines.pool_worker import cut
from seedfold.errors import UserError
from seedfold.recipe import Base, Recipe, Term

GRACE = 5.0
"""Seconds that a process has to end by itself once the pool is gone."""

PROBES = (
    (Term("rademacher", 1, 2.0**-7),),
    (Term("rademacher", 2, 2.0**-8), Term("rademacher", 2**63 + 3, -(2.0**-6))),
)
"""Terms of the recipes that all engines must rebuild alike before one may work: the fused case of one, and several."""


def main(descriptor: int) -> None:
    """Serve the pool at the other end of this socket until it closes it, or dies."""
    os.set_inheritable(descriptor, False)  # processes that the engine starts must not keep the socket open
    serve(Connection(descriptor))


def serve(connection: Connection) -> None:
    """Open the engine that the first message asks for, and do what the others say."""
    opener, model, engine, share, compare = connection.recv()
    child = Child(connection)
    threading.Thread(target=child.listen, daemon=True).start()
    try:
        if share > 1:
            engine = shared(model, engine, share)
        module, _, name = opener.partition(":")
        made = getattr(import_module(module), name)(model, engine)
        try:
            child.send("ready", facts_of(made, compare))
            child.serve(made)
        finally:
            if close := getattr(made, "close", None):
                close()
    except UserError as error:
        child.send("refused", str(error))
    except Exception as error:
        child.send("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"[:600])
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    finally:
        cut(connection)  # an actor's process does not end here


def shared(model: Any, engine: Any, engines: int) -> Any:
    """The settings of an engine that shares its GPU with others: its part of the memory."""
    from dataclasses import replace

    from seedfold.engines import memory

    found = memory.gpus(model.device)
    if not found or engine.name != "vllm" or engine.memory:
        return engine
    return replace(engine, memory=memory.cache_share(model, replace(engine, count=engines * len(found)), found))


def facts_of(engine: Engine, compare: bool) -> dict[str, Any]:
    """What the pool must know of an engine; with `compare` also fingerprints of the weights it rebuilds."""
    facts: dict[str, Any] = {
        field: getattr(engine, field) for field in ("name", "revision", "dtype", "fingerprint", "positions")
    }
    base = Base(engine.name, engine.revision, engine.fingerprint)
    facts["probes"], seconds = [], []
    for terms in PROBES:
        start = time.monotonic()
        engine.become(Recipe(base, terms, dtype=engine.dtype))
        seconds.append((time.monotonic() - start) / len(terms))
        if compare:
            facts["probes"].append(checksum(engine))
    engine.become(None)
    device = getattr(engine, "device", "cpu")
    if getattr(device, "type", "") == "cuda":
        device = sys.modules["torch"].cuda.get_device_name(device)
    versions = [f"{name} {sys.modules[name].__version__}" for name in ("torch", "vllm") if name in sys.modules]
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if str(device) != "cpu" else ""
    return {
        **facts,
        "seedfold": __version__,
        "copies": engine.sizes().get("copies", 1),
        "switch": max(seconds),
        "machine": ", ".join([str(device), platform.machine(), *versions]),
        "pid": os.getpid(),
        "place": socket.gethostname() + (f", GPU {gpus}" if gpus else ""),
    }


def checksum(engine: Any) -> str:
    """Fingerprint of the weights that the engine would answer with now."""
    if hasattr(engine, "checksum"):
        return str(engine.checksum())
    if hasattr(engine, "weights"):
        return str(engine.weights.checksum())
    weights = engine.model.weights[0]  # a stacked engine: of one copy
    weights.become(engine.recipe)
    return str(weights.checksum())


@dataclass
class Work:
    """What the engine is at: the pool's number of each job, and of the assignments that they came in."""

    run: int
    units: list[int] = field(default_factory=list)
    assignments: list[int] = field(default_factory=list)


class Child:
    """The engine's side of the socket. A thread of its own reads, so that work is at hand when the last one is done.

    An engine of several copies is given further work of the same run as its copies fall free: between two assignments none
    of them waits for the others.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.held: deque[Any] = deque()  # read from the inbox while the engine was at work, and not for it
        self.wide = False  # whether the engine has several copies
        self.stopped = -1  # work of this run and of those before it is no longer wanted
        self.run, self.lists = -1, dict[int, list[Prompt]]()

    def send(self, *message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:  # nobody listens any more; the reading thread learns it too
            self.inbox.put(None)

    def listen(self) -> None:
        try:
            while (message := self.connection.recv())[0] != "close":
                if message[0] == "stop":
                    self.stopped = message[1]
                else:
                    self.inbox.put(message)
        except (EOFError, OSError):
            pass  # the pool is gone, killed perhaps
        self.stopped = 2**63
        self.inbox.put(None)
        signal.alarm(round(2 * GRACE))  # ends the process even where no thread of it runs any more
        time.sleep(GRACE)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # with whatever the engine started
        os._exit(1)

    def serve(self, engine: Engine) -> None:
        self.wide = engine.sizes().get("copies", 1) > 1
        while (message := self.held.popleft() if self.held else self.inbox.get()) is not None:
            kind, *rest = message
            if kind == "work":
                self.work(engine, *rest)
            else:
                self.call(engine, *rest)

    def work(self, engine: Engine, run: int, number: int, lists: dict[int, list[Prompt]], units: list[Any]) -> None:
        """Do units, each (its number, recipe, number of its prompts' list, decoding, done). Prompts are kept for a run."""
        if run != self.run:
            self.run, self.lists = run, {}
        work = Work(run)
        jobs = self.jobs(work, number, lists, units)
        if run <= self.stopped:
            return
        several: Any = engine
        answered = several.run(jobs, lambda: self.further(work)) if self.wide else engine.run(jobs)
        try:
            for place, answers in answered:
                if run <= self.stopped:
                    return
                self.send("answers", run, work.units[place], answers)
        except UserError as error:
            self.send("barred", run, str(error))
            return
        for assignment in work.assignments:
            self.send("finished", run, assignment)

    def jobs(self, work: Work, number: int, lists: dict[int, list[Prompt]], units: list[Any]) -> list[Job]:
        """The jobs of an assignment, noted in the work."""
        self.lists.update(lists)
        work.assignments.append(number)
        work.units += [unit for unit, *_ in units]
        return [Job(recipe, self.lists[key], decoding, done) for _, recipe, key, decoding, done in units]

    def further(self, work: Work) -> list[Job]:
        """Jobs of the same run that have come meanwhile. What else has come waits until the work is done."""
        jobs: list[Job] = []
        while not self.held:
            try:
                message = self.inbox.get_nowait()
            except queue.Empty:
                break
            if message is not None and message[:2] == ("work", work.run):
                jobs += self.jobs(work, *message[2:])
            else:
                self.held.append(message)
        return jobs

    def call(self, engine: Engine, number: int, method: str, arguments: Any, become: bool, recipe: Any) -> None:
        value: Any = None
        error: Exception | None = None
        try:
            if become:
                engine.become(recipe)
            value = getattr(engine, method)(*arguments)
        except UserError as refused:
            error = refused
        except Exception:
            error = RuntimeError(f"in an engine's process:\n{traceback.format_exc()}")
        self.send("value", number, value, error)
