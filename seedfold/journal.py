"""The durable record of every evaluation: one SQLite file in the study's folder.

A batch is one transaction, written as soon as it is graded. Whatever kills the process, by any signal or by loss of
power, every batch that `record` returned from is there afterwards, and no batch is there in part.

WAL mode, so that a report can read while a run writes. `synchronous = FULL`, one flush per batch: NORMAL would survive
kill -9 as well but may lose the last batches when the machine itself goes down. The flush takes milliseconds, a batch
seconds, so the stronger promise costs nothing one can measure.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from seedfold.errors import UserError

SCHEMA = "seedfold.journal/1"
FILE = "journal.sqlite"
LOCK = "lock"

# The tables are ordinary ones, with a separate index on the key: completions run to kilobytes, and a table without
# row ids would carry them inside the very tree that `done` searches.
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE recipes (key TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE evaluations (
    recipe TEXT NOT NULL,
    example TEXT NOT NULL,
    sample INTEGER NOT NULL,
    reward REAL NOT NULL,
    lenient REAL NOT NULL,
    answer TEXT,
    completion TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    finish TEXT NOT NULL,
    PRIMARY KEY (recipe, example, sample)
);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer of one recipe to one example. (recipe, example, sample) is the key."""

    recipe: str  # the recipe's key, a hex digest
    example: str  # the example's id
    sample: int  # 0 is the greedy answer, 1 … M are sampled ones
    reward: float  # strict reading
    lenient: float  # lenient reading
    answer: str | None  # what is voted on; None where the completion gives no answer
    completion: str
    prompt_tokens: int
    tokens: int  # generated
    finish: str  # "stop" or "length"


COLUMNS = tuple(field.name for field in fields(Row))
SELECT = f"SELECT {', '.join(COLUMNS)} FROM evaluations"
INSERT = (
    f"INSERT INTO evaluations ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    "ON CONFLICT (recipe, example, sample) DO NOTHING"
)


class IrreproducibleError(RuntimeError):
    """The same evaluation came out differently the second time: a bug, since nothing may depend on when it ran."""


