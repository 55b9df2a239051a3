"""The clock of a speedrun: progress that is shown, and phases that are timed one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from seedfold.progress import Progress

LAST = "record"
"""What a study does after its last answer: its record and its report."""


class Clock(Progress):
    """A study's progress whose phases are told to `ended` as they end.

    Args:
        ended: is given a phase's line: phase, seconds, answers (made in it), known (that were in the journal), and what was
            added with `note`. What it does is not timed.
        quiet: show nothing.
    """

    def __init__(self, ended: Callable[[dict[str, Any]], None], quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._ended = ended
        self._line: dict[str, Any] | None = None
        self._begun = 0.0

    def enter(self, phase: str) -> None:
        self.stop()
        super().enter(phase)
        self._line = {"phase": phase, "seconds": 0.0, "answers": 0, "known": 0}
        self._begun = time.monotonic()

    def add(self, count: int, known: bool = False) -> None:
        super().add(count, known)
        if self._line is not None:
            self._line["known" if known else "answers"] += count

    def note(self, **fields: Any) -> None:
        """More about this phase."""
        if self._line is not None:
            self._line |= fields

    def close(self) -> None:
        super().close()
        self.enter(LAST)

    def stop(self) -> None:
        """The phase ends, and no other begins."""
        if self._line is not None:
            line, self._line = self._line, None
            line["seconds"] = time.monotonic() - self._begun
            self._ended(line)

    def running(self) -> float:
        """Seconds of the present phase so far."""
        return time.monotonic() - self._begun if self._line is not None else 0.0
