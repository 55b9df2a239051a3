"""Tasks by name: suggestions, overrides, sizes, and examples that are the same in every process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError

ROOT = Path(__file__).parents[2]
SAMPLE = str(ROOT / "tests" / "data" / "gsm8k_sample.jsonl")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "arithmetc"}, 'did you mean "arithmetic"'),
        ({"name": "gms8k"}, 'did you mean "gsm8k"'),
        ({"name": "reasoning_gym"}, 'did you mean "reasoning-gym:NAME"'),
        ({"name": "gsm8k:main"}, 'did you mean "gsm8k"'),
        ({"name": "chess"}, "use one of arithmetic, countdown, reasoning-gym:NAME, gsm8k, math500"),
        ({"path": "x.jsonl"}, '"task.path" is .* does not use it; remove it'),
        ({"name": "gsm8k", "path": SAMPLE, "options": {"a": 1}}, '"task.options"'),
        ({"options": {"lo": 1}}, 'no option "lo" .* did you mean "low"'),
        ({"options": {"low": 0}}, '"task.options.low" is 0; use a whole number of at least 1'),
        ({"options": {"low": 9, "high": 3}}, '"task.options.low" is 9, above'),
        ({"options": {"low": 1, "high": 2}}, "can make only 7 of the 30 different examples needed"),
        ({"name": "countdown", "options": {"most": 9}}, "use 2 to 8 numbers"),
        ({"name": "countdown", "options": {"low": 50, "high": 50, "most": 3, "target": 1}}, "finds no target up to 1"),
        ({"name": "countdown", "options": {"fewest": 2, "most": 2, "high": 3, "target": 3}}, "can make only"),
        ({"name": "gsm8k", "path": SAMPLE, "examples": 20}, r'\("task.examples" is 20\) has 20 different'),
    ],
)
def test_what_cannot_be_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tasks.load(Settings(**settings), 30)


def test_overrides() -> None:
    task = tasks.load(Settings(system="Be brief.", max_tokens=7, stop=("\n",)), 3)
    assert (task.max_tokens, task.stop) == (7, ("\n",))
    assert task.messages(task.examples[0])[0] == {"role": "system", "content": "Be brief."}
    plain = tasks.load(Settings(), 3)
    assert [message["role"] for message in plain.messages(plain.examples[0])] == ["user", "assistant"] * 3 + ["user"]


@pytest.mark.parametrize("name", ["arithmetic", "countdown", "reasoning-gym:chain_sum"])
def test_generated_tasks_make_what_is_needed_or_asked_for(name: str) -> None:
    some = tasks.load(Settings(name=name), 20).examples
    more = tasks.load(Settings(name=name, examples=30), 20).examples
    assert (len(some), len(more)) == (20, 30)
    assert more[:20] == some
    assert len({example.id for example in more}) == 30
    assert tasks.load(Settings(name=name, seed=999), 20).examples != some


def test_data_tasks_read_all_or_what_is_asked_for() -> None:
    assert len(tasks.load(Settings(name="gsm8k", path=SAMPLE), 10).examples) == 50
    assert len(tasks.load(Settings(name="gsm8k", path=SAMPLE, examples=20), 10).examples) == 20


PRINT_IDS = f"""
from seedfold import tasks
from seedfold.config import Task as Settings
for name in ("arithmetic", "countdown", "reasoning-gym:word_ladder", "reasoning-gym:ransom_note"):
    print([example.id for example in tasks.load(Settings(name=name, seed=3), 5).examples])
print([example.id for example in tasks.load(Settings(name="gsm8k", path={SAMPLE!r}, examples=5), 5).examples])
"""


def test_examples_are_the_same_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PRINT_IDS],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_arithmetic_is_pinned() -> None:
    """A change of the generator changes every study's examples: it must be on purpose."""
    examples = tasks.load(Settings(options={"low": 10, "high": 99}), 3).examples
    assert [example.columns["problem"] for example in examples] == PINNED


PINNED = ["59 + 63", "75 - 43", "61 - 48"]


def test_no_task_imports_torch() -> None:
    code = "import sys, seedfold.tasks.custom, seedfold.tasks.reasoning_gym, seedfold.tasks.gsm8k; " + (
        "print([name for name in ('torch', 'datasets', 'pyarrow', 'reasoning_gym') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
