"""The fast engine: vLLM, its weights rebuilt in place in the storage that its CUDA graphs read.

vLLM runs in processes of its own, and is reached through its public extension points: a worker extension
(`vllm_worker.py`), collective RPC, and the request loop of `LLMEngine`. It goes on generating while the caller grades.

Memory. vLLM measures its own need and gives the rest of `gpu_memory_utilization` to keys and values, before the base copy
exists. So the copy's bytes are taken off first: weights, copy, activations, CUDA graphs and cache together stay within
that share. With `kv_cache_memory_bytes` vLLM measures nothing and takes just that for the cache. A model that cannot fit
twice is refused before vLLM starts.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from seedfold import config, export, models
from seedfold.engines.base import ALIGN, Answer, Decoding, Job, Prompt, in_turn
from seedfold.engines.checks import check_length, check_pairs, is_exact
from seedfold.engines.layout import partition
from seedfold.engines.text import Text, encode_chat
from seedfold.engines.vllm_start import (
    CPU_CACHE,
    GIB,
    defaults,
    environment,
    gpus,
    invariant,
    read,
    share,
    start,
    visible,
)
from seedfold.errors import UserError
from seedfold.noise import Segment
from seedfold.noise.registry import family
from seedfold.recipe import Recipe
from seedfold.weights import Weights, assemble, fingerprint

EXTENSION = "seedfold.engines.vllm_worker.Extension"

CROWD = 16
"""Answers that are handed on together, at least: each crowd is a transaction of the journal."""

CROWD_OF_PROBE = 128
"""Answers at once that are compared, on a GPU: see `is_exact`."""

PATIENCE = 30.0
"""Seconds that vLLM's processes have to end by themselves."""


