"""The pages of docs/tasks show the prompts as they are, and their worked examples run."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.tasks import arithmetic, countdown, gsm8k, reasoning_gym

PAGES = Path(__file__).parents[2] / "docs" / "tasks"
GUIDE = (PAGES / "custom.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "prompt"),
    [
        ("arithmetic", arithmetic.INSTRUCTION.format(problem="47 + 85")),
        ("gsm8k", gsm8k.INSTRUCTION),
        ("countdown", countdown.INSTRUCTION.format(numbers="13, 19, 90", target=58)),
        ("reasoning-gym", reasoning_gym.INSTRUCTION),
    ],
)
def test_prompts_are_quoted(page: str, prompt: str) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    quoted = " ".join(re.sub(r"^> ?", "", text, flags=re.MULTILINE).split())
    assert " ".join(prompt.split()) in quoted


def test_every_task_has_a_line_in_the_table() -> None:
    table = (PAGES / "README.md").read_text(encoding="utf-8")
    for kind in tasks.USES:
        assert f"]({kind}.md)" in table


def blocks(language: str, heading: str) -> list[str]:
    section = GUIDE.partition(heading)[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.mark.parametrize(
    ("heading", "text", "grade"),
    [
        ("## In ten lines", "It is Paris.", (0, 1, "it is paris")),
        ("## A reward from TRL, unchanged", "Six times seven.\n\\boxed{42}", (1, 1, "\\boxed{42}")),
    ],
)
def test_worked_examples_run(
    heading: str, text: str, grade: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = tomllib.loads(blocks("toml", heading)[0])["task"]
    Path(settings["path"]).write_text(blocks("json", heading)[0], encoding="utf-8")
    Path(settings["reward"].partition(":")[0]).write_text(blocks("python", heading)[0], encoding="utf-8")
    task = tasks.load(Settings(**settings), 1)
    found = task.grade(text, task.examples[0])
    assert (found.strict, found.lenient, found.answer) == grade
