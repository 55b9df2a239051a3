"""Tasks that wait are graded beside the engine, whole and in order; all others where the engine is."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from seedfold import grading
from seedfold.engines.base import Answer
from seedfold.errors import UserError
from seedfold.grading import Batch, graded
from seedfold.tasks.base import Example, Grade, Task
from seedfold.tasks.code import CodeTask
from seedfold.tasks.writing import Judged

EXAMPLES = [Example.of({"n": n}) for n in range(3)]


class Lengths(Task):
    """The reward is the text's length. `gate` is waited for before anything is graded."""

    def __init__(self, graders: int, gate: threading.Event | None = None) -> None:
        super().__init__(EXAMPLES)
        self.graders, self.gate = graders, gate
        self.sizes: list[int] = []
        self.threads: set[threading.Thread] = set()

    def grade_many(self, completions: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
        assert self.gate is None or self.gate.wait(20)
        if "bad" in completions:
            raise UserError("a text is bad")
        self.sizes.append(len(completions))
        self.threads.add(threading.current_thread())
        return [
            Grade(len(text) + example.columns["n"] / 10, 0.0, text)
            for text, example in zip(completions, examples, strict=True)
        ]


def batch(number: int, *texts: str) -> Batch:
    answers = [Answer(i, 0, text, 1, 1, "stop") for i, text in enumerate(texts)]
    return number, answers


BATCHES = [batch(0, "a", "bb"), batch(1, "c"), batch(0, "dddd"), batch(2, "", "f", "gg")]


@pytest.mark.parametrize("graders", [0, 1, 3])
def test_each_batch_has_its_grades_in_order(graders: int) -> None:
    task = Lengths(graders)
    found = list(graded(task, EXAMPLES, iter(BATCHES)))
    if graders > 1:  # in whatever order they are done
        found.sort(key=lambda batch: [answers for _, answers in BATCHES].index(batch[1]))
    assert [(number, answers) for number, answers, _ in found] == BATCHES
    assert [[grade.strict for grade in grades] for *_, grades in found] == [[1.0, 2.1], [1.0], [4.0], [0.0, 1.1, 2.2]]
    assert (threading.current_thread() in task.threads) is (graders == 0)
    assert sum(task.sizes) == 7


def test_nothing_is_graded_and_nothing_found() -> None:
    assert list(graded(Lengths(1), EXAMPLES, iter(()))) == []


def test_the_engine_goes_on_while_the_grader_waits() -> None:
    """The first grades are given out only once the engine is done; what came meanwhile is graded together."""
    done = threading.Event()
    task = Lengths(1, gate=done)

    def engine() -> Iterator[Batch]:
        yield from BATCHES
        done.set()

    assert len(list(graded(task, EXAMPLES, engine()))) == 4
    assert task.sizes == [2, 5]


def test_the_engine_waits_for_a_grader_that_is_too_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "BEHIND", 3)
    monkeypatch.setattr(grading, "AT_ONCE", 2)
    go = threading.Event()
    task = Lengths(1, gate=go)

    def engine() -> Iterator[Batch]:
        for number in range(20):
            if number == 5:  # one at the grader and four that wait: no sixth before the grader has gone on
                assert go.is_set()
            if number == 4:
                threading.Timer(0.05, go.set).start()
            yield batch(number, "x")

    found = list(graded(task, EXAMPLES, engine()))
    assert [number for number, *_ in found] == list(range(20))
    assert max(task.sizes) == 2


def test_a_slow_batch_does_not_hold_up_the_others() -> None:
    slow = threading.Event()

    class Slow(Lengths):
        def grade_many(self, completions: Sequence[str], examples: Sequence[Example]) -> list[Grade]:
            if "slow" in completions:
                assert slow.wait(20)
            return super().grade_many(completions, examples)

    found = graded(Slow(2), EXAMPLES, (batch(number, "slow" if number == 0 else "x") for number in range(50)))
    seen = [next(found)[0]]
    slow.set()
    assert seen[0] > 0
    assert sorted([*seen, *(number for number, *_ in found)]) == list(range(50))


@pytest.mark.parametrize("graders", [0, 1, 3])
def test_what_a_grader_raises_arrives(graders: int) -> None:
    with pytest.raises(UserError, match="a text is bad"):
        list(graded(Lengths(graders), EXAMPLES, iter([batch(0, "a"), batch(1, "bad"), batch(2, "c")])))


def test_programs_and_judges_are_waited_for() -> None:
    assert CodeTask.graders > 1
    assert Judged.graders == 1
    assert Task.graders == 0
