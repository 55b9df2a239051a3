"""Numbers of a running study for those who watch many: TensorBoard, Weights & Biases, trackio, behind one interface.

Nothing rests on them. A sink that fails is said once and dropped; the journal, the record and the report are as without.
A number's step is how many answers the journal has, so that a run that was resumed goes on where it was: what was sent is
noted in the journal before it is sent, and nothing is sent twice.
"""

from __future__ import annotations

import importlib
import math
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seedfold.config import FREE_OPTIONS

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.journal import Journal
    from seedfold.progress import Progress
    from seedfold.study import Scored
    from seedfold.watch import View

EVERY = 15.0
"""Seconds between two looks at the search, at least; a look that takes long is taken less often."""
SECRET = re.compile(r"(?i)secret|token(?!s)|password|passwd|credential|api_?key|auth")
"""Names of settings whose values are not sent. A limit in tokens is none."""


class Sink(Protocol):
    """Where numbers go."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take named numbers at a step, which is larger than all before."""

    def close(self) -> None:
        """Write what is left."""


@dataclass(frozen=True)
class Opening:
    """What a sink is opened with. id: of this study, the same when it is resumed; fresh: it had not been before."""

    folder: Path
    project: str
    run: str
    id: str
    fresh: bool
    config: dict[str, Any]


@contextmanager
def opened(config: Config, folder: Path, journal: Journal, progress: Progress) -> Iterator[Tracker]:
    """The tracker of a study, with the sinks of its config; they are closed however the study ends."""
    tracker = Tracker(config, folder, journal, progress.say)
    if config.tracking.sinks:
        progress.heard = tracker.tick
    try:
        yield tracker
    finally:
        progress.heard = None
        tracker.close()


class Tracker:
    """Sends numbers of one study to its sinks. No method raises, whatever a sink does; only Ctrl-C passes."""

    def __init__(self, config: Config, folder: Path, journal: Journal, say: Callable[[str], None]) -> None:
        self.folder, self.journal, self.say = folder, journal, say
        self._eye: Any = None
        self._next = 0.0
        self._sinks: dict[str, Sink] = {}
        chosen, run = config.tracking, config.tracking.run or config.name
        noted = journal.noted("tracking") if chosen.sinks else None
        self._sent: dict[str, dict[str, Any]] = noted if isinstance(noted, dict) else {}
        for name in chosen.sinks:
            known = self._sent.get(name)
            fresh = known is None or [known["project"], known["run"]] != [chosen.project, run]
            if fresh:
                known = {"project": chosen.project, "run": run, "id": uuid.uuid4().hex[:12], "step": -1, "phases": []}
            assert known is not None
            self._sent[name] = known
            opening = Opening(folder, chosen.project, run, known["id"], fresh, public(config.to_dict()))
            with self._kept(name):
                self._sinks[name] = importlib.import_module(f"seedfold.tracking.{name}").open_sink(opening)

    def tick(self) -> None:
        """Called with every batch: now and then, send how the search stands."""
        if not self._sinks or time.monotonic() < self._next:
            return
        began = time.monotonic()
        try:
            if self._eye is None:
                from seedfold.watch import Watch

                self._eye = Watch(self.folder)
            view = self._eye.look()
            self._send(view.done, standing(view))
        except Exception as error:
            self._give_up(error)
        self._next = time.monotonic() + max(EVERY, 20 * (time.monotonic() - began))

    def searched(self, scored: Scored) -> None:
        """The search has ended."""
        shrinkage, best = scored.shrinkage, scored.ranking[0]
        self._phase(
            "search",
            {
                "search/reliability": shrinkage.reliability,
                "search/prior_sd": shrinkage.prior_sd,
                "search/best": float(shrinkage.mean[best]),
                "search/best_expected": float(shrinkage.shrunk[best]),
                "search/base": float(scored.base_scores.mean()),
            },
        )

    def selected(self, votes: Sequence[Mapping[str, Any]]) -> None:
        """Votes were counted on select."""
        numbers = {f"select/{name}_{line['k']}": line[name] for line in votes for name in ("vote", "self_consistency")}
        self._phase("select", numbers)

    def finished(self, record: Mapping[str, Any]) -> None:
        """The study has ended: what it found, and what it took."""
        numbers = {f"spent/{name}": record[name] for name in ("evaluations", "tokens", "seconds")}
        for line in record["results"]:
            name = re.sub(r"\W+", "_", line["method"]).strip("_")
            low, high = line["ci95"] or (None, None)
            told = {
                "accuracy": line["accuracy"],
                "difference": line["difference"],
                "low": low,
                "high": high,
                "p": line["p"],
            }
            numbers |= {f"test/{name}/{what}": value for what, value in told.items() if value is not None}
        self._phase("test", numbers)

    def close(self) -> None:
        for name, sink in list(self._sinks.items()):
            with self._kept(name):
                sink.close()
        self._sinks = {}
        if self._eye is not None:
            self._eye.journal.close()

    def _phase(self, phase: str, numbers: Mapping[str, float]) -> None:
        """Send numbers of a phase to those sinks that do not have them."""
        if not self._sinks:
            return
        try:
            self._send(self.journal.count(), numbers, phase)
        except Exception as error:
            self._give_up(error)

    def _send(self, step: int, numbers: Mapping[str, float], phase: str = "") -> None:
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        for name, sink in list(self._sinks.items()):
            sent = self._sent[name]
            if phase in sent["phases"] or (not phase and step <= sent["step"]):
                continue
            # Two phases can end at the same number of answers; a step is given once.
            sent["step"] = max(step, sent["step"] + 1)
            if phase:
                sent["phases"].append(phase)
            self.journal.note("tracking", self._sent)
            with self._kept(name):
                sink.log(sent["step"], finite)

    @contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        """Whatever a sink does, the study goes on, without that sink."""
        try:
            yield
        except Exception as error:
            self._sinks.pop(name, None)
            remedy = '; pip install "seedfold[tracking]"' if isinstance(error, ImportError) else ""
            self.say(f"tracking: {name} is dropped, the study goes on ({_short(error)}{remedy})")

    def _give_up(self, error: Exception) -> None:
        self.say(f"tracking is given up, the study goes on ({_short(error)})")
        self._sinks = {}


def standing(view: View) -> dict[str, float]:
    """What is sent while a study runs: of search alone."""
    numbers: dict[str, float] = {"spent/evaluations": view.done, "spent/tokens": view.tokens}
    if view.rate:
        numbers["answers_per_second"] = view.rate
    if view.base is not None:
        numbers["search/base"] = view.base
    if view.top:
        scores = [one["search"] for one in view.drawn]
        numbers |= {
            "search/scored": view.scored,
            "search/mean": sum(scores) / len(scores),
            "search/best": view.top[0].search,
            "search/best_expected": view.top[0].expected,
        }
    return numbers


def public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it may be shown to others: without what may be secret, by its name or as part of an address."""
    kept: dict[str, Any] = {}
    private = FREE_OPTIONS.get(config.get("task", {}).get("name", ""), ())
    for name, value in config.items():
        if name in private or SECRET.search(name):
            continue
        kept[name] = _public(value, private)
    return kept


def _public(value: Any, private: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _public(item, private)
            for name, item in value.items()
            if name not in private and not SECRET.search(name)
        }
    if isinstance(value, list):
        return [_public(item, private) for item in value]
    if isinstance(value, str):
        return re.sub(r"(?<=://)[^/@\s]+@", "", value)
    return value


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
