"""TensorBoard: event files in DIR/tensorboard. ``tensorboard --logdir runs`` shows all studies below runs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from seedfold.tracking import Opening


class TensorBoard:
    def __init__(self, opening: Opening) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(opening.folder / "tensorboard"))  # type: ignore[no-untyped-call]
        if opening.fresh:
            shown = json.dumps(opening.config, indent=1)
            self._writer.add_text("config", f"```\n{shown}\n```", 0)  # type: ignore[no-untyped-call]

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]  # a run that is killed loses nothing

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


def open_sink(opening: Opening) -> TensorBoard:
    return TensorBoard(opening)
