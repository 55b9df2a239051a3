"""Times switches inside a vLLM worker, for `switch.py` and `seeds_per_second.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from seedfold.engines.vllm_worker import Extension

HERE = Path(__file__).resolve().parent


class Timed(Extension):
    """The engine's own extension, and a clock."""

    def seedfold_switches(self, rounds: int, many: int, sweep: bool) -> tuple[list[dict[str, Any]], str, str]:
        """`switch.measure` on the live weights; what they are; the machine."""
        import switch

        from seedfold.recipe import Base, Recipe, Term

        held = self._seedfold
        parts = [(piece.segment, held._view(piece, held.base), held._view(piece, held.live)) for piece in held.pieces]
        base = Base("", "", held.weights.fingerprint)

        def become(seed: int) -> None:
            terms = (Term("rademacher", seed, switch.SIGMA),)
            self.seedfold_become(Recipe(base, terms, dtype=str(parts[0][1].dtype).removeprefix("torch.")).to_json(), {})

        rows = switch.measure(
            parts,
            rounds=rounds,
            many=many,
            sweep=sweep,
            tensors=[(held.base[name], live) for name, live in held.live.items()],
            engine=become,
        )
        self.seedfold_become(None, {})
        size = sum(base.nbytes for _, base, _ in parts)
        what = f"{size / 1e6:.0f} MB in {len(held.live)} tensors, {len(parts)} pieces"
        return rows, what, switch.machine(parts[0][2].device)


def opened(model: str, load_format: str) -> Any:
    """A `VllmEngine` with a small cache, whose workers have the clock."""
    from seedfold import config
    from seedfold.engines.vllm import VllmEngine

    watch()
    return VllmEngine(
        config.Model(name=model),
        load_format=load_format,
        kv_cache_memory_bytes=2**30,
        max_num_seqs=16,
        max_model_len=512,
    )


def watch() -> None:
    """Give the workers of engines opened from here on the clock."""
    from seedfold.engines import vllm

    vllm.EXTENSION = "switch_worker.Timed"
    # vLLM's own processes import it too.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(HERE))
