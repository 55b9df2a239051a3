"""trackio: a project on this machine, which ``trackio show`` opens; or wherever its own environment variables say."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout

from seedfold.tracking import Opening


class Trackio:
    def __init__(self, opening: Opening) -> None:
        import trackio

        # Runs are known by name alone, and two studies may have the same.
        name = f"{opening.run}-{opening.id[:6]}"
        with redirect_stdout(sys.stderr):  # what it has to say is no result
            self._run = trackio.init(
                project=opening.project,
                name=name,
                config=opening.config,
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._run.finish()


def open_sink(opening: Opening) -> Trackio:
    return Trackio(opening)
