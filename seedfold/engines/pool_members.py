"""Who comes and goes among the engines of a pool: opening, admitting, watching and replacing them."""

from __future__ import annotations

import itertools
import pickle
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from seedfold.engines.pool_child import GRACE
from seedfold.engines.pool_worker import FIRST, Places, Worker
from seedfold.errors import UserError

POLL = 0.2
"""Seconds between two looks at whether the processes live and get on."""

STARTS = (2, 5)
"""Times in a row that an engine may end while it is opened: before any was open, and after. Then its place stays empty, for
ever longer if others are there, else for good."""

LONGEST = 600.0
"""Seconds that a place stays empty before it is tried again, at most."""

TOGETHER = 30.0
"""Seconds that engines which are being opened are waited for, at most, once the first is open."""

AGREE = {
    "seedfold": "runs seedfold",
    "name": "holds the model",
    "revision": "holds the revision",
    "dtype": "computes in",
    "fingerprint": "holds weights with the fingerprint",
    "positions": "has positions",
    "copies": "holds copies",
    "probes": "rebuilds two probe recipes to weights with the fingerprints",
}
"""What all engines must say alike of themselves, and what it is called."""


@dataclass
class _Slot:
    """A place among the engines.

    vain: times in a row that one ended while it was opened. later: when it is tried again. closed: why it is not.
    """

    vain: int = 0
    later: float = 0.0
    closed: str = ""

    def empty(self) -> bool:
        """Whether nobody is to be here now."""
        return bool(self.closed) or time.monotonic() < self.later


