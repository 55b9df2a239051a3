"""The reference engine: Hugging Face transformers, on any machine.

Exact by construction on CPUs: rows come in multiples of `ALIGN`, slots are positions (see `cache.py`), every row is
computed by the same instructions whatever stands beside it. `describe()` reports a check of that on this machine.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seedfold import config, export, models
from seedfold.engines import rows as row_blocks
from seedfold.engines.attention import Masks, install
from seedfold.engines.base import ALIGN, Answer, Decoding, Job, Prompt, in_turn
from seedfold.engines.cache import aligned, batches, bucket, layer_count, new_cache, shared_prefix
from seedfold.engines.checks import check_length, check_pairs, is_exact
from seedfold.engines.sampling import choose, draws
from seedfold.engines.text import Text, encode_chat, end_tokens
from seedfold.errors import UserError
from seedfold.recipe import Recipe
from seedfold.weights import Weights

# Newer versions call it `cache`, older ones know no other name than this.
warnings.filterwarnings("ignore", message="`past_key_values` is deprecated", category=FutureWarning)

ENDED = -1
"""Stands at the places of a batch that no longer hold an answer; they are computed on, and ignored."""

EMPTY = -1
"""Stands for the position of a slot without a token."""

LOGIT_SLOTS = 16
"""Slots whose logits are held at once when text is scored."""


class TransformersEngine:
    """See `seedfold.engines.base.Engine`.

    Args:
        model: a causal language model of attention layers.
        tokenizer: its tokenizer.
        name, revision: what the model is called in recipes.
        batch: answers generated at once, at most.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str = "", batch: int = 64) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name, self.revision, self.batch = name, revision, aligned(batch)
        self.device = next(model.parameters()).device
        self.dtype = str(model.dtype).removeprefix("torch.")
        install(model)
        row_blocks.fix(model)
        self.weights = Weights(model)
        self.recipe: Recipe | None = None
        self._whole = True
        self._layers = layer_count(model.config)
        self._masks = Masks(model.config, model.dtype)
        self._prefix: tuple[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = ((), [])
        self._ends = end_tokens(model, tokenizer)

    @classmethod
    def open(cls, model: config.Model, engine: config.Engine) -> TransformersEngine:
        """Load the model that the config names onto the device it names."""
        if engine.threads:
            torch.set_num_threads(engine.threads)
        device = model.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f'"model.device" is "{device}", but torch sees no CUDA GPU here; use cpu or auto')
        loaded, tokenizer = models.load(model)
        try:
            loaded.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f'"model.device" is "{device}", which cannot hold the model ({reason}); use cpu') from None
        return cls(loaded, tokenizer, model.name, model.revision, engine.at_once)

    @property
    def fingerprint(self) -> str:
        return self.weights.fingerprint

    @property
    def positions(self) -> int | None:
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        return encode_chat(self.tokenizer, messages, self.name)

    def become(self, recipe: Recipe | None) -> None:
        if recipe is not None and not recipe.terms:
            self.weights.steps(recipe)  # a recipe without terms is the base, but of whose model?
            recipe = None
        if recipe != self.recipe or not self._whole:
            self._prefix = ((), [])
            self._whole = False  # until it is done: a recipe refused or cut short is not taken for the present one
            self.weights.become(recipe)
            self.recipe, self._whole = recipe, True

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, done: Collection[tuple[int, int]] = ()
    ) -> Iterator[list[Answer]]:
        if not prompts:
            return
        check_length(self, max(len(prompt.tokens) for prompt in prompts), decoding.max_tokens)
        prefix = self._share([prompt.tokens for prompt in prompts])
        size = max(1, self.batch // len(decoding.samples))
        for numbers in batches([len(prompt.tokens) - 1 for prompt in prompts], size):
            if all((i, sample) in done for i in numbers for sample in decoding.samples):
                continue
            with torch.inference_mode():  # not around the yield: the caller's code must not run in this mode
                answers = self._answer([prompts[i] for i in numbers], numbers, prefix, decoding)
            yield answers

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Answer]]]:
        return in_turn(self, jobs)

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        check_pairs(prompts, continuations)
        results: list[list[float]] = [[] for _ in prompts]
        if not prompts:
            return results
        for prompt, tail in zip(prompts, continuations, strict=True):
            check_length(self, len(prompt.tokens), len(tail))
        prefix = self._share([prompt.tokens for prompt in prompts])
        lengths = [len(prompt.tokens) + len(tail) for prompt, tail in zip(prompts, continuations, strict=True)]
        for numbers in batches(lengths, ALIGN):
            texts = [(*prompts[i].tokens, *continuations[i]) for i in numbers]
            with torch.inference_mode():
                scores = self._score(texts, prefix)
            for row, i in enumerate(numbers):
                results[i] = scores[row, len(prompts[i].tokens) - 1 : len(texts[row]) - 1].tolist()
        return results

    def export(self, recipe: Recipe, folder: Path, card: str) -> None:
        self.become(recipe)
        export.write(self.model, self.tokenizer, self.weights, folder, card)

    def sizes(self) -> dict[str, int]:
        text = self.model.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return {
            "weights": weights,
            "cache_bytes_per_token": 2 * self._layers * heads * size * self.model.dtype.itemsize,
        }

    def describe(self) -> dict[str, Any]:
        import transformers

        return {
            "engine": "transformers",
            "device": str(self.device) if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
            "dtype": self.dtype,
            "threads": torch.get_num_threads(),
            "attention": getattr(self.model.config, "_attn_implementation", None),
            "exact": self.exact,
            "machine": platform.machine(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    @cached_property
    def exact(self) -> bool:
        """Whether this machine computes a row alike in any batch, see `is_exact`."""
        return is_exact(self, self.recipe, self.model.config.get_text_config().vocab_size)

    # One batch

    def _share(self, prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Compute the common prefix of the prompts, unless it or a longer one is at hand, and return its tokens."""
        tokens = shared_prefix(prompts)
        if tokens != self._prefix[0][: len(tokens)]:
            cache = new_cache(self._layers)
            positions = torch.arange(len(tokens), device=self.device)[None]
            ids = torch.tensor([tokens], device=self.device)
            with torch.inference_mode():
                self._fill(ids, positions, positions, cache)
            self._prefix = (tokens, [(layer.keys, layer.values) for layer in cache.layers])
        return tokens

    def _fill(
        self, ids: torch.Tensor, queries: torch.Tensor, slots: torch.Tensor, cache: Any, model: Any = None
    ) -> Any:
        """Run tokens, (rows, n), at these positions through the layers, so that the cache holds them."""
        return (model or self.model.base_model)(
            input_ids=ids,
            attention_mask=self._masks(queries, slots),
            position_ids=queries,
            past_key_values=cache,
            use_cache=True,
        )

    def _logits(self, ids: torch.Tensor, queries: torch.Tensor, slots: torch.Tensor, cache: Any) -> torch.Tensor:
        """The same, and the logits of what follows each token: (rows, n, vocabulary)."""
        return self._fill(ids, queries, slots, cache, self.model).logits  # type: ignore[no-any-return]

    def _start(self, texts: Sequence[Sequence[int]], prefix: tuple[int, ...]) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """A cache that holds the prefix in as many rows as the texts need; positions of its slots; the tokens after it.

        Returns:
            cache; slots, (rows, len(prefix)); rest, (rows, S) token ids, padded on the right. Rows beyond the texts
            repeat the first.
        """
        shared = len(prefix)
        rows = aligned(len(texts))
        width = aligned(max(len(text) for text in texts) - shared)
        rest = torch.zeros(rows, width, dtype=torch.long)
        for row in range(rows):
            tail = texts[row if row < len(texts) else 0][shared:]
            rest[row, : len(tail)] = torch.tensor(tail)
        cache = new_cache(self._layers)
        if shared:
            for layer, (keys, values) in zip(cache.layers, self._prefix[1], strict=True):
                layer.load(keys[..., :shared, :], values[..., :shared, :], rows)
        slots = torch.arange(shared, device=self.device).expand(rows, -1)
        return cache, slots, rest.to(self.device)

    def _score(self, texts: Sequence[Sequence[int]], prefix: tuple[int, ...]) -> torch.Tensor:
        """Log-probability of each token given those before it: (rows, slots - 1), of token i + 1 at place i.

        Places inside the shared prefix stay zero: nobody asks for them.
        """
        shared = len(prefix)
        cache, slots, rest = self._start(texts, prefix)
        following = torch.cat([rest[:, 1:], torch.zeros_like(rest[:, :1])], 1)
        scores = [torch.zeros(len(rest), shared)]
        for start in range(0, rest.shape[1], LOGIT_SLOTS):
            part = slice(start, start + LOGIT_SLOTS)
            queries = torch.arange(shared + start, shared + start + LOGIT_SLOTS, device=self.device).expand(
                len(rest), -1
            )
            slots = torch.cat([slots, queries], 1)
            logits = self._logits(rest[:, part], queries, slots, cache).float()
            chosen = logits.gather(-1, following[:, part, None])[..., 0]
            scores.append((chosen - logits.logsumexp(-1)).cpu())
        return torch.cat(scores, 1)

    def _answer(
        self, prompts: Sequence[Prompt], numbers: Sequence[int], prefix: tuple[int, ...], decoding: Decoding
    ) -> list[Answer]:
        """Generate all samples of the prompts of one batch."""
        lengths = [len(prompt.tokens) for prompt in prompts]
        cache, slots = self._prefill([prompt.tokens[:-1] for prompt in prompts], prefix)
        # Every prompt is computed once; its samples start from copies.
        rows = [(p, sample) for p in range(len(prompts)) for sample in decoding.samples]
        texts = [Text(self.tokenizer, decoding.stop, self._ends) for _ in rows]
        at = self._padded([p for p, _ in rows])
        _take(cache, at)
        slots = slots[at]
        ids = torch.tensor([prompt.tokens[-1] for prompt in prompts], device=self.device)[at]
        positions = torch.tensor([length - 1 for length in lengths], device=self.device)[at]
        pick = _picker(decoding, [(prompts[p].key, sample) for p, sample in rows])
        active = [*range(len(rows)), *[ENDED] * (len(ids) - len(rows))]  # which row stands at each place of the batch
        filled = slots.shape[1]
        for step in range(decoding.max_tokens):
            if step % ALIGN == 0:
                slots = torch.cat([slots, slots.new_full((len(slots), ALIGN), EMPTY)], 1)
            slots[:, filled + step] = positions
            logits = self._logits(ids[:, None], positions[:, None], slots, cache)[:, -1]
            ids, positions = pick(logits, active, step), positions + 1
            for place, (row, token) in enumerate(zip(active, ids.tolist(), strict=True)):
                if row != ENDED and texts[row].add(token):
                    active[place] = ENDED
            going = [place for place, row in enumerate(active) if row != ENDED]
            if not going:
                break
            if aligned(len(going)) < len(active):
                at = self._padded(going)
                _take(cache, at)
                ids, positions, slots = ids[at], positions[at], slots[at]
                active = [active[place] for place in going] + [ENDED] * (len(ids) - len(going))
        return [
            Answer(
                index=numbers[p],
                sample=sample,
                text=text.read(),
                prompt_tokens=lengths[p],
                tokens=len(text.tokens),
                finish="stop" if text.ended else "length",
            )
            for (p, sample), text in zip(rows, texts, strict=True)
        ]

    def _prefill(self, texts: Sequence[Sequence[int]], prefix: tuple[int, ...]) -> tuple[Any, torch.Tensor]:
        """Run the texts through the model; the cache, and the positions of its slots, `EMPTY` where nothing is.

        The slots reach to the multiple of `BUCKET` that the texts agree in.
        """
        shared = len(prefix)
        cache, slots, rest = self._start(texts, prefix)
        if rest.shape[1]:
            queries = torch.arange(shared, shared + rest.shape[1], device=self.device).expand(len(rest), -1)
            lengths = torch.tensor([len(text) for text in texts] + [len(texts[0])] * (len(rest) - len(texts)))
            slots = torch.cat([slots, queries.where(queries < lengths.to(self.device)[:, None], EMPTY)], 1)
            self._fill(rest, queries, slots, cache)
        reach = bucket(max(len(text) for text in texts))
        for layer in cache.layers:
            layer.skip(reach)
        return cache, torch.cat([slots, slots.new_full((len(slots), reach - slots.shape[1]), EMPTY)], 1)

    def _padded(self, rows: Sequence[int]) -> torch.Tensor:
        """Row numbers, filled up to a multiple of `ALIGN` with the first."""
        return torch.tensor([*rows, *[rows[0]] * (aligned(len(rows)) - len(rows))], device=self.device)


def _take(cache: Any, rows: torch.Tensor) -> None:
    for layer in cache.layers:
        layer.take(rows)


def _picker(
    decoding: Decoding, rows: Sequence[tuple[str, int]]
) -> Callable[[torch.Tensor, list[int], int], torch.Tensor]:
    """How the next tokens are chosen from logits: (places, vocabulary) and the row at each place -> (places,)."""
    if decoding.temperature == 0:
        return lambda logits, active, step: logits.argmax(-1)
    table = np.full((len(rows) + 1, decoding.max_tokens), 0.5)  # the last row serves places without an answer
    for row, (key, sample) in enumerate(rows):
        table[row] = draws(key, sample, decoding.max_tokens)

    def pick(logits: torch.Tensor, active: list[int], step: int) -> torch.Tensor:
        return choose(logits, torch.from_numpy(table[active, step]).to(logits.device), decoding)

    return pick
