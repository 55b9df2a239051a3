"""Progress: what is shown, where, and how durations read."""

import io
import sys

import pytest

from seedfold.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (7325, "2 h 02 min")]
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(total=10)
    progress.enter("search")
    progress.add(4)  # too soon for another line
    progress.enter("test")
    lines = stream.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["search", "test"]
    assert "4 of 10 answers" in lines[1]
    assert "\x1b" not in stream.getvalue()


def test_known_answers_say_nothing_about_the_rate() -> None:
    progress = Progress(total=100, quiet=True)
    progress.add(90, known=True)
    assert "0.0/s" in progress.line()
    assert "left" not in progress.line()


def test_seeds_a_second_in_all_and_of_each_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress(quiet=True)
    progress.enter("search")
    progress.engines = lambda: {0: 0.25, 1: 1.25}
    for _ in range(3):
        now[0] += 1
        progress.add(5)
        progress.seed()
    assert progress.line() == "search: 15 answers, 5.0/s, 1 seeds/s; engines 0: 0.25, 1: 1.25"
    progress.enter("select")
    assert "seeds/s" not in progress.line()
