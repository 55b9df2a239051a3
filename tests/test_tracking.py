"""Tracking with the real packages: what a study sends is read back from their files; nothing they do stops a study."""

import copy
import importlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import Stop, small_study, write_tiny

import seedfold
from seedfold import tracking
from seedfold.journal import Journal
from seedfold.report.record import TIMES

SINKS = ["tensorboard", "wandb", "trackio"]
Points = list[tuple[int, dict[str, float]]]


class Told(Stop):
    """Keeps what is said too."""

    def __init__(self, after: float = float("inf")) -> None:
        super().__init__(after)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tracked")
    return small_study(folder, write_tiny(folder / "model"), candidates=5, votes=[1, 2])


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in SINKS:
        pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    importlib.import_module("trackio.utils")
    for module in [name for name in sys.modules if name.startswith("trackio")]:
        if hasattr(sys.modules[module], "TRACKIO_DIR"):  # read once, as it loads
            monkeypatch.setattr(sys.modules[module], "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(tracking, "EVERY", 0.0)


def with_sinks(settings: dict[str, Any], *sinks: str) -> dict[str, Any]:
    return {**copy.deepcopy(settings), "tracking": {"sinks": list(sinks), "project": "trial", "run": "one"}}


def merged(points: Points) -> Points:
    """One entry a step, in the order in which steps first come."""
    found: dict[int, dict[str, float]] = {}
    for step, numbers in points:
        found.setdefault(step, {}).update(numbers)
    return list(found.items())


def of_tensorboard(folder: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    assert all(len({one.step for one in found}) == len(found) for found in scalars.values()), "a step stands twice"
    points = [(one.step, {name: one.value}) for name, found in scalars.items() for one in found]
    return merged(sorted(points, key=lambda point: point[0]))


def wandb_records(path: Path) -> Iterator[Any]:
    """Records of a .wandb file: after a header of 7 bytes, LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    raw, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(raw):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", raw[place : place + 7])
        whole += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def of_wandb(folder: Path) -> Points:
    points: Points = []
    runs = set()
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for record in wandb_records(path):
            if record.WhichOneof("record_type") == "run":
                runs.add(record.run.run_id)
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                points.append((items["_step"], {k: v for k, v in items.items() if not k.startswith("_")}))
    assert len(runs) == 1
    return points


def of_trackio(folder: Path) -> Points:
    with sqlite3.connect(folder.parent / "trackio" / "trial.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert len({name for name, *_ in rows}) == 1
    assert rows[0][0].startswith("one-")
    return [(step, json.loads(metrics)) for _, step, metrics in rows]


READ = {"tensorboard": of_tensorboard, "wandb": of_wandb, "trackio": of_trackio}


def test_a_study_that_was_stopped_and_resumed_is_one_run_without_a_step_twice(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    out, tracked = tmp_path / "out", with_sinks(settings, *SINKS)
    with pytest.raises(KeyboardInterrupt):
        seedfold.run(tracked, out, Told(after=24 * 4))
    told = Told()
    done = seedfold.run(tracked, out, told)
    seedfold.run(tracked, out, told)  # nothing is left to send
    assert not [text for text in told.said if "tracking" in text]
    lines = {line["kind"]: line for line in done.record["results"]}
    for name, read in READ.items():
        points = read(out)
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), name
        assert min(steps) < 24 * 4 < max(steps)
        ends = {key: value for _, numbers in points for key, value in numbers.items()}
        assert ends["test/best_single/accuracy"] == pytest.approx(lines["single"]["accuracy"]), name
        assert ends["test/base/accuracy"] == pytest.approx(lines["base"]["accuracy"])
        assert ends["select/vote_2"] == pytest.approx(done.record["votes"][1]["vote"])
        assert ends["search/base"] == pytest.approx(done.record["base"]["search"])
        assert ends["spent/evaluations"] == done.record["evaluations"]
        assert ends["search/scored"] == 5
        once = [step for step, numbers in points if "test/base/accuracy" in numbers]
        assert len(once) == 1, name
        until = next(step for step, numbers in points if "search/reliability" in numbers)
        assert not [1 for step, numbers in points if step < until and any(key[:4] == "test" for key in numbers)]


KILLED = """
import json, sys, seedfold
from seedfold import tracking
tracking.EVERY = 0.0
seedfold.run(json.loads(sys.argv[1]), sys.argv[2])
"""


def test_a_study_that_was_killed_goes_on_as_the_same_run(settings: dict[str, Any], tmp_path: Path) -> None:
    out, tracked = tmp_path / "out", with_sinks(settings, *SINKS)
    command = [sys.executable, "-c", KILLED, json.dumps(tracked), str(out)]
    own = {
        name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"
    }  # or wandb would share a process
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=own)
    while recorded(out) < 24 * 3:
        assert run.poll() is None
        time.sleep(0.02)
    run.kill()
    run.wait()
    done = seedfold.run(tracked, out)
    for name, read in READ.items():
        points = read(out)
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), name
        assert max(steps) >= done.record["evaluations"]
    assert min(step for step, _ in of_tensorboard(out)) < 24 * 3  # what was sent before the kill is there


def recorded(folder: Path) -> int:
    if not (folder / "journal.sqlite").exists():
        return 0
    with Journal.read(folder) as journal:
        return journal.count()


def test_a_folder_is_not_bound_to_its_tracking_and_the_record_is_the_same(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    plain = seedfold.run(settings, tmp_path / "plain").record
    with pytest.raises(KeyboardInterrupt):
        seedfold.run(settings, tmp_path / "out", Told(after=60))
    tracked = seedfold.run(with_sinks(settings, "tensorboard"), tmp_path / "out").record
    for record in (plain, tracked):
        del record["config"]["tracking"]
        for name in TIMES:
            del record[name]
    assert tracked == plain
    assert of_tensorboard(tmp_path / "out")


def test_a_sink_that_fails_is_said_once_and_dropped(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seedfold.tracking.tensorboard import TensorBoard

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(TensorBoard, "log", fail)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    told = Told()
    done = seedfold.run(with_sinks(settings, *SINKS), tmp_path / "out", told)
    assert done.record["results"]
    said = [text for text in told.said if "tracking" in text]
    assert len(said) == 2
    assert "wandb is dropped, the study goes on (ModuleNotFoundError" in said[0]
    assert 'pip install "seedfold[tracking]"' in said[0]
    assert said[1] == "tracking: tensorboard is dropped, the study goes on (OSError: no space left)"
    assert of_trackio(tmp_path / "out")


def test_a_look_that_fails_does_not_stop_the_study(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "standing", lambda view: 1 / 0)
    told = Told()
    assert seedfold.run(with_sinks(settings, "tensorboard"), tmp_path / "out", told).record["results"]
    assert [text for text in told.said if "tracking" in text] == [
        "tracking is given up, the study goes on (ZeroDivisionError: division by zero)"
    ]


def test_secrets_are_not_sent(settings: dict[str, Any], tmp_path: Path) -> None:
    tracked = with_sinks(settings, *SINKS)
    seedfold.run(tracked, tmp_path / "out")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"0123456789" * 4 not in written
    config = {
        "task": {
            "name": "writing",
            "max_tokens": 64,
            "options": {
                "judge_url": "http://me:key@host/v1",
                "key_variable": "X",
                "api_key": "hidden",
                "style": "short",
            },
        },
        "model": {"name": "https://me:pass@hub/model", "hub_token": "hidden"},
    }
    assert tracking.public(config) == {
        "task": {"name": "writing", "max_tokens": 64, "options": {"style": "short"}},
        "model": {"name": "https://hub/model"},
    }


def test_unknown_sinks_are_refused() -> None:
    with pytest.raises(seedfold.UserError, match=r'"tracking.sinks" is .*; use some of tensorboard, wandb, trackio'):
        seedfold.config.from_dict({"tracking": {"sinks": ["mlflow"]}})
