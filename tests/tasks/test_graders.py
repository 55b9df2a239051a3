"""Arithmetic, GSM8K and Countdown: what is right, what is well formed, and what votes pool."""

import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import countdown, expression, gsm8k
from seedfold.tasks.arithmetic import Arithmetic
from seedfold.tasks.base import Example, Grade, Task, grade_of_vote
from seedfold.tasks.countdown import Countdown
from seedfold.tasks.gsm8k import GSM8K

SAMPLE = Path(__file__).parents[1] / "data" / "gsm8k_sample.jsonl"

SUM = Example.of({"problem": "7 + 11", "answer": "18"})
WORD = Example.of({"question": "How many?", "answer": "6*3 = <<6*3=18>>18\n#### 18"})
PRICE = Example.of({"question": "How much?", "answer": "#### 1,080"})
DEBT = Example.of({"question": "How much?", "answer": "#### -3"})
HALF = Example.of({"question": "How much?", "answer": "#### 3/2"})
DOZEN = Example.of({"question": "How many?", "answer": "#### 12"})
GAME = Example.of({"numbers": [2, 5, 7], "target": 24})

NASTY = ["", "\x00\x01\x1b[2J", "9**9**9", "9^9^9^9", "(" * 5000, "-" * 5000, "9" * 5000, "1" * 1_000_000]
NASTY += ["<answer>" * 100_000, "<answer>9**9**9</answer>", "<answer>" + "(" * 900 + "</answer>", "####" * 250_000]
NASTY += ["#### 9**9**9", "#### " + "9" * 5000, "answer " * 150_000, "\n" * 1_000_000, "\ud800", "1 " * 500_000]
NASTY += ["=" * 100_000, "<answer>1/(5-5)</answer>", "\u2028\u0085" * 1000]


def graded(task: Task, text: str, example: Example) -> tuple[float, float, str | None]:
    grade = task.grade(text, example)
    return grade.strict, grade.lenient, grade.answer


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "answer"),
    [
        ("18", 1, 1, "18"),
        (" 18.\n", 1, 1, "18"),
        ("18.00", 1, 1, "18"),
        ("7 + 11 = 18", 1, 1, "18"),
        ("**18**", 1, 1, "18"),
        ("１８", 1, 1, "18"),
        ("-18", 0, 0, "-18"),
        ("19", 0, 0, "19"),
        ("The answer is 18.", 0, 1, None),
        ("7 + 11\n= 18", 0, 1, None),
        ("18 or 19", 0, 0, None),
        ("x^{18}", 0, 0, None),
        ("18\\pi", 0, 0, None),
        ("18π", 0, 0, None),
        ("\\boxed{18}", 0, 1, None),
        ("#### 18", 1, 1, "18"),
        ("18%", 1, 1, "18"),
        ("18°", 1, 1, "18"),
        ("١٨", 1, 1, "18"),
        ("36/2", 1, 1, "18"),
        ("18\x00", 1, 1, "18"),
        ("7 + 11", 0, 0, None),
        ("", 0, 0, None),
    ],
)
def test_arithmetic(text: str, strict: float, lenient: float, answer: str | None) -> None:
    assert graded(Arithmetic([SUM]), text, SUM) == (strict, lenient, answer)


