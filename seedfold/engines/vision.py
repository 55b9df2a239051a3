"""The reference engine for models that see: Hugging Face image-text-to-text models, on any machine.

Every prompt is answered alone, so that no answer depends on what is asked beside it: the model's own processor prepares
it, its own forward pass and cache do the rest. A prompt is read once for all of its samples.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seedfold import config, export, models
from seedfold.engines.base import Answer, Decoding, Image, Prompt, pictures
from seedfold.engines.cache import layer_count
from seedfold.engines.checks import check_length, check_pairs
from seedfold.engines.sampling import choose, draws
from seedfold.engines.text import Text, end_tokens
from seedfold.engines.transformers import TransformersEngine
from seedfold.errors import UserError
from seedfold.recipe import Recipe
from seedfold.weights import Part, Tensor, Weights

KEPT = 2**30
"""Bytes of prepared images that are kept: the first ones that fit. Preparing them again costs every recipe that time."""


class VisionEngine(TransformersEngine):
    """See `seedfold.engines.base.Engine`.

    Args:
        model: an image-text-to-text model of attention layers.
        processor: its processor, with a chat template.
        name, revision: what the model is called in recipes.
    """

    def __init__(self, model: Any, processor: Any, name: str, revision: str = "") -> None:
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self.name, self.revision = name, revision
        self.device = next(model.parameters()).device
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.weights = weights_of(model, name)
        self.recipe: Recipe | None = None
        self._whole = True
        self._layers = layer_count(model.config)
        self._ends = end_tokens(model, self.tokenizer)
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = (
            {"logits_to_keep": 1} if keeps else {}
        )  # an image is a thousand tokens, whose logits nobody needs
        self._kept: dict[tuple[str, tuple[Image, ...]], dict[str, torch.Tensor]] = {}
        self._room = KEPT

    @classmethod
    def open(cls, model: config.Model, engine: config.Engine) -> VisionEngine:
        """Load the model that the config names onto the device it names."""
        if engine.threads:
            torch.set_num_threads(engine.threads)
        loaded, processor = models.load_vision(model)
        return cls(models.onto_device(loaded, model), processor, model.name, model.revision)

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        images, chat = pictures(messages)
        return tuple(self._prepared(chat or json.dumps(list(messages)), images)["input_ids"][0].tolist())

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, done: Collection[tuple[int, int]] = ()
    ) -> Iterator[list[Answer]]:
        if not prompts:
            return
        check_length(self, max(len(prompt.tokens) for prompt in prompts), decoding.max_tokens)
        for i, prompt in enumerate(prompts):
            samples = [sample for sample in decoding.samples if (i, sample) not in done]
            if samples:
                with torch.inference_mode():  # not around the yield: the caller's code must not run in this mode
                    answers = self._answers(prompt, i, samples, decoding)
                yield answers

    def logprobs(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        check_pairs(prompts, continuations)
        for prompt, tail in zip(prompts, continuations, strict=True):
            check_length(self, len(prompt.tokens), len(tail))
        results = []
        for prompt, tail in zip(prompts, continuations, strict=True):
            with torch.inference_mode():
                logits, cache = self._read(prompt)
                if len(tail) > 1:
                    logits = torch.cat([logits, self._go_on(tail[:-1], cache)])
                scores = logits[: len(tail)].float().log_softmax(-1).cpu()
            results.append([float(scores[place, token]) for place, token in enumerate(tail)])
        return results

    def export(self, recipe: Recipe, folder: Path, card: str) -> None:
        self.become(recipe)
        export.write(self.model, self.processor, self.weights, folder, card)

    def describe(self) -> dict[str, Any]:
        import PIL

        return {
            **super().describe(),
            "images": type(getattr(self.processor, "image_processor", self.processor)).__name__,
            "pillow": PIL.__version__,
        }

    @cached_property
    def exact(self) -> bool:
        """Whether this machine computes the same numbers twice: probed with a random picture on the base."""
        from PIL import Image as pillow

        recipe, file = self.recipe, BytesIO()
        self.become(None)
        pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        pillow.fromarray(pixels).save(file, "PNG")
        parts = [{"type": "image", "image": Image(file.getvalue(), "probe")}, {"type": "text", "text": "What is this?"}]
        chat = [{"role": "user", "content": parts}]
        prompts = [Prompt(self.encode(chat), "probe", *pictures(chat))]
        decoding = Decoding(16, temperature=1.0, samples=(0, 1))
        found = []
        for _ in range(2):
            found.append((self.logprobs(prompts, [prompts[0].tokens[:8]]), list(self.generate(prompts, decoding))))
            self._kept.clear()
            self._room = KEPT
        self.become(recipe)
        return found[0] == found[1]

    # One prompt

    def _answers(self, prompt: Prompt, index: int, samples: Sequence[int], decoding: Decoding) -> list[Answer]:
        """Read the prompt, and generate these samples from copies of what was read."""
        first, read = self._read(prompt)
        answers = []
        for sample in samples:
            text, logits, cache = Text(self.tokenizer, decoding.stop, self._ends), first, copy.deepcopy(read)
            drawn = torch.from_numpy(draws(prompt.key, sample, decoding.max_tokens))
            for step in range(decoding.max_tokens):
                if step:
                    logits = self._go_on(text.tokens[-1:], cache)
                chosen = choose(logits, drawn[step : step + 1], decoding) if decoding.temperature else logits.argmax(-1)
                if text.add(int(chosen)):
                    break
            finish = "stop" if text.ended else "length"
            answers.append(Answer(index, sample, text.read(), len(prompt.tokens), len(text.tokens), finish))
        return answers

    def _read(self, prompt: Prompt) -> tuple[torch.Tensor, Any]:
        """Logits of what follows the prompt, (1, vocabulary), and the cache that holds it."""
        if prompt.images:
            inputs = self._prepared(prompt.chat, prompt.images)
            if tuple(inputs["input_ids"][0].tolist()) != prompt.tokens:
                raise ValueError(f"prompt {prompt.key} was not encoded by this model's processor")
        else:
            inputs = {"input_ids": torch.tensor([prompt.tokens])}
        # Where the positions of an image's tokens are a grid, the model keeps the last prompt's; a text alone has none.
        if getattr(self.model.base_model, "rope_deltas", None) is not None:
            self.model.base_model.rope_deltas = None
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        out = self.model(**inputs, use_cache=True, **self._last_only)
        return out.logits[0, -1:], out.past_key_values

    def _go_on(self, tokens: Sequence[int], cache: Any) -> torch.Tensor:
        """Logits of what follows each token, (n, vocabulary); the cache then holds these tokens as well.

        Nothing is padded, so no mask is given: some models would take its length for that of the tokens.
        """
        ids = torch.tensor([tokens], device=self.device)
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
        return out.logits[0]  # type: ignore[no-any-return]

    def _prepared(self, chat: str, images: tuple[Image, ...]) -> dict[str, torch.Tensor]:
        """As `prepare`, with real numbers in the model's dtype; on the CPU, and kept while there is room."""
        if (chat, images) in self._kept:
            return self._kept[chat, images]
        found = prepare(self.processor, chat, images, self.name)
        found = {
            name: value.to(self.model.dtype) if value.is_floating_point() else value for name, value in found.items()
        }
        size = sum(value.numel() * value.element_size() for value in found.values())
        if images and size <= self._room:
            self._room -= size
            self._kept[chat, images] = found
        return found


