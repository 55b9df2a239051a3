"""An engine without a model, for the processes of a pool: what it answers depends on the job alone."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from seedfold.engines.base import Answer, Decoding, Job, Prompt, in_turn
from seedfold.errors import UserError
from seedfold.recipe import Base, Recipe, Term

BATCH = 4
PROMPTS = [Prompt((1,) * (i + 1), f"p{i}") for i in range(10)]


def recipe(seed: int, fingerprint: str = "same") -> Recipe:
    return Recipe(Base("fake", "", fingerprint), (Term("rademacher", seed, 0.1),), dtype="float32")


def jobs_of(count: int, prompts: list[Prompt] = PROMPTS, samples: tuple[int, ...] = (0,), first: int = 1) -> list[Job]:
    return [Job(recipe(seed), prompts, Decoding(8, samples=samples)) for seed in range(first, first + count)]


class Fake:
    """`name` is JSON: log (a folder for what it does), delay (seconds a batch), size (characters more of an answer), width,
    fingerprint ("own": one per process), probe (empty: one per process), bad (a seed whose jobs fail, by "raise", "refuse",
    "full", "stick" or "stick once")."""

    name, revision, dtype, positions = "fake", "", "float32", 512

    def __init__(self, name: str) -> None:
        print("opening a fake engine", flush=True)
        settings = {"log": "", "delay": 0.0, "size": 0, "width": 1, "fingerprint": "same", "probe": "same"}
        settings |= {"bad": None, "how": "raise"}
        self.s = SimpleNamespace(**{**settings, **json.loads(name)})
        self.fingerprint = str(os.getpid()) if self.s.fingerprint == "own" else self.s.fingerprint
        self.recipe: Any = None
        self.note("gpus", os.environ.get("CUDA_VISIBLE_DEVICES", ""))

    def checksum(self) -> str:
        return f"{self.s.probe or os.getpid()} {self.seed()}"

    def seen(self, name: str) -> bool:
        """Whether a file of this name was there before."""
        path = Path(self.s.log) / name
        before = path.exists()
        path.touch()
        return before

    def note(self, *words: object) -> None:
        if self.s.log:
            with (Path(self.s.log) / f"{os.getpid()}.log").open("a") as file:
                print(time.time(), *words, file=file)

    def become(self, recipe: Any) -> None:
        if recipe is not None and recipe.base.fingerprint != self.fingerprint:
            raise UserError("a recipe of another base")
        self.recipe = recipe

    def seed(self) -> int:
        return self.recipe.terms[0].seed if self.recipe is not None and self.recipe.terms else 0

    def generate(self, prompts: list[Prompt], decoding: Any, done: Any = ()) -> Iterator[list[Answer]]:
        if self.s.bad is not None and self.seed() == self.s.bad:
            if self.s.how == "full":
                raise MemoryError("CUDA out of memory: tried to allocate 2 GiB")
            if self.s.how == "refuse":
                raise UserError("this job is refused")
            if self.s.how == "stick once" and self.seen("stuck"):
                return (yield from self.batches(prompts, decoding, done))
            if self.s.how.startswith("stick"):
                time.sleep(600)
            raise ValueError("this job is broken")
        yield from self.batches(prompts, decoding, done)

    def batches(self, prompts: list[Prompt], decoding: Any, done: Any) -> Iterator[list[Answer]]:
        self.note("job", self.seed(), len(decoding.samples), len(done))
        wanted = [(i, sample) for i in range(len(prompts)) for sample in decoding.samples]
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            if all(pair in done for pair in batch):
                continue
            time.sleep(self.s.delay)
            self.note("batch", self.seed())
            yield [self.answer(prompts, i, sample, decoding) for i, sample in batch]

    def answer(self, prompts: list[Prompt], i: int, sample: int, decoding: Any) -> Answer:
        text = f"{self.seed()} {prompts[i].key} {sample}" + "x" * self.s.size
        return Answer(i, sample, text, len(prompts[i].tokens), min(5 + i, decoding.max_tokens), "stop")

    def run(self, jobs: list[Any], more: Callable[[], list[Any]] = list) -> Iterator[tuple[int, list[Answer]]]:
        number = 0
        while jobs:
            self.note("run", len(jobs))
            for job in jobs:
                for _, answers in in_turn(self, [job]):  # type: ignore[arg-type]
                    yield number, answers
                number += 1
            jobs = more()

    def logprobs(self, prompts: list[Prompt], continuations: list[list[int]]) -> list[list[float]]:
        return [[float(self.seed()) for _ in tail] for tail in continuations]

    def encode(self, messages: list[dict[str, str]]) -> tuple[int, ...]:
        if messages[0]["content"] == "bad":
            raise KeyError("no such role")
        if messages[0]["content"] == "die" or (messages[0]["content"] == "die once" and not self.seen("fuse")):
            os._exit(7)
        return tuple(messages[-1]["content"].encode())

    def export(self, recipe: Any, folder: Path, card: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "README.md").write_text(f"{card} {recipe.terms[0].seed}")

    def sizes(self) -> dict[str, int]:
        sizes = {"weights": 1000, "cache_bytes_per_token": 2}
        return sizes if self.s.width == 1 else {**sizes, "copies": self.s.width}

    def describe(self) -> dict[str, Any]:
        return {"engine": "fake", "device": "cpu", "torch": "0", "transformers": "0", "exact": True}


def fake(model: Any, engine: Any) -> Fake:
    """The opener."""
    assert engine.count == 1
    return Fake(model.name)


def stacked(model: Any, engine: Any) -> Any:
    """A real engine of two copies, on a CPU."""
    from tiny_models import IdTokenizer, tiny_model

    from seedfold.engines.stacked import StackedEngine

    return StackedEngine(tiny_model("llama"), IdTokenizer(), "llama", "", 2, 4, "cpu")


def refuses(model: Any, engine: Any) -> Fake:
    raise UserError("there is no such model")


def crashes(model: Any, engine: Any) -> Fake:
    print("CUDA error: out of memory", file=sys.stderr, flush=True)
    os._exit(3)


def fragile(model: Any, engine: Any) -> Fake:
    """Cannot be opened once there is a file "broken"."""
    made = Fake(model.name)
    if (Path(made.s.log) / "broken").exists():
        print("cannot open", file=sys.stderr, flush=True)
        os._exit(4)
    return made


def later(model: Any, engine: Any) -> Fake:
    """The second to be opened takes two seconds longer."""
    made = Fake(model.name)
    if made.seen("one"):
        time.sleep(2)
    return made


def odd(model: Any, engine: Any) -> Fake:
    """Other weights than before, once there is a file "even"."""
    made = Fake(model.name)
    if (Path(made.s.log) / "even").exists():
        made.fingerprint = "odd"
    return made
