"""One evaluation: a recipe answers examples, the task grades, the journal keeps. Nothing is done twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seedfold.engines.base import Answer, Decoding, Engine, Prompt
from seedfold.errors import UserError
from seedfold.journal import Journal, Row
from seedfold.progress import Progress
from seedfold.recipe import Recipe
from seedfold.tasks.base import Example, Grade, Task


@dataclass
class Evaluator:
    """Answers to examples by recipes, from the journal where it has them, else from the engine.

    journal: None keeps nothing.
    """

    engine: Engine
    task: Task
    journal: Journal | None
    progress: Progress
    _prompts: dict[str, Prompt] = field(default_factory=dict)

    def prompt(self, example: Example) -> Prompt:
        """The example's prompt in tokens."""
        if example.id not in self._prompts:
            self._prompts[example.id] = Prompt(self.engine.encode(self.task.messages(example)), example.id)
        return self._prompts[example.id]

    def greedy(self, recipe: Recipe, examples: Sequence[Example]) -> list[Row]:
        """One row per example, in their order."""
        decoding = Decoding(self.task.max_tokens, self.task.stop)
        return [rows[0] for rows in self._rows(recipe, examples, decoding)]

    def sampled(
        self, recipe: Recipe, examples: Sequence[Example], count: int, temperature: float, top_p: float
    ) -> list[list[Row]]:
        """`count` sampled rows per example: samples 1 … count, in that order."""
        samples = tuple(range(1, count + 1))
        return self._rows(recipe, examples, Decoding(self.task.max_tokens, self.task.stop, temperature, top_p, samples))

    def _rows(self, recipe: Recipe, examples: Sequence[Example], decoding: Decoding) -> list[list[Row]]:
        numbers = {example.id: number for number, example in enumerate(examples)}
        known: dict[tuple[int, int], Row] = {}
        if self.journal is not None:
            for row in self.journal.rows(recipe.key, examples=list(numbers)):
                if row.sample in decoding.samples:
                    known[numbers[row.example], row.sample] = row
        self.progress.add(len(known), known=True)
        if len(known) < len(examples) * len(decoding.samples):
            if self.journal is not None:
                self.journal.add_recipe(recipe.key, recipe.to_json())
            self.engine.become(recipe)
            prompts = [self.prompt(example) for example in examples]
            # The whole list is given, so that batches are the same in a run that was interrupted.
            for batch in self.engine.generate(prompts, decoding, done=frozenset(known)):
                fresh = [answer for answer in batch if (answer.index, answer.sample) not in known]
                rows = self._grade(recipe, fresh, [examples[answer.index] for answer in fresh])
                if self.journal is not None:
                    self.journal.record(rows)
                for answer, row in zip(fresh, rows, strict=True):
                    known[answer.index, answer.sample] = row
                self.progress.add(len(rows))
        return [[known[number, sample] for sample in decoding.samples] for number in range(len(examples))]

    def _grade(self, recipe: Recipe, answers: Sequence[Answer], examples: Sequence[Example]) -> list[Row]:
        grades = self.task.grade_many([answer.text for answer in answers], examples)
        return [
            Row(
                recipe=recipe.key,
                example=example.id,
                sample=answer.sample,
                reward=grade.strict,
                lenient=grade.lenient,
                answer=grade.answer,
                completion=answer.text,
                prompt_tokens=answer.prompt_tokens,
                tokens=answer.tokens,
                finish=answer.finish,
            )
            for answer, example, grade in zip(answers, examples, grades, strict=True)
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
