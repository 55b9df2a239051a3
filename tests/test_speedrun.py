"""Speedruns: every phase a line as it ends, what is pinned refused when it differs, a killed run resumed and said to be."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import small_study, write_tiny

import seedfold
from seedfold import cli, study
from seedfold.errors import UserError
from seedfold.speedrun import machine, record, run, standard, table, verify
from seedfold.speedrun.machine import commit as real_commit
from seedfold.splits import deal
from seedfold.text import documents
from seedfold.text.settings import Text

ROOT = Path(__file__).parents[1]
PHASES = ["launch", "data", "base on search", "search", "select", "fold: linear", "test", "record", "text"]


COMMIT = "0123456789ab"


@pytest.fixture(scope="module", autouse=True)
def _one_commit() -> Iterator[None]:
    """The commit does not move while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "commit", lambda: (COMMIT, False))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model"))


def tree(folder: Path, model: Path, **speedrun: Any) -> dict[str, Any]:
    """A standard of seconds; data and reward lie in the folder."""
    made: dict[str, Any] = small_study(folder, model, votes=[3, 4])
    made |= {"fold": {"methods": ["linear"], "local": {"rounds": 0}}}
    made["splits"] = {"search": 20, "select": 12, "gate": 6, "test": 16}
    passages = documents.load(Text()).texts[:4]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text[:225]}) + "\n" for text in passages))
    text = {"name": str(folder / "text.jsonl"), "bytes": 850, "window": 32, "overlap": 8}
    return {**made, "speedrun": {"repetitions": 1, "text": text, **speedrun}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records and studies are below the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def done(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], dict[str, Any]]:
    """(where it was run, lines of the record, the standard) of two repetitions."""
    folder, before = tmp_path_factory.mktemp("done"), Path.cwd()
    os.chdir(folder)
    try:
        chosen = tree(folder, model, repetitions=2)
        path = run.run(standard.from_dict(chosen), quiet=True)
        return folder, record.read(path), chosen
    finally:
        os.chdir(before)


# A run and its record


def test_every_phase_is_a_line_of_its_own(done: tuple[Path, list[dict[str, Any]], dict[str, Any]]) -> None:
    folder, lines, _ = done
    assert [line["line"] for line in lines] == ["standard", *(["phase"] * len(PHASES) + ["repetition"]) * 2, "summary"]
    for number in (1, 2):
        phases = [line for line in record.of_kind(lines, "phase") if line["repetition"] == number]
        assert [line["phase"] for line in phases] == PHASES
        whole = json.loads(
            (folder / "runs" / "speedrun" / "records" / name_of(folder) / f"{number}/record.json").read_text()
        )
        assert sum(line["answers"] for line in phases) == whole["evaluations"]
        assert sum(line["tokens"] for line in phases) == whole["tokens"]
        search = phases[3]
        assert (search["answers"], search["known"]) == (9 * 20, 0)
        found = record.of_kind(lines, "repetition")[number - 1]
        assert found["seeds_per_second"] == pytest.approx(9 / search["seconds"])
        assert found["prompts_per_second"] == pytest.approx(180 / search["seconds"])
        assert found["tokens_per_second"] == pytest.approx(search["tokens"] / search["seconds"])
        assert found["seconds"] == pytest.approx(sum(line["seconds"] for line in phases))
        assert [line["accuracy"] for line in found["results"]] == [line["accuracy"] for line in whole["results"]]
        assert found["chosen_k"] == whole["chosen_k"]


def name_of(folder: Path) -> str:
    (path,) = (folder / "benchmarks" / "records").iterdir()
    return path.stem


def test_the_record_says_what_where_and_by_which_commit(
    done: tuple[Path, list[dict[str, Any]], dict[str, Any]], model: Path
) -> None:
    folder, lines, chosen = done
    first, end = lines[0], lines[-1]
    made = standard.from_dict(chosen)
    assert first["hash"] == made.hash
    assert standard.from_dict(first["config"]) == made
    assert (first["commit"], first["uncommitted"]) == (COMMIT, False)
    assert first["versions"]["torch"]
    assert first["hardware"]["cores"] >= 1
    assert first["slices"] == standard.slices(deal(made.study))
    assert first["text"] == {"digest": documents.load(made.speedrun.text).digest, "bytes": 850, "documents": 4}
    assert name_of(folder) == f"small.{first['at'][:10]}.{COMMIT}"
    assert {"model not pinned", "slices not pinned", "text not pinned"} <= set(end["deviations"])
    assert end["timed"] == end["repetitions"] == 2


