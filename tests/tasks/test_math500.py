r"""MATH-500: the box and what equals the reference, what the vote counts, the options, and other data."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import latex, math500
from seedfold.tasks.base import Example
from seedfold.tasks.math500 import Math500

pytest.importorskip("math_verify", reason="the extra seedfold[tasks] is not installed")

OWN = Path(__file__).parents[1] / "data" / "math_own.jsonl"
PAGES = Path(__file__).parents[2] / "docs" / "tasks"


def row(answer: str, problem: str = "?") -> Example:
    return Example.of({"problem": problem, "answer": answer, "level": 1, "subject": "Algebra", "unique_id": "own/1"})


TASK = Math500([row("18")])


@pytest.mark.parametrize(
    ("text", "reference", "strict", "lenient", "answer"),
    [
        ("So \\boxed{18}.", "18", 1, 1, "18"),
        ("\\[\\boxed{18.00}\\]", "18", 1, 1, "18"),
        ("\\boxed{\\$18}", "18", 1, 1, "18"),
        ("\\boxed{1,000}", "1000", 1, 1, "1000"),
        ("\\boxed{18\\text{ cm}}", "18", 1, 1, "18"),
        ("\\boxed{\\boxed{18}}", "18", 1, 1, "18"),
        ("\\boxed{x = 18}", "18", 1, 1, "18"),
        ("\\boxed{18}\n\nProblem: another. Answer: 19", "18", 1, 1, "18"),
        ("\\boxed{17} no, \\boxed{18}", "18", 1, 1, "18"),
        ("\\boxed{18} or \\boxed{17", "18", 1, 1, "18"),
        ("\\boxed{18} no, \\boxed{17}", "18", 0, 0, "17"),
        ("\\boxed{}", "18", 0, 0, None),
        ("\\boxed{2 \\cdot 9}", "18", 1, 1, "18"),
        ("\\boxed{3\\sqrt{2}}", "\\frac{3}{2}", 0, 0, "3*sqrt(2)"),
        ("\\boxed{12}", "12\\pi", 0, 0, "12"),
        ("\\boxed{x^{-3}}", "-3", 0, 0, "x**(-3)"),
        ("\\boxed{(x+1)^2}", "x^2+2x+1", 1, 1, "x**2 + 2*x + 1"),
        ("\\boxed{9**9**9}", "18", 0, 0, "9^{9^{9}}"),
        ("#### 18", "18", 0, 1, None),
        ("The answer is 18.", "18", 0, 1, None),
        ("The answer is $\\frac{36}{2}$.", "18", 0, 1, None),
        ("The answer is 12", "12\\pi", 0, 0, None),
        ("The answer is:\n\\[\\boxed{18", "18", 0, 1, None),
        ("\\boxed{18} no, the answer is \\boxed{17", "18", 1, 1, "18"),
        ("Hence $x = \\sqrt{2}$.", "\\sqrt2", 0, 1, None),
        ("That makes 18 apples.", "18", 0, 1, None),
        ("\\boxed{17}. The answer is 18.", "18", 0, 1, "17"),
        ("x^{-3}", "-3", 0, 0, None),
        ("", "18", 0, 0, None),
        ("\x00\x1b[2J", "18", 0, 0, None),
        ("\\boxed{" * 100_000, "18", 0, 0, None),
        ("1" * 1_000_000, "18", 0, 0, None),
        ("a " * 500_000 + "\\boxed{18}", "18", 1, 1, "18"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_grade(text: str, reference: str, strict: float, lenient: float, answer: str | None) -> None:
    grade = TASK.grade(text, row(reference))
    assert (grade.strict, grade.lenient, grade.answer) == (strict, lenient, answer)


def test_own_problems_grade_their_answers_right_and_others_wrong() -> None:
    task = tasks.load(Settings(name="math500", path=str(OWN)), 60)
    examples = task.examples
    for example, other in zip(examples, [*examples[1:], examples[0]], strict=True):
        right = task.grade(f"So \\boxed{{{example.columns['answer']}}}.", example)
        assert (right.strict, right.lenient) == (1, 1)
        assert right.answer is not None
        assert task.grade(f"So \\boxed{{{other.columns['answer']}}}.", example).strict == 0


def test_options_keep_levels_and_subjects() -> None:
    task = tasks.load(Settings(name="math500", path=str(OWN), options={"levels": [4, 5], "subjects": ["Geometry"]}), 3)
    assert {example.columns["level"] for example in task.examples} == {4, 5}
    assert {example.columns["subject"] for example in task.examples} == {"Geometry"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": [4]}, 'no option "level" = .*did you mean "levels"'),
        ({"levels": 4}, '"task.options.levels" is 4; use a list of whole numbers from 1 to 5'),
        ({"levels": [6]}, r'"task.options.levels" is \[6\]'),
        ({"levels": [True]}, r'"task.options.levels" is \[True\]'),
        ({"subjects": "Algebra"}, "\"task.options.subjects\" is 'Algebra'; use a list of subjects"),
        ({"subjects": ["algebra"]}, 'no subject "algebra"; did you mean "Algebra"'),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tasks.load(Settings(name="math500", path=str(OWN), options=options), 1)


def test_other_data_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text('{"problem": "?", "answer": "1"}\n{"problem": "?", "answer": ""}\n')
    with pytest.raises(UserError, match=r"row 2 is no MATH row .*columns problem, answer"):
        tasks.load(Settings(name="math500", path=str(file)), 1)


def test_without_math_verify_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latex.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'needs the package math-verify; pip install "seedfold\[tasks\]"'):
        tasks.load(Settings(name="math500", path=str(OWN)), 1)


def test_it_survives_pickling() -> None:
    TASK.grade("\\boxed{x}", row("x+1"))
    assert pickle.loads(pickle.dumps(TASK)).grade("\\boxed{1+x}", row("x+1")).strict == 1


def test_the_page_quotes_the_prompt() -> None:
    text = (PAGES / "math500.md").read_text(encoding="utf-8")
    quoted = " ".join(line.removeprefix(">").strip() for line in text.splitlines())
    assert " ".join(math500.INSTRUCTION.format(problem="{problem}").split()) in " ".join(quoted.split())
    assert TASK.messages(row("1", "2 {x}?"))[0]["content"].endswith("in \\boxed{}.\n\nProblem: 2 {x}?")
