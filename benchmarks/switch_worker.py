"""Times switches inside a vLLM worker, for `switch.py` and `seeds_per_second.py`."""

from __future__ import annotations

from typing import Any

from seedfold.engines.vllm_worker import Extension


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