def test_repetitions_are_equal_and_said_to_be(done: tuple[Path, list[dict[str, Any]], dict[str, Any]]) -> None:
    lines = done[1]
    assert lines[-1]["repeats"] == {"equal": True, "differ": []}
    runs = record.of_kind(lines, "repetition")
    other = json.loads(json.dumps(runs[1]))
    other["results"][1]["accuracy"] += 0.1
    changed = [*lines[:-2], other]
    assert record.summary(changed)["repeats"] == {"equal": False, "differ": ["accuracy, best single"]}
    other = {**runs[1], "digest": "another"}
    assert record.summary([*lines[:-2], other])["repeats"] == {"equal": False, "differ": []}


def test_bits_per_byte_are_of_the_models_of_the_study(
    done: tuple[Path, list[dict[str, Any]], dict[str, Any]], model: Path
) -> None:
    """The vote's mean of probabilities, from plain forward passes of the recipes in the folder."""
    import numpy as np
    import torch

    from seedfold.engines import open_engine
    from seedfold.recipe import Recipe
    from seedfold.text import bits, tokens

    folder, lines, chosen = done
    text = lines[-1]["text"]
    made = standard.from_dict(chosen)
    windows = tokens.windows(
        documents.load(made.speedrun.text), made.speedrun.text, tokens.load_tokenizer(made.study.model)
    )
    assert (text["bytes"], text["tokens"]) == (850, windows.tokens)
    engine: Any = open_engine(made.study.model, made.study.engine)
    kinds = {line["kind"]: line for line in text["results"]}
    assert list(kinds) == ["base", "single", "vote", "fold"]
    probabilities = []
    for rank in range(1, kinds["vote"]["k"] + 1):
        path = folder / "runs" / "speedrun" / "records" / name_of(folder) / "1" / study.rank_path(rank)
        engine.become(Recipe.load(path))
        each: list[float] = []
        for window in windows.windows:
            ids = torch.tensor([[*window.context, *window.scored]])
            with torch.inference_mode():
                scores = engine.model(ids).logits[0].float().softmax(-1)
            each += [float(scores[i - 1, ids[0, i]]) for i in range(len(window.context), ids.shape[1])]
        probabilities.append(np.array(each))
    vote = -np.log2(np.mean(probabilities, axis=0)).sum() / 850
    assert kinds["vote"]["bits_per_byte"] == pytest.approx(vote, rel=2e-3)
    single = -np.log2(probabilities[0]).sum() / 850
    assert kinds["single"]["bits_per_byte"] == pytest.approx(single, rel=2e-3)
    assert single != pytest.approx(vote, rel=1e-2)
    base = bits.bits(bits.logprobs(engine, study.base_recipe(made.study, engine), windows), windows)
    assert kinds["base"]["bits_per_byte"] == base.value
    low, high = kinds["vote"]["interval"]
    assert low < kinds["vote"]["difference"] < high


def test_the_interval_of_rates_is_students() -> None:
    found = record.spread([1.0, 2.0, 3.0])
    assert (found["mean"], found["sd"]) == (2, 1)
    assert found["interval"] == pytest.approx([2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)])
    assert record.spread([5.0]) == {"values": [5.0], "mean": 5.0, "sd": None, "interval": None}
    assert record.spread([])["mean"] is None


# What is pinned


def test_other_examples_or_another_text_are_refused_before_anything_is_written(here: Path, model: Path) -> None:
    chosen = tree(here, model, slices="0" * 32)
    with pytest.raises(UserError, match=rf'"speedrun.slices" is {"0" * 32}, but the examples dealt here hash to '):
        run.run(standard.from_dict(chosen), quiet=True)
    chosen = tree(here, model)
    chosen["speedrun"]["text"]["digest"] = "0" * 32
    with pytest.raises(UserError, match=r"speedrun\.text\.digest"):
        run.run(standard.from_dict(chosen), quiet=True)
    assert not (here / "benchmarks").exists()


def test_slices_are_of_ids_prompts_and_splits(here: Path, model: Path) -> None:
    chosen = tree(here, model)
    first = standard.slices(deal(standard.from_dict(chosen).study))
    assert standard.slices(deal(standard.from_dict(chosen).study)) == first
    for change in ({"splits": {**chosen["splits"], "seed": 1}}, {"task": {**chosen["task"], "system": "Be brief."}}):
        assert standard.slices(deal(standard.from_dict({**chosen, **change}).study)) != first


