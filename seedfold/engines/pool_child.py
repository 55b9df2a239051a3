"""One engine of a pool, in a process of its own. `seedfold.engines.pool` starts it and says what the messages are."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from seedfold.engines.base import Engine, Job, Prompt
from seedfold.errors import UserError

GRACE = 5.0
"""Seconds that a process has to end by itself once the pool is gone."""


def main(descriptor: int) -> None:
    """Serve the pool at the other end of this socket until it closes it, or dies."""
    os.set_inheritable(descriptor, False)  # processes that the engine starts must not keep the socket open
    connection = Connection(descriptor)
    opener, model, engine = connection.recv()
    child = Child(connection)
    threading.Thread(target=child.listen, daemon=True).start()
    module, _, name = opener.partition(":")
    try:
        made = getattr(import_module(module), name)(model, engine)
        facts = {field: getattr(made, field) for field in ("name", "revision", "dtype", "fingerprint", "positions")}
        facts["width"] = made.sizes().get("copies", 1)
    except UserError as error:
        child.send("refused", str(error))
        return
    child.send("ready", facts)
    try:
        child.serve(made)
    finally:
        if close := getattr(made, "close", None):
            close()


class Child:
    """The engine's side of the socket. A thread of its own reads, so that work is at hand when the last one is done."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
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
        while (message := self.inbox.get()) is not None:
            kind, *rest = message
            if kind == "work":
                self.work(engine, *rest)
            else:
                self.call(engine, *rest)

    def work(self, engine: Engine, run: int, number: int, lists: dict[int, list[Prompt]], units: list[Any]) -> None:
        """Do units, each (its number, recipe, number of its prompts' list, decoding, done). Prompts are kept for a run."""
        if run != self.run:
            self.run, self.lists = run, {}
        self.lists.update(lists)
        jobs = [Job(recipe, self.lists[key], decoding, done) for _, recipe, key, decoding, done in units]
        if run <= self.stopped:
            return
        try:
            for place, answers in engine.run(jobs):
                if run <= self.stopped:
                    return
                self.send("answers", run, units[place][0], answers)
        except UserError as error:
            self.send("barred", run, str(error))
            return
        self.send("finished", run, number)

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
