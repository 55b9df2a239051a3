"""The command line: what it prints, its exit codes, and one sentence for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import small_study, write_tiny

from seedfold import cli, config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model"))


def to_toml(tree: dict[str, Any]) -> str:
    """TOML of a tree of tables with JSON-like values."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", *(f"{name} = {json.dumps(item)}" for name, item in value.items())]
    return "\n".join(lines) + "\n"


@pytest.fixture
def study_file(tmp_path: Path, model: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(small_study(tmp_path, model, candidates=3, votes=[1, 2])))
    return path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence that bad input gets."""
    code, _, error = call(capsys, *arguments)
    last = error.strip().splitlines()[-1]
    assert code == 2
    assert last.startswith("seedfold: ")
    assert "Traceback" not in error
    return last


def test_run_resume_report_eval_inspect_export(
    capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, printed, progress = call(capsys, "run", study_file, "--out", out)
    assert code == 0
    assert "best single" in printed
    assert "self-consistency" in printed
    assert "search" in progress  # plain lines, since this is no terminal
    again = call(capsys, "run", study_file, "--out", out)
    assert again[:2] == (0, printed)
    best = out / "recipes" / "rank-01.json"
    code, printed, _ = call(capsys, "eval", "--config", study_file, "--recipe", best, "--split", "test", "--json")
    record = json.loads((out / "record.json").read_text())
    assert json.loads(printed)["accuracy"] == record["results"][1]["accuracy"]
    code, printed, _ = call(capsys, "report", out, "--parquet", tmp_path / "rows.parquet")
    assert code == 0
    assert (tmp_path / "rows.parquet").exists()
    code, printed, _ = call(capsys, "inspect", best)
    assert "model.embed_tokens.weight" in printed
    code, printed, _ = call(capsys, "export", best, tmp_path / "exported")
    assert code == 0
    assert (tmp_path / "exported" / "model.safetensors").exists()
    assert "exists and is not empty" in refused(capsys, "export", best, tmp_path / "exported")


def test_plan_counts_and_measures(capsys: pytest.CaptureFixture[str], study_file: Path) -> None:
    code, printed, _ = call(capsys, "plan", study_file)
    assert code == 0
    assert str(3 * 24 + 24 + 5 * 12 + 5 * 16) in printed
    assert "memory: about" in printed


def test_new_task_then_check_task(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "mine"
    code, printed, _ = call(capsys, "new-task", folder, "--kind", "extraction")
    assert code == 0
    commands = [line.split() for line in printed.splitlines() if line.startswith("  seedfold ")]
    assert [words[1] for words in commands] == ["check-task", "run"]
    code, printed, _ = call(capsys, *commands[0][1:], "--prompts", "1", "--set", f"model.name={model}")
    assert code == 0
    assert "  | <|im_start|>user" in printed
    assert printed.count("as the model sees it") == 1
    assert printed.rstrip().endswith("nothing to mend")
    assert "would be overwritten" in refused(capsys, "new-task", folder)


def test_check_task_says_what_is_wrong_and_its_exit_code_too(
    capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path
) -> None:
    code, printed, _ = call(capsys, "check-task", study_file, "--json")
    found = json.loads(printed)
    assert (code, found["good"], found["problems"]) == (0, True, [])
    assert len(found["prompts"]) == 3
    assert found["facts"]["examples"]["have"] == 60
    (tmp_path / "reward.py").write_text("def reward(completion, example):\n    return 1 / len(completion)\n")
    code, printed, _ = call(capsys, "check-task", study_file)
    assert code == 1
    assert "ZeroDivisionError" in printed
    assert "to mend: 1" in printed
    assert "missing.jsonl" in refused(capsys, "check-task", study_file, "--set", "task.path=missing.jsonl")
    assert "task.nmae" in refused(capsys, "check-task", study_file, "--set", "task.nmae=x")
    assert "silver" in refused(capsys, "check-task", study_file, "--reference", "silver")


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = call(capsys, "doctor")
    assert code == 0
    assert "exactness      yes" in printed


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("search.sigmaz=1", ["search.sigmaz", "search.sigmas"]),
        ("search.candidates='many'", ["search.candidates", "many", "whole number"]),
        ("search.candidates=0", ["search.candidates", "0", "at least 1"]),
        ("search.candidates=1", ["search.votes", "2", "search.candidates", "1"]),
        ("search.sigmas=[0.0]", ["search.sigmas", "0", "above 0"]),
        ("search.sigmas=[nan]", ["search.sigmas", "nan", "above 0"]),
        ("search.sigmas=[inf]", ["search.sigmas", "inf", "above 0"]),
        ("search.family=cauchy", ["search.family", "cauchy", "rademacher"]),
        ("search.include=['nothing']", ["nothing", "tensor"]),
        ("splits.test=1000", ["60", "1036"]),
        ("model.name=/nowhere/model", ["model.name", "/nowhere/model"]),
        ("model.device=cuda:7", ["model.device", "cuda:7"]),
        ("model.dtype=int4", ["model.dtype", "int4", "bfloat16"]),
        ("task.name=chess", ["task.name", "chess"]),
        ("task.path=missing.jsonl", ["missing.jsonl"]),
        ("task.reward=reward.py", ["task.reward", "reward.py"]),
        ("task.max_tokens=600", ["task.max_tokens", "512"]),
        ("task.prompt='{question}'", ["question", "row 1"]),
    ],
)
def test_bad_settings(
    capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path, setting: str, words: list[str]
) -> None:
    sentence = refused(capsys, "run", study_file, "--out", tmp_path / "out", "--set", setting)
    assert all(word in sentence for word in words), sentence


def test_a_bad_first_try_binds_nobody(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    refused(capsys, "run", study_file, "--out", tmp_path / "out", "--set", "model.name=/nowhere/model")
    assert call(capsys, "run", study_file, "--out", tmp_path / "out")[0] == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('broken here')", ["ValueError", "broken here", "row"]),
        ("return float('nan')", ["nan", "row"]),
        ("return 'good'", ["row"]),
        ("import sys; sys.exit(0)", ["SystemExit", "row"]),
    ],
)
def test_bad_rewards_name_the_row(
    capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path, source: str, words: list[str]
) -> None:
    (tmp_path / "reward.py").write_text(f"def reward(completion, example):\n    {source}\n")
    sentence = refused(capsys, "run", study_file, "--out", tmp_path / "out")
    assert all(word in sentence for word in words), sentence


def test_a_batch_reward_of_the_wrong_length(
    capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "reward.py").write_text("def reward(completions, **columns):\n    return [1.0]\n")
    sentence = refused(capsys, "run", study_file, "--out", tmp_path / "out")
    assert "1" in sentence
    assert "row" in sentence


def test_data_that_is_broken(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    good = data.read_text().splitlines()
    data.write_text("\n".join([*good[:3], "{not json", *good[4:]]))
    assert "line 4" in refused(capsys, "run", study_file, "--out", tmp_path / "out")
    data.write_text("")
    assert "data.jsonl" in refused(capsys, "run", study_file, "--out", tmp_path / "out")


def test_a_model_without_chat_template(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    bare = write_tiny(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    sentence = refused(capsys, "run", study_file, "--out", tmp_path / "out", "--set", f"model.name={bare}")
    assert "chat template" in sentence


def test_recipes_that_do_not_fit(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call(capsys, "run", study_file, "--out", out)
    best = out / "recipes" / "rank-01.json"
    text = best.read_text()
    cut = tmp_path / "cut.json"
    cut.write_text(text[: len(text) // 2])
    assert "truncated" in refused(capsys, "inspect", cut)
    cut.write_text(text.replace("seedfold.recipe/1", "seedfold.recipe/9"))
    assert "seedfold.recipe/9" in refused(capsys, "inspect", cut)
    other = write_tiny(tmp_path / "other", seed=3)
    fingerprint = json.loads(text)["base"]["fingerprint"]
    assert fingerprint in refused(capsys, "export", best, tmp_path / "exported", "--model", other)
    assert not (tmp_path / "exported").exists()
    assert "cannot be read" in refused(capsys, "inspect", tmp_path / "none.json")


def test_a_corrupt_journal_is_left_alone(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call(capsys, "run", study_file, "--out", out)
    journal = out / "journal.sqlite"
    broken = b"garbage" * 100 + journal.read_bytes()[700:]
    journal.write_bytes(broken)
    assert "journal.sqlite" in refused(capsys, "run", study_file, "--out", out)
    assert journal.read_bytes() == broken


def test_two_runs_in_one_folder(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    from seedfold.journal import Journal

    with Journal.open(tmp_path / "out", config.load(study_file).to_dict()):
        sentence = refused(capsys, "run", study_file, "--out", tmp_path / "out")
    assert str(os.getpid()) in sentence


def test_help_teaches_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(path in printed and text in printed for path, _, _, text in config.describe())


def test_interrupting_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seedfold.study.run", stop)
    code, _, error = call(capsys, "run", study_file)
    assert code == 130
    assert "goes on from here" in error


def test_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "seedfold", "eval", "--split", "gate"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "splits.gate" in done.stderr
