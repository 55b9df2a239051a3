"""Splits are disjoint, fixed by seed and content, and never smaller than asked for."""

import json
import random
from pathlib import Path

import pytest

from seedfold import UserError, config, tasks
from seedfold.leakage import normal
from seedfold.splits import Dealt, deal, needed, split
from seedfold.tasks.base import Example, Task

SIZES = config.Splits(search=10, select=7, gate=3, test=5, seed=1)
EXAMPLES = [Example.of({"n": number}) for number in range(40)]


def ids(part: tuple[Example, ...]) -> list[str]:
    return [example.id for example in part]


def test_disjoint_and_of_the_sizes_asked_for() -> None:
    parts = split(EXAMPLES, SIZES)
    dealt = [ids(part) for part in (parts.search, parts.select, parts.gate, parts.test)]
    assert [len(part) for part in dealt] == [10, 7, 3, 5]
    assert len({example for part in dealt for example in part}) == needed(SIZES) == 25


def test_the_order_of_the_data_does_not_matter() -> None:
    shuffled = random.Random(0).sample(EXAMPLES, len(EXAMPLES))
    assert split(shuffled, SIZES) == split(EXAMPLES, SIZES)


def test_the_seed_does() -> None:
    assert ids(split(EXAMPLES, SIZES).test) != ids(split(EXAMPLES, config.Splits(10, 7, 3, 5, seed=2)).test)


def test_too_few_examples_are_refused_with_the_number_needed() -> None:
    with pytest.raises(UserError, match=r"the data has 24 different examples but the splits need 25"):
        split(EXAMPLES[:24], SIZES)


def data(folder: Path, rows: list[dict[str, object]], **sizes: int) -> config.Config:
    """A config of a custom task with these rows."""
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "reward.py").write_text("def reward(completion, example): return 1.0\n")
    task = {"name": "custom", "path": str(folder / "data.jsonl"), "reward": f"{folder / 'reward.py'}:reward"}
    return config.from_dict({"task": task, "splits": {"search": 10, "select": 6, "test": 4, **sizes}})


def prompts(dealt: Dealt) -> list[str]:
    parts = (dealt.splits.search, dealt.splits.select, dealt.splits.gate, dealt.splits.test)
    return [str(example.columns["prompt"]) for part in parts for example in part]


def test_one_question_is_in_one_split_however_it_is_spelled(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": i, "prompt": f"What is {i}?"} for i in range(20)]
    spelled = [{"id": 100 + i, "prompt": f"WHAT  is\n{i}？ "} for i in range(20)]
    dealt = deal(data(tmp_path, rows + spelled + [{**row, "id": 1000} for row in rows]))
    found = prompts(dealt)
    assert len(found) == 20
    assert len({normal(text) for text in found}) == 20
    assert 0 < dealt.repeated <= 40


def test_where_no_prompt_is_repeated_the_splits_are_those_of_the_examples(tmp_path: Path) -> None:
    chosen = data(tmp_path, [{"id": i, "prompt": f"What is {i}?"} for i in range(50)])
    dealt = deal(chosen)
    assert dealt.repeated == 0
    assert dealt.splits == split(dealt.task.examples, chosen.splits)


def test_repeats_move_nobody_else(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": i, "prompt": f"What is {i}?"} for i in range(20)]
    before = deal(data(tmp_path, rows)).splits
    after = deal(data(tmp_path, [*rows, {"id": 0, "prompt": "what is 0?"}])).splits
    moved = set(before.search) ^ set(after.search)
    assert len(moved) <= 2  # the one repeated, and the one that steps up


def test_too_few_different_prompts_are_refused_with_the_number_that_repeat(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": i, "prompt": f"What is {i % 18}?"} for i in range(30)]
    message = r'"custom" \(12 repeat the prompt of another\) has 18 different examples but the splits need 20'
    with pytest.raises(UserError, match=message):
        deal(data(tmp_path, rows))


class Twice(Task):
    """Each prompt belongs to two examples."""

    def messages(self, example: Example) -> list[dict[str, str]]:
        return self.ask(f"What is {example.columns['n'] // 2}?")


def test_a_generated_task_makes_as_many_more_as_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def load(settings: config.Task, count: int) -> Task:
        asked.append(count)
        return Twice([Example.of({"n": number}) for number in range(count)])

    monkeypatch.setattr(tasks, "load", load)
    dealt = deal(config.from_dict({"task": "arithmetic", "splits": {"search": 10, "select": 6, "test": 4}}))
    assert len({example.columns["n"] // 2 for part in vars(dealt.splits).values() for example in part}) == 20
    assert asked[0] == 20
    assert len(asked) < 10

    def stuck(settings: config.Task, count: int) -> Task:
        return Twice([Example.of({"n": 0, "k": number}) for number in range(count)])

    monkeypatch.setattr(tasks, "load", stuck)
    with pytest.raises(UserError, match="1 different examples but the splits need 20"):
        deal(config.from_dict({"task": "arithmetic", "splits": {"search": 10, "select": 6, "test": 4}}))
