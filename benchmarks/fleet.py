"""A fleet of engines on Ray: what it costs over a bare engine, how fast it deals out work, and whether it survives.

    python benchmarks/fleet.py overhead [--seeds 60]
    python benchmarks/fleet.py dispatch [--units 100000] [--engines 8]
    python benchmarks/fleet.py kills [--kills 50] [--every 12]
    python benchmarks/fleet.py scale --model DIR [--counts 1,2] [--set engine.name=stacked]

overhead  60 seeds of a second each, by a bare engine and by a fleet of one: the mark is less than 3 % more
dispatch  100,000 units of nothing to do, by 8 engines: the mark is 1,000 units a second, the driver's memory flat
kills     a study of SmolLM2-135M whose actors are killed at random moments, 50 times; and the same study undisturbed: the
          mark is every evaluation once, and the same record
scale     seeds a second of one engine and of more, one on each GPU: the mark is 1.9 times with two
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedfold import config
from seedfold.engines.base import Answer, Decoding, Job, Prompt, in_turn
from seedfold.recipe import Base, Recipe, Term

HERE = Path(__file__).resolve().parent


class Toy:
    """An engine that sleeps so many seconds a seed, and answers with the seed. Its model's name is the seconds."""

    revision, dtype, fingerprint, positions = "", "float32", "toy", None

    def __init__(self, name: str) -> None:
        self.name, self.recipe = name, None

    def become(self, recipe: Any) -> None:
        self.recipe = recipe

    def checksum(self) -> str:
        return str(self.recipe)

    def generate(self, prompts: Any, decoding: Any, done: Any = ()) -> Iterator[list[Answer]]:
        seed = self.recipe.terms[0].seed if self.recipe else 0
        time.sleep(float(self.name))
        yield [Answer(i, 0, str(seed), len(prompt.tokens), 1, "stop") for i, prompt in enumerate(prompts)]

    def run(self, jobs: Any) -> Iterator[tuple[int, list[Answer]]]:
        yield from in_turn(self, jobs)  # type: ignore[arg-type]

    def sizes(self) -> dict[str, int]:
        return {"weights": 0, "cache_bytes_per_token": 0}


def toy(model: Any, engine: Any) -> Toy:
    """The opener."""
    return Toy(model.name)


def toy_fleet(seconds: float, engines: int) -> Any:
    """A pool of toys on a Ray that is told it has as many CPUs as there are engines."""
    import ray

    from seedfold.engines.fleet import Cluster
    from seedfold.engines.pool import Pool

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    if not ray.is_initialized():
        ray.init(address="local", num_cpus=engines, include_dashboard=False, log_to_driver=False, logging_level="error")
    model, engine = (
        config.Model(name=str(seconds), device="cpu"),
        config.Engine(fleet="local", count=engines, threads=1),
    )
    pool = Pool(model, engine, "fleet:toy", Cluster(model, engine))
    while pool.at_work() < engines:
        time.sleep(0.1)
    return pool


def jobs(count: int, prompts: int) -> list[Job]:
    base, asked = Base("toy", "", "toy"), [Prompt((1,) * 100, str(i)) for i in range(prompts)]
    return [Job(Recipe(base, (Term("rademacher", seed, 1e-3),)), asked, Decoding(8)) for seed in range(1, count + 1)]


def overhead(arguments: argparse.Namespace) -> None:
    """Seconds of the same seeds by a bare engine, and by a fleet of one."""
    work = jobs(arguments.seeds, 128)
    times = {}
    with toy_fleet(1.0, 1) as pool:
        for name, engine in (("bare", Toy("1.0")), ("fleet of one", pool)):
            start = time.monotonic()
            answers = sum(len(batch) for _, batch in engine.run(work))
            times[name] = time.monotonic() - start
            assert answers == 128 * arguments.seeds
            print(f"{name:14} {times[name]:8.3f} s for {arguments.seeds} seeds of 1 s, 128 answers each")
    print(f"overhead       {times['fleet of one'] / times['bare'] - 1:8.2%}  (mark: less than 3 %)")


def dispatch(arguments: argparse.Namespace) -> None:
    """Units of nothing to do, a second; and the driver's memory meanwhile."""
    work = jobs(arguments.units, 1)
    with toy_fleet(0.0, arguments.engines) as pool:
        start, seen, memory = time.monotonic(), 0, []
        for _, answers in pool.run(work):
            seen += len(answers)
            if seen >= len(memory) * arguments.units / 10:
                memory.append(resident())
        seconds = time.monotonic() - start
    assert seen == arguments.units
    print(
        f"{seen:,} units by {arguments.engines} engines in {seconds:.1f} s: {seen / seconds:,.0f} a second (mark: 1,000)"
    )
    print("driver's memory, MiB, every tenth of the way: " + " ".join(f"{value:.0f}" for value in memory))


STUDY = {
    "name": "kills",
    "model": {"name": "smollm2-135m", "device": "cpu"},
    "task": {"name": "arithmetic"},
    "splits": {"search": 32, "select": 24, "test": 32},
    "search": {"sigmas": [2e-3, 4e-3], "votes": [2, 4]},
    "stats": {"resamples": 500},
}