class Members:
    """The engines, each with a thread that hears it out, and one that watches them all.

    What they do is the business of whoever derives from this, by `_heard`, `_came`, `_left` and `_full`, which are called
    with the lock held.

    Args:
        places: where they run.
        opening: the first message to each (`pool_child.serve`).
        patience: seconds that an engine at work may be silent, at least.
    """

    def __init__(self, places: Places, opening: tuple[Any, ...], patience: float) -> None:
        self._places, self._opening, self._patience = places, opening, patience
        self._lock = threading.Condition()  # holds for all that follows
        self._closing = threading.Event()
        self._workers: list[Worker] = []  # that live, or may yet
        self._threads: list[threading.Thread] = []
        self._slots: dict[int, _Slot] = defaultdict(_Slot)
        self._facts: dict[str, Any] | None = None  # of the first engine that was open
        self._worked: dict[int, str] = {}  # number of an engine that may work -> its machine
        self._names: dict[int, str] = {}  # and what it is called
        self._refused: set[int] = set()
        self._untold: list[str] = []
        self._broken: Exception | None = None  # nothing more will be done
        self._alone = 0.0  # seconds that nobody was there

    def _heard(self, worker: Worker, kind: str, number: int, *rest: Any) -> None:
        raise NotImplementedError

    def _came(self) -> None:
        raise NotImplementedError

    def _left(self, worker: Worker, account: str) -> None:
        raise NotImplementedError

    def _full(self) -> bool:
        """Whether engines are to wait until what they brought is taken."""
        raise NotImplementedError

    def _open(self) -> dict[str, Any]:
        """Open the engines; what the first says of itself, once it is open and those that open beside it had their time.

        Raises:
            UserError: none can be opened, or they differ.
        """
        begun = time.monotonic()
        self._fill()
        self._start(self._watch)
        with self._lock:
            self._lock.wait_for(lambda: self._broken or self._facts)
            took = min(TOGETHER, time.monotonic() - begun)
            self._lock.wait_for(lambda: self._broken or all(worker.ready for worker in self._workers), took)
            self._lock.wait_for(lambda: self._broken or self._settled(), TOGETHER)
            if self._broken:
                raise self._broken
            return dict(self._facts or {})

    def close(self) -> None:
        """End the processes: by themselves if they can within seconds. Closing twice is harmless."""
        with self._lock:
            first = not self._closing.is_set()
            self._closing.set()
            for worker in self._workers:
                worker.send("close")
            self._lock.notify_all()
            self._lock.wait_for(lambda: not any(worker.connected for worker in self._workers), GRACE)
            left, threads = list(self._workers), list(self._threads)
        for worker in left:
            worker.kill()
        for thread in threads:
            thread.join()
        if first:
            self._places.close()

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.ready]

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=self._guard, args=(target, *arguments), daemon=True)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _guard(self, target: Any, *arguments: Any) -> None:
        try:
            target(*arguments)
        except BaseException as error:  # or whoever waits would wait for ever
            with self._lock:
                self._stop(
                    error if isinstance(error, UserError) else RuntimeError(f"a thread of the pool failed: {error!r}")
                )
            if not isinstance(error, UserError):
                raise

    def _stop(self, error: Exception) -> None:
        self._broken = self._broken or error
        self._lock.notify_all()

    def _fill(self) -> None:
        """Open engines for the places that have none, and give up those on their way to places that are no more."""
        wanted = self._places.wanted()
        with self._lock:
            kept = [worker for worker in self._workers if not worker.unwanted]
            coming = [worker for worker in reversed(kept) if not worker.connected]
            for worker in coming[: max(0, len(kept) - wanted)]:
                worker.unwanted = True
                worker.kill()
            taken = {worker.number for worker in self._workers} | {n for n, slot in self._slots.items() if slot.empty()}
            free = (number for number in itertools.count() if number not in taken)
            missing = [] if self._closing.is_set() else list(itertools.islice(free, max(0, wanted - len(taken))))
            for number in missing:
                worker = self._places.start(number)
                worker.send(*self._opening)
                self._workers.append(worker)
                self._start(self._serve, worker)
            closed = all(self._slots[number].closed for number in taken)
            if not self._workers and not self._closing.is_set() and taken and closed:
                self._stop(self._none_left())

    def _serve(self, worker: Worker) -> None:
        """Hear an engine out, on a thread of its own."""
        try:
            worker.connect()
            while True:
                message = worker.connection.recv()
                with self._lock:
                    self._hear(worker, *message)
                    # A call is answered even by engines whose answers nobody takes at the moment.
                    self._lock.wait_for(lambda: not self._full())
                    worker.silent, worker.since = 0.0, time.time()
        except (EOFError, OSError, pickle.UnpicklingError):
            pass
        how = "" if self._closing.is_set() else worker.account()
        worker.kill()
        with self._lock:
            self._lost(worker, how)
        worker.close()

    def _hear(self, worker: Worker, kind: str, *rest: Any) -> None:
        if kind == "ready":
            self._admit(worker, *rest)
        elif kind == "refused":
            (worker.refusal,) = rest
        elif kind == "failed":
            (worker.words,) = rest
        else:
            self._heard(worker, kind, *rest)
        self._lock.notify_all()

    def _admit(self, worker: Worker, facts: dict[str, Any]) -> None:
        """Let an engine work if it says what the first one said."""
        worker.facts = facts
        worker.came(facts)
        first = self._facts = self._facts or {**facts, "who": worker.name}
        for field, words in AGREE.items():
            if facts[field] != first[field]:
                worker.refusal = f"{words} {shown(facts[field])}, but {first['who']} {words} {shown(first[field])}"
                self._refused.add(worker.number)
                worker.send("close")
                return
        worker.ready, worker.width = True, facts["copies"]
        self._tell()
        self._worked[worker.number], self._names[worker.number] = facts["machine"], worker.name
        self._judge()
        self._came()

    def _lost(self, worker: Worker, how: str) -> None:
        worker.ready = False
        self._workers.remove(worker)
        self._lock.notify_all()
        if self._closing.is_set() or worker.unwanted:
            return
        slot = self._slots[worker.number]
        slot.vain = 0 if worker.facts else slot.vain + 1
        if worker.refusal:
            slot.closed = f"{worker.name} {worker.refusal}" if worker.facts else worker.refusal
            told = f"{worker.name} is refused: {worker.refusal}"
        elif (many := slot.vain - STARTS[self._facts is not None]) >= 0:
            told = f"{worker.name} {how}, while it was opened"
            if any(other.connected for other in self._workers):
                slot.later = time.monotonic() + (wait := min(LONGEST, 5.0 * 2**many))
                told = f"{told}; that is tried again in {wait:.0f} s"
            else:
                slot.closed = told = f'{told}; lower "engine.count" or mend that'
        else:
            told = f"{worker.name} {how}; its work goes to others, and another is opened in its place"
        self._tell(told)
        self._left(worker, f"{worker.name} {how}")
        self._judge()

    def _tell(self, *lines: str) -> None:
        """On standard error, once an engine is open: if none ever is, the last line is the error, and says it all."""
        self._untold += lines
        if self._facts:
            print(*self._untold, sep="\n", end="\n" * bool(self._untold), file=sys.stderr, flush=True)
            self._untold = []

    def _settled(self) -> bool:
        """Whether none is being opened, as far as it has begun to be."""
        return all(worker.ready for worker in self._workers if worker.connected)

    def _judge(self) -> None:
        """One engine that differs is at fault; but where half of them do, nobody knows who is right."""
        if self._settled() and self._refused and len(self._refused) >= len(self._worked):
            differing = "; ".join(self._slots[number].closed for number in sorted(self._refused))
            self._stop(
                UserError(
                    f'"model.name" gave engines with different weights or settings: {differing}; see that all of them load '
                    "the same checkpoint with the same versions"
                )
            )

    def _none_left(self) -> Exception:
        last = next(reversed([slot.closed for slot in self._slots.values() if slot.closed]))
        if self._facts is None:
            return UserError(last)
        return UserError(
            f'no engine is left: {last}; what was recorded is safe, lower "engine.count", "engine.batch" or '
            '"engine.memory" or mend that, and run the same command again'
        )

    def _watch(self) -> None:
        """See who has ended or hangs, and open others in their places."""
        before = time.monotonic()
        while True:
            if self._closing.wait(POLL):
                return
            with self._lock:
                workers = [worker for worker in self._workers if worker.connected]
            # Time in which this process stood still is nobody's silence.
            now = time.monotonic()
            step, before = min(now - before, 5 * POLL), now
            for worker in workers:
                if worker.gone():
                    worker.cut()
            with self._lock:
                watched = [] if self._full() else [worker for worker in workers if worker.busy()]
                hung = [worker for worker in watched if self._hangs(worker, step)]
                self._alone = 0.0 if workers else self._alone + step
                if self._alone > FIRST:
                    self._stop(
                        UserError(f"no engine came within {FIRST:.0f} s: they wait for {self._places.waiting()}")
                    )
            for worker in hung:
                worker.kill()
                worker.cut()
            self._fill()

    def _hangs(self, worker: Worker, step: float) -> bool:
        worker.silent += step
        bound = worker.bound(self._patience, self._workers)
        if worker.silent <= bound or worker.verdict:
            return False
        worker.verdict = (
            f"hung: it was silent for {worker.silent:.0f} s (at most {worker.longest:.1f} s before), and was ended"
        )
        return True


def shown(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
