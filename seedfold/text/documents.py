"""Documents of held-out text, from a file, from the hub or from the package, pinned by a hash of their exact bytes.

They are put into Unicode's composed form (NFC) as they are read: some tokenizers do that by themselves, and then their
tokens say other bytes than the file holds. What is hashed, scored and counted is the composed text.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from seedfold.errors import UserError
from seedfold.text.settings import Text

SAMPLE = "sample"


@dataclass(frozen=True)
class Documents:
    """Texts in NFC, none of them empty. name: where they came from."""

    name: str
    texts: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all texts, in UTF-8."""
        return sum(len(text.encode()) for text in self.texts)

    @property
    def digest(self) -> str:
        """32 hex digits of BLAKE2b over each text's UTF-8 bytes, the count of them (8 bytes, little-endian) before each."""
        found = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            data = text.encode()
            found.update(len(data).to_bytes(8, "little") + data)
        return found.hexdigest()


def load(settings: Text) -> Documents:
    """Read the documents that the settings name, no more of a stream than is asked for.

    Raises:
        UserError: the text cannot be read, has no documents, or is not what `speedrun.text.digest` says.
    """
    found = Documents(settings.name, tuple(_limited(_read(settings), settings)))
    if not found.texts:
        raise UserError(f"{_is(settings.name)}, which has no text; give text with at least one document")
    if settings.digest and settings.digest != found.digest:
        raise UserError(
            f'"speedrun.text.digest" is {settings.digest}, but the text of "{settings.name}" ({len(found.texts)} '
            f"documents, {found.bytes:,} bytes) hashes to {found.digest}; put back the text that was meant, or write this "
            "digest"
        )
    return found


def _limited(texts: Iterator[str], settings: Text) -> Iterator[str]:
    """The first documents, composed, until `documents` or `bytes` are reached; empty ones do not count."""
    left = settings.bytes or None
    kept = (text for text in (unicodedata.normalize("NFC", text) for text in texts) if text.strip())
    for text in itertools.islice(kept, settings.documents or None):
        data = text.encode()
        if left is None or len(data) < left:
            yield text
            left = None if left is None else left - len(data)
            continue
        if cut := data[:left].decode(errors="ignore"):  # what is ignored is the character that was cut through
            yield cut
        return


def _read(settings: Text) -> Iterator[str]:
    """The texts as they are stored, one after the other."""
    name, path = settings.name, Path(settings.name)
    if name == SAMPLE:
        yield from _column(_jsonl(files("seedfold.text").joinpath("sample.jsonl").read_bytes(), name), settings)
    elif path.suffix == ".txt":
        try:
            yield _bytes(path).decode()
        except UnicodeDecodeError:
            raise UserError(f"{_is(name)}, which is not UTF-8; save it as UTF-8") from None
    elif path.suffix == ".jsonl":
        yield from _column(_jsonl(_bytes(path), name), settings)
    elif path.suffix == ".parquet":
        yield from _column(_parquet(path, settings.column), settings)
    elif path.is_file():
        raise UserError(
            f'{_is(name)}, whose ending "{path.suffix}" is not read; give a .txt, .jsonl or .parquet file or a '
            "Hugging Face dataset"
        )
    else:
        yield from _column(_hub(settings), settings)


def _column(rows: Iterator[dict[str, Any]], settings: Text) -> Iterator[str]:
    for number, row in enumerate(rows, 1):
        text = row.get(settings.column)
        if not isinstance(text, str):
            raise UserError(
                f'"speedrun.text.column" is "{settings.column}", but row {number} of "{settings.name}" has no text there '
                f"(columns {', '.join(row) or 'none'}); name the column that holds the text"
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(
                f'row {number} of "{settings.name}" holds half a character (a lone surrogate); mend or remove it'
            ) from None
        yield text


def _is(name: str | Path) -> str:
    """How errors begin."""
    return f'"speedrun.text.name" is "{name}"'


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{_is(path)}, which cannot be read ({error.strerror}); give a file that exists") from None


def _jsonl(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{_is(name)}, whose line {number} is no JSON object; mend or remove it")
        yield row


def _parquet(path: Path, column: str) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f'reading "{path}" needs pyarrow; run pip install "seedfold[parquet]"') from None
    try:
        with parquet.ParquetFile(path) as file:
            only = [column] if column in file.schema_arrow.names else None
            for batch in file.iter_batches(256, columns=only):
                yield from batch.to_pylist()
    except (OSError, ArrowException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{_is(path)}, which cannot be read ({reason}); give a Parquet file") from None


def _hub(settings: Text) -> Iterator[dict[str, Any]]:
    """Rows of a dataset as they are downloaded."""
    if not settings.documents and not settings.bytes:
        raise UserError(
            f"{_is(settings.name)}, a dataset that would be read to its end; set "
            '"speedrun.text.documents" or "speedrun.text.bytes"'
        )
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{_is(settings.name)}, no file here, and streaming it as a Hugging Face dataset needs the package "
            'datasets; run pip install "seedfold[tasks]", or give a .txt, .jsonl or .parquet file'
        ) from None
    name, _, config = settings.name.partition(":")
    try:
        rows = datasets.load_dataset(
            name, config or None, split=settings.split, revision=settings.revision or None, streaming=True
        )
        for row in rows:
            yield dict(row)
    except Exception as error:  # whatever the hub, the network or the dataset raises is the user's to see
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f'{_is(settings.name)}, split "{settings.split}", which cannot be read ({type(error).__name__}: '
            f"{reason}); give a file, or a dataset that can be reached"
        ) from None
