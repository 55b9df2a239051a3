"""A user's task: prompts, both forms of reward, votes, and one sentence for each way that it can fail."""

import json
from pathlib import Path
from typing import Any

import pytest

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks.custom import last_line

REWARDS = Path(__file__).parent / "rewards.py"
ROWS = [{"prompt": "What?", "answer": "a"}, {"prompt": "Why?", "answer": "b"}, {"prompt": "Who?", "answer": "c"}]
CHAT = [{"prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi?"}], "answer": "a"}]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def make(function: str, rows: list[dict[str, Any]] = ROWS, file: Path = REWARDS, **settings: Any) -> tasks.Task:
        data = tmp_path / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return tasks.load(Settings(name="custom", path=str(data), reward=f"{file}:{function}", **settings), 1)

    return make


def grades(task: tasks.Task, *completions: str) -> list[float]:
    return [grade.strict for grade in task.grade_many(completions, task.examples[: len(completions)])]


@pytest.mark.parametrize(
    ("function", "rewards"),
    [
        ("exact", [1, 0, 1]),
        ("truth", [1, 0, 1]),
        ("scalar", [0.5, 0.5, 0.5]),
        ("trl_match", [1, 0, 1]),
        ("trl_format", [0, 0, 0]),
        ("trl_async", [1, 1, 1]),
        ("trl_no_kwargs", [1, 1, 1]),
    ],
)
def test_rewards(make: Any, function: str, rewards: list[float]) -> None:
    task = make(function)
    assert grades(task, "a", "x", "c") == rewards
    assert [type(reward) for reward in grades(task, "a")] == [float]
    assert task.grade("a", task.examples[0]).strict == rewards[0]
    assert task.grade_many([], []) == []


def test_trl_conversations_and_columns(make: Any) -> None:
    rows = [*CHAT, {"prompt": CHAT[0]["prompt"][1:], "answer": "b", "level": 2}]
    task = make("trl_chat", rows)
    assert grades(task, "say a", "say x") == [1, 0]
    from seedfold_user_rewards import CALLS  # the user's file, as imported

    prompts, completions, columns = CALLS[-1]
    assert prompts == [row["prompt"] for row in rows]
    assert completions == [[{"role": "assistant", "content": text}] for text in ("say a", "say x")]
    assert columns == {"level": [None, 2]}


def test_prompts(make: Any) -> None:
    task = make("exact")
    assert task.messages(task.examples[0]) == [{"role": "user", "content": "What?"}]
    rows = [{"my question": "a {b} {{c}} {0}", "n": 3, "tags": ["x", "é"], "answer": "a"}]
    task = make("exact", rows, prompt='{{json}} {my question} {n} {tags} {{"k": {n}}}', system="S")
    assert task.messages(task.examples[0]) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": '{json} a {b} {{c}} {0} 3 ["x", "é"] {"k": 3}'},
    ]


def test_conversations_keep_their_system_message_unless_told(make: Any) -> None:
    task = make("exact", CHAT)
    assert task.messages(task.examples[0]) == CHAT[0]["prompt"]
    task = make("exact", CHAT, system="Be brief.")
    assert task.messages(task.examples[0]) == [{"role": "system", "content": "Be brief."}, CHAT[0]["prompt"][1]]


def test_equal_rows_are_one_example(make: Any) -> None:
    assert len(make("exact", [*ROWS, *ROWS]).examples) == 3


def test_what_a_reward_does_to_its_row_is_forgotten(make: Any) -> None:
    task = make("spoils", [{"prompt": "?", "tags": []}])
    assert grades(task, "x") == grades(task, "x") == [1]


def test_answer_and_lenient_of_the_same_file(make: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def reward(completion, example): return float(completion == example['answer'])\n"
        "def lenient(completion, example): return float(example['answer'] in completion)\n"
        "def answer(completion, example): return completion[-1:] or None\n"
    )
    task = make("reward", file=file)
    grade = task.grade("it is a", task.examples[0])
    assert (grade.strict, grade.lenient, grade.answer) == (0, 1, "a")
    assert task.grade("", task.examples[0]).answer is None
    file.write_text("def reward(completion, example): return 1\ndef answer(completion, example): return 3\n")
    task = make("reward", file=file)
    with pytest.raises(UserError, match=r'mine.py:answer" gives a int on row 1 .*; give a string to vote on'):
        task.grade("", task.examples[0])


