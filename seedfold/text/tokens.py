"""Documents as tokens, each with the UTF-8 bytes that it stands for, and as the windows that a model is shown."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedfold import config, models
from seedfold.errors import UserError
from seedfold.text.documents import Documents
from seedfold.text.settings import Text

BLANK = "\u2581"
"""Stands for a space in SentencePiece's tokens."""


@dataclass(frozen=True)
class Window:
    """What a model is shown at once: `context`, given, and `scored`, asked for; token ids. bytes: of the scored ones."""

    document: int
    context: tuple[int, ...]
    scored: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Windows:
    """All windows of some documents. start: the tokenizer's beginning-of-text token, None where it has none.

    tokens, bytes: of what is scored. documents: how many of them have something scored.
    """

    windows: tuple[Window, ...]
    start: int | None

    @property
    def tokens(self) -> int:
        return sum(len(window.scored) for window in self.windows)

    @property
    def bytes(self) -> int:
        return sum(window.bytes for window in self.windows)

    @property
    def documents(self) -> int:
        return len({window.document for window in self.windows})


def windows(documents: Documents, settings: Text, tokenizer: Any) -> Windows:
    """Cut the documents into windows, in which every token is scored exactly once; see `cut`.

    Raises:
        UserError: the tokenizer does not keep the text.
    """
    start = tokenizer.bos_token_id
    made: list[Window] = []
    for number, text in enumerate(documents.texts):
        tokens = spell(tokenizer, text, number)
        made += cut(number, [token for token, _ in tokens], [size for _, size in tokens], settings, start)
    if not made:
        raise UserError(
            f'"speedrun.text.name" is "{documents.name}", where no document has two tokens, so that nothing can be scored; '
            "give more text"
        )
    return Windows(tuple(made), start)


def cut(document: int, tokens: Sequence[int], sizes: Sequence[int], settings: Text, start: int | None) -> list[Window]:
    """Windows of one document, at most `window` tokens each, context included.

    Every token is scored once, with the `overlap` tokens before it as context at least, or all there are. Every window
    begins with `start`. Without one a document's first token cannot be scored: it is context, and its bytes do not count.

    Args:
        tokens, sizes: token ids and the bytes of each.
    """
    front = () if start is None else (start,)
    room = settings.window - len(front)
    done = 0 if front else 1
    found: list[Window] = []
    while done < len(tokens):
        context = min(done, settings.overlap if found else done)
        stop = min(len(tokens), done + room - context)
        found.append(
            Window(document, (*front, *tokens[done - context : done]), tuple(tokens[done:stop]), sum(sizes[done:stop]))
        )
        done = stop
    return found


def spell(tokenizer: Any, text: str, number: int) -> list[tuple[int, int]]:
    """(token id, bytes it stands for) of a text, special tokens left out; bytes add up to those of the text.

    A byte-level token may be a part of a character. What stands for what is read off the tokens' names, and believed when
    they spell the text byte for byte.

    Raises:
        UserError: they do not; `number` is the document's, for the message.
    """
    tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    names = tokenizer.convert_ids_to_tokens(tokens)
    whole = text.encode()
    for read in (_byte_level, _sentence_piece):
        pieces = [read(name) for name in names]
        spelled = b"".join(pieces)
        if spelled == b" " + whole and pieces and pieces[0].startswith(b" "):  # a space that the tokenizer put in front
            pieces[0], spelled = pieces[0][1:], whole
        if spelled == whole:
            return [(token, len(piece)) for token, piece in zip(tokens, pieces, strict=True)]
    raise UserError(
        f'the tokenizer of "{tokenizer.name_or_path}" does not give back document {number + 1} byte for byte, so that its '
        "bits per byte would be those of another text; take text without what it changes, or another model"
    )


def load_tokenizer(model: config.Model) -> Any:
    """The tokenizer of the model that a config names.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            models.locate(model.name), revision=model.revision or None, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f'"model.name" is "{model.name}", whose tokenizer cannot be loaded ({type(error).__name__}: {reason}); give a '
            "model with its tokenizer"
        ) from None


def _alphabet() -> dict[str, int]:
    """Character -> byte in byte-level tokens (GPT-2's): printable bytes are themselves, the others come after 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    shifted = zip(map(chr, itertools.count(256)), others)  # noqa: B905 (endless on one side)
    return {**{chr(byte): byte for byte in printable}, **dict(shifted)}


_BYTES = _alphabet()


def _byte_level(name: str) -> bytes:
    """Tokens that were added by hand are written plainly, and may hold what is not in the alphabet."""
    if all(character in _BYTES for character in name):
        return bytes(_BYTES[character] for character in name)
    return name.encode()


def _sentence_piece(name: str) -> bytes:
    """Text with blanks for spaces, or one byte as <0xE2>."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace(BLANK, " ").encode()
