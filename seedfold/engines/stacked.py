"""The engine for small models on a GPU: several recipes answer at once, in one pass over stacked weights.

A small model leaves a GPU idle: each step of a decode waits for launches, not for memory. Here C copies of the weights
take a step together, in one CUDA graph, so that a pass moves C models' worth of bytes. Each copy answers one job's prompts
in its B slots; when its last answer ends, its weights are rebuilt in place for the next job while the others go on.

Shapes never change: C copies of B slots in every step, and in a prefill texts of one padded length, as many as go with it,
masked where nothing is. So an answer depends on its recipe, its prompt and C and B, but not on what else is evaluated.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from seedfold import config, models
from seedfold.engines.base import Answer, Decoding, Job, Prompt
from seedfold.engines.cache import BUCKET, at_once, batches, bucket, shared_prefix
from seedfold.engines.checks import check_length, check_pairs
from seedfold.engines.stacked_model import StackedModel
from seedfold.engines.stacked_state import STEPS, Look, State
from seedfold.engines.text import Text, encode_chat, end_tokens
from seedfold.errors import UserError
from seedfold.recipe import Recipe

PREFILL = 64
"""Texts that are run through a copy at once before they are continued, at most."""

TOKENS = 4096
"""Tokens of a prefill, padding included. More would fill up groups of few texts with more repetitions."""

SHARED = 256
"""Tokens that prompts must have in common before they are computed once for all: below, it costs more than it saves."""

ROOM = 256
"""Positions of a slot come in multiples of this."""

MOST_COPIES = 16
"""More copies gain little: a step then waits for memory."""

SLOTS = 128
"""Slots per copy, at most."""


@dataclass
class _Row:
    """An answer in the making: of prompt `index` of a unit's job; in the state since chunk `since`."""

    index: int
    sample: int
    text: Text
    since: int


@dataclass
class _Unit:
    """What one copy is given: a job, or a part of it. `waiting`: (index, sample) that no slot has taken yet."""

    number: int
    job: Job
    waiting: deque[tuple[int, int]]
    rows: dict[int, _Row] = field(default_factory=dict)
    shared: int = 0


