"""One evaluation: a recipe answers examples, the task grades, the journal keeps. Nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from seedfold.engines.base import Answer, Decoding, Engine, Job, Prompt, pictures
from seedfold.errors import UserError
from seedfold.grading import Batch, graded
from seedfold.journal import Journal, Row
from seedfold.progress import Progress
from seedfold.recipe import Recipe
from seedfold.tasks.base import Example, Grade, Task


@dataclass(frozen=True)
class Ask:
    """What is wanted of a recipe: sample 0 is the greedy answer, others are drawn at a temperature and a nucleus."""

    recipe: Recipe
    samples: tuple[int, ...] = (0,)
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass
class Evaluator:
    """Answers to examples by recipes, from the journal where it has them, else from the engine.

    journal: None keeps nothing. limit: tokens of an answer; 0: as many as the task says.
    """

    engine: Engine
    task: Task
    journal: Journal | None
    progress: Progress
    limit: int = 0
    _prompts: dict[str, Prompt] = field(default_factory=dict)

    def prompt(self, example: Example) -> Prompt:
        """The example's prompt in tokens, with its images."""
        if example.id not in self._prompts:
            messages = self.task.messages(example)
            self._prompts[example.id] = Prompt(self.engine.encode(messages), example.id, *pictures(messages))
        return self._prompts[example.id]

    def greedy(self, recipe: Recipe, examples: Sequence[Example]) -> list[Row]:
        """One row per example, in their order."""
        return self.greedy_many([recipe], examples)[0]

    def greedy_many(self, recipes: Sequence[Recipe], examples: Sequence[Example]) -> list[list[Row]]:
        """For each recipe one row per example. The engine gets all recipes at once, and may overlap them."""
        return [[rows[0] for rows in lines] for lines in self.answer([Ask(recipe) for recipe in recipes], examples)]

    def sampled(
        self, recipe: Recipe, examples: Sequence[Example], count: int, temperature: float, top_p: float
    ) -> list[list[Row]]:
        """`count` sampled rows per example: samples 1 … count, in that order."""
        return self.answer([Ask(recipe, tuple(range(1, count + 1)), temperature, top_p)], examples)[0]

    def answer(self, asks: Sequence[Ask], examples: Sequence[Example]) -> list[list[list[Row]]]:
        """For each ask, for each example, a row per sample: all in the order given.

        Rows are graded and written to the journal as they come, while the engine goes on where it can.
        """
        known = [self._known(ask, examples) for ask in asks]
        self.progress.add(sum(map(len, known)), known=True)
        missing = [i for i, ask in enumerate(asks) if len(known[i]) < len(examples) * len(ask.samples)]
        if missing:
            # The whole list is given, so that batches are the same in a run that was interrupted; and the same list to
            # all, so that an engine in another process is sent it once.
            prompts = [self.prompt(example) for example in examples]
            jobs = [Job(asks[i].recipe, prompts, self._decoding(asks[i]), frozenset(known[i])) for i in missing]
            noted: set[str] = set()
            made = self._fresh(jobs, [known[i] for i in missing])
            for number, answers, grades in graded(self.task, examples, made):
                ask, rows = asks[missing[number]], known[missing[number]]
                fresh = _rows(ask.recipe.key, examples, answers, grades)
                if self.journal is not None:
                    if ask.recipe.key not in noted:
                        self.journal.add_recipe(ask.recipe.key, ask.recipe.to_json())
                        noted.add(ask.recipe.key)
                    self.journal.record(fresh)
                for answer, row in zip(answers, fresh, strict=True):
                    rows[answer.index, answer.sample] = row
                if len(rows) == len(examples) * len(ask.samples):
                    self.progress.seed()
                self.progress.add(len(fresh))
        return [
            [[rows[i, sample] for sample in ask.samples] for i in range(len(examples))]
            for ask, rows in zip(asks, known, strict=True)
        ]

    def _fresh(self, jobs: Sequence[Job], known: Sequence[dict[tuple[int, int], Row]]) -> Iterator[Batch]:
        """What the engine makes, less what is known: batches that were done in part are made whole again."""
        for number, answers in self.engine.run(jobs):
            fresh = [answer for answer in answers if (answer.index, answer.sample) not in known[number]]
            if fresh:
                yield number, fresh

    def _known(self, ask: Ask, examples: Sequence[Example]) -> dict[tuple[int, int], Row]:
        """What the journal has: (place of the example, sample) -> row."""
        if self.journal is None:
            return {}
        places = {example.id: place for place, example in enumerate(examples)}
        rows = self.journal.rows(ask.recipe.key, examples=list(places))
        return {(places[row.example], row.sample): row for row in rows if row.sample in ask.samples}

    def _decoding(self, ask: Ask) -> Decoding:
        return Decoding(self.limit or self.task.max_tokens, self.task.stop, ask.temperature, ask.top_p, ask.samples)


def _rows(recipe: str, examples: Sequence[Example], answers: Sequence[Answer], grades: Sequence[Grade]) -> list[Row]:
    return [
        Row(
            recipe=recipe,
            example=examples[answer.index].id,
            sample=answer.sample,
            reward=grade.strict,
            lenient=grade.lenient,
            answer=grade.answer,
            completion=answer.text,
            prompt_tokens=answer.prompt_tokens,
            tokens=answer.tokens,
            finish=answer.finish,
        )
        for answer, grade in zip(answers, grades, strict=True)
    ]


def grade_of(row: Row) -> Grade:
    """What the journal kept of the grader's reading."""
    return Grade(row.reward, row.lenient, row.answer)


def check_room(evaluator: Evaluator, examples: Sequence[Example]) -> None:
    """Refuse prompts that leave no room for an answer, before anything is spent."""
    limit, answer = evaluator.engine.positions, evaluator.task.max_tokens
    longest = max((evaluator.prompt(example) for example in examples), key=lambda prompt: len(prompt.tokens))
    if limit and len(longest.tokens) + answer > limit:
        raise UserError(
            f"the prompt of example {longest.key} has {len(longest.tokens)} tokens and may get {answer} more, but model "
            f'"{evaluator.engine.name}" has {limit} positions; lower "task.max_tokens" or drop the example'
        )