def kills(arguments: argparse.Namespace) -> None:
    """The same study twice, once with its actors killed at random moments."""
    import seedfold

    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    study: dict[str, Any] = {**STUDY, "engine": {"fleet": "local", "count": 2, "threads": 1, "retries": 10}}
    study["search"]["candidates"] = arguments.seeds * 2
    seconds = {}
    for name in ("undisturbed", "killed"):
        killer = Killer(arguments.kills if name == "killed" else 0, arguments.every)
        start = time.monotonic()
        seedfold.run(study, folder / name)
        seconds[name] = time.monotonic() - start
        killer.stop()
        print(
            f"{name:12} {seconds[name]:7.0f} s, {killer.done} kills, {len(outcome(folder / name)[2]):,} evaluations",
            flush=True,
        )
    one, other = outcome(folder / "undisturbed"), outcome(folder / "killed")
    keys = [row[:3] for row in other[2]]
    print(
        f"kills: {killer.done} (mark: {arguments.kills}); evaluations that are there twice: {len(keys) - len(set(keys))}"
    )
    for what, before, after in zip(("record", "recipes", "evaluations"), one, other, strict=True):
        differ = [key for key in before if before[key] != after.get(key)] if isinstance(before, dict) else []
        print(f"{what}: {'identical' if before == after else 'DIFFERENT ' + ', '.join(differ)}")


class Killer:
    """Kills a random actor of this process's Ray again and again, with about so many seconds in between."""

    def __init__(self, kills: int, every: float) -> None:
        self.kills, self.every, self.done, self.random = kills, every, 0, random.Random(1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._kill)
        self._thread.start()

    def _kill(self) -> None:
        from seedfold.engines.fleet_join import started

        while self.done < self.kills and not self._stopped.wait(self.every * self.random.uniform(0.2, 1.8)):
            actors = []
            for pid in started(os.getpid()):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::Seat"):
                        actors.append(pid)
            if actors:
                os.kill(self.random.choice(sorted(actors)), signal.SIGKILL)
                self.done += 1

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def outcome(folder: Path) -> tuple[Any, Any, list[Any]]:
    """The record without its times, the recipes, and every evaluation."""
    from seedfold.report.record import TIMES

    record = json.loads((folder / "record.json").read_text())
    for name in TIMES:
        del record[name]
    recipes = {path.name: path.read_text() for path in (folder / "recipes").iterdir()}
    with sqlite3.connect(folder / "journal.sqlite") as database:
        rows = database.execute("SELECT * FROM evaluations ORDER BY recipe, example, sample").fetchall()
    return record, recipes, rows


def scale(arguments: argparse.Namespace) -> None:
    """Seeds a second of the same recipes by more and more engines; whether all gave the same answers."""
    from seedfold import tasks
    from seedfold.engines import opened

    task = tasks.load(config.Task(name="gsm8k", path=str(HERE / "gsm8k" / "data.jsonl")), 128)
    examples, rates, found = task.examples[:128], {}, []
    for count in map(int, arguments.counts.split(",")):
        settings = config.load(None, [f"model.name={arguments.model}", "engine.fleet=local", *arguments.set]).engine
        with opened(config.Model(name=arguments.model), replace(settings, count=count)) as pool:
            while pool.at_work() < count:  # type: ignore[attr-defined]
                time.sleep(0.1)
            prompts = [Prompt(pool.encode(task.messages(example)), example.id) for example in examples]
            for _ in pool.run(candidates(pool, prompts, 10_000, 2 * count, arguments.tokens)):
                pass  # warm up
            start, answers = time.monotonic(), {}
            for number, batch in pool.run(candidates(pool, prompts, 1, arguments.seeds, arguments.tokens)):
                answers |= {(number, answer.index): answer.text for answer in batch}
            rates[count] = arguments.seeds / (time.monotonic() - start)
            found.append(answers)
            same = sum(found[0][key] == answers[key] for key in answers) / len(answers)
            print(
                f"{count} engines: {rates[count]:.2f} seeds/s, {rates[count] / rates[min(rates)]:.2f} times the first; "
                f"{same:.1%} of the answers are the first's; {pool.describe()}",
                flush=True,
            )


def candidates(engine: Any, prompts: list[Prompt], first: int, count: int, tokens: int) -> list[Job]:
    base = Base(engine.name, engine.revision, engine.fingerprint)
    terms = [(Term("rademacher", seed, 1e-3),) for seed in range(first, first + count)]
    return [Job(Recipe(base, term, dtype=engine.dtype), prompts, Decoding(tokens)) for term in terms]


def resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=["overhead", "dispatch", "kills", "scale"])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--engines", type=int, default=8, help="of dispatch")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, default=12.0, help="kills: seconds between two, on average")
    parser.add_argument("--model", default="smollm2-135m", help="scale: a checkpoint")
    parser.add_argument("--counts", default="1,2", help="scale: engines")
    parser.add_argument("--tokens", type=int, default=300, help="scale: limit of an answer")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="scale: settings of the engines"
    )
    return parser


if __name__ == "__main__":
    arguments = _parser().parse_args()
    globals()[arguments.arm](arguments)