@pytest.mark.parametrize(
    ("text", "example", "strict", "lenient", "answer"),
    [
        ("So 6*3 = 18.\n#### 18", WORD, 1, 1, "18"),
        ("#### 18.", WORD, 1, 1, "18"),
        ("#### 18.00", WORD, 1, 1, "18"),
        ("#### $18", WORD, 1, 1, "18"),
        ("####18", WORD, 1, 1, "18"),
        ("#### **18**", WORD, 1, 1, "18"),
        ("#### 18 apples", WORD, 1, 1, "18"),
        ("#### 36/2", WORD, 1, 1, "18"),
        ("#### 17\n#### 18", WORD, 1, 1, "18"),
        ("#### 18\n\nProblem: 5 more", WORD, 1, 1, "18"),
        ("#### 1080", PRICE, 1, 1, "1080"),
        ("#### $1,080.00", PRICE, 1, 1, "1080"),
        ("#### -3", DEBT, 1, 1, "-3"),
        ("#### −3", DEBT, 1, 1, "-3"),
        ("#### x^{-3}", DEBT, 0, 0, None),
        ("#### 18. Final answer", WORD, 0, 1, None),
        ("#### **18**. Final answer", WORD, 0, 1, None),
        ("#### 6. Final answer\n\\boxed{18}", WORD, 0, 1, None),
        ("#### 18) Check\nIt is 17", WORD, 0, 0, None),
        ("#### 18.\nDone", WORD, 1, 1, "18"),
        ("#### １８", WORD, 1, 1, "18"),
        ("#### 18%", WORD, 1, 1, "18"),
        ("#### 18\\text{ cm}", WORD, 1, 1, "18"),
        ("#### 18^\\circ", WORD, 1, 1, "18"),
        ("#### $18$", WORD, 1, 1, "18"),
        ("#### 1.5", HALF, 1, 1, "3/2"),
        ("#### \\frac{3}{2}", HALF, 1, 1, "3/2"),
        ("#### 3\\sqrt{2}", HALF, 0, 0, None),
        ("#### 12\\pi", DOZEN, 0, 0, None),
        ("#### 12π", DOZEN, 0, 0, None),
        ("#### 12", DOZEN, 1, 1, "12"),
        ("\\boxed{\\boxed{18}}", WORD, 0, 1, None),
        ("I first thought 17. #### 17. No: #### 18", WORD, 1, 1, "18"),
        ("#### 18\n#### 17", WORD, 0, 0, "17"),
        ("#### 9 + 9 = 18", WORD, 0, 1, None),
        ("#### The answer is 18", WORD, 0, 1, None),
        ("\\boxed{18} from 3 and 6", WORD, 0, 1, None),
        ("\\boxed{1{,}080}", PRICE, 0, 1, None),
        ("The answer is $18. That is 3 times 6.", WORD, 0, 1, None),
        ("The answer is 6 * 3 = 18", WORD, 0, 1, None),
        ("Answer: **18** (that is 6 * 3)", WORD, 0, 1, None),
        ("6 * 3 makes 18", WORD, 0, 1, None),
        ("18 is 6 * 3", WORD, 0, 0, None),
        ("", WORD, 0, 0, None),
    ],
)
def test_gsm8k(text: str, example: Example, strict: float, lenient: float, answer: str | None) -> None:
    assert graded(GSM8K([example]), text, example) == (strict, lenient, answer)


def test_gsm8k_sample_grades_its_own_answers_right() -> None:
    task = tasks.load(Settings(name="gsm8k", path=str(SAMPLE)), 50)
    assert len(task.examples) == 50
    assert all(task.grade(example.columns["answer"], example).strict == 1 for example in task.examples)


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "{}.", "${:,}", "{:,}.00", " {} ", "{} dollars"]))
def test_gsm8k_right_answers_in_usual_forms(value: int, form: str) -> None:
    example = Example.of({"question": "?", "answer": f"#### {value}"})
    assert graded(GSM8K([example]), "Because.\n#### " + form.format(value), example) == (1, 1, str(value))


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("<answer>(7+5)*2</answer>", 1, 1),
        ("<think>7+5+2</think><answer> 2 × (5 + 7) = 24 </answer>.", 1, 1),
        ("<answer>$(7+5) \\times 2$</answer>", 1, 1),
        ("<answer>7+5+2</answer> no: <answer>(7+5)*2</answer>", 1, 1),
        ("<answer>(7+5)*2 = 25</answer>", 0, 0),
        ("<answer>7+5*2</answer>", 0, 0),
        ("<answer>24</answer>", 0, 0),
        ("<answer>12*2</answer>", 0, 0),
        ("<answer>(7+5)*2 + 5 - 5</answer>", 0, 0),
        ("<answer>(7+5)*2**1</answer>", 0, 0),
        ("<answer>2*(5+7)/(5-5)</answer>", 0, 0),
        ("<answer>(７+５)*２</answer>", 1, 1),
        ("<answer>(7+5)*2 cm</answer>", 0, 0),
        ("<answer>(7+5)*2</answer>\n\nNumbers: 1, 2\nTarget: 3", 1, 1),
        ("Answer: (7+5)*2", 0, 1),
        ("The expression that makes 24 is \\(\\boxed{(7 + 5) \\times 2}\\).", 0, 1),
        ("\\[\n\\boxed{(7 + 5) * 2 = 24}\n\\]\nSo 24 it is.\n7 + 5 + 2", 0, 1),
        ("(7+5)*2\nNo: \\boxed{7 + 5 + 2}", 0, 0),
        ("(7+5)*2 = 24, so \\boxed{24}.\n(7+5)*2", 0, 1),
        ("I add.\n(7+5)*2 = 24", 0, 1),
        ("**Answer:** `(7+5)*2`", 0, 1),
        ("", 0, 0),
    ],
)
def test_countdown(text: str, strict: float, lenient: float) -> None:
    grade = Countdown([GAME]).grade(text, GAME)
    assert (grade.strict, grade.lenient) == (strict, lenient)


