"""Engines as actors of a Ray cluster: every answer once, whoever gives it, whatever ends; and nothing is left."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import small_study, write_tiny
from pool_engines import PROMPTS, jobs_of, recipe
from test_pool import alive, collect, expected, gone, logged
from test_resume import SCRIPT as STUDY
from test_resume import kill_at, outcome, recorded

import seedfold
from seedfold import config
from seedfold.engines.pool import Pool
from seedfold.errors import UserError

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster as Nodes  # noqa: E402

from seedfold.engines import fleet as module  # noqa: E402
from seedfold.engines.fleet import Actor, Cluster, Node  # noqa: E402
from seedfold.engines.fleet_join import started  # noqa: E402

Opened = Callable[..., Pool]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of one node with two CPUs, which this process has joined."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    # Ray notices a lost node after half a minute, unless it looks more often.
    often = {"health_check_period_ms": 500, "health_check_timeout_ms": 1500, "health_check_failure_threshold": 2}
    head = {"num_cpus": 2, "include_dashboard": False, "_system_config": {"health_check_initial_delay_ms": 0, **often}}
    made = Nodes(initialize_head=True, head_node_args=head)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def pool(nodes: Nodes) -> Iterator[Opened]:
    """pool(count, opener="fake", patience=10.0, **settings of Fake): closed, and seen to be gone, at the end."""
    made: list[Pool] = []

    def open_one(count: int, opener: str = "fake", patience: float = 10.0, **settings: Any) -> Pool:
        model = config.Model(name=json.dumps(settings), device="cpu")
        engine = config.Engine(count=count, fleet="auto", patience=patience)
        made.append(Pool(model, engine, f"pool_engines:{opener}", Cluster(model, engine)))
        deadline = time.monotonic() + 10
        while made[-1].at_work() < count and time.monotonic() < deadline:
            time.sleep(0.02)  # there is room for all of them
        return made[-1]

    yield open_one
    pids = [pid for opened in made for pid in pids_of(opened)]
    for opened in made:
        opened.close()
    assert gone(pids, 3.0)
    assert free_again()


def pids_of(opened: Pool) -> list[int]:
    return [worker.facts["pid"] for worker in opened._workers if worker.facts]


def free_again() -> bool:
    """Whether the cluster has everything that it had at first: what actors held is given back."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]:
            return not ray.util.placement_group_table()
        time.sleep(0.05)
    return False


def kill(opened: Pool, number: int) -> None:
    os.kill(next(w.facts["pid"] for w in opened._workers if w.number == number and w.facts), signal.SIGKILL)


def test_every_answer_comes_once_and_is_that_of_one_engine(pool: Opened, tmp_path: Path) -> None:
    jobs = [*jobs_of(12), *jobs_of(2, samples=tuple(range(1, 20)))]
    two = pool(2, log=str(tmp_path), delay=0.01)
    assert collect(two.run(jobs)) == expected(jobs)
    assert len(logged(tmp_path, "job")) == 2, "somebody had nothing to do"
    assert two.encode([{"role": "user", "content": "a"}]) == (97,)
    assert two.describe()["engines"] == 2
    two.become(recipe(7))
    assert two.logprobs(PROMPTS[:1], [[1, 2]]) == [[7.0, 7.0]]


def test_as_many_engines_as_the_cluster_offers(pool: Opened) -> None:
    assert len(pool(0)._workers) == 2