class StackedEngine:
    """See `seedfold.engines.base.Engine`.

    Args:
        model: a transformers model of one of the families that `StackedModel` knows, on the CPU; kept for `export`.
        tokenizer: its tokenizer.
        name, revision: what the model is called in recipes.
        copies: C, recipes at once; 0: as many as fit, at most 16.
        slots: B, answers at once of each.
        device: where to run; on a CPU it is slow, and for tests.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        revision: str = "",
        copies: int = 0,
        slots: int = SLOTS,
        device: str = "cuda",
    ) -> None:
        self.tokenizer, self.name, self.revision, self.slots = tokenizer, name, revision, slots
        self.device = torch.device(device)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._reference = model
        self.copies = copies or _copies_that_fit(model, slots, self.device)
        self.model = StackedModel(model, self.copies, self.device)
        self.fingerprint = self.model.weights[0].fingerprint
        self.recipe: Recipe | None = None
        self._ends = end_tokens(model, tokenizer)
        self._state: State | None = None

    @classmethod
    def open(cls, model: config.Model, engine: config.Engine) -> StackedEngine:
        """Load the model that the config names onto the GPU that it names."""
        device = "cuda" if model.device == "auto" else model.device
        if not device.startswith("cuda") or not torch.cuda.is_available():
            raise UserError(
                f'"engine.name" is "stacked" and "model.device" is "{model.device}", but this engine needs a CUDA GPU'
                f"{'' if torch.cuda.is_available() else ', and torch sees none here'}; use engine transformers"
            )
        loaded, tokenizer = models.load(model)
        slots = min(engine.at_once, SLOTS)
        return cls(loaded, tokenizer, model.name, model.revision, engine.copies, slots, device)

    @property
    def positions(self) -> int | None:
        return getattr(self._reference.config, "max_position_embeddings", None)

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        return encode_chat(self.tokenizer, messages, self.name)

    def become(self, recipe: Recipe | None) -> None:
        if recipe is not None:
            self.model.weights[0].steps(recipe)  # refuse it now if it is of another model
        self.recipe = recipe

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, done: Collection[tuple[int, int]] = ()
    ) -> Iterator[list[Answer]]:
        for _, answers in self.run([Job(self.recipe, prompts, decoding, frozenset(done))]):
            if answers:
                yield answers

    def run(self, jobs: Sequence[Job], more: Callable[[], Sequence[Job]] = tuple) -> Iterator[tuple[int, list[Answer]]]:
        """As `Engine.run`. more: asked for further jobs while copies have nothing to do; their numbers follow on."""
        numbers, waiting = itertools.count(), deque[tuple[int, Job]]()

        def wait(jobs: Sequence[Job]) -> None:
            waiting.extend((number, job) for job, number in zip(jobs, numbers, strict=False))

        wait(jobs)
        while waiting:
            yield from self._run(waiting, lambda: wait(more()))

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        check_pairs(prompts, continuations)
        if not prompts:
            return []
        for prompt, tail in zip(prompts, continuations, strict=True):
            check_length(self, len(prompt.tokens), len(tail))
        texts = [[*prompt.tokens, *tail] for prompt, tail in zip(prompts, continuations, strict=True)]
        state = self._room(max(map(len, texts)), 1)
        self.model.weights[0].become(self.recipe)
        results: list[list[float]] = [[] for _ in prompts]
        for numbers in batches([len(text) for text in texts], min(PREFILL, self.copies * self.slots), TOKENS):
            ids = self._padded([texts[i] for i in numbers])
            hidden = self.model.prefill(0, ids, state.cache, self._slots(range(len(numbers)), len(ids)), 0)
            hidden = hidden.view(*ids.shape, -1)
            found = []
            for row, i in enumerate(numbers):
                start, stop = len(prompts[i].tokens) - 1, len(texts[i]) - 1
                scores = self.model.logits(0, hidden[row, start:stop].clone()).float().log_softmax(-1)
                found.append(scores.gather(1, ids[row, start + 1 : stop + 1, None])[:, 0])
            told = torch.cat(found).tolist()  # one wait for the GPU
            for i, values in zip(numbers, found, strict=True):
                results[i], told = told[: len(values)], told[len(values) :]
        return results

    def export(self, recipe: Recipe, folder: Path, card: str) -> None:
        from seedfold.engines.transformers import TransformersEngine

        TransformersEngine(self._reference, self.tokenizer, self.name, self.revision).export(recipe, folder, card)

    def sizes(self) -> dict[str, int]:
        weights = sum(p.numel() * p.element_size() for p in self._reference.parameters())
        model = self.model
        per_token = 2 * len(model.layers) * model.key_heads * model.size * model.dtype.itemsize
        return {"weights": weights, "cache_bytes_per_token": per_token, "copies": self.copies, "slots": self.slots}

    def describe(self) -> dict[str, Any]:
        import transformers

        gpu = self.device.type == "cuda"
        return {
            "engine": "stacked",
            "device": torch.cuda.get_device_name(self.device) if gpu else str(self.device),
            "dtype": self.dtype,
            "copies": self.copies,
            "slots": self.slots,
            "cuda_graph": gpu,
            "exact": self.exact,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    @cached_property
    def exact(self) -> bool:
        """Whether answers of the base are the same in other company on this machine: probed with short random texts."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.model.embedding.shape[1]
        prompts = [
            Prompt(tuple(torch.randint(vocabulary, (3 + 7 * i,), generator=generator).tolist()), str(i))
            for i in range(min(self.slots, 24))
        ]
        decoding = Decoding(16)
        together = [Job(None, prompts, decoding) for _ in range(self.copies)]
        alone = {a.index: a.text for _, answers in self.run([Job(None, prompts[::5], decoding)]) for a in answers}
        return all(
            answer.text == alone[answer.index // 5]
            for _, answers in self.run(together)
            for answer in answers
            if answer.index % 5 == 0
        )

    # One run: jobs to copies, prompts to slots, tokens to answers

    def _run(self, waiting: deque[tuple[int, Job]], refill: Callable[[], None]) -> Iterator[tuple[int, list[Answer]]]:
        """Take from the waiting jobs those that choose their tokens as the first does, as all slots must, and do them.

        refill: adds to those that wait. What fits in beside the others is taken in, too.
        """
        manner = _manner(waiting[0][1])
        jobs = _taken(waiting, lambda job: _manner(job) == manner)
        units = deque(self._units(jobs, self.copies))
        if not units:
            return
        longest, limit = _needs([job for _, job in jobs])
        check_length(self, longest, limit)
        state = self._room(longest + limit, limit)
        state.manner = jobs[0][1].decoding

        def fits(job: Job) -> bool:
            longest, limit = _needs([job])
            known = not self.positions or longest + limit <= self.positions
            return _manner(job) == manner and known and state.holds(longest + limit, limit)

        seats: list[_Unit | None] = [None] * self.copies
        free = [deque(range(copy * self.slots, (copy + 1) * self.slots)) for copy in range(self.copies)]
        chunk, pending = 0, None
        try:
            while True:
                seats = [unit if unit and (unit.waiting or unit.rows) else None for unit in seats]
                if not units:
                    refill()
                    units.extend(self._units(_taken(waiting, fits), seats.count(None)))
                for copy in range(self.copies):
                    unit = seats[copy]
                    if unit is None and units:
                        unit = seats[copy] = units.popleft()
                        self.model.weights[copy].become(unit.job.recipe)
                        self._share(unit, copy, state)
                        yield unit.number, []
                    if unit is not None:
                        self._fill(unit, copy, free[copy], chunk, state)
                busy = sum(1 for unit in seats if unit is not None and unit.rows)
                looked = state.advance(STEPS, busy) if busy else None
                if pending is not None:  # the chunk before this one: the GPU is at work meanwhile
                    for copy, unit in enumerate(seats):
                        if unit is not None:
                            answers = self._read(unit, free[copy], chunk - 1, pending, state)
                            if answers:
                                yield unit.number, answers
                pending = looked
                chunk += 1
                if pending is None and not units and not any(unit and (unit.rows or unit.waiting) for unit in seats):
                    return
        finally:
            state.active.zero_()  # also when the caller wants no more

    def _units(self, jobs: Sequence[tuple[int, Job]], idle: int) -> Iterator[_Unit]:
        """Jobs of more answers than a copy has slots in parts, when there are fewer of them than idle copies."""
        parts = max(1, idle // max(1, len(jobs)))
        for number, job in jobs:
            wanted = [(i, s) for i in range(len(job.prompts)) for s in job.decoding.samples if (i, s) not in job.done]
            size = max(self.slots, -(-len(wanted) // parts))
            for start in range(0, len(wanted), size):
                yield _Unit(number, job, deque(wanted[start : start + size]))

    def _share(self, unit: _Unit, copy: int, state: State) -> None:
        """Compute what a job's prompts have in common once, if it is much."""
        tokens = shared_prefix([prompt.tokens for prompt in unit.job.prompts])
        unit.shared = len(tokens) // BUCKET * BUCKET if len(tokens) >= SHARED else 0
        if unit.shared:
            first, every = copy * self.slots, range(copy * self.slots, (copy + 1) * self.slots)
            ids = torch.tensor([tokens[: unit.shared]], device=self.device)
            self.model.prefill(copy, ids, state.cache, self._slots([first]), 0)
            state.cache.share(first, self._slots(every), unit.shared)

    def _fill(self, unit: _Unit, copy: int, free: deque[int], chunk: int, state: State) -> None:
        """Seat waiting prompts in free slots."""
        if not unit.waiting or (unit.rows and len(free) < min(PREFILL, len(unit.waiting))):
            return
        taken = [unit.waiting.popleft() for _ in range(min(len(free), len(unit.waiting)))]
        seated = [(free.popleft(), index, sample) for index, sample in taken]
        prompts = [unit.job.prompts[index] for _, index, _ in seated]
        # All but a prompt's last token go into the cache; the last one is what the first step continues.
        tails = [prompt.tokens[unit.shared : -1] for prompt in prompts]
        for numbers in batches([len(tail) for tail in tails], PREFILL, TOKENS):
            ids = self._padded([tails[i] for i in numbers])
            slots = self._slots([seated[i][0] for i in numbers], len(ids))
            self.model.prefill(copy, ids, state.cache, slots, unit.shared)
        state.seat([slot for slot, _, _ in seated], prompts, [sample for _, _, sample in seated], unit.job.decoding)
        for slot, index, sample in seated:
            text = Text(self.tokenizer, unit.job.decoding.stop, self._ends)
            unit.rows[slot] = _Row(index, sample, text, chunk)

    def _read(self, unit: _Unit, free: deque[int], chunk: int, look: Look, state: State) -> list[Answer]:
        """Take the tokens of a look into the texts, and the finished ones out of their slots."""
        active, counts, latest = look.arrays()
        answers, stopped = [], []
        limit = unit.job.decoding.max_tokens
        for slot, row in list(unit.rows.items()):
            if row.since > chunk:
                continue
            new = counts[slot] - len(row.text.tokens)
            ended = row.text.extend(latest[slot][STEPS - new :] if new else [])
            if not ended and active[slot]:
                continue
            if active[slot]:
                stopped.append(slot)  # by a stop string, which only the host knows
            del unit.rows[slot]
            free.append(slot)
            answers.append(
                Answer(
                    index=row.index,
                    sample=row.sample,
                    text=row.text.read(),
                    prompt_tokens=len(unit.job.prompts[row.index].tokens),
                    tokens=min(limit, len(row.text.tokens)),
                    finish="stop" if ended else "length",
                )
            )
        if stopped:
            state.active[self._slots(stopped).long()] = 0
        return answers

    def _padded(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """(rows, n) token ids: texts padded on the right, the first one repeated to as many rows as go with that n."""
        width = max(BUCKET, bucket(max(map(len, texts))))
        rows = at_once(width, PREFILL, TOKENS)
        ids = torch.zeros(rows, width, dtype=torch.long)
        for row in range(rows):
            text = texts[row if row < len(texts) else 0]
            ids[row, : len(text)] = torch.tensor(text, dtype=torch.long)
        return ids.to(self.device, non_blocking=True)

    def _slots(self, slots: Collection[int], rows: int = 0) -> torch.Tensor:
        """int32 slot numbers, filled up with the first of them to so many rows."""
        more = [next(iter(slots))] * (rows - len(slots))
        return torch.tensor([*slots, *more], dtype=torch.int32).to(self.device, non_blocking=True)

    def _room(self, positions: int, limit: int) -> State:
        """The state, with at least this many positions a slot and this many tokens an answer."""
        if self._state is None or not self._state.holds(positions, limit):
            self._state = None  # free before the larger one is taken
            needed = -(-(positions + BUCKET) // ROOM) * ROOM
            self._state = State(self.model, self.slots, needed, max(limit, ROOM), sorted(self._ends) or [-1])
        return self._state


def _manner(job: Job) -> tuple[float, float]:
    """How its tokens are chosen."""
    return job.decoding.temperature, job.decoding.top_p


def _needs(jobs: Sequence[Job]) -> tuple[int, int]:
    """(tokens of the longest prompt, most tokens of an answer)."""
    longest = max((len(prompt.tokens) for job in jobs for prompt in job.prompts), default=0)
    return longest, max(job.decoding.max_tokens for job in jobs)


def _taken(waiting: deque[tuple[int, Job]], wanted: Callable[[Job], bool]) -> list[tuple[int, Job]]:
    """Those that are wanted; the others wait on."""
    taken = [(number, job) for number, job in waiting if wanted(job)]
    rest = [(number, job) for number, job in waiting if not wanted(job)]
    waiting.clear()
    waiting.extend(rest)
    return taken


def _copies_that_fit(model: Any, slots: int, device: torch.device) -> int:
    """Copies that fit beside the base, with keys and values of 1,024 positions a slot and a tenth to spare."""
    if device.type != "cuda":
        return 2
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    settings = model.config
    size = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    heads = settings.num_key_value_heads
    cache = 2 * settings.num_hidden_layers * heads * size * model.dtype.itemsize * slots * 1024
    free, _ = torch.cuda.mem_get_info(device)
    fit = int((0.9 * free - weights) // (weights + cache + 2 * slots * settings.vocab_size * model.dtype.itemsize))
    if fit < 1:
        raise UserError(
            f"the base and one copy of the weights, {2 * weights / 2**30:.1f} GiB, with keys and values of {slots} "
            f"answers, {cache / 2**30:.1f} GiB, do not fit the {free / 2**30:.1f} GiB that are free; lower "
            '"engine.batch", or use engine "transformers"'
        )
    return min(MOST_COPIES, fit)
