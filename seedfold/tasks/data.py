"""Rows of a data file (.jsonl, .parquet) or of a Hugging Face dataset, with their numbers for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from seedfold.config import Task as Settings
from seedfold.errors import UserError

Row = tuple[int, dict[str, Any]]
"""(number in the file, from 1; columns). In JSON Lines the number is that of the line."""

_OTHER_FILES = {".json", ".csv", ".tsv", ".txt", ".gz", ".zst", ".arrow", ".xlsx", ".yaml", ".yml", ".toml"}


def published(settings: Settings, hub: str, only: str = "") -> list[Row]:
    """Rows of `task.path`, or where that is empty of a task's published dataset.

    only: the one split that this has, which is then read unless another one than the default is asked for.
    """
    path, split = settings.path or hub, settings.hub_split
    return rows(path, only if only and path == hub and split == Settings().hub_split else split, settings.examples)


def rows(path: str, split: str = "train", limit: int = 0) -> list[Row]:
    """Read a file by its ending, or else the dataset of that hub name (`owner/name` or `owner/name:config`).

    limit: how many rows to read at most; 0: all.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f'"task.path" is "{path}", a folder; give a .jsonl or .parquet file')
    if file.suffix == ".jsonl":
        found = _jsonl(file)
    elif file.suffix == ".parquet":
        found = _parquet(file)
    elif file.exists() or file.suffix in _OTHER_FILES:
        raise UserError(
            f'"task.path" is "{path}", whose ending "{file.suffix}" is not read; '
            "give a .jsonl or .parquet file or a Hugging Face dataset"
        )
    else:
        found = _hub(path, split)
    result = list(islice(found, limit or None))
    if not result:
        raise UserError(f'"{path}" has no rows; give data with at least one example')
    return result


def _jsonl(file: Path) -> Iterator[Row]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from None
    # Split at \n only: U+2028 and its like are legal inside JSON strings, and str.splitlines would cut there.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise UserError(f'"{file}" is not UTF-8 in line {number}; save it as UTF-8') from None
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or type(error).__name__
            raise UserError(f'"{file}" line {number} is not valid JSON ({reason}); mend or remove it') from None
        if not isinstance(row, dict):
            raise UserError(
                f'"{file}" line {number} is a JSON {type(row).__name__}, not an object; write one {{...}} per line'
            )
        yield number, row


def _parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f'reading "{file}" needs pyarrow; pip install "seedfold[parquet]"') from None
    try:
        table = parquet.read_table(file)
    except (OSError, ArrowException) as error:
        raise _unreadable(file, error) from None
    yield from enumerate(table.to_pylist(), 1)


def _hub(path: str, split: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f'"{path}" is no .jsonl or .parquet file, and reading it as a Hugging Face dataset needs the package '
            'datasets; pip install "seedfold[tasks]" or give a file in "task.path"'
        ) from None
    name, _, config = path.partition(":")
    try:
        data = datasets.load_dataset(name, config or None, split=split)
    except Exception as error:  # whatever the hub, the network or the dataset raises is the user's to see
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f'Hugging Face dataset "{path}", split "{split}", cannot be read ({type(error).__name__}: {reason}); '
            'check "task.path" and "task.hub_split"'
        ) from None
    yield from enumerate((dict(row) for row in data), 1)


def _unreadable(file: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f'data file "{file}" does not exist; check "task.path"')
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f'data file "{file}" cannot be read ({reason}); check "task.path"')
