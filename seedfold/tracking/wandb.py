"""Weights & Biases: a run in DIR/wandb, sent to the service where this machine is logged in, else kept for ``wandb sync``.

Only the numbers and the public config are sent: no code, no git state, no command line, no console, no machine statistics.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from seedfold.tracking import Opening


class WeightsAndBiases:
    def __init__(self, opening: Opening) -> None:
        import wandb

        # Asked for a key, a study that nobody sits before would wait for ever.
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
        quiet = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            finish_timeout=120,  # seconds; what was not sent by then is on the disk
            init_timeout=60,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=5,  # seconds that a run may lose when it is killed
        )
        self._run = wandb.init(
            project=opening.project,
            name=opening.run,
            id=opening.id,
            resume=None if mode == "offline" else "allow",  # offline, a second part is joined when it is sent
            dir=str(opening.folder),
            config=opening.config,
            mode=mode,  # type: ignore[arg-type]
            settings=quiet,
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def open_sink(opening: Opening) -> WeightsAndBiases:
    return WeightsAndBiases(opening)
