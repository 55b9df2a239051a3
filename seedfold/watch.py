"""A study seen while it runs, from another process: its journal is read, nothing is written and nothing is asked.

Only answers to the search split are looked at. What select, gate and test say is for the end: who sees it earlier may stop,
or go on, because of it, and then the test tests nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from seedfold import config as settings
from seedfold import stats
from seedfold.journal import LOCK, Journal
from seedfold.recipe import Recipe
from seedfold.report.lines import percent
from seedfold.search.population import seed_of, sigma_of

if TYPE_CHECKING:
    from seedfold.config import Config

TOP = 10
"""Candidates shown."""
WINDOW = 60.0
"""Seconds over which the rate is measured, and of silence after which a run whose process is gone has ended."""
RESAMPLES = 1000
FILE = "live.html"


@dataclass(frozen=True)
class Standing:
    """A candidate on search so far. expected: its score less what chance has probably added."""

    seed: int
    sigma: float
    search: float
    interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]
    expected: float
    examples: int


@dataclass(frozen=True)
class View:
    """What is known at one moment. rate: answers a second; planned: answers in all, at most."""

    name: str
    phase: str
    done: int
    planned: int
    tokens: int
    rate: float | None
    process: int | None
    finished: bool
    base: float | None = None
    base_interval: tuple[float, float] | None = None
    scored: int = 0
    candidates: int = 0
    examples: int = 0
    top: list[Standing] = field(default_factory=list)
    drawn: list[dict[str, Any]] = field(default_factory=list)
    best: list[list[float]] = field(default_factory=list)
    engines: list[str] = field(default_factory=list)

    @property
    def left(self) -> float | None:
        """Seconds, at the rate of now."""
        return (self.planned - self.done) / self.rate if self.rate and not self.finished else None


class Watch:
    """Follows the journal of a folder; every row is read once, and no completion."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.journal = Journal.read(self.folder)
        self._place = self.done = self.tokens = 0
        self._rewards: dict[str, dict[str, float]] = {}  # recipe -> example -> reward, greedy
        self._recipes: dict[str, Recipe] = {}
        self._seen: deque[tuple[float, int]] = deque()
        begun = self.folder / LOCK
        # Of a first run it is known when it began; one that was resumed has answers from before.
        if begun.exists() and self.journal.noted("seconds") is None:
            self._seen.append((begun.stat().st_mtime, 0))

    def look(self) -> View:
        """Read what is new."""
        chosen = settings.from_dict(self.journal.config)
        self._read()
        splits = {name: set(ids) for name, ids in (self.journal.noted("splits") or {}).items()}
        process, finished = _process(self.folder), _finished(self.folder, self.done)
        search = splits.get("search", set())
        base = next((key for key, recipe in self._recipes.items() if not recipe.terms), None)
        known: dict[str, Any] = {
            "name": chosen.name,
            "phase": "finished" if finished else self._phase(splits, base),
            "done": self.done,
            "planned": self.done if finished else max(self.done, _planned(chosen)),
            "tokens": self.tokens,
            "rate": self._rate(),
            "process": process,
            "finished": finished,
            "candidates": chosen.search.candidates,
            "engines": _engines(self.folder),
        }
        if base is not None and len(answered := self._of(base, search)) == len(search) > 0:
            known |= self._standing(chosen, answered, search)
        return View(**known)

    def _read(self) -> None:
        while rows := self._more():
            for recipe, example, sample, reward, tokens in rows:
                self.done += 1
                self.tokens += tokens
                if recipe not in self._recipes:
                    self._recipes[recipe] = Recipe.from_json(self.journal.recipe_text(recipe))
                if sample == 0:  # one text an example: there may be a million rows
                    self._rewards.setdefault(recipe, {})[sys.intern(example)] = reward
        now = time.time()
        self._seen.append((now, self.done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()

    def _more(self) -> list[tuple[str, str, int, float, int]]:
        self._place, rows = self.journal.since(self._place)
        return rows

    @property
    def quiet(self) -> float:
        """Seconds without a new answer, as far as was watched."""
        return self._seen[-1][0] - next((when for when, done in self._seen if done == self.done), self._seen[-1][0])

    def _rate(self) -> float | None:
        (start, before), (end, now) = self._seen[0], self._seen[-1]
        return (now - before) / (end - start) if end > start and now > before else None

    def _of(self, recipe: str, examples: set[str]) -> dict[str, float]:
        return {one: reward for one, reward in self._rewards.get(recipe, {}).items() if one in examples}

    def _phase(self, splits: Mapping[str, set[str]], base: str | None) -> str:
        """By what has been answered; the splits are answered one after the other."""
        answered = {one for rewards in self._rewards.values() for one in rewards}
        if answered & splits.get("test", set()):
            return "test"
        if any(recipe.source.get("method", "randopt") != "randopt" for recipe in self._recipes.values()):
            return "fold"
        if answered & splits.get("select", set()):
            return "select"
        if len(self._recipes) > 1:
            return "search"
        return "base on search" if base else "loading"

    def _standing(self, chosen: Config, base: dict[str, float], search: set[str]) -> dict[str, Any]:
        """The candidates that have answered the first round, by the score to expect of them."""
        from seedfold.study import rounds_of

        order = sorted(search)
        truth = np.array([base[one] for one in order])
        least, level, sigmas = rounds_of(chosen)[0][1], chosen.stats.level, chosen.search.sigmas
        drawn, rows = [], []
        for key, recipe in self._recipes.items():
            if not recipe.terms or recipe.source.get("method") != "randopt":
                continue
            rewards = self._of(key, search)
            if len(rewards) >= least:
                drawn.append(recipe)
                rows.append([rewards.get(one, np.nan) for one in order])
        told: dict[str, Any] = {
            "base": float(truth.mean()),
            "base_interval": _interval(truth, level),
            "examples": len(order),
            "scored": len(drawn),
        }
        if not drawn:
            return told
        matrix = np.array(rows)
        asked = ~np.isnan(matrix).all(axis=0)
        scores = stats.shrink(matrix[:, asked], [sigmas.index(sigma_of(one, sigmas)) for one in drawn])
        place = sorted(range(len(drawn)), key=lambda i: (-scores.shrunk[i], -scores.mean[i], i))
        means, counts = np.nanmean(matrix, axis=1), (~np.isnan(matrix)).sum(axis=1)
        best = np.maximum.accumulate(means)
        return told | {
            "top": [_told(drawn[i], matrix[i], truth, sigmas, level, float(scores.shrunk[i])) for i in place[:TOP]],
            "drawn": [
                {"seed": seed_of(one), "scale": sigma_of(one, sigmas), "search": float(mean), "examples": int(n)}
                for one, mean, n in zip(drawn, means, counts, strict=True)
            ],
            "best": [[float(n), float(score)] for n, score in zip(np.cumsum(counts), best, strict=True)],
        }


def _told(
    recipe: Recipe, rewards: np.ndarray, base: np.ndarray, sigmas: tuple[float, ...], level: float, expected: float
) -> Standing:
    there = ~np.isnan(rewards)
    own = rewards[there]
    paired = stats.paired(own, base[there], level, RESAMPLES)
    return Standing(
        seed_of(recipe),
        sigma_of(recipe, sigmas),
        float(own.mean()),
        _interval(own, level),
        paired.difference,
        (paired.lo, paired.hi),
        expected,
        len(own),
    )


def _interval(rewards: np.ndarray, level: float) -> tuple[float, float]:
    if np.isin(rewards, (0, 1)).all():
        return stats.wilson(int(rewards.sum()), len(rewards), level)
    return stats.bootstrap_mean(rewards, level, RESAMPLES)


def _planned(chosen: Config) -> int:
    from seedfold.study import planned

    return planned(chosen)


def _process(folder: Path) -> int | None:
    """The process that holds the folder, if it is one of this machine and there."""
    try:
        number = int((folder / LOCK).read_text())
        os.kill(number, 0)
    except PermissionError:
        return number
    except (OSError, ValueError):
        return None
    return number


def _finished(folder: Path, done: int) -> bool:
    """Whether the folder has a record of all that its journal has."""
    try:
        return bool(json.loads((folder / "record.json").read_text(encoding="utf-8"))["evaluations"] == done)
    except (OSError, ValueError, LookupError):
        return False


def _engines(folder: Path) -> list[str]:
    """How busy each engine was, where the folder tells."""
    from seedfold.report.page import engines

    told = engines(folder)
    if not told:
        return []
    busy: dict[str, tuple[float, float]] = {}
    for number, start, end, worked, *_ in told["rows"]:
        before = busy.get(number, (0.0, 0.0))
        busy[number] = (before[0] + worked, before[1] + end - start)
    return [f"{number}: {percent(worked / whole)}" for number, (worked, whole) in sorted(busy.items()) if whole > 0]


def watch(
    folder: Path, every: float = 2.0, once: bool = False, live: bool = False, stream: TextIO | None = None
) -> None:
    """Show a study until it ends: a dashboard on a terminal, a line now and then elsewhere.

    Args:
        every: seconds between two looks; between two lines where there is no terminal, ten at least.
        once: look once.
        live: also keep DIR/live.html.
        stream: where to; by default standard output.

    Raises:
        UserError: the folder has no journal.
    """
    from seedfold.report.live import dashboard, page, status
    from seedfold.report.parts import write

    stream = stream or sys.stdout
    terminal = stream.isatty()
    eye = Watch(folder)
    with eye.journal:
        while True:
            began = time.monotonic()
            view = eye.look()
            if live:
                write(page(view, every), Path(folder) / FILE)
            if terminal and not once:
                print(f"\x1b[H\x1b[J{dashboard(view, os.get_terminal_size(stream.fileno()).columns)}", file=stream)
            else:
                print(dashboard(view) if once else status(view), file=stream, flush=True)
            gone = view.process is None and eye.quiet >= WINDOW
            if once or view.finished or gone:
                break
            # A look at a large population takes a while, and the study may want the core.
            time.sleep(max(every if terminal else max(every, 10.0), 5 * (time.monotonic() - began)))
    if live:
        print(f"page: {Path(folder) / FILE}", file=stream)
    if view.finished:
        print(f"report: {Path(folder) / 'report.html'}", file=stream)
    elif view.process is None:
        print("no process on this machine works in the folder; the study's own command goes on with it", file=stream)
