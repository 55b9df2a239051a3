"""Answers to grades, beside the engine where a task's graders wait for others: a sandbox for programs, a judge's endpoint.

One thread grades at a time, whatever has come since it began, so that a slow grader gets large batches and no task needs
graders that may run twice at once. The engine goes on meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from seedfold.engines.base import Answer
from seedfold.tasks.base import Example, Grade, Task

Batch = tuple[int, Sequence[Answer], Sequence[Example]]
"""The number of a job, answers to it, and the example of each."""
Graded = tuple[int, Sequence[Answer], list[Grade]]

AT_ONCE = 256
"""Answers from which no further batch is added to those that are graded together: what an error in one of them costs."""
BEHIND = 4096
"""Answers that may wait for their grades; with more of them the engine waits."""


def graded(task: Task, batches: Iterable[Batch]) -> Iterator[Graded]:
    """Each batch with its grades, in the order in which they come."""
    if not task.waits:
        for batch in batches:
            yield _grade(task, [batch])[0]
        return
    waiting: deque[Batch] = deque()
    running: Future[list[Graded]] | None = None
    grader = ThreadPoolExecutor(1, "grader")
    try:
        for batch in batches:
            waiting.append(batch)
            if running is not None and (running.done() or sum(len(answers) for _, answers, _ in waiting) > BEHIND):
                yield from running.result()
                running = None
            if running is None:
                running = grader.submit(_grade, task, _taken(waiting))
        while running is not None:
            yield from running.result()
            running = grader.submit(_grade, task, _taken(waiting)) if waiting else None
    finally:
        grader.shutdown(wait=False, cancel_futures=True)


def _taken(waiting: deque[Batch]) -> list[Batch]:
    """The first ones, at least one, out of those that wait."""
    taken: list[Batch] = []
    while waiting and sum(len(answers) for _, answers, _ in taken) < AT_ONCE:
        taken.append(waiting.popleft())
    return taken


def _grade(task: Task, batches: Sequence[Batch]) -> list[Graded]:
    texts = [answer.text for _, answers, _ in batches for answer in answers]
    grades = iter(task.grade_many(texts, [example for _, _, examples in batches for example in examples]))
    return [(number, answers, [next(grades) for _ in answers]) for number, answers, _ in batches]
