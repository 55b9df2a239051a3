"""The Reasoning Gym adapter: its tasks end to end, and scorers that hang, print, die or run the model's text."""

import pickle
import time
from pathlib import Path

import pytest

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import scorer
from seedfold.tasks.reasoning_gym import ReasoningGym, readings, tagged

reasoning_gym = pytest.importorskip("reasoning_gym", reason="the extra seedfold[tasks] is not installed")

SOME = "chain_sum gcd basic_arithmetic leg_counting simple_equations spell_backward word_sorting letter_counting maze"
SOME += " number_sorting countdown propositional_logic family_relationships time_intervals"


def gym(name: str, count: int = 3, **settings: object) -> ReasoningGym:
    task = tasks.load(Settings(name=f"reasoning-gym:{name}", **settings), count)  # type: ignore[arg-type]
    assert isinstance(task, ReasoningGym)
    return task


@pytest.mark.parametrize("name", SOME.split())
def test_end_to_end(name: str) -> None:
    task = gym(name)
    for example in task.examples:
        assert example.columns["question"] in task.messages(example)[0]["content"]
        answer = example.columns["answer"]
        if answer is None:  # these datasets only check, they give no answer
            continue
        right = task.grade(f"Thinking.\n<answer> {answer} </answer>", example)
        assert (right.strict, right.lenient, right.answer) == (1, 1, " ".join(answer.split()))
        assert task.grade(answer, example).strict == 0
        assert task.grade(answer, example).lenient == 1
        assert task.grade("", example).lenient < 0.1


def test_every_dataset_makes_entries() -> None:
    from reasoning_gym.factory import DATASETS

    for name in sorted(set(DATASETS) - {"composite"}):  # which needs options: the datasets that it is made of
        dataset = reasoning_gym.create_dataset(name, seed=0, size=2)
        assert {"question", "answer"} <= dataset[1].keys(), name
        pickle.dumps(dataset[1])


@pytest.mark.parametrize("name", ["countdown", "n_queens"])  # sympy, eval
def test_a_hanging_scorer_counts_as_wrong_and_the_next_answer_is_scored(name: str) -> None:
    task = gym(name)
    example = task.examples[0]
    task.grade("<answer>1</answer>", example)  # starts the child
    start = time.perf_counter()
    assert task.grade("<answer>9**9**9**9</answer>", example).strict == 0
    assert time.perf_counter() - start < 10  # a second of CPU time; more on a busy machine
    assert task.grade(f"<answer>{example.columns['answer']}</answer>", example).strict == 1


def test_text_does_not_run_in_the_study(tmp_path: Path) -> None:
    task = gym("n_queens")
    file = tmp_path / "written"
    text = f"__import__('pathlib').Path({str(file)!r}).write_text('x')"
    assert task.grade(f"<answer>{text}</answer>", task.examples[0]).strict < 0.1
    assert not file.exists() or file.stat().st_size == 0
    exits = "<answer>__import__('os')._exit(0)</answer>"
    assert task.grade(exits, task.examples[0]).strict < 0.1


def test_a_scorer_that_cannot_start_says_so() -> None:
    with pytest.raises(UserError, match='"no such dataset" does not start'):
        scorer.Scorer("no such dataset", {})("1", {})


def test_a_task_survives_pickling() -> None:
    task = gym("gcd")
    example = task.examples[0]
    text = f"<answer>{example.columns['answer']}</answer>"
    assert task.grade(text, example).strict == 1
    assert pickle.loads(pickle.dumps(task)).grade(text, example).strict == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("countdwn", {}, 'Reasoning Gym has no "countdwn"; did you mean "countdown"'),
        ("", {}, 'Reasoning Gym has no ""; known here: ab, '),
        ("countdown", {"min_number": 1}, "TypeError: .*unexpected keyword argument 'min_number'"),
        ("countdown", {"min_numbers": 9}, "AssertionError: .*; see the parameters"),
        ("coin_flip", {"seed": 1}, '"task.options.seed" is given; use "task.seed"'),
        ("coin_flip", {"size": 9}, 'use "task.examples"'),
    ],
)
def test_errors(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gym(name, options=options)


def test_readings() -> None:
    assert tagged("<answer>1</answer> <answer>\n2\n</answer>") == "2"
    assert tagged("<answer>1") is None
    assert tagged("<answer>" * 100_000) is None
    assert readings("First.\n**44 + 27 = 71.**") == [
        *["44 + 27 = 71.", "44 + 27 = 71", "71.", "71", "First.\n**44 + 27 = 71.", "First.\n**44 + 27 = 71"]
    ]
    assert readings("Well.\nThe answer is **7**") == ["7", "The answer is **7", "Well.\nThe answer is **7"]
    assert readings("") == []


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("chain_sum", "{question} {answer}"),
        ("chain_sum", "So {answer}, or 1 + 1 = {answer}."),
        ("syllogism", "The answer is {answer}."),
    ],
)
def test_the_substance_is_read_however_it_is_written(name: str, form: str) -> None:
    task = gym(name)
    for example in task.examples:
        grade = task.grade(form.format(**example.columns), example)
        assert (grade.strict, grade.lenient) == (0, 1)
    wrong = task.grade("So 1 + 1 = 2.", task.examples[0])
    assert wrong.lenient < 1
