"""Text on its way in and out of engines: chats to tokens, tokens to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seedfold.engines.base import pictures
from seedfold.errors import UserError


def encode_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], name: str) -> tuple[int, ...]:
    """Token ids of a chat by the tokenizer's own template, ready for the model's turn; `name` is the model's.

    Every engine for text alone comes this way: it refuses images, or they would be answered unseen.
    """
    if pictures(messages)[0]:
        raise UserError(
            f'the task shows images, but model "{name}" is read as text alone here; give an image-text-to-text model in '
            '"model.name" and use "engine.name" transformers'
        )
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f'the tokenizer of model "{name}" has no chat template, so messages cannot be written as a prompt; '
            "use an instruction-tuned model, or put a chat_template.jinja beside its tokenizer"
        )
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


class Text:
    """The tokens of one answer so far."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...], ends: set[int]) -> None:
        self.tokenizer, self.stop, self.ends = tokenizer, stop, ends
        self.tokens: list[int] = []
        self.ended = False
        # A stop string of n bytes ends in the last token and spans at most n tokens; a few more, so that the window
        # starts before it, on a whole character.
        self._window = max((len(text.encode()) for text in stop), default=0) + 4

    def extend(self, tokens: Sequence[int]) -> bool:
        """Append tokens up to the one that ends the answer; whether one did. One look for stop strings serves them all."""
        if self.stop and not self.ends.intersection(tokens):
            tail = self._decode([*self.tokens, *tokens][-(self._window + len(tokens)) :])
            if not any(text in tail for text in self.stop):
                self.tokens.extend(tokens)
                return False
        return any(self.add(token) for token in tokens)

    def add(self, token: int) -> bool:
        """Append a token; whether it ends the answer."""
        self.tokens.append(token)
        self.ended = token in self.ends
        if self.stop and not self.ended:
            tail = self._decode(self.tokens[-self._window :])
            self.ended = any(text in tail for text in self.stop)
        return self.ended

    def read(self) -> str:
        """The answer's text, without special tokens, cut before the first stop string."""
        text = self._decode(self.tokens)
        return text[: min((text.find(stop) for stop in self.stop if stop in text), default=len(text))]

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer: those of the generation config, the config and the tokenizer."""
    ends: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        tokens = getattr(source, "eos_token_id", None)
        ends.update(tokens if isinstance(tokens, (list, tuple)) else [] if tokens is None else [tokens])
    return ends
