"""The studies of benchmarks/tasks run by their config alone, on small data and a tiny model: real graders, real sandbox."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from checkpoints import write_tiny

from seedfold import cli, config, tasks
from seedfold.journal import Journal
from seedfold.splits import needed
from seedfold.tasks.sandbox import Limits, isolated

ROOT = Path(__file__).parents[2]
CONFIGS = {"math500": "math_own.jsonl", "mbpp": "mbpp_sample.jsonl"}
SMALL = [
    *["splits.search=3", "splits.select=2", "splits.test=3"],
    *["search.candidates=2", "search.votes=[2]", "task.max_tokens=24", "stats.resamples=200"],
]
RIGHT = {"math500": ("answer", "\\boxed{{{}}}"), "mbpp": ("code", "```python\n{}\n```")}
"""Column of the right answer, and how it is written."""


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The data lie where the config looks for them: in the folder where it is run, under the task's name."""
    kind = str(request.param)
    if kind == "math500":
        pytest.importorskip("math_verify", reason="the extra seedfold[tasks] is not installed")
    else:
        found = isolated(Limits())
        if isinstance(found, str):
            pytest.skip(found)
    monkeypatch.chdir(tmp_path)
    data = (ROOT / "tests" / "data" / CONFIGS[kind]).read_text(encoding="utf-8")
    Path(f"{kind}.jsonl").write_text(data, encoding="utf-8")
    return kind


def path(kind: str) -> str:
    return str(ROOT / "benchmarks" / "tasks" / f"{kind}.toml")


def test_they_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, model = tmp_path / "out", str(write_tiny(tmp_path / "model"))
    changes = [word for item in [*SMALL, f"model.name={model}"] for word in ("--set", item)]
    assert cli.main(["run", path(name), "--out", str(out), *changes]) == 0
    assert "self-consistency of 2" in capsys.readouterr().out
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert (record["name"], record["model"]["name"]) == (name, model)
    assert [line["n"] for line in record["results"]] == [3, 3, 3, 3]
    # What is in the journal is what the task makes of the completions.
    task = tasks.load(config.load(path(name)).task, 8)
    examples = {example.id: example for example in task.examples}
    with Journal.read(out) as journal:
        rows = [row for recipe in journal.recipes() for row in journal.rows(recipe)]
    assert len(rows) == 3 * 3 + 2 * (2 + 3) + (2 + 3) + 2 * (2 + 3)
    for row in rows:
        grade = task.grade(row.completion, examples[row.example])
        assert (row.reward, row.lenient, row.answer) == (grade.strict, grade.lenient, grade.answer)
    assert len({row.completion for row in rows}) > len(rows) / 2
    assert all(row.finish == "stop" or row.tokens == 24 for row in rows)


def test_a_right_answer_earns_everything_there(name: str) -> None:
    chosen = config.load(path(name))
    assert chosen.model.name == "smollm2-135m"
    assert needed(chosen.splits) <= 65  # problems of the levels 1 and 2 in a half of MATH-500
    task = tasks.load(chosen.task, 8)
    column, form = RIGHT[name]
    for example, other in pairwise(task.examples[:4]):
        assert task.grade(form.format(example.columns[column]), example).strict == 1
        assert task.grade(form.format(other.columns[column]), example).strict == 0
    if name == "math500":
        example = task.examples[0]
        assert {one.columns["level"] for one in task.examples} == {1, 2}
        chat = task.messages(example)
        assert chat[0]["role"] == "system"
        assert chat[0]["content"].count("\n\\boxed{") == 2
