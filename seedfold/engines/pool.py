"""Several engines at once, each in a process of its own; the work that is left is shared without barriers.

The engines generate while this process grades and writes the journal. What is done does not depend on who does it: an
engine that dies gives its work back to the others.

Messages to an engine's process (`pool_child.py`): ("work", run, assignment, prompt lists, units), ("call", number, method,
arguments, become, recipe), ("stop", run), ("close",). From it: ("ready", facts) or ("refused", why), once; then ("answers",
run, unit, answers), ("finished", run, assignment), ("barred", run, why) and ("value", number, value, error).
"""

from __future__ import annotations

import itertools
import math
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from seedfold import config
from seedfold.engines import memory
from seedfold.engines.base import Answer, Decoding, Job, Prompt
from seedfold.engines.pool_child import GRACE
from seedfold.engines.pool_process import Process, environments, send, start, threads
from seedfold.errors import UserError
from seedfold.recipe import Recipe

WAITING = 4096
"""Answers, 64 batches of 64, that may wait to be taken; when there are more, the engines wait too."""

POLL = 0.2
"""Seconds between two looks at whether the processes live."""


@dataclass
class _Unit:
    """A job or, of one with many samples, a part. `wanted`: (index, sample) that has not arrived."""

    number: int
    of: int
    job: Job
    wanted: set[tuple[int, int]]

    def done(self) -> frozenset[tuple[int, int]]:
        """What need not be answered, again or at all."""
        pairs = itertools.product(range(len(self.job.prompts)), self.job.decoding.samples)
        return frozenset(pair for pair in pairs if pair not in self.wanted)


@dataclass
class _Run:
    """One call of `Pool.run`: units nobody has yet, and answers nobody has taken."""

    number: int
    units: list[_Unit]
    lists: dict[int, tuple[int, Sequence[Prompt]]]
    """id of a prompt list -> its number and itself."""
    queue: deque[_Unit]
    left: int
    arrived: deque[tuple[int, list[Answer]]] = field(default_factory=deque)
    waiting: int = 0
    error: Exception | None = None


@dataclass
class _Call:
    message: tuple[Any, ...]
    child: Process
    done: bool = False
    value: Any = None
    error: Exception | None = None