def test_records_are_the_same_for_any_number_of_engines_and_with_a_node_lost(
    nodes: Nodes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole study through the main job: in this process; by one engine of the cluster; by two, with the study killed and
    begun again; and by four on two nodes, with one node killed in the middle."""
    settings: dict[str, Any] = small_study(tmp_path, write_tiny(tmp_path / "model"), racing=True, block=8)
    settings["task"] |= {"limit": "learned", "max_tokens": 40, "stop": ["w"]}
    settings["model"]["device"] = "cpu"
    settings["engine"]["threads"] = 1
    results = []
    for count in (0, 1, 2, 4):
        if count:
            settings["engine"] |= {"fleet": nodes.address, "count": count}
        folder = tmp_path / str(count)
        if count == 2:
            path = tmp_path / "config.json"
            path.write_text(json.dumps(settings))
            kill_at([sys.executable, "-c", STUDY, str(path), str(folder)], folder, len(results[0][2]) // 3, 0.01)
            assert free_again()
        if count == 4:
            other, half = nodes.add_node(num_cpus=2), len(results[0][2]) // 2
            killer = threading.Thread(target=lose, args=(nodes, other, folder, half))
            killer.start()
        seedfold.run(settings, folder)
        record, recipes, rows = outcome(folder)
        machine = record.pop("machine")
        assert machine.get("engines", 0) == count  # type: ignore[attr-defined]
        for name in ("fleet", "count"):
            del record["config"]["engine"][name]  # type: ignore[index]
        assert len({row[:3] for row in rows}) == len(rows)
        results.append((record, recipes, rows))
    killer.join()
    assert results[0] == results[1] == results[2] == results[3]
    assert "was lost with its node" in capfd.readouterr().err
    assert free_again()


def lose(nodes: Nodes, node: Any, folder: Path, goal: int) -> None:
    """Kill a node as soon as a study has so many rows."""
    while recorded(folder) < goal:
        time.sleep(0.02)
    nodes.remove_node(node, allow_graceful=False)


# Whoever ends


def test_a_killed_actor_gives_its_work_back_and_is_replaced(
    pool: Opened, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = jobs_of(30)
    two = pool(2, log=str(tmp_path), delay=0.02)
    run = two.run(jobs)
    found = [next(run)]
    kill(two, 1)
    found += [next(run) for _ in range(10)]
    kill(two, 0)
    assert collect(iter([*found, *run])) == expected(jobs)
    told = capfd.readouterr().err
    for number in (1, 2):
        assert f"engine {number} on {socket.gethostname()} was killed; its work goes to others" in told
    assert len(logged(tmp_path, "job")) == 4
    assert {row.engine for row in two.utilisation()} == {0, 1}
    assert sum(row.units for row in two.utilisation()) == 30


@pytest.mark.parametrize(
    ("how", "words"), [("raise", "ValueError: this job is broken"), ("full", "CUDA out of memory")]
)
def test_work_that_ends_every_actor_is_set_aside(
    pool: Opened, capfd: pytest.CaptureFixture[str], how: str, words: str
) -> None:
    found: list[Any] = []
    two = pool(2, bad=3, how=how)
    with pytest.raises(UserError, match=rf"1 of 8 pieces of work were set aside.*recipe \w+ on 10 prompts.*{words}"):
        found.extend(two.run(jobs_of(8)))
    assert len(collect(iter(found))) == 70
    assert capfd.readouterr().err.count(words) == two._retries + 1 == 4


def test_an_actor_that_hangs_is_replaced(pool: Opened, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    two = pool(2, patience=0.5, log=str(tmp_path), delay=0.01)
    assert collect(two.run(jobs_of(4))) == expected(jobs_of(4))
    stopped = pids_of(two)[0]
    os.kill(stopped, signal.SIGSTOP)  # it does not even end when it is asked to
    assert collect(two.run(jobs_of(8))) == expected(jobs_of(8))
    assert "hung: it was silent for" in capfd.readouterr().err
    assert gone([stopped], 15.0)


def test_actors_must_rebuild_the_same_weights(pool: Opened, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"engine \d on .* rebuilds two probe recipes to weights with the fingerprints"):
        list(pool(2, probe="", delay=0.05).run(jobs_of(60)))
    two = pool(2, "odd", log=str(tmp_path), delay=0.02)
    (tmp_path / "even").touch()
    kill(two, 1)
    assert collect(two.run(jobs_of(60))) == expected(jobs_of(60))
    told = capfd.readouterr().err
    assert re.search(r"engine 2 on .* is refused: holds weights with the fingerprint odd, but engine . on", told)
    assert len(two._ready()) == 1


def test_strangers_are_not_heard(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from the network is unpickled only when it comes from the actor."""
    monkeypatch.setattr(module, "LAST", 0.5)
    seats: list[Any] = []
    monkeypatch.setattr(module.Seat, "serve", lambda self, *place: seats.append(place))
    actor = Actor(0, {"num_cpus": 1, "num_gpus": 0, "memory": 0})
    host, port = actor._server.getsockname()
    for said in (b"", b"x" * 32, b"\0" * 31):
        with socket.create_connection((host, port)) as other:
            other.sendall(said)
            other.shutdown(socket.SHUT_WR)
    with socket.create_connection((host, port)) as other, pytest.raises(EOFError):
        actor.open()  # serve, replaced, has returned: nobody genuine comes
    actor.kill()


# This process

SCRIPT = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pool_engines import jobs_of
from seedfold import config
from seedfold.engines.fleet import Cluster
from seedfold.engines.pool import Pool
model, engine = config.Model(name=json.dumps(dict(delay=0.05)), device="cpu"), config.Engine(count=2, fleet=sys.argv[1])
with Pool(model, engine, "pool_engines:fake", Cluster(model, engine)) as pool:
    print(*(worker.facts["pid"] for worker in pool._ready()), flush=True)
    for _ in pool.run(jobs_of(10_000)):
        print("batch", flush=True)
"""


@pytest.mark.parametrize(("where", "how"), [("local", "SIGKILL"), ("local", "SIGINT"), ("joined", "SIGKILL")])
def test_nothing_is_left_when_the_driver_ends(nodes: Nodes, where: str, how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, nodes.address if where == "joined" else where],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_ADDRESS": ""},
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert process.stdout.readline() == "batch\n"
    assert len(pids) == 2
    assert all(map(alive, pids))
    rays = started(process.pid)
    assert bool(rays) == (where == "local")
    process.send_signal(getattr(signal, how))
    process.stdout.close()
    process.wait()
    assert gone([*pids, *rays], 8.0)
    assert free_again()


# Nodes


def test_engines_come_and_go_with_nodes(nodes: Nodes, pool: Opened, tmp_path: Path) -> None:
    all_of_it = pool(0, log=str(tmp_path), delay=0.05)
    assert len(all_of_it._workers) == 2
    run = all_of_it.run(jobs_of(4000))
    found = [next(run)]
    node = nodes.add_node(num_cpus=1)
    try:
        deadline = time.monotonic() + 20
        while len(all_of_it._ready()) < 3 and time.monotonic() < deadline:
            found.append(next(run))
        assert len(all_of_it._ready()) == 3
        for _ in range(60):
            found.append(next(run))
    finally:
        nodes.remove_node(node, allow_graceful=False)
    assert len(logged(tmp_path, "job")) == 3
    while len(all_of_it._workers) > 2 and time.monotonic() < deadline + 20:
        found.append(next(run))
    assert len(all_of_it._workers) == 2
    run.close()  # type: ignore[attr-defined]
    collect(iter(found))


def test_an_engine_on_its_way_to_a_place_that_is_no_more_is_given_up(
    pool: Opened, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As when a node ends just before an engine that was to run there, or anew, is begun."""
    all_of_it = pool(0)
    told = capfd.readouterr().err
    cluster = all_of_it._places
    assert isinstance(cluster, Cluster)
    room = cluster.fit()
    monkeypatch.setattr(cluster, "fit", lambda: room + 2)
    assert becomes(lambda: len(all_of_it._workers), room + 2)
    monkeypatch.setattr(cluster, "fit", lambda: room + 1)
    assert becomes(lambda: len(all_of_it._workers), room + 1)
    monkeypatch.undo()
    assert becomes(lambda: len(all_of_it._workers), room)
    assert [worker.number for worker in all_of_it._ready()] == list(range(room)), "those at work stay"
    assert collect(all_of_it.run(jobs_of(20))) == expected(jobs_of(20))
    assert not told + capfd.readouterr().err, "nothing was lost"


def becomes(value: Callable[[], int], wanted: int) -> bool:
    deadline = time.monotonic() + 15
    while value() != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return value() == wanted


def test_engines_get_their_gpus(nodes: Nodes, tmp_path: Path) -> None:
    """Two GPUs that are only said to be there: several engines on each, one on each, one on both."""
    node = nodes.add_node(num_cpus=1, num_gpus=2)
    try:
        for settings, wanted in (
            ({"per_gpu": 2}, ["0", "0", "1", "1"]),
            ({}, ["0", "1"]),
            ({"name": "vllm", "tensor_parallel": 2}, ["0,1"]),
        ):
            folder = tmp_path / str(len(wanted))
            folder.mkdir()
            model = config.Model(name=json.dumps({"log": str(folder)}), device="auto")
            engine = config.Engine(fleet="auto", **settings)  # type: ignore[arg-type]
            with Pool(model, engine, "pool_engines:fake", Cluster(model, engine)) as opened:
                deadline = time.monotonic() + 10
                while opened.at_work() < len(wanted) and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert sorted(lines[0][1] for lines in logged(folder, "gpus").values()) == wanted
                assert collect(opened.run(jobs_of(4))) == expected(jobs_of(4))
    finally:
        nodes.remove_node(node)
    assert free_again()


def test_what_one_engine_needs(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*offered: Node, device: str = "auto", **settings: Any) -> tuple[int, int]:
        monkeypatch.setattr(Cluster, "nodes", lambda self: list(offered))
        made = Cluster(config.Model(device=device), config.Engine(fleet="auto", **settings))
        return made.fit(), made.wanted()

    big, small, plain = Node("a", 64, 8, 2e12), Node("b", 8, 2, 1e11), Node("c", 8, 0, 1e11)
    assert fit(big, small, plain) == (10, 10)
    assert fit(big, small, per_gpu=4) == (40, 40)
    assert fit(big, small, name="vllm", tensor_parallel=4) == (2, 2)
    assert fit(big, small, count=3) == (10, 3)
    assert fit(plain) == (8, 8)
    assert fit(plain, threads=3) == (2, 2)
    assert fit(big, plain, device="cpu") == (72, 72)
    assert fit(Node("d", 8, 0, 2.5e9), device="cpu") == (2, 2)  # two copies of 257 MiB and half a GiB each
    for offered, said, settings in (
        (small, "2 GPUs in all, but none has the 4 GPUS", {"name": "vllm", "tensor_parallel": 4}),
        (plain, "0 GPUs in all, but none has the 1 GPUS", {"device": "cuda"}),
        (Node("d", 8, 0, 1e8), "GiB of memory that one engine needs", {}),
    ):
        with pytest.raises(UserError, match=said):
            fit(offered, **settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r'"engine.per_gpu" is 2 and "engine.tensor_parallel" 4'):
        fit(big, per_gpu=2, name="vllm", tensor_parallel=4)
    with pytest.raises(UserError, match=r'"engine.per_gpu" is 2.*stacked.*"engine.copies"'):
        fit(big, per_gpu=2, name="stacked")
    with pytest.raises(UserError, match=r'"model.device" is "cuda:1".*auto, cuda or cpu'):
        fit(big, device="cuda:1")


def test_a_plan_of_a_fleet(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seedfold import plan
    from seedfold.engines.memory import GIB, Checkpoint, Gpu

    settings: dict[str, Any] = small_study(tmp_path, write_tiny(tmp_path / "model"))
    settings["engine"] |= {"fleet": "auto", "count": 3, "threads": 1}
    settings["search"]["candidates"] = 300
    told = plan.plan(config.from_dict(settings), probe=False)
    assert "fleet auto: 1 node with 2 CPUs and 0 GPUs, room for 2 engines, 3 wanted\n1 of them wait" in told
    settings["engine"]["count"] = 2
    monkeypatch.setattr(plan, "SECONDS", 0.5)
    told = plan.plan(config.from_dict(settings))
    assert re.search(
        r"answers of candidates in \d s by [12] engines?: .*\ntime: about .*\nmemory: about .*\(2 engines,", told
    )
    monkeypatch.setattr(Cluster, "nodes", lambda self: [Node("a", 16, 2, 1e12), Node("b", 16, 2, 1e12)])
    monkeypatch.setattr(Cluster, "gpus", lambda self: [Gpu(0, "gpu", free * GIB, 80 * GIB, "9.0") for free in (60, 30)])
    monkeypatch.setattr("seedfold.engines.memory.checkpoint", lambda model: Checkpoint(5 * GIB, 1000))
    settings["engine"] = {"fleet": "auto", "name": "vllm", "memory": 8, "per_gpu": 2}
    told = plan.plan(config.from_dict(settings))  # too much for the smallest of the GPUs, so nothing is opened
    assert "fleet auto: 2 nodes with 32 CPUs and 4 GPUs, room for 8 engines, 8 wanted" in told
    assert "2 engines on a GPU, 20.0 GiB each" in told
    assert "40.0 GiB at least, of 30.0 GiB free\ndoes NOT fit: lower engine.per_gpu or engine.memory" in told
    settings["engine"] |= {"per_gpu": 1}
    assert "NOT" not in plan.plan(config.from_dict(settings), probe=False)


def test_clusters_that_cannot_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=r'"engine.fleet" is "ray://here:10001".*not nodes'):
        Cluster(config.Model(device="cpu"), config.Engine(fleet="ray://here:10001"))
    with pytest.raises(UserError, match=r'"engine.fleet" is "127.0.0.1:1", where no Ray cluster answers'):
        Cluster(config.Model(device="cpu"), config.Engine(fleet="127.0.0.1:1"))
