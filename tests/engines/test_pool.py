"""Several engines at once: every answer once, whoever gives it, whoever dies; and nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_tiny
from pool_engines import PROMPTS, Fake, jobs_of, recipe, stacked

from seedfold import config, engines
from seedfold.engines import pool as module
from seedfold.engines import pool_process
from seedfold.engines.base import Answer, Decoding, Job, Prompt
from seedfold.engines.pool import Pool
from seedfold.engines.pool_worker import Worker
from seedfold.errors import UserError
from seedfold.recipe import Base, Recipe, Term

HERE = Path(__file__).parent
Opened = Callable[..., Pool]


@pytest.fixture
def pool() -> Iterator[Opened]:
    """pool(count, opener="fake", patience=10.0, **settings of Fake): closed, and seen to be gone, at the end."""
    made: list[tuple[Pool, list[int]]] = []

    def open_one(count: int, opener: str = "fake", patience: float = 10.0, **settings: Any) -> Pool:
        model = config.Model(name=json.dumps(settings), device="cpu")
        opened = Pool(model, config.Engine(count=count, patience=patience), f"pool_engines:{opener}")
        made.append((opened, [child.process.pid for child in opened._workers]))
        return opened

    yield open_one
    for opened, pids in made:
        opened.close()
        assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def collect(run: Iterator[tuple[int, list[Answer]]]) -> dict[tuple[int, int, int], Answer]:
    """(job, index, sample) -> answer; none may come twice."""
    found: dict[tuple[int, int, int], Answer] = {}
    for number, answers in run:
        for answer in answers:
            place = (number, answer.index, answer.sample)
            assert place not in found
            found[place] = answer
    return found


def expected(jobs: list[Job], **settings: Any) -> dict[tuple[int, int, int], Answer]:
    return collect(Fake(json.dumps(settings)).run(jobs))


def logged(folder: Path, word: str) -> dict[str, list[list[str]]]:
    """Process -> what it noted under a word, in order: its time and the rest. Those that noted nothing are left out."""
    found: dict[str, list[list[str]]] = {}
    for path in folder.glob("*.log"):
        for when, kind, *rest in map(str.split, path.read_text().splitlines()):
            if kind == word:
                found.setdefault(path.stem, []).append([when, *rest])
    return found


def test_every_answer_comes_once_and_is_that_of_one_engine(pool: Opened, tmp_path: Path) -> None:
    jobs = jobs_of(12)
    three = pool(3, log=str(tmp_path), delay=0.01)
    assert collect(three.run(jobs)) == expected(jobs)
    assert len(logged(tmp_path, "job")) == 3, "somebody had nothing to do"
    assert (three.name, three.dtype, three.fingerprint, three.positions) == ("fake", "float32", "same", 512)
    assert three.describe()["engines"] == 3
    assert three.sizes()["weights"] == 1000


def test_jobs_go_to_who_is_free(pool: Opened, tmp_path: Path) -> None:
    slow = [Prompt((1,), f"p{i}") for i in range(160)]
    jobs = [*jobs_of(1, slow), *jobs_of(8, first=2)]
    two = pool(2, log=str(tmp_path), delay=0.02)
    assert collect(two.run(jobs)) == expected(jobs)
    done = sorted(len(lines) for lines in logged(tmp_path, "job").values())
    assert done in ([1, 8], [2, 7]), "the long job held up others, beyond the one next in line"


def test_the_last_jobs_wait_for_who_is_free_first(pool: Opened, tmp_path: Path) -> None:
    jobs = [*jobs_of(1, [Prompt((1,), f"p{i}") for i in range(80)]), *jobs_of(2, first=2)]
    two = pool(2, log=str(tmp_path), delay=0.02)
    assert collect(two.run(jobs)) == expected(jobs)
    assert sorted([line[1] for line in lines] for lines in logged(tmp_path, "job").values()) == [["1"], ["2", "3"]]


def test_the_next_job_is_at_hand_before_the_last_is_done(pool: Opened, tmp_path: Path) -> None:
    two = pool(2, log=str(tmp_path), delay=0.01)
    run = two.run(jobs_of(10))
    first = next(run)
    with two._lock:  # nobody here can give out work
        time.sleep(0.5)
        assert sum(len(lines) for lines in logged(tmp_path, "job").values()) >= 4
    assert collect(iter([first, *run])) == expected(jobs_of(10))


def test_prompts_travel_once(pool: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: Counter[str] = Counter()
    send = Worker.send

    def count(worker: Worker, *message: Any) -> None:
        if message[0] == "work":
            sent["lists"] += len(message[3])
            sent["units"] += len(message[4])
        send(worker, *message)

    two = pool(2)
    monkeypatch.setattr(Worker, "send", count)
    jobs = [*jobs_of(20), *jobs_of(20, list(reversed(PROMPTS)))]
    assert collect(two.run(jobs)) == expected(jobs)
    assert sent["units"] == 40
    assert sent["lists"] <= 4  # two lists to two processes


def test_known_answers_are_not_asked_for(pool: Opened, tmp_path: Path) -> None:
    done = frozenset((i, 0) for i in range(4)) | {(5, 0)}
    jobs = [Job(recipe(1), PROMPTS, Decoding(8), done), Job(None, PROMPTS[:1], Decoding(8), frozenset({(0, 0)}))]
    found = collect(pool(2, log=str(tmp_path)).run(jobs))
    assert set(found) == {(0, i, 0) for i in (4, 6, 7, 8, 9)}
    assert [line[1:] for lines in logged(tmp_path, "batch").values() for line in lines] == [["1"], ["1"]]
    assert not collect(pool(1).run([]))


def test_samples_are_shared_out(pool: Opened, tmp_path: Path) -> None:
    jobs = jobs_of(1, samples=tuple(range(1, 9)))
    assert collect(pool(2, log=str(tmp_path), delay=0.01).run(jobs)) == expected(jobs)
    assert len(logged(tmp_path, "job")) == 2


def test_engines_that_do_many_at_once_get_many(pool: Opened, tmp_path: Path) -> None:
    jobs = jobs_of(30)
    alone, both = tmp_path / "alone", tmp_path / "both"
    alone.mkdir()
    both.mkdir()
    assert collect(pool(1, width=4, log=str(alone)).run(jobs)) == expected(jobs)
    assert sum(int(line[1]) for lines in logged(alone, "run").values() for line in lines) == 30
    assert collect(pool(2, width=4, log=str(both), delay=0.01).run(jobs)) == expected(jobs)
    runs = logged(both, "run")
    assert len(runs) == 2
    for lines in runs.values():
        sizes = [int(line[1]) for line in lines]
        assert sizes[0] == 4, "what it does at once, at first"
        assert max(sizes) <= 8
    assert sum(int(line[1]) for lines in runs.values() for line in lines) == 30


def test_stacked_engines_that_take_up_more_answer_as_one_does(pool: Opened) -> None:
    alone, two = stacked(None, None), pool(2, opener="stacked")
    base, prompts = Base("llama", "", alone.fingerprint), [Prompt(tuple(range(1, 4 + i)), str(i)) for i in range(6)]
    jobs = [
        Job(Recipe(base, (Term("rademacher", seed, 0.05),), dtype="float32"), prompts, Decoding(4 + seed % 5))
        for seed in range(1, 13)
    ]
    found = collect(two.run(jobs))
    assert len(found) == 12 * 6
    assert found == collect(alone.run(jobs))


def test_a_call_is_answered_between_the_units_of_an_engine_that_takes_up_more(pool: Opened) -> None:
    """And what comes after the call waits its turn: nothing is lost, nothing is done twice."""
    jobs = jobs_of(40)
    two = pool(2, width=4, delay=0.01)
    found: dict[tuple[int, int, int], Answer] = {}
    spoken = threading.Event()

    def speak() -> None:
        assert two.encode([{"role": "user", "content": "ab"}]) == (97, 98)
        spoken.set()

    speaker = threading.Thread(target=speak)
    for number, answers in two.run(jobs):
        if not found:
            speaker.start()
        for answer in answers:
            assert (number, answer.index, answer.sample) not in found
            found[number, answer.index, answer.sample] = answer
    speaker.join()
    assert spoken.is_set()
    assert found == expected(jobs)


@pytest.mark.parametrize("width", [1, 2])
def test_a_killed_engine_gives_its_work_back(
    pool: Opened, tmp_path: Path, capfd: pytest.CaptureFixture[str], width: int
) -> None:
    jobs = jobs_of(12)
    three = pool(3, log=str(tmp_path), delay=0.02, width=width)
    found: dict[tuple[int, int, int], Answer] = {}
    victims = [child.process.pid for child in three._workers[:2]]
    for number, answers in three.run(jobs):
        for answer in answers:
            assert (number, answer.index, answer.sample) not in found
            found[number, answer.index, answer.sample] = answer
        if victims and len(found) > 20:
            os.kill(victims.pop(), signal.SIGKILL)
    assert found == expected(jobs)
    assert not victims
    told = "of 3 was killed by SIGKILL, and last said: opening a fake engine; its work goes to others, and another is"
    assert capfd.readouterr().err.count(told) == 2
    assert three.encode([{"role": "user", "content": "a"}]) == (97,)


def test_what_has_arrived_is_not_asked_for_again(pool: Opened, tmp_path: Path) -> None:
    two = pool(2, log=str(tmp_path), delay=0.05)
    long = [Prompt((1,), f"p{i}") for i in range(40)]
    jobs = jobs_of(1, long)
    run = two.run(jobs)
    before = [next(run) for _ in range(4)]
    worker = next(iter(logged(tmp_path, "job")))
    os.kill(int(worker), signal.SIGKILL)
    after = list(run)
    assert collect(iter([*before, *after])) == expected(jobs)
    (other,) = (lines for pid, lines in logged(tmp_path, "job").items() if pid != worker)
    known = int(other[0][3])
    assert known >= 16
    batches = {pid: len(lines) for pid, lines in logged(tmp_path, "batch").items()}
    assert batches.pop(worker) >= 4
    assert list(batches.values()) == [10 - known // 4]


def test_another_engine_is_opened_in_the_place_of_one_that_ended(pool: Opened, tmp_path: Path) -> None:
    two = pool(2, log=str(tmp_path), delay=0.05)
    run = two.run(jobs_of(12))
    before = [next(run)]
    for worker in list(two._workers):
        os.kill(worker.process.pid, signal.SIGKILL)
    assert collect(iter([*before, *run])) == expected(jobs_of(12))
    assert len(logged(tmp_path, "job")) == 4
    assert sorted(worker.number for worker in two._workers) == [0, 1]


def test_a_job_that_breaks_every_engine_is_set_aside(
    pool: Opened, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs: list[Job] = jobs_of(8)
    found: list[tuple[int, list[Answer]]] = []
    two = pool(2, log=str(tmp_path), bad=3)
    with pytest.raises(UserError, match=r"1 of 8 pieces.*recipe \w+ on 10 prompts.*code 1.*ValueError: this job is"):
        found.extend(two.run(jobs))
    others = [job for job in jobs if job.recipe != recipe(3)]
    assert len(collect(iter(found))) == 10 * len(others), "the others were not done"
    told = capfd.readouterr().err
    assert told.count("ended with code 1") == two._retries + 1 == 4
    assert told.count("set aside: recipe") == 1
    assert collect(two.run(others)) == expected(others)  # and the engines go on


def test_when_every_job_fails_the_run_stops_early(pool: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    two = pool(2, bad=0)
    with pytest.raises(UserError, match=r"3 of 50 pieces of work were set aside"):
        list(two.run([Job(None, PROMPTS, Decoding(8))] * 50))
    # Four engines for each that was set aside, and three at most for each of the four that two have at hand; not 200.
    assert capfd.readouterr().err.count("ended with code 1") <= 3 * 4 + 4 * 3


def test_an_engine_that_hangs_is_replaced(pool: Opened, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jobs = jobs_of(8)
    two = pool(2, patience=0.5, log=str(tmp_path), delay=0.01, bad=5, how="stick once")
    begun = time.monotonic()
    assert collect(two.run(jobs)) == expected(jobs)
    assert 0.5 < time.monotonic() - begun < 8.0
    assert "hung: it was silent for" in capfd.readouterr().err


def test_a_slow_engine_is_not_taken_for_hung(pool: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    two = pool(2, patience=0.5, delay=0.6)  # longer than its patience from the first answer on
    assert collect(two.run(jobs_of(2))) == expected(jobs_of(2))
    assert not capfd.readouterr().err


def test_a_stopped_process_holds_up_nobody(pool: Opened, tmp_path: Path) -> None:
    """With more to be told than its socket takes."""
    prompts = [Prompt((7,) * 50_000, f"p{i}") for i in range(8)]
    two = pool(2, patience=0.5, log=str(tmp_path), delay=0.01)
    assert collect(two.run(jobs_of(4))) == expected(jobs_of(4))
    os.kill(two._workers[0].process.pid, signal.SIGSTOP)
    assert collect(two.run(jobs_of(6, prompts))) == expected(jobs_of(6, prompts))


def test_a_call_that_ends_every_engine_is_given_up(pool: Opened, tmp_path: Path) -> None:
    two = pool(2, log=str(tmp_path))
    with pytest.raises(UserError, match=r"ended with code 7.*and so did those asked before it"):
        two.encode([{"role": "user", "content": "die"}])
    assert two.encode([{"role": "user", "content": "a"}]) == (97,)


def test_without_places_the_last_words_are_told(pool: Opened, tmp_path: Path) -> None:
    two = pool(2, "fragile", log=str(tmp_path), delay=0.05)
    run = two.run(jobs_of(8))
    next(run)
    (tmp_path / "broken").touch()
    for worker in list(two._workers):
        os.kill(worker.process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"no engine is left: .*ended with code 4.*cannot open.*engine\.count"):
        list(run)
    with pytest.raises(UserError, match="no engine is left"):
        two.encode([{"role": "user", "content": "a"}])
    with pytest.raises(UserError, match="no engine is left"):
        list(two.run(jobs_of(1)))


def test_what_an_engine_refuses_is_refused(pool: Opened) -> None:
    two = pool(2, bad=3, how="refuse")
    with pytest.raises(UserError, match=r"^this job is refused$"):
        list(two.run(jobs_of(6)))
    assert collect(two.run(jobs_of(2))) == expected(jobs_of(2))  # and nobody is the worse for it
    with pytest.raises(UserError, match="another base"):
        two.become(recipe(1, "other"))
    with pytest.raises(RuntimeError, match="KeyError: 'no such role'"):
        two.encode([{"role": "user", "content": "bad"}])
    assert len(two._ready()) == 2


def test_the_present_recipe_is_remembered(pool: Opened, tmp_path: Path) -> None:
    two = pool(2)
    two.become(recipe(7))
    list(two.run(jobs_of(4)))  # afterwards the engines are any of the recipes
    assert two.logprobs(PROMPTS[:1], [[1, 2]]) == [[7.0, 7.0]]
    answers = [answer for batch in two.generate(PROMPTS[:2], Decoding(8)) for answer in batch]
    assert [answer.text for answer in answers] == ["7 p0 0", "7 p1 0"]
    two.become(None)
    assert two.logprobs(PROMPTS[:1], [[1]]) == [[0.0]]
    two.export(recipe(5), tmp_path / "out", "card")
    assert (tmp_path / "out" / "README.md").read_text() == "card 5"


def test_calls_are_answered_during_a_run_that_nobody_takes_from(pool: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 4)
    jobs = jobs_of(6)
    two = pool(2, size=50_000)
    run = two.run(jobs)
    first = next(run)
    assert two.encode([{"role": "user", "content": "a"}]) == (97,)
    assert collect(iter([first, *run])) == expected(jobs, size=50_000)


def test_a_call_of_an_engine_that_dies_is_answered_by_another(pool: Opened, tmp_path: Path) -> None:
    two = pool(2, log=str(tmp_path))
    assert two.encode([{"role": "user", "content": "die once"}]) == tuple(b"die once")
    assert len(two._ready()) == 1


def test_a_run_may_be_left(pool: Opened, tmp_path: Path) -> None:
    two = pool(2, log=str(tmp_path), delay=0.02)
    run = two.run(jobs_of(50, [Prompt((1,), f"p{i}") for i in range(400)]))
    next(run)
    run.close()  # type: ignore[attr-defined]
    begun = time.monotonic()
    assert collect(two.run(jobs_of(2, first=60))) == expected(jobs_of(2, first=60))
    assert time.monotonic() - begun < 1.0, "the abandoned jobs were done first"
    left = two.run(jobs_of(50))
    next(left)
    assert collect(two.run(jobs_of(2))) == expected(jobs_of(2))
    with pytest.raises(RuntimeError, match="other jobs"):
        list(left)


def test_engines_do_not_wait_for_who_takes_their_answers(pool: Opened, tmp_path: Path) -> None:
    jobs = jobs_of(16, PROMPTS[:4])
    run = pool(2, log=str(tmp_path), delay=0.01).run(jobs)
    first = next(run)
    time.sleep(1.0)  # longer than all jobs take
    taken = time.time()
    assert collect(iter([first, *run])) == expected(jobs)
    times = [float(line[0]) for lines in logged(tmp_path, "batch").values() for line in lines]
    assert len(times) == 16
    assert max(times) < taken - 0.3


def test_what_waits_is_bounded(pool: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 8)
    jobs = jobs_of(40, PROMPTS[:4])
    run = pool(1, log=str(tmp_path), size=100_000).run(jobs)
    first = next(run)
    time.sleep(1.0)
    made = sum(len(lines) for lines in logged(tmp_path, "batch").values())
    assert made < 12, "the engine went on without bound"
    assert collect(iter([first, *run])) == expected(jobs, size=100_000)


def test_waiting_answers_are_handed_on_together(pool: Opened) -> None:
    run = pool(1).run(jobs_of(2, [Prompt((1,), str(i)) for i in range(100)]))
    first = next(run)
    time.sleep(0.5)
    rest = list(run)
    assert sum(len(answers) for _, answers in [first, *rest]) == 200
    assert len(rest) <= 3, "batches that waited were not joined"


def test_engines_must_hold_the_same_weights(pool: Opened) -> None:
    with pytest.raises(
        UserError, match=r"engine \d of 2 holds weights with the fingerprint \d+, but engine \d of 2 holds"
    ):
        list(pool(2, fingerprint="own").run(jobs_of(1)))
    with pytest.raises(UserError, match=r"engine \d of 2 rebuilds two probe recipes to weights with the fingerprints"):
        list(pool(2, probe="").run(jobs_of(1)))


def test_no_work_is_given_out_while_another_is_being_opened(pool: Opened, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gave engines with different weights"):
        list(pool(2, "later", log=str(tmp_path), probe="").run(jobs_of(1)))


def test_one_engine_that_differs_is_refused_by_name(
    pool: Opened, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    three = pool(3, "odd", log=str(tmp_path), delay=0.02)
    (tmp_path / "even").touch()
    os.kill(three._workers[1].process.pid, signal.SIGKILL)
    assert collect(three.run(jobs_of(20))) == expected(jobs_of(20))
    told = capfd.readouterr().err
    assert "engine 2 of 3 is refused: holds weights with the fingerprint odd, but engine" in told
    assert len(three._ready()) == 2
    assert three.describe()["engines"] == 3


def test_engines_that_cannot_be_opened(pool: Opened) -> None:
    with pytest.raises(UserError, match=r"^there is no such model$"):
        pool(2, "refuses")
    with pytest.raises(
        UserError, match=r"of 2 ended with code 3, and .*CUDA error: out of memory, while.*engine\.count"
    ):
        pool(2, "crashes")


def test_nothing_can_be_asked_of_a_closed_pool(pool: Opened) -> None:
    one = pool(1)
    with one:
        one.encode([{"role": "user", "content": "a"}])
    one.close()
    with pytest.raises(RuntimeError, match="closed"):
        one.sizes()


SCRIPT = f"""
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
sys.path.insert(0, {str(HERE)!r})
from pool_engines import jobs_of
from seedfold import config
from seedfold.engines.pool import Pool
pool = Pool(config.Model(name=json.dumps(SETTINGS), device="cpu"), config.Engine(count=2), "pool_engines:fake")
print(*(child.process.pid for child in pool._workers), flush=True)
with pool:
    for _ in pool.run(jobs_of(10_000)):
        print("batch", flush=True)