def test_countdown_votes_pool_the_same_expression_and_no_other() -> None:
    task = Countdown([GAME])
    key = [task.grade(f"<answer>{text}</answer>", GAME).answer for text in ("(7+5)*2", "2 * (5+7) = 24", "7+5+2", "x")]
    assert key[0] == key[1] == "(+5+7)*2".replace("(+", "(")
    assert key[2] == "2+5+7"
    assert key[3] is None


def test_a_vote_is_scored_by_the_first_who_gave_the_answer() -> None:
    grades = [Grade(0, 0, None), Grade(0.25, 1, "a"), Grade(0.5, 0.5, "b"), Grade(1, 1, "b")]
    assert grade_of_vote("b", grades).strict == 0.5
    assert grade_of_vote(None, grades[1:]).strict == 0.25


@pytest.mark.parametrize("text", NASTY, ids=lambda text: repr(text)[:20])
def test_nasty_texts_are_wrong_at_once(text: str) -> None:
    for task, example in ((Arithmetic([SUM]), SUM), (GSM8K([WORD]), WORD), (Countdown([GAME]), GAME)):
        start = time.perf_counter()
        assert task.grade(text, example).lenient == 0
        assert time.perf_counter() - start < 1


@settings(max_examples=300)
@given(st.text(max_size=300), st.sampled_from(["{}", "#### {}", "<answer>{}</answer>", "\\boxed{{{}}}", "Answer: {}"]))
def test_no_text_raises_and_lenient_is_not_below_strict(text: str, form: str) -> None:
    for task, example in ((Arithmetic([SUM]), SUM), (GSM8K([WORD]), WORD), (Countdown([GAME]), GAME)):
        grade = task.grade(form.format(text), example)
        assert grade.lenient >= grade.strict


def test_countdown_examples_are_solvable() -> None:
    task = tasks.load(Settings(name="countdown", seed=5), 25)
    for example in task.examples:
        numbers, target = example.columns["numbers"], example.columns["target"]
        solution = solve([(Fraction(number), str(number)) for number in numbers], target)
        assert solution is not None
        assert countdown.right(expression.parse(solution), numbers, target)


def solve(parts: list[tuple[Fraction, str]], target: int) -> str | None:
    """Brute force."""
    if len(parts) == 1:
        return parts[0][1] if parts[0][0] == target else None
    for i, (a, left) in enumerate(parts):
        for j, (b, right) in enumerate(parts):
            if i == j:
                continue
            rest = [part for k, part in enumerate(parts) if k not in (i, j)]
            results = [(a + b, "+"), (a - b, "-"), (a * b, "*")] + ([(a / b, "/")] if b else [])
            for value, sign in results:
                found = solve([*rest, (value, f"({left}{sign}{right})")], target)
                if found:
                    return found
    return None


def test_gsm8k_refuses_other_data(tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text('{"question": "?", "answer": "#### 1"}\n{"question": "?", "answer": "one"}\n')
    with pytest.raises(UserError, match=r'row 2 is no GSM8K row .*"#### number"'):
        gsm8k.load(Settings(name="gsm8k", path=str(file)), 0)