def test_default_vote() -> None:
    same = ["18", "$18.00\n", "Because.\n**18**", "= 18."]
    assert {last_line(text) for text in same} == {"18"}
    assert last_line("Why\n  **Blue  Whale.** \n\n") == last_line("blue whale") == "blue whale"
    assert last_line("18 apples") != last_line("18 pears")
    assert last_line(" \n") is None
    assert len(last_line("x" * 1_000_000) or "") == 200


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "raises",
            r'raises" fails on row 1 \(example [0-9a-f]{16}\) with KeyError: \'nothing\' \(line \d+ of .*rewards',
        ),
        ("exits", "fails on row 1 .* with SystemExit: 3"),
        ("nan", "gives nan on row 1 .*; give a finite number"),
        ("infinite", "gives inf on row 1"),
        ("text", r"gives '1.0' \(str\) on row 1 .*, which is no number"),
        ("nothing", r"gives None \(NoneType\) on row 1"),
        ("array", r"gives array\(\[0., 0., 0.\]\) \(ndarray\) on row 1"),
        ("trl_none", r"gives None \(NoneType\) on row 2 .*, which is no number"),
        ("trl_short", "gives 1 values for 3 completions on row 1 .* to row 3 .*; give one for each"),
        ("trl_number", r"gives 1.0 \(float\) on row 1 .*a TRL-style reward gives a list"),
        ("trl_raises", r"fails on row 2 \(example .* with ZeroDivisionError"),
    ],
)
def test_what_a_reward_does_wrong_is_one_sentence(make: Any, function: str, message: str) -> None:
    task = make(function)
    with pytest.raises(UserError, match=message):
        grades(task, "x", "y", "z")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"function": "exakt"}, 'has no function "exakt"; did you mean "exact"'),
        ({"function": "NOT_A_FUNCTION"}, 'but "NOT_A_FUNCTION" is a int; name a function'),
        ({"function": "three"}, r"with the parameters \(a, b, c\); write reward\(completion, example\)"),
        ({"function": "trl_ids"}, 'asks for the column "completion_ids", which row 1 .* does not have'),
        (
            {"function": "trl_match", "rows": [ROWS[0], {"prompt": "?", "x": 1}]},
            r'the column "answer", which row 2 .*; its columns are prompt, x',
        ),
        ({"rows": [{"q": 1}]}, r'row 1 .* has no column "prompt"; set "task.prompt" .*, its columns are q'),
        ({"rows": [{"q": 1}, {"x": 1}], "prompt": "{q}"}, r'row 2 .* has no column "q", .*; its columns are x'),
        ({"rows": [{"prompt": 3}]}, "neither a text nor a list of messages"),
        ({"rows": [{"prompt": [{"role": "user", "content": [1]}]}]}, "neither a text nor a list of messages"),
        ({"rows": [*ROWS, *CHAT]}, "row 4 .* mixes texts and lists of messages"),
        ({"prompt": "{q"}, r'"task.prompt" is no valid template \(expected'),
        ({"prompt": "{a!r}"}, r'has the placeholder "\{a!r\}"; write \{column\}'),
        ({"prompt": "{}"}, r'has the placeholder "\{\}"'),
        ({"file": Path("none.py")}, 'the file "none.py" does not exist'),
        ({"file": Path("no_such_module")}, 'there is no module "no_such_module"'),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(settings.pop("function", "exact"), **settings)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def reward(:\n", "fails in line 1 with SyntaxError"),
        ("import no_such_package_here\n", "fails with ModuleNotFoundError: No module named 'no_such_package_here'"),
        ("raise SystemExit('bye')\n", "fails with SystemExit: bye"),
    ],
)
def test_files_that_do_not_import(make: Any, tmp_path: Path, code: str, message: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(code)
    with pytest.raises(UserError, match=message):
        make("reward", file=file)


def test_what_is_not_given() -> None:
    with pytest.raises(UserError, match=r'needs "task.path", which is empty'):
        tasks.load(Settings(name="custom"), 1)
    with pytest.raises(UserError, match=r'needs "task.reward", which is empty; give your reward function'):
        tasks.load(Settings(name="custom", path="x.jsonl"), 1)
    with pytest.raises(UserError, match=r'is "reward.py"; write FILE.py:FUNCTION'):
        tasks.load(
            Settings(
                name="custom",
                path=str(REWARDS.parents[1] / "data" / "gsm8k_sample.jsonl"),
                prompt="{question}",
                reward="reward.py",
            ),
            1,
        )