def test_another_model_is_refused_and_the_failure_is_in_the_record(here: Path, model: Path) -> None:
    chosen = standard.from_dict(tree(here, model, fingerprint="0" * 32))
    with pytest.raises(UserError, match=r"speedrun\.fingerprint"):
        run.run(chosen, here / "out.jsonl", quiet=True)
    lines = record.read(here / "out.jsonl")
    assert [line["line"] for line in lines] == ["standard", "failure"]
    assert lines[1]["phase"] == "launch"
    assert "0" * 32 in lines[1]["error"]
    assert "failed in phase launch (UserError" in table.page({"out.jsonl": lines}, here)


@pytest.mark.parametrize(
    ("wanted", "gpus", "is_it"),
    [
        ("cpu", [], True),
        ("cpu", ["NVIDIA L4"], False),
        ("1 x H100", ["NVIDIA H100 80GB HBM3"], True),
        ("1 x h100", ["NVIDIA H100 80GB HBM3"], True),
        ("1 x H100", ["NVIDIA H200"], False),
        ("1 x H100", ["NVIDIA H100 80GB HBM3"] * 2, False),
        ("8 x H100", ["NVIDIA H100 80GB HBM3"] * 8, True),
        ("1 x H100", [], False),
    ],
)
def test_hardware_classes(wanted: str, gpus: list[str], is_it: bool) -> None:
    assert machine.of_class(wanted, gpus) is is_it


def test_what_a_standard_cannot_be(here: Path, model: Path) -> None:
    for change, words in (
        ({"hardware": "H100"}, "speedrun.hardware"),
        ({"repetitions": 0}, "speedrun.repetitions"),
        ({"window": 3}, 'unknown setting "speedrun.window"'),
        ({"text": {"window": 8, "overlap": 8}}, "speedrun.text.overlap"),
    ):
        with pytest.raises(UserError, match=words):
            standard.from_dict(tree(here, model, **change))
    dense = tree(here, model)
    dense["search"] |= {"score": "reference"}
    dense["fold"] |= {"score": "reference"}
    with pytest.raises(UserError, match="counts the graded answers of its search"):
        standard.from_dict(dense)
    (here / "study.toml").write_text('name = "a"\n')
    with pytest.raises(UserError, match=r"has no table \[speedrun\]"):
        standard.load(here / "study.toml")
    long = standard.from_dict(tree(here, model, text={"window": 512}))
    with pytest.raises(UserError, match=r"speedrun\.text\.window.* 512 positions; use at most 511"):
        run.run(long, here / "out.jsonl", quiet=True)


def test_deviations_are_told(done: tuple[Path, list[dict[str, Any]], dict[str, Any]]) -> None:
    lines = json.loads(json.dumps(done[1]))
    first = lines[0]
    first |= {"commit": "abc", "stated": True, "uncommitted": True, "changed": ["search.candidates=4"]}
    first["config"]["speedrun"] |= {"hardware": "1 x H100", "versions": {"torch": "1.0", "vllm": "0.24"}}
    first["config"]["speedrun"] |= {"fingerprint": "a", "slices": "b"}
    first["config"]["speedrun"]["text"]["digest"] = "c"
    first["versions"] = {"torch": "2.13"}
    first |= {"load": 1.5}
    first["hardware"]["cores"] = 2
    assert record.deviations(lines) == [
        "changed: search.candidates=4",
        "the commit was stated, not read from git",
        "files differ from the commit",
        "hardware is not 1 x H100",
        "other work on the machine: a load of 1.5 when the run began",
        "torch is 2.13, not 1.0",
        "vllm is none, not 0.24",
    ]


def test_the_commit_is_that_of_this_package_and_of_no_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "seedfold" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    (tmp_path / "other").write_text("")
    monkeypatch.setattr(seedfold, "__file__", str(package))
    assert real_commit() == ("", False)  # no repository
    git("init", "-q")
    git("add", "other")
    git("commit", "-qm", "one")
    assert real_commit() == ("", False)  # in one that does not hold it
    git("add", ".")
    git("commit", "-qm", "two")
    assert real_commit() == (git("rev-parse", "HEAD")[:12], False)
    (tmp_path / "new").write_text("")
    assert not real_commit()[1]
    (tmp_path / "other").write_text("changed")
    assert real_commit()[1]