def prepare(processor: Any, chat: str, images: tuple[Image, ...], name: str) -> dict[str, torch.Tensor]:
    """What a processor makes of `Prompt.chat` and `Prompt.images`: "input_ids", (1, n), and whatever else its model takes.

    Raises:
        UserError: it has no chat template, or refuses the chat; `name` is the model's.
    """
    from jinja2 import TemplateError

    if not getattr(processor, "chat_template", None):
        raise UserError(
            f'the processor of model "{name}" has no chat template, so messages cannot be written as a prompt; '
            "use an instruction-tuned model, or put a chat_template.jinja beside its processor"
        )
    left = iter(images)
    messages = [{**message, "content": _parts(message["content"], left)} for message in json.loads(chat)]
    try:
        found = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    except (ValueError, TemplateError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f'the processor of model "{name}" refuses a prompt ({reason}): {chat[:300]}; change or drop that example, or '
            "use another model"
        ) from None
    return dict(found)


def _parts(content: str | list[dict[str, Any]], images: Iterator[Image]) -> list[dict[str, Any]]:
    """A message's content as processors take it: many templates of such models know lists of parts only."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [{"type": "image", "image": next(images).open()} if part["type"] == "image" else part for part in content]


def weights_of(model: Any, name: str) -> Weights:
    """The weights of a transformers model under their checkpoint's names, which are not always those of its modules.

    Raises:
        UserError: the model holds tensors in other shapes than its checkpoint, so that these have no place of their own.
    """
    from transformers.core_model_loading import revert_weight_conversion

    live = {own: parameter for own, parameter in model.named_parameters() if parameter.is_floating_point()}
    for parameter in live.values():
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()
    written = revert_weight_conversion(model, {own: parameter.detach() for own, parameter in live.items()})
    names = {(value.data_ptr(), value.shape): written_name for written_name, value in written.items()}
    tensors, parts = {}, []
    for own, parameter in live.items():
        found = names.get((parameter.data_ptr(), parameter.shape))
        if found is None:
            raise UserError(
                f'model "{name}" holds {own} in another shape than its checkpoint, which the engine for images cannot '
                "perturb; use a model whose tensors are held as they are written"
            )
        values = parameter.detach().view(-1)
        tensors[found] = Tensor(found, tuple(parameter.shape), str(parameter.dtype).removeprefix("torch."))
        parts.append(Part(tensors[found].segment(), values, values.clone()))
    return Weights.of_parts(tensors, parts)
