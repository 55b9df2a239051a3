"""An engine's process as the pool sees it, wherever it runs: what it was given, how long it has been silent."""

from __future__ import annotations

import os
import queue
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol

from seedfold import config
from seedfold.engines.base import Answer
from seedfold.engines.pool_queue import Unit

FIRST = 1800.0
"""Seconds that an engine may take to open, to answer a call, and to its first answer if none has answered yet."""

FACTOR = 5.0
"""How much longer an engine may be silent than it ever was, for the longest answer that it may be at."""

LEAST = 0.2
"""Seconds that any silence counts for."""


class Worker:
    """What the pool keeps of an engine. Those that run somewhere say how: `open`, `gone`, `ended`, `said` and `kill`.

    number: from 0; the one that is opened in place of another has its number. facts: what the engine said of itself once it
    was open. refusal: why it may not work. words: what it said of its own failure. verdict: why the pool ended it.
    unwanted: it was given up before it came, for its place is no more.
    """

    connection: Connection

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self.facts: dict[str, Any] | None = None
        self.connected = self.ready = self.unwanted = False
        self.refusal = self.words = self.verdict = ""
        self.width, self.run = 1, -1
        self.lists: set[int] = set()
        self.assignments: dict[int, list[Unit]] = {}
        self.calls = 0
        self.silent = self.longest = 0.0
        self.tokens = 1  # that came after the longest silence
        self.since = 0.0  # when it got work, or was last heard of with work
        self._outbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._poster = threading.Thread(target=self.post, daemon=True)

    def open(self) -> None:
        """Wait until there is a connection. EOFError, OSError: there will be none."""
        raise NotImplementedError

    def came(self, facts: dict[str, Any]) -> None:
        """It is open, and says this of itself."""

    def gone(self) -> bool:
        """Whether it has ended, though something that it started may still hold its socket."""
        raise NotImplementedError

    def ended(self) -> str:
        """How it, which is ending, ended: "was killed by SIGKILL"."""
        raise NotImplementedError

    def said(self) -> str:
        """The last lines it printed."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it now, with whatever it started. Harmless when it has ended."""
        raise NotImplementedError

    def account(self) -> str:
        """What became of it, in a few words."""
        if self.verdict:
            return self.verdict
        return f"{self.ended()}, and last said: {self.words or self.said()}"

    def send(self, *message: Any) -> None:
        """Say something, on a thread of its own: one that is stuck must not hold up others."""
        self._outbox.put(message)

    def post(self) -> None:
        """Send what is to be said, until it hears no more."""
        try:
            while (message := self._outbox.get())[0] != "end":
                self.connection.send(message)
        except OSError:
            pass  # whoever listens to it learns it too
        except Exception as error:  # what cannot be pickled
            self.verdict = f"could not be told what to do ({error!r})"
            self.cut()

    def connect(self) -> None:
        """`open`, and a thread for what is to be said."""
        self.open()
        self.connected = True
        self._poster.start()

    def close(self) -> None:
        """It is dead, and nobody reads from it any more: let go of what belongs to it here."""
        self.send("end")
        if self.connected:
            self.cut()
            self._poster.join()
            self.connection.close()

    def cut(self) -> None:
        """End the connection, so that whoever reads from it learns that there is no more."""
        cut(self.connection)

    # How long it may be silent

    def heard(self, answers: list[Answer]) -> None:
        """It brought answers; none is a sign of life, which says nothing of how long answers take."""
        if not answers:
            return
        silence = max(self.silent, LEAST)
        if silence >= self.longest:
            self.longest, self.tokens = silence, max((answer.tokens for answer in answers), default=1)

    def busy(self) -> bool:
        """Whether something is expected of it."""
        return bool(self.assignments or self.calls or (self.connected and not self.ready))

    def bound(self, patience: float, others: list[Worker]) -> float:
        """Seconds that it may be silent now, by its own history, or by that of others while it has none."""
        if self.calls or not self.ready:
            return FIRST
        known = [worker for worker in ([self] if self.longest else others) if worker.longest]
        if not known:
            return FIRST
        units = [unit for units in self.assignments.values() for unit in units]
        limit = max((unit.job.decoding.max_tokens for unit in units), default=1)
        terms = max((len(unit.job.recipe.terms) for unit in units if unit.job.recipe), default=0)
        switch = terms * (self.facts or {}).get("switch", 0.0)
        answer = max(worker.longest * max(1.0, limit / max(1, worker.tokens)) for worker in known)
        return max(patience, FACTOR * (answer + switch))


def cut(connection: Connection) -> None:
    """End a connection while others may be reading or writing: what was sent before still arrives."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


class Places(Protocol):
    """Where engines can run.

    model, engine: the settings that each of them is opened with. share: engines that share a GPU, and must share its memory
    among themselves; 0: the settings say how much each may take.
    """

    model: config.Model
    engine: config.Engine
    share: int

    def wanted(self) -> int:
        """How many engines there should be now."""
        ...

    def fit(self) -> int:
        """How many there is room for."""
        ...

    def start(self, number: int) -> Worker:
        """Begin to start one. UserError: it can never be."""
        ...

    def waiting(self) -> str:
        """What engines that have not come yet wait for."""
        ...

    def close(self) -> None:
        """All engines have ended."""
        ...