"""


def script(**settings: Any) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with a pool of two in the middle of its work, and their ids."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("SETTINGS", repr(settings))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    assert process.stdout.readline() == "batch\n"
    return process, pids


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_engines_end_with_who_started_them_even_killed() -> None:
    process, pids = script(delay=0.05)
    assert all(os.getpgid(pid) == pid for pid in pids)  # Ctrl-C on the terminal does not reach them
    process.kill()
    process.wait()
    assert gone(pids, 3.0)
    process, pids = script(delay=0.01, bad=3, how="stick")  # one is stuck in the middle of a batch
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert gone(pids, 8.0)


def test_ctrl_c_ends_all() -> None:
    process, pids = script(delay=0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=10)
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert gone(pids, 1.0)


def test_engines_are_dealt_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def dealt(count: int, device: str = "auto", parallel: int = 1, visible: str = "") -> list[str | None]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        engine = config.Engine(name="vllm", count=count, tensor_parallel=parallel)
        places = pool_process.environments(config.Model(device=device), engine, count)
        return [place.get("CUDA_VISIBLE_DEVICES") for place in places]

    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert dealt(6) == ["0", "1", "2", "3", "0", "1"]
    assert dealt(3, parallel=2) == ["0,1", "2,3", "0,1"]
    assert dealt(2, visible="5,7") == ["5", "7"]
    assert dealt(2, device="cuda:1") == [None, None]
    with pytest.raises(UserError, match=r'"engine.tensor_parallel" is 8.*4 GPUs'):
        dealt(1, parallel=8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert dealt(2) == [None, None]


def test_open_engine_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[config.Engine] = []
    monkeypatch.setattr(module, "Pool", lambda model, engine: opened.append(engine))
    monkeypatch.setattr(engines, "open_here", lambda model, engine: "here")
    model = config.Model()
    assert engines.open_engine(model, config.Engine()) == engines.open_engine(model, config.Engine(count=1)) == "here"
    engines.open_engine(model, config.Engine(count=2))
    engines.open_engine(model, config.Engine(name="stacked"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'"engine.name" is "vllm".*seedfold\[vllm\]'):
        engines.open_engine(model, config.Engine(name="vllm"))
    assert [engine.count for engine in opened] == [2, 0]


def test_two_real_engines_answer_as_one(tmp_path: Path) -> None:
    model = config.Model(name=str(write_tiny(tmp_path / "model")), device="cpu")
    with engines.opened(model, config.Engine(batch=16)) as one:
        prompts = [Prompt(one.encode([{"role": "user", "content": "word " * (i % 7 + 1)}]), str(i)) for i in range(20)]
        base = Base(model.name, "", one.fingerprint)
        made = [Recipe(base, (Term("rademacher", seed, 0.05),)) for seed in range(3)]
        jobs = [
            *(Job(each, prompts, Decoding(6)) for each in (None, *made)),
            Job(None, prompts, Decoding(6, temperature=1.0, samples=(1, 2, 3))),
        ]
        alone = collect(one.run(jobs))
        one.become(made[0])
        scores = one.logprobs(prompts[:3], [[5, 6], [7], [8, 9, 10]])
        sizes = one.sizes()
    with engines.opened(model, config.Engine(batch=16, count=2)) as two:
        assert isinstance(two, Pool)
        assert two.fingerprint == base.fingerprint
        assert two.sizes() == sizes
        assert collect(two.run(jobs)) == alone
        two.become(made[0])
        assert two.logprobs(prompts[:3], [[5, 6], [7], [8, 9, 10]]) == scores
    assert not two._workers
