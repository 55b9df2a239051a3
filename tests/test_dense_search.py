"""A search by log-probabilities: candidates decode nothing on search, and the rest of the study is as ever."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import small_study, write_tiny

import seedfold
from seedfold import cli, config
from seedfold.errors import UserError
from seedfold.journal import Journal
from seedfold.report.record import TIMES
from seedfold.splits import deal
from seedfold.study import planned


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("dense-search")
    study: dict[str, Any] = small_study(folder, write_tiny(folder / "model"), score="reference")
    study["splits"] |= {"gate": 10, "test": 14}
    study["task"] |= {"max_tokens": 12}
    study["fold"] = {"methods": ["linear"], "score": "reference", "samples": 4, "local": {"rounds": 0}}
    study["fold"] |= {"race": {"block": 4}, "linear": {"steps": [1.0, 2.0]}}
    return study


@pytest.fixture(scope="module")
def done(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> seedfold.Study:
    return seedfold.run(settings, tmp_path_factory.mktemp("whole") / "out")


def test_candidates_decode_nothing_on_search(settings: dict[str, Any], done: seedfold.Study) -> None:
    search = {example.id for example in deal(config.from_dict(settings)).splits.search}
    with Journal.read(done.folder) as journal:
        asked = {key for key in journal.recipes() for row in journal.rows(key) if row.example in search}
    assert len(asked) == 1, "the base alone"
    single = done.results[1]
    assert single["evaluations"] == 24 + 24 * 4, "the base's greedy answers, and four drawn to each example"
    assert single["tokens"] > 0
    fold = next(line for line in done.results if line["kind"] == "fold")
    assert fold["evaluations"] == single["evaluations"] + done.record["folds"][0]["evaluations"]
    assert done.record["evaluations"] <= planned(config.from_dict(settings))


def test_they_are_ranked_by_their_log_probabilities(done: seedfold.Study) -> None:
    ranked = sorted(done.record["candidates"], key=lambda one: one["rank"])
    assert ranked[0]["nats"] > ranked[-1]["nats"]
    assert len({one["nats"] for one in ranked}) == 9
    assert all(one["search"] is None and one["lenient"] is None for one in ranked)
    assert done.record["search"]["texts"] > 2
    assert 0 <= done.record["search"]["reliability"] <= 1


def test_the_report_says_so_and_claims_no_accuracy_on_search(done: seedfold.Study, capsys: Any) -> None:
    told = str(done)
    assert "scores are log-probabilities of" in told.replace("\n", " ")
    assert "Winner's lead" not in told
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert " nats" in page
    assert "No candidate gave graded answers to search." in page
    assert cli.main(["watch", "--once", str(done.folder)]) == 0
    assert cli.main(["report", str(done.folder)]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_it_goes_on_to_the_same_end(settings: dict[str, Any], done: seedfold.Study, tmp_path: Path) -> None:
    seedfold.run(settings, tmp_path / "out")
    (tmp_path / "out" / "record.json").unlink()
    again = seedfold.run(settings, tmp_path / "out").record
    assert {name: value for name, value in again.items() if name not in TIMES} == {
        name: value for name, value in done.record.items() if name not in TIMES
    }
    json.dumps(again, allow_nan=False)


@pytest.mark.parametrize(
    ("section", "values", "what"),
    [
        ("search", {"racing": True}, '"search.racing" is true, which needs graded answers'),
        ("fold", {"methods": ["released_corp"]}, '"fold.methods" has released_corp, which needs graded answers'),
        ("fold", {"score": "reward"}, '"fold.score" is reward, which needs graded answers'),
        ("search", {"score": "logprob"}, "search.score.*reference"),
    ],
)
def test_what_needs_graded_answers_is_refused(
    settings: dict[str, Any], section: str, values: dict[str, Any], what: str
) -> None:
    wrong = copy.deepcopy(settings)
    wrong[section] |= values
    with pytest.raises(UserError, match=what):
        config.from_dict(wrong)


def test_a_vote_needs_no_fold(settings: dict[str, Any], tmp_path: Path) -> None:
    alone = copy.deepcopy(settings)
    del alone["fold"]["methods"]
    alone["search"]["score"] = "advantage"
    study = seedfold.run(alone, tmp_path / "out")
    assert [line["kind"] for line in study.results] == ["base", "single", "vote", "self-consistency"]
    assert np.isfinite([line["accuracy"] for line in study.results]).all()
