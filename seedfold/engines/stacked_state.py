"""What the slots of the stacked engine hold between steps, on the device, and the steps as a CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from seedfold.engines.base import Decoding, Prompt
from seedfold.engines.cache import BUCKET
from seedfold.engines.sampling import choose, draws
from seedfold.engines.stacked_model import Cache, StackedModel
from seedfold.engines.stacked_ops import ops
from seedfold.errors import UserError

STEPS = 4
"""Decode steps between two looks at what was made. The looks are a step behind, so that the GPU never waits for them."""

MOST = 0.8
"""Share of busy copies from which a step computes all of them, by the faster products (`benchmarks/step_time.py`)."""


@dataclass
class Look:
    """A copy of the state on the host, complete when `ready` is."""

    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    ready: Any

    def arrays(self) -> tuple[list[int], list[int], list[list[int]]]:
        """active and counts of every slot, and its latest `STEPS` tokens."""
        if self.ready is not None:
            self.ready.synchronize()
            self.ready = None
        if isinstance(self.tensors[0], torch.Tensor):
            self.tensors = tuple(tensor.tolist() for tensor in self.tensors)  # type: ignore[assignment]
        return self.tensors  # type: ignore[return-value]


class State:
    """What a step reads and writes, on the device: (C * B,) int32 each, see `stacked_ops.advance`; and its CUDA graph."""

    def __init__(self, model: StackedModel, per_copy: int, room: int, limit: int, ends: list[int]) -> None:
        self.model, self.ops = model, ops(model.device)
        slots = model.copies * per_copy
        self.per_copy = per_copy
        try:
            self.cache = Cache(model, slots, room)
        except torch.OutOfMemoryError:
            raise UserError(
                f"keys and values of {model.copies} copies of {per_copy} answers of {room} tokens do not fit the GPU; "
                'lower "engine.copies", "engine.batch" or "task.max_tokens"'
            ) from None
        self.active, self.ids, self.positions, self.counts, self.limits = (
            torch.zeros(slots, dtype=torch.int32, device=model.device) for _ in range(5)
        )
        self.made = torch.zeros(slots, limit, dtype=torch.int32, device=model.device)
        self.draws: torch.Tensor | None = None
        self.ends = torch.tensor(ends, device=model.device)
        self.manner = Decoding(1)
        self._recent = torch.arange(-STEPS, 0, device=model.device)
        self.whole = True  # whether steps compute all copies, the idle ones too
        self._graphs: dict[tuple[bool, bool], tuple[Any, torch.Tensor | None]] = {}  # by (greedy, whole)
        self._pool: Any = None  # memory that the graphs share: one runs at a time
        self._logits: torch.Tensor | None = None

    def holds(self, positions: int, limit: int) -> bool:
        """Whether there is room for so many positions a slot and so many tokens an answer."""
        return positions + BUCKET <= self.cache.room and limit <= self.made.shape[1]

    def seat(self, slots: list[int], prompts: list[Prompt], samples: list[int], decoding: Decoding) -> None:
        """Start answers: the slots' next step continues the last token of their prompts."""
        device = self.active.device
        rows = torch.tensor(
            [
                [slot, 1, prompt.tokens[-1], len(prompt.tokens) - 1, 0, decoding.max_tokens]
                for slot, prompt in zip(slots, prompts, strict=True)
            ],
            dtype=torch.int32,
        )
        moved = rows.t().contiguous().to(device, non_blocking=True)
        at = moved[0].long()
        for target, values in zip(
            (self.active, self.ids, self.positions, self.counts, self.limits), moved[1:], strict=True
        ):
            target[at] = values
        if decoding.temperature:
            if self.draws is None:
                self.draws = torch.full(self.made.shape, 0.5, dtype=torch.float64, device=device)
            for slot, prompt, sample in zip(slots, prompts, samples, strict=True):
                drawn = torch.from_numpy(draws(prompt.key, sample, decoding.max_tokens))
                self.draws[slot, : decoding.max_tokens] = drawn.to(device)

    def advance(self, steps: int, busy: int) -> Look:
        """Take decode steps and, when they are done, a look; returns at once. busy: copies with answers in the making."""
        self.whole = busy >= MOST * self.model.copies
        for _ in range(steps):
            self._forward()
            if self.manner.temperature:
                self._sample()
        recent = (self.counts[:, None] + self._recent).clamp_(min=0).long()
        seen = (self.active, self.counts, self.made.gather(1, recent))
        if self.active.device.type != "cuda":
            return Look(tuple(x.clone() for x in seen), None)  # type: ignore[arg-type]
        host = tuple(torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True) for x in seen)
        ready = torch.cuda.Event()
        ready.record()
        return Look(host, ready)  # type: ignore[arg-type]

    def _forward(self) -> None:
        """Logits of every slot, and for greedy answers the choice; as one CUDA graph where there is CUDA."""
        if self.active.device.type != "cuda":
            self._step()
            return
        key = (not self.manner.temperature, self.whole)
        if key not in self._graphs:
            self._graphs[key] = self._capture()
        graph, self._logits = self._graphs[key]
        graph.replay()

    def _capture(self) -> tuple[Any, torch.Tensor | None]:
        """The step as a graph, and where it leaves the logits that are to be drawn from. The state is as before."""
        state = (self.active, self.ids, self.positions, self.counts)
        before = [x.clone() for x in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels are compiled and workspaces made before anything is captured
            for _ in range(2):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._step()
        self._pool = graph.pool()
        for target, values in zip(state, before, strict=True):
            target.copy_(values)
        return graph, self._logits

    def _step(self) -> None:
        lengths = (self.positions + 1) * self.active
        logits = self.model.decode(self.ids, self.cache, self.positions, lengths, self.whole)
        self._logits = logits if self.manner.temperature else None
        if self._logits is None:
            self._take(logits.argmax(-1))

    def _sample(self) -> None:
        """Choose by the slots' own random numbers; copy by copy, for the sums take much memory."""
        assert self._logits is not None
        assert self.draws is not None
        at = self.counts.clamp(max=self.draws.shape[1] - 1).long()[:, None]
        drawn = self.draws.gather(1, at)[:, 0]
        parts = zip(self._logits.split(self.per_copy), drawn.split(self.per_copy), strict=True)
        self._take(torch.cat([choose(logits, u, self.manner) for logits, u in parts]))

    def _take(self, tokens: torch.Tensor) -> None:
        self.ops.advance(tokens, self.ends, self.active, self.ids, self.positions, self.counts, self.limits, self.made)