class VllmEngine:
    """See `seedfold.engines.base.Engine`. Close it when done.

    Args:
        model: what to load; `device` "cuda:N" is the first GPU that is used.
        gpu_memory_utilization: share of each GPU's memory for all of this engine, the base copy included.
        kv_cache_memory_bytes: for keys and values, per GPU; None: what is left of the share, and 2 GiB on CPUs.
        max_model_len: tokens that a prompt and its answer may have together; None: the model's positions.
        max_num_seqs: answers generated at once, at most.
        tensor_parallel_size: GPUs that the model is spread over.
        enforce_eager: no CUDA graphs; None: graphs on GPUs, none on CPUs, where compiling takes minutes.
        load_format: as vLLM's.
        batch_invariant: kernels whose results do not depend on the batch; None: where vLLM has them.
        base_copy: "device", or "host" to keep the base in pinned host memory: a switch then moves all weights once more.

    Raises:
        UserError: the model cannot be found or held, or vLLM holds it in a form that cannot be rebuilt in place.
    """

    def __init__(
        self,
        model: config.Model,
        *,
        gpu_memory_utilization: float = 0.9,
        kv_cache_memory_bytes: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int = 256,
        tensor_parallel_size: int = 1,
        enforce_eager: bool | None = None,
        load_format: str = "auto",
        batch_invariant: bool | None = None,
        base_copy: str = "device",
    ) -> None:
        self.name, self.revision, self.dtype = model.name, model.revision, model.dtype
        self.settings, self.parallel, self.base_copy = model, tensor_parallel_size, base_copy
        self.recipe: Recipe | None = None
        self._whole = True
        self._requests = 0
        self._pending: set[str] = set()
        self._finished: dict[str, Any] = {}
        self._cut = 0  # how often outstanding requests were dropped for another recipe
        place = models.locate(model.name)
        plan = read(model, place)
        self.config, self.tokenizer, self._ends, self.tensors = plan.config, plan.tokenizer, plan.ends, plan.tensors
        with environment(visible(model.device, tensor_parallel_size) | defaults()):
            found = gpus(model.device, tensor_parallel_size)
            self.device = found[0].name if found else "cpu"
            self.batch_invariant = invariant(found, batch_invariant)
            self.eager = not found if enforce_eager is None else enforce_eager
            weights, copied = self.sizes()["weights"] // tensor_parallel_size, base_copy == "device"
            revision = None if os.path.isdir(place) else model.revision or None
            arguments = {
                "model": place,
                "revision": revision,
                "tokenizer_revision": revision,
                "trust_remote_code": model.trust_remote_code,
                "dtype": model.dtype,
                "seed": 0,
                "load_format": load_format,
                "generation_config": "vllm",  # decoding defaults of the checkpoint must not slip in
                "max_model_len": max_model_len,
                "max_num_seqs": max_num_seqs,
                "tensor_parallel_size": tensor_parallel_size,
                "enforce_eager": self.eager,
                "gpu_memory_utilization": share(
                    model.name, weights, copied, found, gpu_memory_utilization, kv_cache_memory_bytes
                ),
                "kv_cache_memory_bytes": kv_cache_memory_bytes or (None if found else CPU_CACHE),
                "enable_prefix_caching": True,
                "worker_extension_cls": EXTENSION,
                "disable_log_stats": True,
                "use_tqdm_on_load": False,
            }
            self.vllm = start(arguments, self.batch_invariant, model.name)
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, model: config.Model, engine: config.Engine) -> VllmEngine:
        """Load the model as the config says."""
        return cls(
            model,
            kv_cache_memory_bytes=int(engine.memory * GIB) or None,
            max_model_len=engine.max_context or None,
            max_num_seqs=engine.at_once,
            tensor_parallel_size=engine.tensor_parallel,
            batch_invariant=None if engine.batch_invariant else False,
            base_copy=engine.base_copy,
        )

    def close(self) -> None:
        """End vLLM's processes."""
        self.vllm.engine_core.shutdown(timeout=PATIENCE)

    @property
    def positions(self) -> int | None:
        return int(self.vllm.model_config.max_model_len)

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        return encode_chat(self.tokenizer, messages, self.name)

    # Weights

    def _attach(self) -> None:
        if self.vllm.model_config.use_mla:  # its attention keeps matrices of its own, made from the weights at load
            raise UserError(
                f'"model.name" is "{self.name}", whose latent attention vLLM computes from copies of its weights, which '
                "would stay the base's; use the transformers engine"
            )
        plan = [[name, list(tensor.shape)] for name, tensor in self.tensors.items()]
        attached = self._all("seedfold_attach", plan, self.dtype, self.base_copy == "host")
        if error := next((error for error, _ in attached if error), ""):
            raise UserError(f'"model.name" is "{self.name}", of which vLLM is no engine: {error}')
        self._held = [
            (rank, number, Segment(name, start, rows, length, stride, self.tensors[name].shape))
            for rank, (_, pieces) in enumerate(attached)
            for number, (name, start, rows, length, stride) in enumerate(pieces)
        ]
        """(rank, its number there, which weights) of each piece."""
        self._parts: dict[str, list[tuple[int, int, Segment]]] = {}
        """The same by tensor, without copies."""
        for name, tensor in self.tensors.items():
            held = [item for item in self._held if item[2].tensor == name]
            chosen = partition(name, tensor.numel, [segment for _, _, segment in held])
            self._parts[name] = [held[number] for number in chosen]
        # Where one worker holds the whole model it computes the fingerprint; else the tensors are put together here.
        known = "" if self.parallel == 1 else self._digest(live=False)
        self.fingerprint = self._all("seedfold_begin", known)[0]
        self._plan = Weights.of_parts(self.tensors, [], self.fingerprint)

    def become(self, recipe: Recipe | None) -> None:
        rms: dict[str, float] = {}
        if recipe is not None:
            names = self._plan.steps(replace(recipe, scale="absolute"))  # refuses what does not fit, before any worker
            for term in recipe.terms:
                family(term.family)
            if not recipe.terms:
                recipe = None
            elif recipe.scale == "rms":
                rms = self._rms(list(names))
        if recipe == self.recipe and self._whole:
            return
        if self._pending:
            self._cut += 1
            self._abort(list(self._pending))
        self._whole = False
        self._all("seedfold_become", None if recipe is None else recipe.to_json(), rms)
        self._forget()
        self.recipe, self._whole = recipe, True

    def _forget(self) -> None:
        """Drop keys and values of other weights. vLLM refuses while it still frees those of answers just cut off."""
        for _ in range(1000):
            if self.vllm.reset_prefix_cache():
                return
            time.sleep(0.01)
        raise RuntimeError("vLLM does not let go of the keys and values of earlier weights")

    def _rms(self, names: Sequence[str]) -> dict[str, float]:
        """Root mean squares of whole tensors of the base, whoever holds their parts."""
        known = self._plan.known_rms
        if missing := [name for name in names if name not in known]:
            answers = self._all("seedfold_squares", missing)
            for name in missing:
                squares = math.fsum(value for rank, number, _ in self._parts[name] for value in answers[rank][number])
                known[name] = math.sqrt(squares / max(1, self.tensors[name].numel))
        return {name: known[name] for name in names}

    def checksum(self) -> str:
        """Fingerprint of the live weights: equal to `fingerprint` exactly when they are the base's."""
        return self._all("seedfold_checksum")[0] if self.parallel == 1 else self._digest(live=True)

    def tensor(self, name: str, live: bool = True) -> torch.Tensor:
        """A whole tensor, flat, on the CPU, put together from its pieces: as it is now, or the base's."""
        answers, parts = self._all("seedfold_bytes", name, live), self._parts[name]
        data = [bytearray(answers[rank][number]) for rank, number, _ in parts]
        values = [torch.frombuffer(piece, dtype=getattr(torch, self.dtype)) for piece in data]
        return assemble(self.tensors[name].numel, [segment for _, _, segment in parts], values)

    def _digest(self, live: bool) -> str:
        return fingerprint((tensor, self.tensor(name, live)) for name, tensor in self.tensors.items())

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """Call all workers; their results, by rank."""
        return list(self.vllm.collective_rpc(method, args=arguments))

    # Requests

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, done: Collection[tuple[int, int]] = ()
    ) -> Iterator[list[Answer]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if not prompts:
            return
        check_length(self, max(len(prompt.tokens) for prompt in prompts), decoding.max_tokens)
        pairs = [(i, k) for i in range(len(prompts)) for k in decoding.samples if (i, k) not in done]
        # vLLM looks for stop strings itself, so that an answer ends at once; without any it need not make text at all.
        asked = {
            "max_tokens": decoding.max_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "stop_token_ids": sorted(self._ends),
            "stop": list(decoding.stop) or None,
            "detokenize": bool(decoding.stop),
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        requests = [
            (
                prompts[i].tokens,
                SamplingParams(**asked, seed=_seed(prompts[i].key, k) if decoding.temperature else None),
            )
            for i, k in pairs
        ]
        for crowd in self._complete(requests):
            yield [self._answer(*pairs[number], output, decoding.stop) for number, output in crowd]

    def _answer(self, index: int, sample: int, output: Any, stop: tuple[str, ...]) -> Answer:
        made = output.outputs[0]
        text = Text(self.tokenizer, stop, self._ends)
        # vLLM holds back text that ends within a character, so it may see a stop string some tokens late: look again.
        for at in range(0, len(made.token_ids), ALIGN):
            if text.extend(list(made.token_ids[at : at + ALIGN])):
                break
        return Answer(
            index=index,
            sample=sample,
            text=text.read(),
            prompt_tokens=len(output.prompt_token_ids),
            tokens=len(text.tokens),
            finish="stop" if text.ended or made.finish_reason == "stop" else "length",
        )

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Answer]]]:
        return in_turn(self, jobs)

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        check_pairs(prompts, continuations)
        texts = [(*prompt.tokens, *tail) for prompt, tail in zip(prompts, continuations, strict=True)]
        for prompt, tail in zip(prompts, continuations, strict=True):
            check_length(self, len(prompt.tokens), len(tail) + 1)  # vLLM generates one token more
        # Requests for prompt_logprobs read no cached prefix (vLLM sees to that), so none of its places lacks its number.
        asked = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        results: list[list[float]] = [[] for _ in prompts]
        numbers = [i for i, tail in enumerate(continuations) if tail]
        for crowd in self._complete([(texts[i], asked) for i in numbers]):
            for place, output in crowd:
                i = numbers[place]
                scored = list(enumerate(texts[i]))[len(prompts[i].tokens) :]
                results[i] = [float(output.prompt_logprobs[at][token].logprob) for at, token in scored]
        return results

    def _complete(self, requests: Sequence[tuple[Sequence[int], Any]]) -> Iterator[list[tuple[int, Any]]]:
        """Have vLLM do (tokens, parameters); (number, output) of some, as they are done."""
        from vllm.inputs import tokens_input

        waiting: dict[str, int] = {}
        cut = self._cut
        try:
            for number, (tokens, parameters) in enumerate(requests):
                self._requests += 1
                key = str(self._requests)
                self.vllm.add_request(key, tokens_input(list(tokens)), parameters)
                waiting[key] = number
                self._pending.add(key)
            crowd: list[tuple[int, Any]] = []
            while waiting:
                # Another generator of this engine may be open: each takes its own from what is done.
                for key in [key for key in self._finished if key in waiting]:
                    crowd.append((waiting.pop(key), self._finished.pop(key)))
                if crowd and (len(crowd) >= CROWD or not waiting):
                    yield crowd
                    crowd = []
                elif cut != self._cut:
                    raise RuntimeError("the engine became another recipe while answers were outstanding")
                else:
                    for output in self.vllm.step():
                        if output.finished and output.request_id in self._pending:
                            self._pending.discard(output.request_id)
                            self._finished[output.request_id] = output
        finally:
            self._abort([key for key in waiting if key in self._pending])
            for key in waiting:
                self._finished.pop(key, None)

    def _abort(self, keys: list[str]) -> None:
        if keys:
            self.vllm.abort_request(keys)
            self._pending.difference_update(keys)

    # The rest

    def export(self, recipe: Recipe, folder: Path, card: str) -> None:
        self._plan.steps(replace(recipe, scale="absolute"))
        model, tokenizer = models.load(self.settings)
        weights = Weights(model)
        weights.become(recipe)
        export.write(model, tokenizer, weights, folder, card)

    def sizes(self) -> dict[str, int]:
        text = self.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return {
            "weights": sum(tensor.numel for tensor in self.tensors.values()) * getattr(torch, self.dtype).itemsize,
            "cache_bytes_per_token": 2 * text.num_hidden_layers * heads * size * getattr(torch, self.dtype).itemsize,
        }

    def describe(self) -> dict[str, Any]:
        import transformers
        import vllm

        return {
            "engine": "vllm",
            "device": self.device,
            "dtype": self.dtype,
            "batch_invariant": self.batch_invariant,
            "cuda_graphs": not self.eager and self.device != "cpu",
            "tensor_parallel": self.parallel,
            "base_copy": self.base_copy,
            "exact": self.exact,
            "machine": platform.machine(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "vllm": vllm.__version__,
        }

    @cached_property
    def exact(self) -> bool:
        """Whether answers and scores are alike in any batch here, see `is_exact`."""
        crowd = 0 if self.device == "cpu" else CROWD_OF_PROBE
        return is_exact(self, self.recipe, self.config.get_text_config().vocab_size, crowd)


def _seed(key: str, sample: int) -> int:
    """Of a sampled answer's random numbers: its own, whatever else is drawn."""
    digest = hashlib.blake2b(f"{key}\0{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
