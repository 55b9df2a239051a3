"""Several engines at once, each in a process of its own; the work that is left is shared without barriers.

The engines generate while this process grades and writes the journal. What is done does not depend on who does it: an
engine that ends gives its work back, and another is opened in its place. Where the processes run, on this machine or as
actors of a Ray cluster, is the business of `Places`: `pool_process.Local` and `fleet.Cluster`.

Messages to an engine's process (`pool_child.py`): (opener, model, engine, share, compare), once; then ("work", run,
assignment, prompt lists, units), ("call", number, method, arguments, become, recipe), ("stop", run), ("close",). From it:
("ready", facts) or ("refused", why), once; then ("answers", run, unit, answers), ("finished", run, assignment), ("barred",
run, why) and ("value", number, value, error); or ("failed", its last words).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedfold import config
from seedfold.engines.base import Answer, Decoding, Job, Prompt
from seedfold.engines.pool_load import Load, Loads
from seedfold.engines.pool_members import Members
from seedfold.engines.pool_process import Local
from seedfold.engines.pool_queue import Run, called
from seedfold.engines.pool_worker import Places, Worker
from seedfold.errors import UserError
from seedfold.recipe import Recipe

WAITING = 4096
"""Answers, 64 batches of 64, that may wait to be taken; when there are more, the engines wait too."""


@dataclass
class _Call:
    message: tuple[Any, ...]
    worker: Worker | None = None
    tries: int = 0
    done: bool = False
    value: Any = None
    error: Exception | None = None


class Pool(Members):
    """See `seedfold.engines.base.Engine`. Close it, or use it in a `with` statement; its processes end with this one.

    Args:
        model, engine: as for `open_engine`.
        opener: MODULE:FUNCTION that makes an engine of (model, engine) in a process of its own.
        places: where they run; by default `engine.count` processes on this machine.

    Raises:
        UserError: no engine can be opened, or most of them hold different weights than the first.
    """

    def __init__(
        self,
        model: config.Model,
        engine: config.Engine,
        opener: str = "seedfold.engines:open_here",
        places: Places | None = None,
    ) -> None:
        where: Places = places or Local(model, engine)
        compare = places is not None or engine.count > 1
        super().__init__(where, (opener, where.model, where.engine, where.share, compare), engine.patience)
        self._retries, self._at_once = engine.retries, engine.at_once
        self._numbers = itertools.count()
        self._calls: dict[int, _Call] = {}
        self._run: Run | None = None
        self._recipe: Recipe | None = None
        self._loads = Loads()
        try:
            facts = self._open()
        except BaseException:
            self.close()
            raise
        self.name, self.revision, self.dtype = facts["name"], facts["revision"], facts["dtype"]
        self.fingerprint, self.positions = facts["fingerprint"], facts["positions"]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
                    self._lock.wait_for(lambda: run.arrived or run.error or self._broken or not run.left)
                    arrived, error, complete = run.take(), run.error or self._broken, not run.left
                    self._lock.notify_all()
                yield from arrived
                if error := (run.account() if complete else error):
                    raise error
                if complete:
                    return
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
        told = self._call("describe")
        with self._lock:
            machines = sorted(set(self._worked.values()))
            count = len(self._worked)
        if len(machines) > 1:  # the same bits cannot be promised
            told = {**told, "exact": False, "machines": machines}
        return {**told, "engines": count}

    # Beyond the protocol

    def utilisation(self) -> list[Load]:
        """How busy each engine was, over time."""
        with self._lock:
            return self._loads.rows()

    def names(self) -> dict[int, str]:
        """Engine -> what it is called, of those that ever worked."""
        with self._lock:
            return dict(self._names)

    def rates(self, seconds: float = 60.0) -> dict[int, float]:
        """Engine -> units (jobs, or parts of those with many samples) a second, lately."""
        with self._lock:
            return self._loads.rates(seconds)

    def expected(self) -> int:
        """Engines that there should be and have room."""
        return min(self._places.wanted(), self._places.fit())

    def at_work(self) -> int:
        """Engines that may work now."""
        with self._lock:
            return len(self._ready())

    # Calls of one engine

    def _call(self, method: str, *arguments: Any, become: bool = False) -> Any:
        """The value of a method of whichever engine has least to do; of another one, if that ends."""
        with self._lock:
            number = next(self._numbers)
            message = ("call", number, method, arguments, become, self._recipe if become else None)
            call = self._calls[number] = _Call(message)
            try:
                self._place_calls()
                self._lock.wait_for(lambda: call.done or self._broken or self._closing.is_set())
            finally:
                del self._calls[number]
                if call.worker:
                    call.worker.calls -= 1
        if call.done and call.error is None:
            return call.value
        raise call.error or self._broken or RuntimeError("the pool is closed")

    def _place_calls(self) -> None:
        for call in self._calls.values():
            if call.worker is None and not call.done and (ready := self._ready()):
                call.worker = min(ready, key=lambda worker: len(worker.assignments))
                self._wake(call.worker)
                call.worker.calls += 1
                call.worker.send(*call.message)
        self._lock.notify_all()

    # Runs: who does what, the lock held

    def _begin(self, jobs: Sequence[Job]) -> Run:
        with self._lock:
            if self._run is not None:
                self._run.error = RuntimeError("the pool was given other jobs before these were done")
                self._end(self._run)
            run = self._run = Run(next(self._numbers), jobs, self._at_once)
            if self._closing.is_set():
                run.error = RuntimeError("the pool is closed")
            self._deal()
            return run

    def _end(self, run: Run) -> None:
        with self._lock:
            if self._run is run:
                self._run = None
                for worker in self._workers:
                    if worker.assignments:
                        worker.send("stop", run.number)
                        worker.assignments.clear()
                self._lock.notify_all()

    def _deal(self) -> None:
        """Give everyone something to do, and something to do next."""
        run, ready = self._run, self._ready()
        if run is None or run.error or self._broken:
            return
        for depth in (0, 1):
            for worker in ready:
                if size := run.share(worker, ready, depth):
                    self._wake(worker)
                    worker.send(*run.assign(worker, size, next(self._numbers)))

    def _wake(self, worker: Worker) -> None:
        """It gets something to do: from now on its silence counts."""
        if not worker.busy():
            worker.silent, worker.since = 0.0, time.time()

    def _full(self) -> bool:
        return self._run is not None and self._run.waiting >= WAITING and not self._calls and not self._closing.is_set()

    # What the engines say and do, the lock held

    def _heard(self, worker: Worker, kind: str, number: int, *rest: Any) -> None:
        run = self._run
        if kind == "value":
            if call := self._calls.get(number):
                call.value, call.error = rest
                call.done = True
        elif run is not None and run.number == number:
            if kind == "answers":
                worker.heard(rest[1])
                ended = run.hear(*rest)
                self._loads.add(worker.number, worker.since, time.time(), int(ended))
                if ended and worker.width > 1:  # it takes more up as it goes
                    given = worker.assignments.items()
                    worker.assignments = {of: units for of, units in given if any(unit.wanted() for unit in units)}
                    self._deal()
            elif kind == "finished":
                if any(unit.wanted() for unit in worker.assignments.pop(rest[0], ())):
                    run.error = RuntimeError(f"{worker.name} left out answers that it was asked for")
                self._deal()
            else:
                run.error = UserError(rest[0])

    def _came(self) -> None:
        self._place_calls()
        self._deal()

    def _left(self, worker: Worker, account: str) -> None:
        """Its work goes back to the front of the queue, without what has arrived."""
        if run := self._run:
            for unit in run.back(worker, account, self._retries):
                self._tell(f"set aside: {called(unit)}, where {len(unit.accounts)} engines ended")
        for call in self._calls.values():
            if call.worker is worker and not call.done:
                call.worker, call.tries = None, call.tries + 1
                if call.tries > self._retries:
                    call.done, call.error = True, UserError(f"{account}, and so did those asked before it")
        self._place_calls()
        self._deal()
