"""OlympiadBench: several answers, units, tolerances, the options, and other data. All problems are our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import olympiadbench
from seedfold.tasks.base import Example
from seedfold.tasks.olympiadbench import OlympiadBench

pytest.importorskip("math_verify", reason="the extra seedfold[tasks] is not installed")

PAGES = Path(__file__).parents[2] / "docs" / "tasks"


def row(answer: str, **others: Any) -> dict[str, Any]:
    columns = {"is_multiple_answer": False, "unit": None, "answer_type": "Numerical", "error": None}
    return {"question": "How many?", "final_answer": [answer], **columns, **others}


ROOTS = row("$1$,$\\frac{3+\\sqrt{5}}{2}$,$\\frac{3-\\sqrt{5}}{2}$", is_multiple_answer=True)
POINTS = row("$(1,2),(2,1)$", is_multiple_answer=True, answer_type="Tuple")
CODES = row("$312,421$", is_multiple_answer=True)
RANGE = row("$(0,4]$", answer_type="Interval")
SHARE = row("4.2", unit="%", error="1e-1")
SPEED = row("$\\frac{240}{7}$", unit="km/h")
ANGLE = row("$35^{\\circ}$", unit="^{\\circ}")
RULE = row("$f(n)=2n+1$", answer_type="Expression")

TASK = OlympiadBench([Example.of(ROOTS)])


@pytest.mark.parametrize(
    ("text", "columns", "strict"),
    [
        ("\\boxed{1, \\frac{3 \\pm \\sqrt{5}}{2}}", ROOTS, 1),
        ("\\boxed{\\frac{3-\\sqrt5}{2}, 1, 1.5+\\frac{\\sqrt{5}}{2}}", ROOTS, 1),
        ("\\boxed{1, \\frac{3+\\sqrt{5}}{2}}", ROOTS, 0),
        ("\\boxed{(2,1), (1,2)}", POINTS, 1),
        ("\\boxed{\\{(2,1), (1,2)\\}}", POINTS, 1),
        ("\\boxed{(2,1), (2,1)}", POINTS, 0),
        ("\\boxed{(1,2)}", POINTS, 0),
        ("\\boxed{421,312}", CODES, 1),
        ("\\boxed{421 \\text{ and } 312}", CODES, 1),
        ("\\boxed{312421}", CODES, 0),
        ("\\boxed{(0,4]}", RANGE, 1),
        ("\\boxed{0 < t \\le 4}", RANGE, 1),
        ("\\boxed{[0,4]}", RANGE, 0),
        ("\\boxed{4.25}", SHARE, 1),
        ("\\boxed{4.1\\%}", SHARE, 1),
        ("\\boxed{4.31}", SHARE, 0),
        ("\\boxed{34 \\frac{2}{7}}", SPEED, 1),
        ("\\boxed{\\frac{240}{7} \\text{ km/h}}", SPEED, 1),
        ("\\boxed{\\frac{240}{7} km/h}", SPEED, 1),
        ("\\boxed{34.28}", SPEED, 0),
        ("\\boxed{35}", ANGLE, 1),
        ("\\boxed{35^\\circ}", ANGLE, 1),
        ("\\boxed{2n+1}", RULE, 1),
        ("\\boxed{f(n) = 1 + 2n}", RULE, 1),
        ("\\boxed{f(n) = 2n-1}", RULE, 0),
        ("", ROOTS, 0),
    ],
)
def test_grade(text: str, columns: dict[str, Any], strict: float) -> None:
    grade = TASK.grade(text, Example.of(columns))
    assert (grade.strict, grade.lenient) == (strict, strict)
    assert (grade.answer is None) == (not text)


def test_several_answers_in_any_order_pool() -> None:
    texts = ("\\boxed{421,312}", "\\boxed{\\{312, 421\\}}", "\\boxed{312 \\text{ and } 421}")
    assert len({TASK.grade(text, Example.of(CODES)).answer for text in texts}) == 1


def test_the_prompt_says_what_the_grader_expects() -> None:
    plain, many, unit = (TASK.messages(Example.of(columns))[0]["content"] for columns in (RANGE, CODES, SPEED))
    assert plain.endswith("in \\boxed{}.\n\nProblem: How many?")
    assert many.endswith("in \\boxed{}. Separate several answers by commas.\n\nProblem: How many?")
    assert "in the unit $km/h$, and leave the unit out." in unit


def test_the_page_quotes_the_prompt() -> None:
    text = (PAGES / "olympiadbench.md").read_text(encoding="utf-8")
    quoted = " ".join(" ".join(line.removeprefix(">").strip() for line in text.splitlines()).split())
    parts = [olympiadbench.INSTRUCTION.format(form="", question="{question}"), olympiadbench.MANY]
    for part in [*parts, olympiadbench.UNIT.format(unit="${unit}$")]:
        assert " ".join(part.split()) in quoted


def write(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(columns) + "\n" for columns in rows))
    return str(file)


def test_the_option_keeps_types(tmp_path: Path) -> None:
    path = write(tmp_path, ROOTS, POINTS, RANGE, RULE)
    task = tasks.load(Settings(name="olympiadbench", path=path, options={"types": ["Tuple", "Interval"]}), 2)
    assert [example.columns["answer_type"] for example in task.examples] == ["Tuple", "Interval"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": ["Tuple"]}, 'no option "type" = .*did you mean "types"'),
        ({"types": ["tuple"]}, r"\"task.options.types\" is \['tuple'\]; use a list of some of Numerical"),
        ({"types": ["Expression"]}, r"no row of \"task.options.types\" = \['Expression'\]"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        tasks.load(Settings(name="olympiadbench", path=write(tmp_path, ROOTS, RANGE), options=options), 1)


@pytest.mark.parametrize(
    "change", [{"question": None}, {"final_answer": "1"}, {"final_answer": []}, {"error": "small"}, {"unit": 3}]
)
def test_other_data_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, ROOTS, {**RANGE, **change})
    with pytest.raises(UserError, match="row 2 is no OlympiadBench row"):
        tasks.load(Settings(name="olympiadbench", path=path), 1)
