"""Studies read back from their folders: finished, running, raced, in pairs; and what is refused."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seedfold
from seedfold import UserError
from seedfold.diagnose import answers, saved, studies
from seedfold.journal import Journal
from seedfold.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Any:
    """stop(n): the n-th batch to be written meets a Ctrl-C; stop(0): none does."""
    record = Journal.record

    def after(count: int) -> None:
        left = iter(range(count - 1))

        def until(self: Journal, rows: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            record(self, rows)

        monkeypatch.setattr(Journal, "record", until if count else record)

    return after


def test_a_finished_study(done: seedfold.Study) -> None:
    found = saved.load(done.folder)
    lines = done.record["candidates"]
    assert [recipe.key for recipe in found.recipes] == [line["key"] for line in lines]
    assert found.rewards.mean(axis=1) == pytest.approx([line["search"] for line in lines])
    assert found.base_rewards.mean() == pytest.approx(done.record["base"]["search"])
    assert found.rewards.shape == (16, 24)
    assert found.sigmas.tolist() == [0.02, 0.05] * 8
    assert found.drawn == 16
    assert found.independent.rewards is not None
    assert len(found.independent) == 16
    scores = found.population.scores.shrunk + found.base_rewards.mean()
    assert scores == pytest.approx([line["shrunk"] for line in lines])


def test_a_running_study(settings: dict[str, Any], tmp_path: Path, stop: Any, done: seedfold.Study) -> None:
    """16 candidates in batches of 16 answers: stopped in the middle of them."""
    stop(17)
    with pytest.raises(KeyboardInterrupt):
        seedfold.run(settings, tmp_path / "out")
    stop(0)
    part, whole = saved.load(tmp_path / "out"), saved.load(done.folder)
    there = len(part.recipes)
    assert 4 <= there < 16
    assert part.drawn == 16
    assert np.array_equal(part.rewards, whole.rewards[:there])
    held = answers.answer(part, "transfer", [part.base, *part.recipes], part.examples("select"), QUIET)
    assert held.shape == (there + 1, 12)
    assert np.isfinite(held).all()
    seedfold.run(settings, tmp_path / "out")  # the study goes on, and the answers of the diagnostic are still good
    later = saved.load(tmp_path / "out")
    again = answers.answer(later, "transfer", [later.base, *later.recipes], later.examples("select"), QUIET)
    assert np.array_equal(again[: there + 1], held)
    assert again.shape == (17, 12)


def test_too_few_so_far(settings: dict[str, Any], tmp_path: Path, stop: Any) -> None:
    for batches, message in (
        (2, "has 16 of the base's 24 answers on search; wait"),
        (4, "has 0 candidates that answered"),
    ):
        stop(batches)
        with pytest.raises(KeyboardInterrupt):
            seedfold.run(settings, tmp_path / str(batches))
        with pytest.raises(UserError, match=message):
            saved.load(tmp_path / str(batches))
    with pytest.raises(UserError, match=r"has no journal\.sqlite"):
        saved.load(tmp_path)


def test_racing(settings: dict[str, Any], tmp_path: Path) -> None:
    raced = copy.deepcopy(settings)
    raced["search"] |= {"racing": True, "block": 8}
    seedfold.run(raced, tmp_path / "out")
    found = saved.load(tmp_path / "out")
    assert len(found.recipes) == 16
    assert np.isnan(found.rewards).any()
    assert len(found.asked) == 8
    assert found.complete.rewards.shape == (16, 8)
    assert studies.halves(found, permutations=19).direction_examples.p > 0
    told = studies.transferred(found, logprobs=False).told
    assert (told.search_examples, told.held_examples) == (8, 12)


def test_antithetic_pairs_are_one_candidate(settings: dict[str, Any], tmp_path: Path) -> None:
    paired = copy.deepcopy(settings)
    paired["search"]["antithetic"] = True
    seedfold.run(paired, tmp_path / "out")
    found = saved.load(tmp_path / "out")
    single = found.independent
    assert len(single) == 8
    effects = found.rewards - found.base_rewards
    assert np.array_equal(single.effects, (effects[::2] - effects[1::2]) / 2)
    assert single.terms == tuple(recipe.terms for recipe in found.recipes[::2])
    # Another model is made of the same seeds: as one study of two tasks would be.
    common = saved.common([found, found])
    assert np.array_equal(common[0], found.rewards)


def test_other_seeds_have_no_discordance(settings: dict[str, Any], tmp_path: Path, done: seedfold.Study) -> None:
    other = copy.deepcopy(settings)
    other["search"] |= {"seed": 1, "candidates": 4}
    seedfold.run(other, tmp_path / "out")
    with pytest.raises(UserError, match="0 seeds were scored in all of"):
        saved.common([saved.load(done.folder), saved.load(tmp_path / "out")])


def test_changed_data_or_reward_are_refused(folder: Path, settings: dict[str, Any], monkeypatch: Any) -> None:
    found = saved.load(folder)
    with pytest.raises(UserError, match='"--split" is gate, which has no examples'):
        found.examples("gate")
    monkeypatch.setattr(type(found.dealt.task), "digest", "another", raising=False)
    monkeypatch.setattr(found.dealt.task, "digest", "another", raising=False)
    with pytest.raises(UserError, match="the reward changed"):
        answers.answer(found, "transfer", found.recipes, found.examples("select"), QUIET)
    data = Path(settings["task"]["path"])
    before = data.read_text()
    data.write_text(before.replace("Say", "Tell"))
    try:
        with pytest.raises(UserError, match="its data are not those it was made with"):
            saved.load(folder)
    finally:
        data.write_text(before)


def test_the_sketch_agrees_with_the_coefficients(done: seedfold.Study) -> None:
    found = saved.load(done.folder)
    gram = answers.sketched(found, found.recipes, 2**15)
    size = np.sqrt(np.diag(gram))
    cosine, wanted = gram / np.outer(size, size), np.eye(16)
    assert np.abs(cosine - wanted).max() < 0.05
    assert size[1] / size[0] == pytest.approx(0.05 / 0.02, rel=0.02)


def test_numbers_that_json_can_say() -> None:
    assert saved.plain({"a": (np.float64("nan"), np.int64(2), np.bool_(True)), 0.5: np.ones(1)}) == {
        "a": [None, 2, True],
        "0.5": [1.0],
    }
