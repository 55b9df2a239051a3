"""Studies compared: two real ones of a tiny model, whose text means nothing but whose numbers must follow from journals."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browse, needs_chromium
from checkpoints import small_study, write_tiny

import seedfold
from seedfold import UserError, cli, stats
from seedfold.journal import Journal
from seedfold.recipe import Recipe
from seedfold.report import compare


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two studies of the same examples with other candidates; the second also has a fold."""
    folder = tmp_path_factory.mktemp("compared")
    one = small_study(folder, write_tiny(folder / "model"), candidates=4, votes=[1, 2])
    one["splits"] = {"search": 12, "select": 6, "gate": 10, "test": 16}
    other = copy.deepcopy(one)
    other["search"] |= {"seed": 5}
    other["fold"] = {"methods": ["linear"], "gate": {"level": 0.49}, "race": {"block": 4}, "local": {"rounds": 0}}
    for name, settings in (("a", one), ("b", other)):
        seedfold.run(settings, folder / name)
    return [folder / "a", folder / "b"]


def test_rewards_counted_anew_are_those_of_the_record(folders: list[Path]) -> None:
    for one in compare.compare(folders).studies:
        for line in one.record["results"]:
            rewards = list(one.rewards[line["method"]].values())
            assert np.mean(rewards) == pytest.approx(line["accuracy"])
            assert len(rewards) == 16


def test_differing_settings_are_named_and_methods_paired_by_example(folders: list[Path]) -> None:
    found = compare.compare(folders)
    told = dict(found.differing)
    assert told["search.seed"] == [0, 5]
    assert told["fold.methods"] == [[], ["linear"]]
    assert "name" not in told
    assert "model.name" not in told
    single = next(pair for pair in found.pairs if pair.name == "best single (B - A)")
    rewards = []
    for folder in folders:
        with Journal.read(folder) as journal:
            ids = journal.noted("splits")["test"]
            rows = journal.rows(Recipe.load(folder / "recipes/rank-01.json").key, 0, ids)
        rewards.append(np.array([row.reward for row in rows]))
    assert single.paired.difference == pytest.approx((rewards[1] - rewards[0]).mean())
    assert single.paired.fixed == int((rewards[1] > rewards[0]).sum())
    assert single.n == 16
    assert not [pair for pair in found.pairs if pair.name.startswith("base")]  # it answers the same in both
    assert len({(pair.first, pair.other, pair.paired) for pair in found.pairs}) == len(found.pairs)
    assert [pair.holm for pair in found.pairs] == pytest.approx(stats.holm([pair.paired.p for pair in found.pairs]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("record", "model", "fingerprint", "00ff"), r"their base models differ \(\w+, 00ff\)"),
        (("record", "config", "task", {"name": "gsm8k"}), r"their tasks differ \(custom, gsm8k\)"),
        (("note", "material", "", {"reward": "another"}), "their reward functions differ"),
        (
            ("note", "splits", "", None),
            "the journal of B does not say which examples it tested; run its command once more",
        ),
    ],
)
def test_what_cannot_be_paired_says_why(folders: list[Path], tmp_path: Path, change: Any, why: str) -> None:
    where, section, key, value = change
    shutil.copytree(folders[0], tmp_path / "changed")
    if where == "record":
        path = tmp_path / "changed" / "record.json"
        record = json.loads(path.read_text())
        record[section][key] = value
        path.write_text(json.dumps(record))
    else:
        with Journal.read(tmp_path / "changed") as journal:
            bound = journal.config
        with Journal.open(tmp_path / "changed", bound) as journal:
            journal.note(section, value)
    found = compare.compare([folders[0], tmp_path / "changed"])
    assert not found.pairs
    [told] = found.why
    assert re.search(f"^A and B cannot be paired: {why}", told)
    assert "best single" in str(found)


def test_examples_not_in_common_are_not_paired(folders: list[Path]) -> None:
    first, other = compare.compare(folders).studies
    rewards = {method: {f"other {one}": r for one, r in rows.items()} for method, rows in other.rewards.items()}
    apart = compare.Tested("B", other.folder, other.record, rewards, other.digest)
    assert "no example in common" in compare._apart(first, apart)


@needs_chromium
def test_the_command_prints_and_writes_a_page(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert cli.main(["report", "--compare", *map(str, folders), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "search.seed" in printed
    assert "B: linear fold" in printed
    assert "best single (B - A)" in printed
    assert all(len(line) <= 140 for line in printed.splitlines())
    assert "<script" not in out.read_text()
    assert "CONSOLE" not in browse(out, f"--screenshot={tmp_path / 'shot.png'}").stderr


def test_one_folder_or_none_is_refused(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match='"--compare" has 1 folder'):
        compare.compare(folders[:1])
    assert cli.main(["report"]) == 2
    assert '"DIR" is not given' in capsys.readouterr().err
