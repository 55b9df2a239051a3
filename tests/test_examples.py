"""The examples: their data are clean, their rewards are those that new-task writes, and each runs by its config alone."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from seedfold import cli, config
from seedfold.check import check

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/study.toml"))


@pytest.fixture(autouse=True)
def _from_the_root_of_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_they_are_all_there_and_listed() -> None:
    assert EXAMPLES == ["classification", "extraction", "tool-calls"]
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in page for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_wrong_with_their_data_and_rewards(name: str) -> None:
    found = check(config.load(f"examples/{name}/study.toml"))
    assert (found.problems, found.notes) == ([], [])
    assert found.facts["references"]["strict"] == 1
    assert found.facts["examples"]["have"] >= 60
    assert found.facts["leakage"]["near_duplicates"] == {}
    assert found.facts["leakage"]["repeated_prompts"] == 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_their_rewards_are_those_that_new_task_writes(name: str) -> None:
    template = files("seedfold.tasks.templates").joinpath(f"{name.replace('-', '_')}.py")
    assert (ROOT / "examples" / name / "reward.py").read_text(encoding="utf-8") == template.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_they_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["splits.search=2", "splits.select=2", "splits.test=2", "search.candidates=1", "search.votes=[1]"]
    changes = [word for item in [*small, "task.max_tokens=6"] for word in ("--set", item)]
    assert cli.main(["run", f"examples/{name}/study.toml", "--out", str(tmp_path / "out"), *changes]) == 0
    assert "best single" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert record["name"] == name
    assert record["model"]["name"] == "smollm2-135m"
    assert record["leakage"]["test"] == 0
    assert (tmp_path / "out" / "report.html").exists()


def test_the_reward_of_the_tool_calls_is_called_as_trl_calls_it() -> None:
    from seedfold.tasks.templates.tool_calls import reward

    answer = [{"tool": "get_weather", "arguments": {"city": "Oslo"}}] * 2
    text = json.dumps(answer[0])
    said = [[{"role": "assistant", "content": text}], [{"role": "assistant", "content": "Cold."}]]
    assert reward(completions=said, prompts=[[], []], completion_ids=[[1], [2]], answer=answer) == [1.0, 0.0]
    assert reward(prompts=["", ""], completions=[text, "Cold."], answer=answer, trainer_state=None) == [1.0, 0.0]
