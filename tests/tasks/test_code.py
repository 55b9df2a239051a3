"""MBPP and HumanEval: where code is found in an answer, what is right, what is well formed, and what votes pool."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import code, humaneval, mbpp
from seedfold.tasks.base import Example
from seedfold.tasks.code import CodeTask

DATA = Path(__file__).parents[1] / "data"
PAGES = Path(__file__).parents[2] / "docs" / "tasks"


def loaded(name: str, **options: int) -> Any:
    path = str(DATA / f"{name}_sample.jsonl")
    try:
        return tasks.load(Settings(name=name, path=path, options=options), 2)
    except UserError as error:
        if "bubblewrap" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def short() -> Any:
    return loaded("mbpp", seconds=1)


@pytest.fixture(scope="module")
def function() -> Any:
    return loaded("humaneval", seconds=1)


DOUBLE = Example.of(
    {
        "text": "Write a function to double.",
        "tests": ["assert double(2) == 4", "assert double(0) == 0"],
        "setup": "",
        "code": "",
        "shadows": [],
    }
)
HEAD = "import math\n\n\ndef two() -> int:\n    return 2\n\n\n"
PROMPT = HEAD + 'def double(x: int) -> int:\n    """Double x.\n    >>> double(2)\n    4\n    """\n'
TEST = "def check(candidate):\n    assert candidate(2) == two() * 2\n    assert candidate(0) == 0\n"
COMPLETE = Example.of(
    {"prompt": PROMPT, "entry_point": "double", "test": TEST, "canonical_solution": "", "task_id": "x"}
)

GOOD = "def double(x):\n    return 2 * x"
BAD = "def double(x):\n    return x + 2"
BOTH = [
    (f"```python\n{GOOD}\n```", 1, 1, "4; 0"),
    (f"Sure.\n\n```python\n{GOOD}\n```\nIt doubles.", 1, 1, "4; 0"),
    (f"```py\n{GOOD}\n```", 1, 1, "4; 0"),
    (f"``` Python \n{GOOD}\n```", 1, 1, "4; 0"),
    (f'```python title="a"\n{GOOD}\n```', 1, 1, "4; 0"),
    (f"~~~python\n{GOOD}\n~~~", 1, 1, "4; 0"),
    (f"````python\n{GOOD}\n````", 1, 1, "4; 0"),
    (f"```python\n{GOOD}\n~~~\n```", 0, 0, None),
    (f"```python\r\n{GOOD}\r\n```\r\n".replace("\n    ", "\r\n    "), 1, 1, "4; 0"),
    (f"```python\n{GOOD}", 1, 1, "4; 0"),
    ("1. So:\n   ```python\n   def double(x):\n       return 2 * x\n   ```", 1, 1, "4; 0"),
    (f"```python\n{BAD}\n```\nNo:\n```python\n{GOOD}\n```", 1, 1, "4; 0"),
    (f"```python\n{GOOD}\n```\nOr:\n```python\n{BAD}\n```", 0, 0, "4; 2"),
    (f"```python\n{GOOD}\n```\n```python\nprint(double(2))\n```", 0, 1, None),
    (f"```python\n{GOOD}\n```\n```\n4\n```", 1, 1, "4; 0"),
    ("```python\nimport math\n```\nand\n```python\ndef double(x):\n    return math.prod([2, x])\n```", None, 1, None),
    (f"```\n{GOOD}\n```", 0, 1, None),
    (f"```javascript\n{GOOD}\n```", 0, 1, None),
    (GOOD, 0, 1, None),
    (f"Here it is:\n\n{GOOD}\n\nThis doubles x.", 0, 1, None),
    (f"import math\n\n{GOOD}\n", 0, 1, None),
    (f"```python\n{GOOD.replace('double', 'twice')}\n```", 0, 0, None),
    (f"```python\n{BAD}\n```", 0, 0, "4; 2"),
    ("```python\ndef double(x):\n    return x + x + 0.0\n```", 1, 1, "4; 0"),
    ("```python\ndef double(x):\n    while True: pass\n```", 0, 0, None),
    ("```python\ndef double(x):\n    while x < 1: pass\n    return 2 * x\n```", 0, 0, "4"),
    ("```python\ndef double(x):\n    return 1 / 0\n```", 0, 0, None),
    ("```python\ndef double(x)\n    return 2 * x\n```", 0, 0, None),
    ("```python\nraise SystemExit(0)\n```", 0, 0, None),
    ("```python\nimport os; os._exit(0)\n```", 0, 0, None),
    (f"```python\n{GOOD}\nprint(double(2))\n```", 1, 1, "4; 0"),
    (f"```python\n{GOOD}\nassert double(2) == 5\n```", 0, 0, None),
    (f"```python\n{GOOD}\x00\n```", 0, 0, None),
    (f"{'x' * 1_000_000}\n```python\n{GOOD}\n```", 1, 1, "4; 0"),
    (f"```python\n{GOOD}\n```\n{'x' * 1_000_000}", 0, 0, None),
    (f"```python\n{GOOD}\n\n```python\n{GOOD}\n```", 0, 0, None),
    ("```python\n```", 0, 0, None),
    ("```python", 0, 0, None),
    ("I do not know.", 0, 0, None),
    ("", 0, 0, None),
]
NASTY = ["\x00\x01\x1b[2J", "```" * 100_000, "`" * 1_000_000, "~~~\n" * 50_000, "```python\n" + "(" * 500_000, "\ud800"]
NASTY += [
    "```python\n" + "(" * 15_000 + "\n```",
    "```python\n9**9**9**9\n```",
    "```python\n\ud800\n```",
    "\n" * 1_000_000,
]
NASTY += [
    "def " * 250_000,
    "```python\nx=" + "-" * 15_000 + "1\n```",
    "\u2028\u0085```python\n" * 1000,
    "    " * 100_000,
]


@pytest.mark.parametrize(("text", "strict", "lenient", "answer"), BOTH, ids=lambda value: repr(value)[:40])
def test_mbpp(text: str, strict: float | None, lenient: float, answer: str | None, short: CodeTask) -> None:
    grade = short.grade(text, DOUBLE)
    assert (grade.strict, grade.lenient) == (strict or 0, lenient)
    if strict is not None:
        assert grade.answer == answer


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "answer"),
    [
        *(row for row in BOTH if row[1] is not None),
        # `import math` stands in the prompt
        ("```python\nimport re\n```\nand\n```python\ndef double(x):\n    return math.prod([2, x])\n```", 1, 1, "4; 0"),
        ("```python\ndef double(x):\n    return two() * x\n```", 1, 1, "4; 0"),
        (f"```python\n{PROMPT}    return 2 * x\n```", 1, 1, "4; 0"),
        ("    return 2 * x\n", 0, 1, None),
        ("return 2 * x", 0, 1, None),
        ("\n    y = x\n\n    return y + x\n\nThat is all.", 0, 1, None),
        ("    return 2 * x\n\n\ndef other():\n    return 1 +\n", 0, 1, None),
        ("    return x\n", 0, 0, None),
        ("```python\n    return 2 * x\n```", 0, 1, None),
        ("```\nreturn two() * x\n```", 0, 1, None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_humaneval(text: str, strict: float, lenient: float, answer: str | None, function: CodeTask) -> None:
    grade = function.grade(text, COMPLETE)
    assert (grade.strict, grade.lenient, grade.answer) == (strict, lenient, answer)


@pytest.mark.parametrize("text", NASTY, ids=lambda text: repr(text)[:20])
def test_nasty_texts_are_wrong(text: str, short: CodeTask, function: CodeTask) -> None:
    for task, example in ((short, DOUBLE), (function, COMPLETE)):
        assert task.grade(text, example).lenient == 0


@settings(max_examples=300, deadline=1000)
@given(st.text(st.sampled_from("`~ \n\tpython=def()x:0é\u2028\x00"), max_size=200))
def test_reading_a_text_does_not_raise(text: str) -> None:
    for _, block in code.blocks(text):
        assert "\n".join(block.split("\n")) == block
    assert code.unfenced(text) in text
    humaneval.continued(text, COMPLETE)


def test_reading_a_long_text_is_quick() -> None:
    start = time.perf_counter()
    for text in NASTY:
        code.blocks(text[-20_000:])
        code.unfenced(text[-20_000:])
    assert time.perf_counter() - start < 1


def test_references_of_the_samples_pass_and_the_functions_of_others_do_not(short: Any, function: Any) -> None:
    assert (len(short.examples), len(function.examples)) == (36, 20)
    for task, answers in (
        (short, [example.columns["code"] for example in short.examples]),
        (
            function,
            [example.columns["prompt"] + example.columns["canonical_solution"] for example in function.examples],
        ),
    ):
        fenced = [f"```python\n{answer}\n```" for answer in answers]
        grades = task.grade_many(fenced, task.examples)
        assert [grade.strict for grade in grades] == [1] * len(grades)
        assert all(grade.answer for grade in grades)
        grades = task.grade_many(answers, task.examples)
        assert [(grade.strict, grade.lenient) for grade in grades] == [(0, 1)] * len(grades)
        others = task.grade_many(fenced[1:] + fenced[:1], task.examples)
        assert not any(grade.lenient for grade in others)


def test_bodies_of_the_sample_pass(function: Any) -> None:
    bodies = [example.columns["canonical_solution"] for example in function.examples]
    assert all(grade.lenient == 1 for grade in function.grade_many(bodies, function.examples))


def test_both_forms_of_mbpp_are_read(short: Any) -> None:
    full = next(example for example in short.examples if example.columns["task_id"] == 927)
    clean = next(example for example in short.examples if example.columns["task_id"] == 82)
    assert "root = Node(1)" in short.messages(full)[0]["content"]
    assert "assert (max_height(root)) == 3" in short.messages(full)[0]["content"]
    assert "Tests:\nimport math\nassert math.isclose(volume_sphere(10)" in short.messages(clean)[0]["content"]


def test_the_prompt_of_humaneval_is_shown(function: Any) -> None:
    (message,) = function.messages(COMPLETE)
    assert message["content"].endswith("```python\n" + PROMPT.strip() + "\n```")


@pytest.mark.parametrize(
    ("page", "prompt"),
    [("mbpp", mbpp.INSTRUCTION), ("humaneval", humaneval.INSTRUCTION)],
)
def test_prompts_are_quoted(page: str, prompt: str) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    assert prompt in text


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("mbpp", '{"text": "t", "test_list": ["assert f(1) == 1"]}\n{"question": "q"}', "row 2 is no MBPP row"),
        ("mbpp", '{"text": "t", "test_list": []}', "row 1 is no MBPP row"),
        ("mbpp", '{"text": "t", "test_list": "assert f(1)"}', "row 1 is no MBPP row"),
        ("mbpp", '{"text": "t", "test_list": ["assert f(1) = 1"]}', "row 1 has tests that cannot be run .SyntaxError"),
        ("mbpp", '{"text": "t", "test_list": ["f(1)"]}', "row 1 has tests that cannot be run .they assert nothing"),
        (
            "humaneval",
            '{"prompt": "def f(x):", "entry_point": "g", "test": "assert g(1)"}',
            "row 1 is no HumanEval row",
        ),
        ("humaneval", '{"prompt": "def f(x):", "entry_point": "f"}', "row 1 is no HumanEval row"),
        ("humaneval", '{"prompt": "def f(x):", "entry_point": "f", "test": "check = print"}', "cannot be run"),
    ],
)
def test_other_data_is_refused(name: str, rows: str, message: str, tmp_path: Path, short: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(rows)
    with pytest.raises(UserError, match=message):
        tasks.load(Settings(name=name, path=str(file)), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"second": 3}, 'no option "second" .* did you mean "seconds"'), ({"seconds": 0.5}, "whole number of at least 1")],
)
def test_options_are_strict(options: dict[str, Any], message: str) -> None:
    for name in ("mbpp", "humaneval"):
        with pytest.raises(UserError, match=message):
            tasks.load(Settings(name=name, path=str(DATA / f"{name}_sample.jsonl"), options=options), 1)


def test_seconds_are_what_a_program_gets(short: CodeTask) -> None:
    busy = "import time\ndef double(x):\n    while time.process_time() < 1.4: pass\n    return 2 * x"
    assert short.grade(f"```python\n{busy}\n```", DOUBLE).lenient == 0
    assert loaded("mbpp", seconds=3).grade(f"```python\n{busy}\n```", DOUBLE).strict == 1


def test_a_program_runs_once(short: CodeTask) -> None:
    """Perturbed models write the same programs again and again; a clock tells whether one ran anew."""
    clock = "```python\nimport time\ndef double(x): return time.time_ns()\n```"
    first = short.grade(clock, DOUBLE)
    assert first.answer == short.grade(clock, DOUBLE).answer
    assert first.answer != short.grade(clock.replace("x)", "y)"), DOUBLE).answer
    assert short.grade(f"```python\n{GOOD}\n```", DOUBLE).strict == 1
    tests = ["assert double(2) == 5"]
    other = Example.of({**DOUBLE.columns, "tests": tests})
    assert short.grade(f"```python\n{GOOD}\n```", other).strict == 0
