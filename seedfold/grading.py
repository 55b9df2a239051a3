"""Answers to grades, beside the engine where a task's graders wait for others: a sandbox for programs, a judge's endpoint.

Graders are threads. Each takes what has come since the last of them began, so that slow graders get large batches, and the
engine goes on meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from seedfold.engines.base import Answer
from seedfold.tasks.base import Example, Grade, Task

Batch = tuple[int, list[Answer]]
"""The number of a job and answers to it, as engines give them."""
Graded = tuple[int, list[Answer], list[Grade]]

AT_ONCE = 256
"""Answers from which a grader takes no further batch: what an error in one of them costs."""
BEHIND = 4096
"""Answers that may wait for a grader; with more of them the engine waits."""


def graded(task: Task, examples: Sequence[Example], batches: Iterable[Batch]) -> Iterator[Graded]:
    """Each batch with its grades: in the batches' order where there is one grader or none, else as they are done.

    examples: what the indices of answers count.
    """
    if not task.graders:
        for batch in batches:
            yield _grade(task, examples, [batch])[0]
        return
    waiting: deque[Batch] = deque()
    running: list[Future[list[Graded]]] = []
    graders = ThreadPoolExecutor(task.graders, "grader")
    try:
        for batch in batches:
            waiting.append(batch)
            full = sum(len(answers) for _, answers in waiting) > BEHIND
            yield from _done(running, full)
            if len(running) < task.graders:
                running.append(graders.submit(_grade, task, examples, _taken(waiting)))
        while running:
            yield from _done(running, True)
            while waiting and len(running) < task.graders:
                running.append(graders.submit(_grade, task, examples, _taken(waiting)))
    finally:
        graders.shutdown(wait=False, cancel_futures=True)


def _done(running: list[Future[list[Graded]]], patient: bool) -> Iterator[Graded]:
    """Take those out that have ended. patient: wait for one at least."""
    if patient:
        wait(running, return_when=FIRST_COMPLETED)
    for future in [future for future in running if future.done()]:
        running.remove(future)
        yield from future.result()


def _taken(waiting: deque[Batch]) -> list[Batch]:
    """The first ones, at least one, out of those that wait."""
    taken: list[Batch] = []
    while waiting and sum(len(answers) for _, answers in taken) < AT_ONCE:
        taken.append(waiting.popleft())
    return taken


def _grade(task: Task, examples: Sequence[Example], batches: Sequence[Batch]) -> list[Graded]:
    together = [answer for _, answers in batches for answer in answers]
    grades = iter(
        task.grade_many([answer.text for answer in together], [examples[answer.index] for answer in together])
    )
    return [(number, answers, [next(grades) for _ in answers]) for number, answers in batches]
