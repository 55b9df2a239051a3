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


@pytest.mark.parametrize("kind", [kind for kind in tasks.USES if kind != "custom"])
def test_every_task_has_a_page_with_the_same_headings(kind: str) -> None:
    text = (PAGES / f"{kind}.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in text.split("\n## ")}
    wanted = ["Prompt", "Grade", "Data", "Measured"]
    assert [name for name in sections if name in wanted] == wanted
    assert all(sections[name] for name in wanted)  # nothing is left empty
    assert ">" in sections["Prompt"] or "```" in sections["Prompt"]
    assert "strict" in sections["Grade"].lower()
    assert "lenient" in sections["Grade"].lower()
    # A figure comes with its machine, its date and its command.
    figures = sections["Measured"]
    assert figures.startswith("Nothing yet: ") or all(
        word in figures for word in (", 2026-", "    seedfold ", "interval")
    )


def test_the_guide_of_your_own_task_has_its_parts() -> None:
    for heading in ("In ten lines", "What the vote counts", "What check-task looks at", "Leakage"):
        assert f"\n## {heading}\n" in GUIDE


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (PAGES / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            there = (PAGES / (file or page)).read_text(encoding="utf-8")
            headings = [
                re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
                for line in there.splitlines()
                if line.startswith("#")
            ]
            assert not anchor or anchor in headings, target


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
