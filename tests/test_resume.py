"""A study that is killed, again and again, ends as one that never was."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from checkpoints import small_study, write_tiny

import seedfold
from seedfold.report.record import TIMES

CONFIG = """
name = "killed"
[splits]
search = 24
select = 16
test = 16
[search]
candidates = 10
sigmas = [2e-3, 4e-3]
votes = [2, 4]
racing = true
block = 8
[engine]
batch = 16
[stats]
resamples = 500
"""
KILLS = 10


def command(config: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "seedfold", "run", str(config), "--out", str(out)]


SCRIPT = """
import json, sys, seedfold
config, out = sys.argv[1:]
seedfold.run(json.loads(open(config).read()), out)
"""


def recorded(folder: Path) -> int:
    """Evaluations in the journal so far, 0 before there is one."""
    path = folder / "journal.sqlite"
    if not path.exists():
        return 0
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as database:
        return int(database.execute("SELECT count(*) FROM evaluations").fetchone()[0])


def kill_at(command: list[str], out: Path, goal: int, delay: float) -> None:
    """Start the study and kill it `delay` seconds after its journal holds `goal` evaluations."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while recorded(out) < goal:
        assert process.poll() is None, "the study ended before it could be killed"
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


Outcome = tuple[dict[str, Any], dict[str, str], list[tuple[object, ...]]]


def outcome(folder: Path) -> Outcome:
    """The record without its times, the recipes, and every evaluation."""
    record = json.loads((folder / "record.json").read_text())
    for name in TIMES:
        del record[name]
    recipes = {path.name: path.read_text() for path in (folder / "recipes").iterdir()}
    with sqlite3.connect(folder / "journal.sqlite") as database:
        rows = database.execute("SELECT * FROM evaluations ORDER BY recipe, example, sample").fetchall()
    return record, recipes, rows


def assert_same(one: Outcome, other: Outcome) -> None:
    """What differs is shown, and nothing else: first the evaluations, from which all the rest is made."""
    assert [pair for pair in zip(one[2], other[2], strict=True) if pair[0] != pair[1]] == []
    assert one[1] == other[1]
    assert {name: (one[0][name], other[0][name]) for name in one[0] if one[0][name] != other[0][name]} == {}
    assert list(one[0]) == list(other[0])


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(config, whole), check=True, capture_output=True)
    total = recorded(whole)
    moments = random.Random(7)
    before = []
    for goal in sorted(moments.randrange(total - 20) for _ in range(KILLS)):
        goal = max(goal, recorded(killed))
        kill_at(command(config, killed), killed, goal, moments.random() * 0.3)
        before.append(recorded(killed))
    assert before == sorted(before), "a kill lost evaluations"
    assert not (killed / "record.json").exists()
    subprocess.run(command(config, killed), check=True, capture_output=True)
    assert_same(outcome(killed), outcome(whole))


def test_kills_change_nothing_with_engines_in_processes_of_their_own(tmp_path: Path) -> None:
    settings: dict[str, Any] = small_study(tmp_path, write_tiny(tmp_path / "model"), racing=True, block=8)
    settings["task"] |= {"limit": "learned", "max_tokens": 80, "stop": ["w"]}
    seedfold.run(settings, tmp_path / "one")
    total = recorded(tmp_path / "one")
    settings["engine"]["count"] = 2
    config, killed = tmp_path / "config.json", tmp_path / "killed"
    config.write_text(json.dumps(settings))
    run = [sys.executable, "-c", SCRIPT, str(config), str(killed)]
    moments = random.Random(3)
    before = [0]
    for share in (0.1, 0.6):
        kill_at(run, killed, max(round(share * total), before[-1] + 1), moments.random() * 0.02)
        before.append(recorded(killed))
    assert before == sorted(before), "a kill lost evaluations"
    assert not (killed / "record.json").exists()
    subprocess.run(run, check=True, capture_output=True)
    busy = json.loads((killed / "engines.json").read_text())
    assert set(busy["engines"]) == {"0", "1"}
    assert all(0 < row[3] <= row[2] - row[1] + 0.02 and row[4] >= 0 for row in busy["rows"])
    found, expected = outcome(killed), outcome(tmp_path / "one")
    assert found[0].pop("machine")["engines"] == 2
    assert found[0]["config"]["engine"].pop("count") == 2
    del expected[0]["machine"], expected[0]["config"]["engine"]["count"]
    assert_same(found, expected)