class Journal:
    """Open with `Journal.open` to write or `Journal.read` to look; close it, or use it in a `with` statement.

    Safe to use from several threads; one process at a time may write. Every method raises UserError if the disk is
    full, the folder has become read-only, or the file turns out to be damaged.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection, lock: int | None) -> None:
        self.folder = folder
        self._db = database
        self._lock = lock  # file descriptor, None for a reader
        self._turn = threading.RLock()

    # Opening and closing

    @classmethod
    def open(cls, folder: Path, config: dict[str, Any]) -> Journal:
        """Create the journal of `folder`, or continue it, and hold the folder until closed.

        `config` must be what JSON can say, without NaN. UserError if another run holds the folder, if the journal was
        made with another config (every differing field is named), by another version, or is damaged; in none of these
        cases is the file changed. A journal without evaluations takes the new config: a first try that failed on a bad
        setting binds nobody.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(folder)
        except OSError as error:
            raise UserError(f"cannot write in the folder {folder} ({error.strerror}); choose another --out") from error
        try:
            with _plainly(folder):
                if not (folder / FILE).exists():
                    _create(folder, config)
                # Looked at through a read-only connection first: a writing one could change a damaged file.
                with cls.read(folder) as journal:
                    if journal.count():
                        _same_config(folder, _canonical(config), _canonical(journal.config))
                db = sqlite3.connect(folder / FILE, timeout=60, isolation_level=None, check_same_thread=False)
                try:
                    db.execute("PRAGMA journal_mode = WAL")
                    db.execute("PRAGMA synchronous = FULL")
                    db.execute("UPDATE meta SET value = ? WHERE key = 'config'", (_canonical_text(config),))
                except BaseException:
                    db.close()
                    raise
        except BaseException:
            _drop_lock(lock)
            raise
        return cls(folder, db, lock)

    @classmethod
    def read(cls, folder: Path) -> Journal:
        """Open for reading only: any config, no lock, also while a run is writing, also in a read-only folder."""
        folder = Path(folder)
        path = folder / FILE
        if not path.is_file():
            raise UserError(f"{folder} has no {FILE}; give the folder of a study that has been started")
        if path.stat().st_size == 0:
            raise UserError(_damaged(folder, "it is empty"))
        with _plainly(folder):
            db = _connect_read_only(path)
            try:
                problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                known = db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'").fetchone()
                found = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() if known else None
                if problem != "ok":
                    raise UserError(_damaged(folder, problem.splitlines()[-1]))
                if found is None:
                    raise UserError(f"{path} is an SQLite file but no journal; move it away or use another --out")
                if found[0] != SCHEMA:
                    raise UserError(
                        f"{path} has format {found[0]!r} but this version reads {SCHEMA!r}; "
                        "use the seedfold version that made it, or another --out"
                    )
            except BaseException:
                db.close()
                raise
        return cls(folder, db, None)

    def close(self) -> None:
        """Give the folder back. Closing twice is harmless."""
        with self._turn:
            self._db.close()
            if self._lock is not None:
                _drop_lock(self._lock)
                self._lock = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Evaluations

    def record(self, rows: Sequence[Row]) -> None:
        """Write all rows or none; they are on the disk when this returns.

        A row that is there already with the same content is skipped. IrreproducibleError if its content differs,
        ValueError for a reward that is not finite.
        """
        packed = [_pack_row(row) for row in rows]
        with self._transaction() as db:
            if db.executemany(INSERT, packed).rowcount == len(packed):
                return
            for row in packed:
                key = row[:3]
                known = db.execute(f"{SELECT} WHERE recipe = ? AND example = ? AND sample = ?", key).fetchone()
                differing = [name for name, old, new in zip(COLUMNS, known, row, strict=True) if old != new]
                if differing:
                    first = COLUMNS.index(differing[0])
                    raise IrreproducibleError(
                        f"recipe {key[0]!r}, example {key[1]!r}, sample {key[2]} was evaluated twice with different "
                        f"{', '.join(differing)}: {differing[0]} was {known[first]!r:.200}, now {row[first]!r:.200}"
                    )

    def rows(self, recipe: str, sample: int | None = None, examples: Sequence[str] | None = None) -> list[Row]:
        """Rows of a recipe: in the order of `examples`, or all of them ordered by example id, then by sample.

        sample: only this one. Examples that were not evaluated are left out.
        """
        query = f"{SELECT} WHERE recipe = ?"
        values: list[Any] = [_pack(recipe)]
        if sample is not None:
            query += " AND sample = ?"
            values.append(sample)
        found = [_unpack_row(row) for row in self._all(f"{query} ORDER BY example, sample", values)]
        if examples is None:
            return found
        place = {example: index for index, example in enumerate(examples)}
        return sorted((row for row in found if row.example in place), key=lambda row: place[row.example])

    def done(self, recipe: str, examples: Collection[str], samples: Collection[int] = (0,)) -> set[tuple[str, int]]:
        """Which (example, sample) of those asked for are recorded."""
        wanted, kinds = set(examples), set(samples)
        found = self._all("SELECT example, sample FROM evaluations WHERE recipe = ?", [_pack(recipe)])
        pairs = {(_unpack(example), sample) for example, sample in found}
        return {(example, sample) for example, sample in pairs if example in wanted and sample in kinds}

    def count(self) -> int:
        """Evaluations recorded."""
        return int(self._all("SELECT count(*) FROM evaluations")[0][0])

    def totals(self) -> tuple[int, int, int]:
        """(evaluations, generated tokens, prompt tokens) recorded."""
        query = "SELECT count(*), coalesce(sum(tokens), 0), coalesce(sum(prompt_tokens), 0) FROM evaluations"
        evaluations, generated, prompt = self._all(query)[0]
        return evaluations, generated, prompt

    def since(self, place: int = 0, most: int = 20_000) -> tuple[int, list[tuple[str, str, int, float, int]]]:
        """What was recorded after a place: (the place now, [(recipe, example, sample, reward, tokens), ...]).

        Place 0 is the beginning; at most `most` rows at once. For a look at a journal that grows: each row is read once,
        and no completion.
        """
        columns = "rowid, recipe, example, sample, reward, tokens"
        query = f"SELECT {columns} FROM evaluations WHERE rowid > ? ORDER BY rowid LIMIT ?"
        found = self._all(query, [place, most])
        rows = [
            (_unpack(recipe), _unpack(example), sample, reward, tokens)
            for _, recipe, example, sample, reward, tokens in found
        ]
        return (found[-1][0] if found else place), rows

    # Recipes, notes, config

    def add_recipe(self, key: str, text: str) -> None:
        """Keep a recipe's JSON text, so that every key can be rebuilt from the journal alone.

        The first text stays: who comes to the same model by another way says so in another text, under the same key.
        """
        with self._transaction() as db:
            row = (_pack(key), _pack(text))
            db.execute("INSERT INTO recipes (key, text) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", row)

    def recipe_text(self, key: str) -> str:
        """The first text given to `add_recipe`. KeyError if there is none."""
        found = self._all("SELECT text FROM recipes WHERE key = ?", [_pack(key)])
        if not found:
            raise KeyError(key)
        return _unpack(found[0][0])

    def recipes(self) -> list[str]:
        """Keys of all recipes, in the order they were added."""
        return [_unpack(key) for (key,) in self._all("SELECT key FROM recipes ORDER BY rowid")]

    def note(self, key: str, value: Any) -> None:
        """Keep a small JSON value under a name (seconds spent so far, say), replacing what was there."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO notes (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, _canonical_text(value)),
            )

    def noted(self, key: str, default: Any = None) -> Any:
        """The value last noted under `key`, or `default`."""
        found = self._all("SELECT value FROM notes WHERE key = ?", [key])
        return json.loads(found[0][0]) if found else default

    @property
    def config(self) -> dict[str, Any]:
        """The config that the journal was made with."""
        return dict(json.loads(self._all("SELECT value FROM meta WHERE key = 'config'")[0][0]))

    # Export

    def export_parquet(self, path: Path) -> None:
        """Write all evaluations to a Parquet file, one column per field of Row, in the order they were recorded.

        Streams, so the journal may be larger than memory; `path` is replaced only once the new file is complete.
        Parquet text is UTF-8, so a lone surrogate becomes U+FFFD there.
        """
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UserError('Parquet needs pyarrow; install it with pip install "seedfold[parquet]"') from error
        text = pyarrow.string()
        kinds = {"str": text, "str | None": text, "int": pyarrow.int64(), "float": pyarrow.float64()}
        schema = pyarrow.schema([(field.name, kinds[str(field.type)]) for field in fields(Row)])
        path = Path(path)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            # An own connection sees one state of the journal throughout and keeps no writer waiting.
            with _plainly(self.folder), Journal.read(self.folder) as snapshot:
                cursor = snapshot._db.execute(f"{SELECT} ORDER BY rowid")
                with parquet.ParquetWriter(part, schema) as writer:
                    while batch := cursor.fetchmany(4096):
                        clean = [[_utf8(value) for value in column] for column in zip(*batch, strict=True)]
                        writer.write_batch(pyarrow.record_batch(clean, schema=schema))
            os.replace(part, path)
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror or error}); choose another path") from error
        finally:
            with suppress(OSError):
                part.unlink()

    # Every use of the connection passes through these two

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn, _plainly(self.folder):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # After a full disk SQLite has sometimes rolled back by itself, and then a second time is an error.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._turn, _plainly(self.folder):
            return self._db.execute(query, values).fetchall()


# Making, opening, refusing


def _create(folder: Path, config: dict[str, Any]) -> None:
    """Made under another name and renamed when complete, so a journal.sqlite is never half made."""
    path, part = folder / FILE, folder / f"{FILE}.part"
    if Path(f"{path}-wal").exists():
        raise UserError(
            f"{folder} has {FILE}-wal but no {FILE}; restore the missing file, move the other away or use another --out"
        )
    for stale in (part, Path(f"{part}-journal")):
        stale.unlink(missing_ok=True)
    db = sqlite3.connect(part, isolation_level=None)
    try:
        db.executescript(TABLES)
        meta = [("schema", SCHEMA), ("config", _canonical_text(config))]
        db.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", meta)
    finally:
        db.close()
    os.replace(part, path)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)  # or the new name itself might not outlive a loss of power
    finally:
        os.close(directory)


def _connect_read_only(path: Path) -> sqlite3.Connection:
    def connect(options: str) -> sqlite3.Connection:
        uri = f"{path.resolve().as_uri()}?{options}"
        db = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    try:
        return connect("mode=ro")
    except sqlite3.OperationalError:
        # WAL needs a shared-memory file beside the database, which a read-only folder does not let it make. Without
        # a log there is nothing that could change meanwhile, and SQLite may be told so.
        wal = Path(f"{path}-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        return connect("immutable=1")


def _damaged(folder: Path, problem: str) -> str:
    return (
        f"{folder / FILE} is damaged ({problem}) and was left as it is; "
        "restore it from a copy, move it away, or use another --out"
    )


@contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    """Turn what SQLite says of the machine into one sentence for the user; bugs pass through."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name == "SQLITE_FULL":
            raise UserError(_full(folder)) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise UserError(_damaged(folder, str(error))) from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM", "SQLITE_BUSY")):
            raise UserError(
                f"cannot use {folder / FILE} ({error}); what was recorded is safe, make the folder readable and "
                "writable, then run the same command again"
            ) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(_full(folder)) from error
        raise


