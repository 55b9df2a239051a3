import errno
import fcntl
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from seedfold import journal as module
from seedfold.errors import UserError
from seedfold.journal import IrreproducibleError, Journal, Row

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {"seed": 1, "search": {"sigmas": [0.001, 0.002], "candidates": 8}}


def row(number: int = 0, recipe: str = "ab12", sample: int = 0, **changes: object) -> Row:
    made = Row(recipe, f"example-{number}", sample, 1.0, 0.5, "42", f"so it is {number}", 10, 20, "stop")
    return replace(made, **changes)


def python(source: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", source, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_what_is_recorded_comes_back_after_reopening(tmp_path):
    rows = [row(n, sample=s, answer=None if n == 1 else str(n)) for n in range(3) for s in range(2)]
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record(rows)
        journal.record([row(0, recipe="cd34")])
    with Journal.open(tmp_path, CONFIG) as journal:
        assert journal.rows("ab12") == rows
        assert journal.rows("ab12", sample=1) == rows[1::2]
        assert journal.rows("ab12", 0, ["example-2", "missing", "example-0"]) == [rows[4], rows[0]]
        assert journal.rows("unknown") == []
        assert journal.done("ab12", ["example-0", "other"]) == {("example-0", 0)}
        assert journal.done("ab12", ["example-0"], (0, 1, 2)) == {("example-0", 0), ("example-0", 1)}
        assert journal.count() == 7
        assert journal.totals() == (7, 140, 70)
        assert journal.config == CONFIG


def test_a_reader_follows_what_is_added_and_reads_nothing_twice(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal, Journal.read(tmp_path) as reader:
        assert reader.since() == (0, [])
        journal.record([row(0), row(1, reward=0.0)])
        place, rows = reader.since()
        assert rows == [("ab12", "example-0", 0, 1.0, 20), ("ab12", "example-1", 0, 0.0, 20)]
        assert reader.since(place) == (place, [])
        journal.record([row(1, reward=0.0), row(2, sample=3)])
        assert reader.since(place)[1] == [("ab12", "example-2", 3, 1.0, 20)]
        assert reader.since(0, most=2) == (place, rows)


def test_an_empty_journal_has_zero_totals(tmp_path):
    with Journal.open(tmp_path / "new" / "folder", {}) as journal:
        journal.record([])
        assert journal.totals() == (0, 0, 0)


def test_an_identical_row_is_skipped_and_a_different_one_is_a_bug(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record([row(0), row(0)])
        journal.record([row(0), row(1)])
        assert journal.count() == 2
        with pytest.raises(IrreproducibleError, match=r"example-1.*reward, completion: reward was 1\.0, now 0\.0"):
            journal.record([row(2), row(1, reward=0.0, completion="else")])
        assert journal.rows("ab12") == [row(0), row(1)]  # not even row 2, of the same batch
        journal.record([row(2)])
        assert journal.count() == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_refused(tmp_path, bad):
    with Journal.open(tmp_path, CONFIG) as journal:
        for change in ({"reward": bad}, {"lenient": bad}):
            with pytest.raises(ValueError, match="example-3"):
                journal.record([row(0), row(3, **change)])
        assert journal.count() == 0


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800 lone", "é\U0001f600", "line\r\nend ", "x" * 1_000_000])
def test_any_text_survives_unchanged(tmp_path, text):
    odd = row(0, completion=text, answer=text, example=f"id {text[:20]}")
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record([odd])
        journal.record([odd])
        journal.add_recipe("ab12", text)
    with Journal.read(tmp_path) as journal:
        assert journal.rows("ab12", 0, [odd.example]) == [odd]
        assert journal.done("ab12", [odd.example]) == {(odd.example, 0)}
        assert journal.recipe_text("ab12") == text


def test_numpy_scalars_are_numbers(tmp_path):
    numpy = pytest.importorskip("numpy")
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record([row(0, reward=numpy.float32(0.25), tokens=numpy.int64(7))])
        assert journal.rows("ab12") == [row(0, reward=0.25, tokens=7)]


def test_recipes_and_notes(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.add_recipe("ff", '{"terms": []}')
        journal.add_recipe("aa", "{}")
        journal.add_recipe("ff", "{}")
        assert journal.recipe_text("ff") == '{"terms": []}'
        with pytest.raises(KeyError):
            journal.recipe_text("bb")
        journal.note("seconds", 1.5)
        journal.note("seconds", {"search": [2, None]})
        with pytest.raises(ValueError, match="JSON"):
            journal.note("seconds", math.nan)
    with Journal.open(tmp_path, CONFIG) as journal:
        assert journal.recipes() == ["ff", "aa"]
        assert journal.recipe_text("ff") == '{"terms": []}'
        assert journal.noted("seconds") == {"search": [2, None]}
        assert journal.noted("nothing", 7) == 7


# Configs and formats


def test_every_differing_field_of_the_config_is_named(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record([row()])
    other = {"seed": 1, "search": {"sigmas": [0.004], "racing": True}}
    with pytest.raises(UserError) as caught:
        Journal.open(tmp_path, other)
    message = str(caught.value)
    assert '"search.sigmas" is [0.004] but this folder\'s journal was made with [0.001,0.002]' in message
    assert '"search.racing" is true but this folder\'s journal was made with it not set' in message
    assert '"search.candidates" is not set but this folder\'s journal was made with 8' in message
    assert '"seed"' not in message
    assert str(tmp_path) in message
    Journal.open(tmp_path, CONFIG).close()  # the refusal left neither a lock nor a change


def test_without_evaluations_a_new_config_is_taken(tmp_path):
    Journal.open(tmp_path, CONFIG).close()
    with Journal.open(tmp_path, {"seed": 2}) as journal:
        assert journal.config == {"seed": 2}


def test_a_config_is_compared_as_json(tmp_path):
    with Journal.open(tmp_path, {"b": (1, 2), "a": {"y": 1, "x": {}}}) as journal:
        journal.record([row()])
    Journal.open(tmp_path, {"a": {"x": {}, "y": 1}, "b": [1, 2]}).close()
    with pytest.raises(UserError, match=r'"a\.x" is not set'):
        Journal.open(tmp_path, {"a": {"y": 1}, "b": [1, 2]})


def test_an_unknown_format_is_refused(tmp_path):
    Journal.open(tmp_path, CONFIG).close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("UPDATE meta SET value = 'seedfold.journal/9' WHERE key = 'schema'")
    db.close()
    for attempt in (lambda: Journal.open(tmp_path, CONFIG), lambda: Journal.read(tmp_path)):
        with pytest.raises(UserError, match=r"seedfold\.journal/9.*seedfold\.journal/1"):
            attempt()


def test_another_sqlite_file_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    with pytest.raises(UserError, match="no journal"):
        Journal.open(tmp_path, CONFIG)


def test_reading_where_there_is_nothing(tmp_path):
    with pytest.raises(UserError, match=r"journal\.sqlite"):
        Journal.read(tmp_path)
    assert list(tmp_path.iterdir()) == []


# Damage


def filled(folder: Path) -> Path:
    with Journal.open(folder, CONFIG) as journal:
        journal.record([row(n, completion="word " * 200) for n in range(300)])
    return folder / "journal.sqlite"


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_inside_a_page(content: bytes) -> bytes:
    return content[: len(content) // 3 + 77]


def emptied(content: bytes) -> bytes:
    return b""


def overwritten(content: bytes) -> bytes:
    return b"not a database at all, " * 1000


def header_only(content: bytes) -> bytes:
    return content[:100]


def corrupt_pages(content: bytes) -> bytes:
    return content[:8192] + random.Random(0).randbytes(len(content) - 8192)


@pytest.mark.parametrize("damage", [truncated, cut_inside_a_page, emptied, overwritten, header_only, corrupt_pages])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path, damage):
    path = filled(tmp_path)
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    for attempt in (lambda: Journal.open(tmp_path, CONFIG), lambda: Journal.read(tmp_path)):
        with pytest.raises(UserError, match=r"journal\.sqlite is damaged \(.*\) and was left as it is; restore it"):
            attempt()
    assert path.read_bytes() == broken


def test_a_log_without_its_database_is_refused(tmp_path):
    (tmp_path / "journal.sqlite-wal").write_bytes(b"log")
    with pytest.raises(UserError, match=r"journal\.sqlite-wal"):
        Journal.open(tmp_path, CONFIG)
    assert (tmp_path / "journal.sqlite-wal").read_bytes() == b"log"


def test_a_creation_that_was_cut_short_is_started_over(tmp_path):
    (tmp_path / "journal.sqlite.part").write_bytes(b"half a databa")
    with Journal.open(tmp_path, CONFIG) as journal:
        assert journal.count() == 0


# The machine says no


def test_a_full_disk_loses_nothing_and_the_run_goes_on_once_there_is_room(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record([row(0)])
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 3}")
        with pytest.raises(UserError, match=r"disk of .* is full; what was recorded is safe"):
            journal.record([row(n, completion="x" * 5000) for n in range(1, 50)])
        assert journal.rows("ab12") == [row(0)]
        journal._db.execute("PRAGMA max_page_count = 1000000")
        journal.record([row(1)])
    with Journal.open(tmp_path, CONFIG) as journal:
        assert journal.count() == 2


def test_a_journal_that_became_read_only(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record([row(0)])
        journal._db.execute("PRAGMA query_only = 1")
        with pytest.raises(UserError, match=r"readonly.*what was recorded is safe"):
            journal.record([row(1)])
        assert journal.count() == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write in the folder .*file/below"):
        Journal.open(tmp_path / "file" / "below", CONFIG)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="No locks available"):
        Journal.open(tmp_path, CONFIG)


# More than one at a time

HOLD = """
import sys, time
from pathlib import Path
from seedfold.journal import Journal
with Journal.open(Path(sys.argv[1]), {}) as journal:
    print("open", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_gone(tmp_path):
    first = python(HOLD, str(tmp_path))
    try:
        assert first.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=rf"pid {first.pid}\) is working in {tmp_path}; wait"):
            Journal.open(tmp_path, {})
        with Journal.read(tmp_path) as journal:
            assert journal.count() == 0
    finally:
        first.kill()
        first.wait()
    Journal.open(tmp_path, {}).close()


FORK = """
import os, sys, time
from pathlib import Path
from seedfold.journal import Journal
journal = Journal.open(Path(sys.argv[1]), {})
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


def test_a_forked_child_does_not_keep_the_folder_of_its_killed_parent(tmp_path):
    parent = python(FORK, str(tmp_path))
    child = int(parent.stdout.readline())
    try:
        time.sleep(0.2)
        parent.kill()
        parent.wait()
        os.kill(child, 0)  # still there
        Journal.open(tmp_path, {}).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_opening_twice_in_one_process_is_refused(tmp_path):
    with Journal.open(tmp_path, CONFIG), pytest.raises(UserError, match=f"pid {os.getpid()}"):
        Journal.open(tmp_path, CONFIG)


WRITE = """
import sys
from pathlib import Path
from seedfold.journal import Journal, Row
with Journal.open(Path(sys.argv[1]), {}) as journal:
    first = journal.count() // 16
    for batch in range(first, 100000):
        journal.record([
            Row("ab", f"{batch}-{n}", 0, 1.0, 1.0, "1", "text " * 300, 5, 300, "stop") for n in range(16)
        ])
        print(batch, flush=True)
"""


def test_kill_9_loses_no_acknowledged_batch_and_leaves_none_in_part(tmp_path):
    clock = random.Random(1)
    acknowledged = -1
    for _ in range(6):
        writer = python(WRITE, str(tmp_path))
        first = writer.stdout.readline()
        time.sleep(clock.uniform(0, 0.2))
        writer.kill()
        lines = [first, *writer.stdout.read().splitlines(keepends=True)]
        writer.wait()
        seen = [int(line) for line in lines if line.endswith("\n")]
        assert seen[0] > acknowledged  # it went on where the last one stopped
        acknowledged = seen[-1]
        with Journal.open(tmp_path, {}) as journal:
            batches: dict[int, int] = {}
            for found in journal.rows("ab"):
                number = int(found.example.split("-")[0])
                batches[number] = batches.get(number, 0) + 1
            assert set(batches.values()) == {16}
            # One batch may be written and killed before it could say so.
            assert len(batches) - 1 in (acknowledged, acknowledged + 1)
            assert sorted(batches) == list(range(len(batches)))
            acknowledged = len(batches) - 1


def test_reading_while_a_run_writes_sees_whole_batches(tmp_path):
    writer = python(WRITE, str(tmp_path))
    try:
        writer.stdout.readline()
        with Journal.read(tmp_path) as journal:
            counts = []
            while len(set(counts)) < 5:
                counts.append(journal.count())
                assert counts[-1] % 16 == 0
            assert counts == sorted(counts)
    finally:
        writer.kill()
        writer.wait()


def test_a_reader_cannot_write_and_needs_no_writable_folder(tmp_path, monkeypatch):
    filled(tmp_path)
    before = sorted(tmp_path.iterdir())
    with Journal.read(tmp_path) as journal, pytest.raises(UserError, match="readonly"):
        journal.record([row(1000)])
    real = sqlite3.connect

    def without_shared_memory(name, **options):
        # What SQLite says of a WAL database in a folder where it may not make its shared-memory file.
        if "mode=ro" in name:
            raise sqlite3.OperationalError("unable to open database file")
        return real(name, **options)

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    with Journal.read(tmp_path) as journal:
        assert journal.count() == 300
    assert [path for path in before if not path.exists()] == []


def test_many_threads_may_record_and_read(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        failures = []

        def work(thread: int) -> None:
            try:
                for batch in range(20):
                    journal.record([row(batch * 4 + n, recipe=f"{thread}") for n in range(4)])
                    assert len(journal.rows(f"{thread}")) == 4 * (batch + 1)
                    assert journal.count() % 4 == 0
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert journal.count() == 6 * 80


def test_ten_thousand_rows_in_batches_of_64_take_seconds_at_most(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        rows = [row(n % 100, recipe=f"{n // 100:064x}", completion="word " * 200) for n in range(10_000)]
        start = time.perf_counter()
        for at in range(0, len(rows), 64):
            journal.record(rows[at : at + 64])
        assert time.perf_counter() - start < 5
        assert journal.count() == 10_000


def test_a_batch_is_flushed_to_the_disk(tmp_path):
    with Journal.open(tmp_path, CONFIG) as journal:
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)


# Parquet


def test_parquet_holds_every_row(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row(n, answer=None if n % 2 else "\0", completion=f"{n} é") for n in range(5000)]
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record(rows)
        journal.record([row(9999, completion="half \ud800!")])
        target = tmp_path / "rows.parquet"
        target.write_text("old")
        journal.export_parquet(target)
        found = [Row(**values) for values in parquet.read_table(target).to_pylist()]
        assert found[:-1] == rows
        assert found[-1].completion == "half \ufffd!"
        assert not list(tmp_path.glob("*.part"))


def test_parquet_of_an_empty_journal_has_the_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.export_parquet(tmp_path / "rows.parquet")
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == 0
    assert table.column_names == list(module.COLUMNS)


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    with Journal.open(tmp_path, CONFIG) as journal:
        journal.record([row(0)])
        with pytest.raises(UserError, match=r"cannot write .*rows\.parquet"):
            journal.export_parquet(tmp_path / "missing" / "rows.parquet")
        (tmp_path / "rows.parquet").write_text("old")
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(UserError, match="No space left"):
            journal.export_parquet(tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").read_text() == "old"
    assert not list(tmp_path.glob("*.part"))


def test_without_pyarrow_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with Journal.open(tmp_path, CONFIG) as journal, pytest.raises(UserError, match=r"seedfold\[parquet\]"):
        journal.export_parquet(tmp_path / "rows.parquet")


def test_the_import_is_light():
    loaded = "import sys, json, seedfold.journal; print(json.dumps(sorted(sys.modules)))"
    process = python(loaded)
    names = set(json.loads(process.communicate()[0]))
    assert not names & {"numpy", "torch", "pyarrow", "scipy"}


def test_the_columns_are_the_fields_of_a_row():
    assert len(module.COLUMNS) == len(astuple(row()))
    assert module._pack_row(row()) == astuple(row())