class Pool:
    """See `seedfold.engines.base.Engine`. Close it, or use it in a `with` statement; its processes end with this one.

    Args:
        model: as for `open_engine`.
        engine: `count` engines are opened, at the same time, and dealt over the GPUs there are.
        opener: MODULE:FUNCTION that makes an engine of (model, engine) in a process of its own.

    Raises:
        UserError: an engine cannot be opened, or the engines hold different weights.
    """

    def __init__(self, model: config.Model, engine: config.Engine, opener: str = "seedfold.engines:open_here") -> None:
        self.count = max(1, engine.count)
        self._lock = threading.Condition()  # holds for all that follows
        self._numbers = itertools.count()
        self._calls: dict[int, _Call] = {}
        self._run: _Run | None = None
        self._closed = False
        self._recipe: Recipe | None = None
        self._children: list[Process] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        own = replace(engine, count=1, threads=engine.threads or threads(self.count))
        if engine.name == "vllm" and not engine.memory and self.count > 1 and (found := memory.gpus(model.device)):
            own = replace(own, memory=memory.cache_share(model, engine, found))
        try:
            for number, environment in enumerate(environments(model, engine, self.count)):
                self._children.append(start(number, environment))
            for child in self._children:
                send(child, opener, model, own)
            facts = self._ready()
        except BaseException:
            self.close()
            raise
        self.name, self.revision, self.dtype = facts["name"], facts["revision"], facts["dtype"]
        self.fingerprint, self.positions = facts["fingerprint"], facts["positions"]
        self._listener.start()

    def _ready(self) -> dict[str, Any]:
        """What the engines say of themselves, once all are open; they must agree."""
        facts: dict[int, dict[str, Any]] = {}
        while len(facts) < self.count:
            waiting = [child for child in self._children if child.number not in facts]
            ready = wait([child.connection for child in waiting])
            for child in (child for child in waiting if child.connection in ready):
                try:
                    kind, value = child.connection.recv()
                except (EOFError, OSError):
                    raise UserError(
                        f"engine {child.number + 1} of {self.count} {child.ended()} while it was opened, and last said: "
                        f'{child.said()}; lower "engine.count" or mend that'
                    ) from None
                if kind == "refused":
                    raise UserError(value)
                child.width = value.pop("width")
                facts[child.number] = value
        prints = sorted({value["fingerprint"] for value in facts.values()})
        if len(prints) > 1:
            raise UserError(
                f'"model.name" gave engines with different weights, {" and ".join(prints)}; see that the '
                "checkpoint does not change while it is loaded"
            )
        return facts[0]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes: by themselves if they can within seconds. Closing twice is harmless."""
        with self._lock:
            self._closed = True
            for child in self._children:
                send(child, "close")
            self._lock.notify_all()
        if self._listener.is_alive():
            self._listener.join()
        deadline = time.monotonic() + GRACE
        for child in self._children:
            child.end(deadline)
        self._children = []

    # The protocol

    def become(self, recipe: Recipe | None) -> None:
        self._call("become", recipe)
        self._recipe = recipe

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, done: Collection[tuple[int, int]] = ()
    ) -> Iterator[list[Answer]]:
        for _, answers in self.run([Job(self._recipe, prompts, decoding, frozenset(done))]):
            yield answers

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Answer]]]:
        run = self._begin(jobs)
        try:
            while True:
                with self._lock:
                    self._lock.wait_for(lambda: run.arrived or run.error or not run.left)
                    arrived, run.arrived, run.waiting = run.arrived, deque(), 0
                    error, complete = run.error, not run.left
                    self._lock.notify_all()
                # What came meanwhile is handed on job by job: fewer, larger batches for who is slower than the engines.
                merged: dict[int, list[Answer]] = {}
                for number, answers in arrived:
                    merged.setdefault(number, []).extend(answers)
                yield from merged.items()
                if complete:
                    return
                if error:
                    raise error
        finally:
            self._end(run)

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        scores: list[list[float]] = self._call("logprobs", prompts, continuations, become=True)
        return scores

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        return tuple(self._call("encode", messages))

    def export(self, recipe: Recipe, folder: Path, card: str) -> None:
        self._call("export", recipe, folder, card)

    def sizes(self) -> dict[str, int]:
        return dict(self._call("sizes"))

    def describe(self) -> dict[str, Any]:
        return {**self._call("describe"), "engines": self.count}

    # Calls of one engine

    def _call(self, method: str, *arguments: Any, become: bool = False) -> Any:
        """The value of a method of whichever engine has least to do; of another one, if that dies."""
        with self._lock:
            number = next(self._numbers)
            message = ("call", number, method, arguments, become, self._recipe if become else None)
            call = self._calls[number] = _Call(message, self._idlest())
            try:
                send(call.child, *message)
                self._lock.notify_all()
                self._lock.wait_for(lambda: call.done)
            finally:
                del self._calls[number]
        if call.error:
            raise call.error
        return call.value

    def _idlest(self) -> Process:
        alive = self._alive()
        if not alive:
            raise self._none_left()
        return min(alive, key=lambda child: len(child.assignments))

    def _alive(self) -> list[Process]:
        return [child for child in self._children if child.alive]

    # Runs: who does what, the lock held

    def _begin(self, jobs: Sequence[Job]) -> _Run:
        with self._lock:
            if self._run is not None:
                self._run.error = RuntimeError("the pool was given other jobs before these were done")
                self._end(self._run)
            parts = 2 * len(self._alive()) if len(self._alive()) > 1 else 1
            units: list[_Unit] = []
            lists: dict[int, tuple[int, Sequence[Prompt]]] = {}
            for of, job in enumerate(jobs):
                lists.setdefault(id(job.prompts), (len(lists), job.prompts))
                for samples in _split(job.decoding.samples, parts):
                    pairs = set(itertools.product(range(len(job.prompts)), samples)) - job.done
                    if pairs:
                        decoding = replace(job.decoding, samples=samples)
                        units.append(_Unit(len(units), of, replace(job, decoding=decoding), pairs))
            run = self._run = _Run(next(self._numbers), units, lists, deque(units), len(units))
            if not self._alive():
                run.error = self._none_left()
            self._deal()
            return run

    def _end(self, run: _Run) -> None:
        with self._lock:
            if self._run is run:
                self._run = None
                for child in self._alive():
                    if child.assignments:
                        send(child, "stop", run.number)
                        child.assignments.clear()

    def _deal(self) -> None:
        """Give everyone something to do, and something to do next. The last units wait for who is free first."""
        run, alive = self._run, self._alive()
        if run is None or run.error:
            return
        for depth in (0, 1):
            for child in alive:
                if len(child.assignments) == depth and len(run.queue) >= (len(alive) if depth else 1):
                    self._assign(child, run, len(alive))

    def _assign(self, child: Process, run: _Run, alive: int) -> None:
        size = 1
        if child.width > 1:  # it is busy only while it has several: all of them for one engine, else large parts first
            size = len(run.queue) if alive == 1 else max(child.width, math.ceil(len(run.queue) / (2 * alive)))
        units = [run.queue.popleft() for _ in range(min(size, len(run.queue)))]
        if child.run != run.number:
            child.run, child.lists = run.number, set()
        needed = dict(run.lists[id(unit.job.prompts)] for unit in units)
        new = {key: list(prompts) for key, prompts in needed.items() if key not in child.lists}
        child.lists.update(new)
        number = next(self._numbers)
        child.assignments[number] = units
        told = [
            (unit.number, unit.job.recipe, run.lists[id(unit.job.prompts)][0], unit.job.decoding, unit.done())
            for unit in units
        ]
        send(child, "work", run.number, number, new, told)

    # What comes from the processes, on a thread of its own

    def _listen(self) -> None:
        try:
            while self._hear():
                pass
        except BaseException as error:  # or whoever waits would wait for ever
            with self._lock:
                failed = RuntimeError(f"the pool's listener failed: {error!r}")
                if self._run:
                    self._run.error = failed
                for call in self._calls.values():
                    call.error, call.done = failed, True
                self._lock.notify_all()
            raise

    def _hear(self) -> bool:
        """Take a message of each process that has one; False when there is nobody left to hear, or to hear it."""
        with self._lock:
            # A call is answered even by engines whose answers nobody takes at the moment.
            self._lock.wait_for(lambda: self._closed or self._calls or self._run is None or self._run.waiting < WAITING)
            children = [] if self._closed else self._alive()
        ready = wait([child.connection for child in children], timeout=POLL) if children else []
        for child in children:
            try:
                if child.connection in ready:
                    message = child.connection.recv()
                    with self._lock:
                        self._take(child, *message)
                elif child.process.poll() is not None and not child.connection.poll():
                    raise EOFError  # something that it started still holds the socket
            except (EOFError, OSError, pickle.UnpicklingError):
                with self._lock:
                    self._lost(child)
        return bool(children)

    def _take(self, child: Process, kind: str, number: int, *rest: Any) -> None:
        run = self._run
        if kind == "value":
            if call := self._calls.get(number):
                call.value, call.error = rest
                call.done = True
        elif run is not None and run.number == number:
            if kind == "answers":
                unit = run.units[rest[0]]
                fresh = [answer for answer in rest[1] if (answer.index, answer.sample) in unit.wanted]
                unit.wanted.difference_update((answer.index, answer.sample) for answer in fresh)
                if fresh:
                    run.arrived.append((unit.of, fresh))
                    run.waiting += len(fresh)
                    run.left -= not unit.wanted
            elif kind == "finished":
                if any(unit.wanted for unit in child.assignments.pop(rest[0])):
                    run.error = RuntimeError(f"engine {child.number + 1} left out answers that it was asked for")
                self._deal()
            else:
                run.error = UserError(rest[0])
        self._lock.notify_all()

    def _lost(self, child: Process) -> None:
        """Its work goes back to the front of the queue, without what has arrived."""
        if self._closed or not child.alive:
            return
        child.alive = False
        how = child.ended()
        child.kill()
        if alive := len(self._alive()):
            print(
                f"engine {child.number + 1} of {self.count} {how}, and last said: {child.said()}; "
                f"the other {alive} go on",
                file=sys.stderr,
            )
        if run := self._run:
            units = [unit for units in child.assignments.values() for unit in units if unit.wanted]
            run.queue.extendleft(reversed(units))
            if not alive:
                run.error = self._none_left()
        child.assignments.clear()
        for call in self._calls.values():
            if call.child is child and not call.done:
                if alive:
                    call.child = self._idlest()
                    send(call.child, *call.message)
                else:
                    call.error, call.done = self._none_left(), True
        self._deal()
        self._lock.notify_all()

    def _none_left(self) -> Exception:
        if self._closed:
            return RuntimeError("the pool is closed")
        last = self._children[-1]
        return UserError(
            f"no engine is left: the last one {last.ended()}, and last said: {last.said()}; what was recorded is safe, "
            'lower "engine.count", "engine.batch" or "engine.memory" or mend that, and run the same command again'
        )


def _split(samples: tuple[int, ...], parts: int) -> Iterator[tuple[int, ...]]:
    """Sample numbers in at most so many parts."""
    size = max(1, math.ceil(len(samples) / parts))
    for first in range(0, len(samples), size):
        yield samples[first : first + size]
