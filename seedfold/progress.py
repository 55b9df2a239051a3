"""How far long work is: a line that rewrites itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO


class Progress:
    """Counts answers against a total and shows the phase, the rate and the time left.

    Args:
        total: answers expected; may be corrected with `expect`.
        quiet: show nothing.
    """

    PLAIN_SECONDS = 10.0
    """Between two lines when not on a terminal."""

    def __init__(self, total: int = 0, quiet: bool = False) -> None:
        self.total = total
        self.stream: TextIO | None = None if quiet else sys.stderr
        self.done = self.fresh = 0
        self.phase = ""
        self.seeds = 0
        """Recipes that have answered all that they were asked in this phase."""
        self.engines: Callable[[], Mapping[int, float]] = dict
        """Engine -> recipes a second, lately; where there are several."""
        self.heard: Callable[[], None] | None = None
        """Called with every batch of fresh answers."""
        self._start = self._entered = time.monotonic()
        self._shown = 0.0
        self._live = bool(self.stream and self.stream.isatty())

    def expect(self, total: int) -> None:
        self.total = total

    def enter(self, phase: str) -> None:
        """A new phase begins."""
        self.phase, self.seeds, self._entered = phase, 0, time.monotonic()
        self._show(force=True)

    def add(self, count: int, known: bool = False) -> None:
        """`count` answers more; `known` ones were in the journal and say nothing about the rate."""
        self.done += count
        if not known:
            self.fresh += count
            self._show()
            if self.heard:
                self.heard()

    def seed(self) -> None:
        """A recipe has answered all that it was asked."""
        self.seeds += 1

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.stream:
            self._clear()
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        self._clear()

    def line(self) -> str:
        now = time.monotonic()
        rate = self.fresh / max(now - self._start, 1e-9)
        left = max(0, self.total - self.done)
        time_left = f", {duration(left / rate)} left" if rate and self.total else ""
        of = f" of {self.total}" if self.total else ""
        seeds = f", {self.seeds / max(now - self._entered, 1e-9):.3g} seeds/s" if self.seeds else ""
        each = ", ".join(f"{number}: {speed:.3g}" for number, speed in self.engines().items())
        return f"{self.phase}: {self.done}{of} answers, {rate:.1f}/s{seeds}{time_left}{f'; engines {each}' if each else ''}"

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.stream is None or (not force and now - self._shown < (0.2 if self._live else self.PLAIN_SECONDS)):
            return
        self._shown = now
        if self._live:
            print(f"\r\x1b[2K{self.line()[:100]}", end="", file=self.stream, flush=True)
        else:
            print(self.line(), file=self.stream, flush=True)

    def _clear(self) -> None:
        if self._live and self.stream:
            print("\r\x1b[2K", end="", file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 05 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
