"""What new-task writes: each kind is a task that passes check-task and runs; nothing is overwritten."""

import json
import tomllib
from pathlib import Path

import pytest
from checkpoints import write_tiny

import seedfold
from seedfold import UserError, config, tasks
from seedfold.check import check
from seedfold.splits import needed
from seedfold.tasks.scaffold import FILES, KINDS, new


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_passes_its_own_check(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "my tasks" / kind
    said = new(folder, kind)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert f"check-task '{folder / 'task.toml'}'" in "\n".join(said)  # quoted, for the space
    found = check(config.load(folder / "task.toml"))
    assert found.problems == []
    assert found.facts["references"]["strict"] == 1
    assert found.facts["references"]["n"] == found.facts["examples"]["needed"] == found.facts["examples"]["have"] == 12


def test_a_written_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_tiny(tmp_path / "model")
    said = new(Path("mine"), "tool-calls")
    assert said[-1].strip() == "seedfold run mine/task.toml"
    chosen = config.load("mine/task.toml", [f"model.name={json.dumps(str(model))}", "search.candidates=4"])
    record = seedfold.run(chosen, tmp_path / "out").record
    assert record["name"] == "mine"
    assert [line["n"] for line in record["results"]] == [4] * 4


def test_the_sizes_that_the_rows_allow_are_in_the_config(tmp_path: Path) -> None:
    new(tmp_path / "task", "extraction")
    chosen = config.load(tmp_path / "task" / "task.toml")
    rows = (tmp_path / "task" / "data.jsonl").read_text(encoding="utf-8").splitlines()
    assert needed(chosen.splits) == len(rows)
    assert max(chosen.search.votes) <= chosen.search.candidates
    assert tomllib.loads((tmp_path / "task" / "task.toml").read_text())["name"] == "task"


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f'{name}" exists and would be overwritten'):
        new(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_what_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='"--kind" is "poems"; use one of classification, extraction'):
        new(tmp_path / "x", "poems")
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r'file" is a file; give a folder'):
        new(tmp_path / "file")


def grade(folder: Path, kind: str, text: str, row: int = 0) -> tuple[float, float, str | None]:
    if not folder.exists():
        new(folder, kind)
    task = tasks.load(config.load(folder / "task.toml").task, 1)
    found = task.grade(text, task.examples[row])
    return found.strict, found.lenient, found.answer


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("classification", "Billing.", (1, 1, "billing")),
        ("classification", "It is about billing", (0, 1, None)),
        ("classification", "billing or returns", (0, 0, None)),
        ("classification", "returns", (0, 0, "returns")),
        (
            "extraction",
            '{"event": "the lantern choir ", "city": "Porto", "day": "Friday", "price": 12.0}',
            (1, 1, '{"city": "Porto", "day": "Friday", "event": "the lantern choir ", "price": 12.0}'),
        ),
        ("extraction", '{"city": "Porto", "price": "12"}', (0.25, 0.25, '{"city": "Porto", "price": "12"}')),
        ("extraction", '{"city": "Porto", "a": 1, "b": 2}', (0, 0, '{"a": 1, "b": 2, "city": "Porto"}')),
        ("extraction", 'Sure:\n{"city": "Porto", "day": "Friday"}', (0, 0.5, None)),
        ("extraction", '{"city": ["Porto"], "price": true}', (0, 0, '{"city": ["Porto"], "price": true}')),
        ("extraction", "[" * 100_000, (0, 0, None)),
        ("extraction", '{"price": ' + "9" * 5000 + "}", (0, 0, None)),
        ("tool-calls", '{"tool": "set_timer", "arguments": {"minutes": 20}}', (1, 1, None)),
        ("tool-calls", '{"tool": "set_timer", "arguments": {"minutes": "20"}}', (0.5, 0.5, None)),
        ("tool-calls", '{"tool": "set_timer", "arguments": {"minutes": 20, "x": 1}}', (0.75, 0.75, None)),
        ("tool-calls", '{"tool": "set_timer", "arguments": {}}', (0.5, 0.5, None)),
        ("tool-calls", '{"tool": "get_weather", "arguments": {}}', (0.2, 0.2, None)),
        ("tool-calls", '{"tool": ["set_timer"], "arguments": {}}', (0, 0, None)),
        ("tool-calls", '{"tool": "fly", "arguments": {}}', (0, 0, None)),
        ("tool-calls", '{"tool": "set_timer", "arguments": {"minutes": 20}, "why": ""}', (0, 0, None)),
        ("tool-calls", "{" * 100_000, (0, 0, None)),
        ("freeform", "Boats in the ICE!", (1, 1, None)),
        ("freeform", "boats and boats", (0.5, 0.5, None)),
        ("freeform", "ice boats " * 30, (0.5, 0.5, None)),
        ("freeform", "", (0, 0, None)),
    ],
)  # fmt: skip
def test_rewards(kind: str, text: str, wanted: tuple[float, float, str | None], tmp_path: Path) -> None:
    strict, lenient, answer = grade(tmp_path / kind, kind, text)
    assert (strict, lenient) == wanted[:2]
    if kind != "tool-calls":  # where the vote is by the last line
        assert answer == wanted[2]
