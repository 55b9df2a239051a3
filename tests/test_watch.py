"""A study watched while it runs, when it stopped and at its end: what is shown follows from its journal, from search."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Stop, small_study, write_tiny

import seedfold
from seedfold import UserError, cli
from seedfold.journal import Journal
from seedfold.recipe import Recipe
from seedfold.report.live import dashboard, page, status
from seedfold.watch import Watch, watch


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("watched")
    return small_study(folder, write_tiny(folder / "model"))


@pytest.fixture(scope="module")
def stopped(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was stopped when the base and some of the nine candidates had answered search."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        seedfold.run(settings, folder, Stop(24 * 7))
    return folder


def rewards(folder: Path) -> dict[str, list[float]]:
    """Of each recipe on search, by an own way."""
    with Journal.read(folder) as journal:
        ids = journal.noted("splits")["search"]
        return {key: [row.reward for row in journal.rows(key, 0, ids)] for key in journal.recipes()}


def test_a_stopped_study_shows_what_its_journal_has(stopped: Path) -> None:
    eye = Watch(stopped)
    view = eye.look()
    every = rewards(stopped)
    with Journal.read(stopped) as journal:
        base = next(key for key in every if not Recipe.from_json(journal.recipe_text(key)).terms)
        assert view.done == journal.count()
        assert view.tokens == journal.totals()[1]
    complete = {key: found for key, found in every.items() if key != base and len(found) == 24}
    assert view.phase == "search"
    assert view.base == pytest.approx(np.mean(every[base]))
    assert view.scored == len(complete) >= 4
    assert not view.finished
    top = view.top[0]
    assert sorted(one.search for one in view.top) == pytest.approx(
        sorted(np.mean(found) for found in complete.values())
    )
    assert top.difference == pytest.approx(top.search - view.base)
    assert [one.expected for one in view.top] == sorted((one.expected for one in view.top), reverse=True)
    assert view.best[-1][1] == pytest.approx(max(np.mean(found) for found in complete.values()))
    assert view.planned > view.done
    eye.journal.close()


def test_it_ends_where_no_process_works_and_is_read_only(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in stopped.iterdir() if path.is_file() and "-" not in path.name}
    (stopped / "lock").write_text("")  # as of a process that is gone
    monkeypatch.setattr("seedfold.watch.WINDOW", 0.0)
    stream = io.StringIO()
    watch(stopped, every=0.01, stream=stream)
    first, last = stream.getvalue().splitlines()
    assert re.match(r"search: \d+ of \d+ answers \(\d+%\), .*best of \d+: [\d.]+ %, base [\d.]+ %", first)
    assert "no process on this machine" in last
    after = {path: path.read_bytes() for path in before}
    assert {path for path in before if before[path] != after[path]} <= {stopped / "lock"}


def test_the_rate_is_of_new_answers_only(
    stopped: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    with Journal.read(stopped) as journal:
        bound, rows = journal.config, [row for key in journal.recipes() for row in journal.rows(key)]
        texts = {key: journal.recipe_text(key) for key in journal.recipes()}
    with Journal.open(tmp_path, bound) as journal:
        journal.note("seconds", 5.0)  # it ran before: nobody knows how long the answers that are there took
        for key, text in texts.items():
            journal.add_recipe(key, text)
        journal.record(rows[:40])
        eye = Watch(tmp_path)
        assert eye.look().rate is None
        now[0] += 10
        journal.record(rows[40:70])
        view = eye.look()
        assert view.rate == pytest.approx(3.0)
        assert view.left == pytest.approx((view.planned - 70) / 3)
        eye.journal.close()


def test_nothing_of_select_gate_and_test_is_shown(settings: dict[str, Any], tmp_path: Path) -> None:
    search, rest = 10 * 24, 5 * 12 + 4 * 12
    with pytest.raises(KeyboardInterrupt):
        seedfold.run(settings, tmp_path, Stop(search + rest + 8))
    eye = Watch(tmp_path)
    view = eye.look()
    assert view.phase == "test"
    assert {one.examples for one in view.top} == {24}
    found = rewards(tmp_path)
    assert sorted(one["search"] for one in view.drawn) == pytest.approx(
        sorted(np.mean(found[key]) for key in found if len(found[key]) == 24 and key != _base(tmp_path))
    )
    eye.journal.close()


def _base(folder: Path) -> str:
    with Journal.read(folder) as journal:
        return next(key for key in journal.recipes() if not Recipe.from_json(journal.recipe_text(key)).terms)


def test_from_another_process_while_it_runs_and_at_its_end(settings: dict[str, Any], tmp_path: Path) -> None:
    config, out = tmp_path / "config.json", tmp_path / "out"
    config.write_text(json.dumps(settings))
    source = "import json, sys, seedfold; seedfold.run(json.load(open(sys.argv[1])), sys.argv[2])"
    run = subprocess.Popen([sys.executable, "-c", source, str(config), str(out)])
    try:
        while not (out / "journal.sqlite").exists():
            assert run.poll() is None
            time.sleep(0.05)
        eye = Watch(out)
        seen = []
        while not (view := eye.look()).finished:
            assert run.poll() in (None, 0)
            assert view.process in (run.pid, None)
            seen.append((view.done, view.phase))
            time.sleep(0.05)
        assert run.wait(60) == 0
    finally:
        run.kill()
    eye.journal.close()
    assert seen == sorted(seen, key=lambda one: one[0])
    assert {phase for _, phase in seen} >= {"loading", "search"}
    assert view.done == json.loads((out / "record.json").read_text())["evaluations"]
    assert view.phase == "finished"


def test_the_command_looks_once_and_keeps_a_page(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(stopped), "--once", "--page"]) == 0
    told = capsys.readouterr().out
    assert "base on search:" in told
    assert "the best of many owes much to luck" in " ".join(told.split())
    assert all(len(line) <= 100 for line in told.splitlines() if "page:" not in line and "report:" not in line)
    live = (stopped / "live.html").read_text()
    assert '<meta http-equiv="refresh" content="2">' in live
    assert live.count("<svg") == 2
    assert "<script" not in live


def test_a_page_of_a_finished_study_is_loaded_no_more(settings: dict[str, Any], tmp_path: Path) -> None:
    seedfold.run(settings, tmp_path / "out")
    eye = Watch(tmp_path / "out")
    view = eye.look()
    eye.journal.close()
    assert view.finished
    text = page(view, 2.0)
    assert 'http-equiv="refresh"' not in text
    assert 'href="report.html"' in text
    assert status(view).startswith("finished: ")
    assert "finished" in dashboard(view)


def test_a_terminal_gets_a_dashboard_in_place(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 1

    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((60, 20)))
    monkeypatch.setattr("seedfold.watch.WINDOW", 0.0)
    stream = Terminal()
    watch(stopped, every=0.01, stream=stream)
    assert stream.getvalue().startswith("\x1b[H\x1b[J")
    shown = stream.getvalue().removeprefix("\x1b[H\x1b[J").splitlines()
    assert all(len(line) <= 60 for line in shown[:-1])


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no journal"):
        watch(tmp_path)
