"""Who does what, what becomes of work whose engine ended, how long a silence may be, and how busy everybody was."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from pool_engines import PROMPTS, jobs_of

from seedfold.engines.base import Answer, Decoding, Job
from seedfold.engines.pool_load import BUCKETS, Load, Loads, Told
from seedfold.engines.pool_queue import TOO_MANY, Run
from seedfold.engines.pool_worker import FACTOR, FIRST, LEAST, Worker


def worker(width: int = 1) -> Worker:
    made = Worker(0, "engine 1")
    made.width, made.ready = width, True
    return made


def answers(unit: Any, count: int | None = None) -> list[Answer]:
    wanted = sorted(unit.wanted())[:count]
    return [Answer(index, sample, "", 1, 3, "stop") for index, sample in wanted]


def test_samples_are_split_by_what_an_engine_does_at_once_alone() -> None:
    def split(samples: int, at_once: int) -> list[tuple[int, ...]]:
        run = Run(0, jobs_of(1, samples=tuple(range(samples))), at_once)
        return [unit.job.decoding.samples for unit in run.units]

    assert split(1, 64) == [(0,)]
    assert split(16, 64) == [tuple(range(7)), tuple(range(7, 14)), (14, 15)]  # 10 prompts: 70 answers and more
    assert split(3, 4) == [(0,), (1,), (2,)]


def test_what_is_known_is_no_unit() -> None:
    known = frozenset((i, 0) for i in range(10))
    run = Run(0, [Job(None, PROMPTS, Decoding(8), known), *jobs_of(1), Job(None, PROMPTS, Decoding(8), known)], 64)
    assert [unit.of for unit in run.units] == [1]
    assert run.left == 1


def test_an_engine_has_what_it_does_at_once_and_as_much_again() -> None:
    run, one, two = Run(0, jobs_of(4), 64), worker(), worker()
    for number, (holder, depth) in enumerate([(one, 0), (two, 0), (one, 1), (two, 1)]):
        size = run.share(holder, [one, two], depth)
        assert size == (1 if number < 3 else 0), "the last units are for whoever is free first"
        if size:
            run.assign(holder, size, number)
    assert run.share(one, [one, two], 0) == 0


def test_an_engine_of_several_copies_is_given_more_as_they_fall_free() -> None:
    run, one, two = Run(0, jobs_of(17), 64), worker(4), worker(4)
    assert run.share(one, [one], 0) == 4, "others may come yet"
    for number, (holder, depth) in enumerate([(one, 0), (two, 0), (one, 1)]):
        assert run.share(holder, [one, two], depth) == 4
        run.assign(holder, 4, number)
    assert run.share(two, [one, two], 1) == 0, "five are left, eight would be at work at once"
    for unit in run.units[:4]:
        run.hear(unit.number, answers(unit))
    assert run.share(one, [one, two], 0) == 0, "it has four more"
    run.hear(run.units[8].number, answers(run.units[8]))
    run.hear(run.units[9].number, answers(run.units[9], 3))
    assert run.share(one, [one, two], 0) == 1


def test_only_what_an_engine_was_at_is_held_against_it() -> None:
    run, one = Run(0, jobs_of(6), 64), worker()
    for number in range(2):
        run.assign(one, 1, number)
    first, second = run.units[:2]
    run.hear(first.number, answers(first, 4))
    assert not run.back(one, "it ended", retries=1)
    assert (len(first.accounts), len(second.accounts)) == (1, 0)
    assert list(run.queue)[:2] == [first, second]
    _, _, _, _, told = run.assign(one, 1, 2)
    assert len(told[0][4]) == 4, "what has arrived is asked for again"
    assert run.back(one, "it ended again", retries=1) == [first]
    assert (run.left, run.aside, run.error) == (5, [first], None)
    wide = worker(3)
    run.assign(wide, len(run.queue), 3)
    run.hear(second.number, answers(second))
    run.back(wide, "it ended", retries=1)
    assert [len(unit.accounts) for unit in run.units] == [2, 0, 1, 1, 1, 0]
    assert "1 of 6 pieces of work were set aside" in str(run.account())


def test_a_run_in_which_most_work_fails_ends() -> None:
    run, one = Run(0, jobs_of(20), 64), worker()
    for number in range(TOO_MANY):
        run.assign(one, 1, number)
        assert run.error is None
        run.back(one, "it ended", retries=0)
    assert "3 of 20 pieces" in str(run.error)
    run = Run(0, jobs_of(20), 64)
    for number in range(2 * TOO_MANY):
        run.assign(one, 1, number)
        if number % 2:
            run.back(one, "it ended", retries=0)
        else:
            unit = one.assignments.pop(number)[0]
            assert run.hear(unit.number, answers(unit))
    assert run.error is None, "as much was finished as failed"


def silence(one: Worker, seconds: float, tokens: int) -> None:
    one.silent = seconds
    one.heard([Answer(0, 0, "", 1, tokens, "stop")])
    one.silent = 0.0


def test_the_bound_of_a_silence_is_learned() -> None:
    run, one, other = Run(0, [Job(None, PROMPTS, Decoding(100)), *jobs_of(1)], 64), worker(), worker()
    one.facts = {"switch": 2.0}
    run.assign(one, 1, 0)
    assert one.bound(60.0, [one, other]) == FIRST
    silence(other, 3.0, 10)
    assert one.bound(60.0, [one, other]) == FACTOR * 30.0, "what another took for a tenth of the tokens"
    silence(one, 8.0, 50)
    assert one.bound(60.0, [one, other]) == FACTOR * 16.0
    silence(one, 1.0, 1)
    assert one.bound(60.0, [one, other]) == FACTOR * 16.0, "short silences teach nothing"
    assert one.bound(1000.0, [one, other]) == 1000.0
    one.assignments.clear()
    run.assign(one, 1, 1)  # 8 tokens and one term, which took two seconds when it was opened
    assert one.bound(1.0, [one, other]) == FACTOR * (8.0 + 2.0)
    one.silent = 90.0
    one.heard([])
    assert one.bound(1.0, [one, other]) == FACTOR * (8.0 + 2.0), "a sign of life teaches nothing"
    one.calls = 1
    assert one.bound(1.0, [one, other]) == FIRST
    silence(fast := worker(), 0.0, 5)
    assert fast.longest == LEAST


def test_loads_are_kept_in_bounded_memory() -> None:
    loads = Loads()
    start = loads.start
    for second in range(5 * BUCKETS):
        loads.add(second % 3, start + second, start + second + 0.5, 2)
    rows = loads.rows()
    assert len(rows) <= 3 * BUCKETS
    assert sum(row.units for row in rows) == 10 * BUCKETS
    assert math.isclose(sum(row.busy for row in rows), 2.5 * BUCKETS)
    assert all(row.busy <= row.end - row.start + 1e-6 for row in rows)
    assert {row.engine for row in rows} == {0, 1, 2}
    assert [row.start for row in rows] == sorted(row.start for row in rows)


def test_rates_are_those_of_late() -> None:
    loads = Loads()
    loads.start -= 100
    now = time.time()
    loads.add(0, now - 90, now - 89, 500)
    loads.add(0, now - 5, now - 4, 30)
    loads.add(1, now - 3, now, 60)
    assert loads.rates(60.0) == {0: pytest.approx(0.5, rel=0.05), 1: pytest.approx(1.0, rel=0.05)}


def test_what_engines_did_is_kept_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    for first in (1000.0, 5000.0):  # the second run, later that day
        told = Told(path)
        told.write([Load(0, first, first + 1, 0.5, 1)], {0: "engine 1"})
        told.write(
            [Load(0, first, first + 1, 0.5, 1), Load(1, first + 1, first + 2, 1.0, 3)], {0: "engine 1", 1: "engine 2"}
        )
    assert json.loads(path.read_text()) == {
        "engines": {"0": "engine 1", "1": "engine 2"},
        "rows": [[0, 0, 1, 0.5, 1], [1, 1, 2, 1.0, 3], [0, 2, 3, 0.5, 1], [1, 3, 4, 1.0, 3]],
    }
    path.write_text("{")
    Told(path).write([], {})
    assert json.loads(path.read_text()) == {"engines": {}, "rows": []}
