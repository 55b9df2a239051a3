"""What is known is not asked for; what comes is graded and kept while engines of a pool go on."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from seedfold import config
from seedfold.engines.base import Answer, Decoding, Job, Prompt, in_turn
from seedfold.engines.pool import Pool
from seedfold.evaluate import Ask, Evaluator
from seedfold.journal import Journal
from seedfold.progress import Progress
from seedfold.recipe import Base, Recipe, Term
from seedfold.tasks.base import Example, Grade, Message, Task

EXAMPLES = [Example.of({"n": n}) for n in range(6)]


class Echo(Task):
    """The reward is the answer's length; grading takes `delay` seconds a batch."""

    max_tokens, delay = 8, 0.0

    def messages(self, example: Example) -> list[Message]:
        return self.ask(str(example.columns["n"]))

    def grade_many(self, completions: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
        time.sleep(self.delay)
        return [Grade(float(len(text)), float(len(text)), text) for text in completions]


class Here:
    """An engine in this process that keeps what it was asked."""

    name, positions = "here", None

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.recipe: Any = None

    def encode(self, messages: list[Message]) -> tuple[int, ...]:
        return tuple(messages[0]["content"].encode())

    def become(self, recipe: Any) -> None:
        self.recipe = recipe

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding, done: Any = ()) -> Iterator[list[Answer]]:
        for i, prompt in enumerate(prompts):
            pairs = [(i, sample) for sample in decoding.samples]
            if not all(pair in done for pair in pairs):
                text = f"{self.recipe.terms[0].seed} {prompt.tokens}"
                yield [Answer(i, sample, f"{text} {sample}", 1, 2, "stop") for _, sample in pairs]

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[Answer]]]:
        self.jobs += jobs
        return in_turn(self, jobs)  # type: ignore[arg-type]


def recipe(seed: int) -> Recipe:
    return Recipe(Base("m", "", "same"), (Term("rademacher", seed, 0.1),))


def evaluator(engine: Any, journal: Journal | None = None, **task: Any) -> Evaluator:
    made = Echo(EXAMPLES)
    for name, value in task.items():
        setattr(made, name, value)
    return Evaluator(engine, made, journal, Progress(quiet=True))


def test_many_recipes_are_one_run_in_order(tmp_path: Path) -> None:
    engine = Here()
    with Journal.open(tmp_path, {}) as journal:
        mine = evaluator(engine, journal)
        rows = mine.greedy_many([recipe(seed) for seed in (3, 1, 2)], EXAMPLES)
        assert [[row.recipe for row in line] for line in rows] == [[recipe(seed).key] * 6 for seed in (3, 1, 2)]
        assert [[row.example for row in line] for line in rows] == [[example.id for example in EXAMPLES]] * 3
        assert [row.completion[0] for line in rows for row in line[:1]] == ["3", "1", "2"]
        assert len(engine.jobs) == 3
        assert len({id(job.prompts) for job in engine.jobs}) == 1
        assert mine.progress.done == mine.progress.fresh == journal.count() == 18
        assert journal.recipes() == [recipe(seed).key for seed in (3, 1, 2)]
        assert mine.greedy(recipe(3), EXAMPLES) == rows[0]


def test_what_the_journal_has_is_not_asked_for(tmp_path: Path) -> None:
    with Journal.open(tmp_path, {}) as journal:
        evaluator(Here(), journal).greedy_many([recipe(1), recipe(2)], EXAMPLES[:4])
        engine = Here()
        again = evaluator(engine, journal)
        rows = again.answer([Ask(recipe(1)), Ask(recipe(2), (0, 1), 0.5), Ask(recipe(3))], EXAMPLES[:4])
        assert [[[row.sample for row in of] for of in line] for line in rows] == [[[0]] * 4, [[0, 1]] * 4, [[0]] * 4]
        assert [job.recipe for job in engine.jobs] == [recipe(2), recipe(3)]
        assert engine.jobs[0].done == frozenset((i, 0) for i in range(4))
        assert engine.jobs[0].decoding == Decoding(8, (), 0.5, 1.0, (0, 1))
        assert (again.progress.done, again.progress.fresh) == (16, 8)


def test_the_limit_goes_over_the_task_s() -> None:
    engine = Here()
    mine = evaluator(engine)
    mine.greedy(recipe(1), EXAMPLES)
    mine.limit = 5
    mine.sampled(recipe(1), EXAMPLES, 2, 0.5, 0.9)
    assert [job.decoding.max_tokens for job in engine.jobs] == [8, 5]
    assert engine.jobs[1].decoding == Decoding(5, (), 0.5, 0.9, (1, 2))


def test_engines_of_a_pool_do_not_wait_for_the_grader(tmp_path: Path) -> None:
    """Grading takes longer than generating: the engines' last batch is made long before the grader is at it."""
    settings = {"log": str(tmp_path), "delay": 0.01}
    model = config.Model(name=json.dumps(settings), device="cpu")
    with (
        Pool(model, config.Engine(count=2), "pool_engines:fake") as pool,
        Journal.open(tmp_path / "out", {}) as journal,
    ):
        mine = evaluator(pool, journal, delay=0.05)
        rows = mine.greedy_many([recipe(seed) for seed in range(1, 13)], EXAMPLES)
        end = time.time()
        assert journal.count() == 72
        assert [row.completion for row in rows[4]] == [f"5 {example.id} 0" for example in EXAMPLES]
    batches = [line.split() for path in tmp_path.glob("*.log") for line in path.read_text().splitlines()]
    made = [float(line[0]) for line in batches if line[1] == "batch"]
    assert len(made) == 24
    assert end - max(made) > 0.3


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "engines"))