def _full(folder: Path) -> str:
    return f"the disk of {folder} is full; what was recorded is safe, free some space and run the same command again"


def _canonical_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(config: dict[str, Any]) -> dict[str, str]:
    """Dotted path of every field → its JSON text. Lists are compared whole."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for key in value:
                yield from walk(f"{prefix}.{key}" if prefix else key, value[key])
        else:
            yield prefix, _canonical_text(value)

    return dict(walk("", json.loads(_canonical_text(config))))


def _same_config(folder: Path, now: dict[str, str], then: dict[str, str]) -> None:
    differing = [path for path in sorted(now.keys() | then.keys()) if now.get(path) != then.get(path)]
    if differing:
        listed = "; ".join(
            f'config "{path}" is {now.get(path, "not set")} but this folder\'s journal was made with '
            f"{then.get(path, 'it not set')}"
            for path in differing
        )
        raise UserError(f"{listed}; go back to the recorded values, or use another --out than {folder}")


# The lock

_held: set[int] = set()


def _forget_locks() -> None:
    """A forked child must not keep the folder locked after its parent was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


def _take_lock(folder: Path) -> int:
    """File descriptor of the lock, which the kernel frees when the process ends, however it ends."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # the number is only for the message below; a full disk may deny it
            os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace") or "unknown"
        os.close(descriptor)
        raise UserError(
            f"another run (pid {holder}) is working in {folder}; wait until it has ended or use another --out"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    _held.add(descriptor)
    return descriptor


def _drop_lock(descriptor: int) -> None:
    # In a forked child the descriptor was closed already, and its number may belong to something else.
    if descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


# Text. A model can emit half of a surrogate pair, which UTF-8, and so SQLite's TEXT, cannot hold. Such a string is kept
# as a BLOB instead and comes back unchanged, because a resumed run must see what the first one saw.


def _pack(text: str) -> str | bytes:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _unpack(value: str | bytes) -> str:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def _utf8(value: Any) -> Any:
    if isinstance(value, bytes):
        return _unpack(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _pack_row(row: Row) -> tuple[Any, ...]:
    # SQLite would store NaN as NULL.
    if not (math.isfinite(row.reward) and math.isfinite(row.lenient)):
        raise ValueError(f"rewards of example {row.example!r} must be finite, not {row.reward} and {row.lenient}")
    # float and int, because SQLite's module does not know numpy's scalars.
    return (
        _pack(row.recipe),
        _pack(row.example),
        int(row.sample),
        float(row.reward),
        float(row.lenient),
        None if row.answer is None else _pack(row.answer),
        _pack(row.completion),
        int(row.prompt_tokens),
        int(row.tokens),
        row.finish,
    )


def _unpack_row(values: tuple[Any, ...]) -> Row:
    unpacked: list[Any] = [_unpack(value) if isinstance(value, bytes) else value for value in values]
    return Row(*unpacked)