# Interrupted


SCRIPT = f"""
import sys
from seedfold import cli
from seedfold.speedrun import machine
machine.commit = lambda: ("{COMMIT}", False)
sys.exit(cli.main(sys.argv[1:]))
"""


def killed_after(phase: str, config_file: Path, out: Path) -> None:
    """Run the command in a process, and kill it once this phase is in the record."""
    command = [sys.executable, "-c", SCRIPT, "speedrun", str(config_file), "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if out.exists() and f'"phase": "{phase}"' in out.read_text():
                break
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it was killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def to_toml(made: dict[str, Any], prefix: str = "") -> str:
    """TOML of nested tables of JSON-like values."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in made.items() if not isinstance(value, dict)]
    for name, value in made.items():
        if isinstance(value, dict):
            lines += [f"[{prefix}{name}]", to_toml(value, f"{prefix}{name}.")]
    return "\n".join(lines)


def test_a_killed_run_goes_on_and_says_so(
    here: Path, model: Path, done: tuple[Path, list[dict[str, Any]], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tree(here, model, repetitions=2)
    (here / "standard.toml").write_text(to_toml(chosen))
    out = here / "out.jsonl"
    killed_after("search", here / "standard.toml", out)
    with out.open("a") as file:
        file.write('{"line": "phase", "at": "20')  # a line that was being written
    assert cli.main(["speedrun", str(here / "standard.toml"), "--out", str(out)]) == 0
    lines = record.read(out)
    runs = record.of_kind(lines, "repetition")
    assert [one["resumed"] for one in runs] == [True, False]
    assert len(record.of_kind(lines, "resumed")) == 1
    end = lines[-1]
    assert (end["repetitions"], end["timed"]) == (2, 1)
    assert end["seeds_per_second"]["values"] == [runs[1]["seeds_per_second"]]
    assert "1 of 2 repetitions resumed, their times left out" in end["deviations"]
    # What it found is what a run that was never stopped finds.
    assert end["repeats"] == {"equal": True, "differ": []}
    assert record.numbers(end) == record.numbers(done[1][-1])
    assert "resumed, their times left out" in capsys.readouterr().out


def test_a_failure_is_kept_and_the_same_command_goes_on(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = standard.from_dict(tree(here, model, repetitions=1))
    with monkeypatch.context() as broken:

        def stop(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        broken.setattr(run.bits, "logprobs", stop)
        with pytest.raises(KeyboardInterrupt):
            run.run(chosen, quiet=True)
    (path,) = (here / "benchmarks" / "records").iterdir()
    last = record.read(path)[-1]
    assert (last["line"], last["phase"], last["repetition"]) == ("failure", "text", 1)
    assert last["seconds"] >= 0
    assert run.run(chosen, quiet=True).resolve() == path  # found by its standard and commit
    lines = record.read(path)
    assert [one["resumed"] for one in record.of_kind(lines, "repetition")] == [True]
    assert lines[-1]["seeds_per_second"]["mean"] is None
    assert "not timed" in table.told(lines)
    with pytest.raises(UserError, match="is finished; choose another --out"):
        run.run(chosen, path, quiet=True)
    assert run._default("small", lines[0], path.parent).name == f"{path.stem}.2.jsonl"


def test_what_was_begun_otherwise_is_not_gone_on_with(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = tree(here, model, fingerprint="0" * 32)
    out = here / "out.jsonl"
    with pytest.raises(UserError):
        run.run(standard.from_dict(chosen), out, quiet=True)
    chosen["search"]["candidates"] = 8
    with pytest.raises(UserError, match=r"was begun with other settings, code or machine \(hash\)"):
        run.run(standard.from_dict(chosen), out, quiet=True)
    chosen["search"]["candidates"] = 9
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(machine, "versions", lambda: {"seedfold": "0.1.0", "torch": "1"})
        with pytest.raises(UserError, match=r"code or machine \(versions\)"):
            run.run(standard.from_dict(chosen), out, quiet=True)
    (here / "runs" / "speedrun" / here.name / "new").mkdir(parents=True)
    with pytest.raises(UserError, match="is left from a run whose record"):
        run.run(standard.from_dict(chosen), here / "new.jsonl", quiet=True)


# Verified


def test_a_record_is_verified_and_a_false_one_is_not(
    here: Path, done: tuple[Path, list[dict[str, Any]], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = json.loads(json.dumps(done[1]))
    lines[0]["config"]["speedrun"]["repetitions"] = 1
    for rate in record.RATES:  # so that a busy machine does not decide
        lines[-1][rate] |= {"sd": 1e6}

    def verified(name: str) -> tuple[int, str]:
        (here / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        code = cli.main(["speedrun", "--verify", str(here / name), "--out", str(here / f"new-{name}")])
        return code, capsys.readouterr().out

    code, printed = verified("true.jsonl")
    assert code == 0
    assert "the record stands" in printed
    assert "NOT" not in printed
    assert "settings: this version reads them as" in printed  # one repetition is not what was hashed
    lines[-1]["text"]["results"][2]["bits_per_byte"] += 1e-9
    lines[-1]["results"][0]["accuracy"] += 1 / 16
    code, printed = verified("false.jsonl")
    assert code == 1
    assert "2 of 14 numbers are not the record's" in printed
    lines[0]["slices"] = "0" * 32
    (here / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"speedrun\.slices"):
        verify.verify(here / "other.jsonl", quiet=True)


def test_speeds_are_compared_with_what_so_many_repetitions_tell() -> None:
    then = {"mean": 10.0, "sd": 1.0, "values": [9.0, 10.0, 11.0]}
    half = 4.302653 * math.sqrt(1 / 3 + 1 / 2)
    for mean, good in ((10 + half - 0.01, True), (10 + half + 0.01, False), (10 - half - 0.01, False)):
        found = verify._speed("seeds_per_second", then, {"mean": mean, "values": [mean, mean]})
        assert found.good is good
    assert verify._speed("x", {**then, "sd": None}, then).good is None


def test_an_unfinished_record_cannot_be_verified(here: Path, done: tuple[Path, list[dict[str, Any]], Any]) -> None:
    (here / "cut.jsonl").write_text("".join(json.dumps(line) + "\n" for line in done[1][:4]))
    with pytest.raises(UserError, match="not finished"):
        verify.verify(here / "cut.jsonl")
    (here / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UserError, match="no record of format"):
        record.read(here / "other.jsonl")


# The page


def test_the_page_is_what_the_records_give() -> None:
    records = {path.name: record.read(path) for path in (ROOT / "benchmarks" / "records").glob("*.jsonl")}
    page = (ROOT / "benchmarks" / "RECORDS.md").read_text(encoding="utf-8")
    assert page == table.page(records, ROOT / "benchmarks" / "records")
    assert records


def test_the_guide_shows_what_the_command_printed() -> None:
    guide = (ROOT / "docs" / "speedrun.md").read_text(encoding="utf-8")
    told = [table.told(record.read(path)) for path in (ROOT / "benchmarks" / "records").glob("smoke.*.jsonl")]
    assert any(text in guide for text in told)


def test_the_page_shows_every_number(
    done: tuple[Path, list[dict[str, Any]], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, lines, _ = done
    assert cli.main(["speedrun", "--records", str(folder / "benchmarks" / "records")]) == 0
    page = (folder / "benchmarks" / "RECORDS.md").read_text(encoding="utf-8")
    first, end = lines[0], lines[-1]
    for part in (first["hash"], first["slices"], first["text"]["digest"], first["versions"]["torch"], name_of(folder)):
        assert part in page
    assert all(f"{line['accuracy']:.1%}" in page for line in end["results"])
    assert all(f"{line['bits_per_byte']:.5f}" in page for line in end["text"]["results"])
    assert f"{end['seeds_per_second']['mean']:.3g} [" in page
    assert "2 of 2 timed" in page
    assert "repetitions: equal in every number" in page
    unfinished = table.page({"a.jsonl": lines[:5]}, folder)
    assert "**Not finished**: 0 repetitions done, then ended without a word" in unfinished


def test_one_of_three_things_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["speedrun"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_several_engines_in_processes_give_the_same_numbers(
    here: Path, model: Path, done: tuple[Path, list[dict[str, Any]], dict[str, Any]]
) -> None:
    chosen = tree(here, model)
    chosen["engine"]["count"] = 2
    lines = record.read(run.run(standard.from_dict(chosen), here / "out.jsonl", quiet=True))
    assert record.numbers(lines[-1]) == record.numbers(done[1][-1])
