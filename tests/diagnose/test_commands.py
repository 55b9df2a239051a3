"""Each diagnostic as a user calls it, on a study of a tiny model: what is printed, kept, resumed and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seedfold
from seedfold import cli
from seedfold.diagnose import answers, dense, saved
from seedfold.engines import opened
from seedfold.engines.base import Prompt
from seedfold.journal import Journal
from seedfold.recipe import Recipe, combine


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> str:
        code = cli.main(["diagnose", *map(str, arguments)])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be loaded."""

    def opened(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(answers, "opened", opened)


@pytest.fixture(scope="module")
def answered(done: seedfold.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder with all that transfer asks for."""
    folder = Path(shutil.copytree(done.folder, tmp_path_factory.mktemp("answered") / "out"))
    assert cli.main(["diagnose", "transfer", str(folder), "--json"]) == 0
    return folder


def test_split_half(call: Any, folder: Path, closed: None) -> None:
    text = call("split-half", folder, "--permutations", 19)
    assert "16 candidates, 24 search examples that all answered" in text
    assert "scores, halves of examples" in text
    numbers = json.loads(call("split-half", folder, "--permutations", 19, "--most", 3, "--json"))
    assert len(numbers["curve_examples"]) == 3
    assert numbers["weights_population"]["p"] == 1
    assert 0 < numbers["direction_examples"]["p"] <= 1
    sketched = json.loads(call("split-half", folder, "--permutations", 19, "--sketch", 2**14, "--json"))
    exact, rough = numbers["weights_examples"]["observed"], sketched["weights_examples"]["observed"]
    assert rough == pytest.approx(exact, abs=0.1)


def test_density_and_discordance(call: Any, folder: Path, closed: None) -> None:
    text = call("density", folder, "--margins", 0, 0.1)
    assert text.count("0.02") == text.count("0.05 ") == 2
    numbers = json.loads(call("density", folder, folder, "--json"))
    found = saved.load(folder)
    lead = (found.rewards - found.base_rewards).mean(axis=1)[found.sigmas == 0.02]
    assert numbers["studies"][0]["density"][0]["share"] == pytest.approx((lead >= -1e-9).mean())
    assert numbers["discordance"]["observed"] == pytest.approx(0)
    assert numbers["discordance"]["seeds"] == 16


def test_transfer(call: Any, answered: Path, closed: None) -> None:
    """All is known by now: no model is loaded."""
    folder = answered
    text = call("transfer", folder)
    for part in (
        "Spearman",
        "oracle: best on select",
        "examples for 0.8",
        "mean and log-probability",
        "above the base",
    ):
        assert part in text
    rows = {name: _count(folder / name) for name in ("transfer", dense.folder_of())}
    found = saved.load(folder)
    assert rows["transfer"] == 17 * 12
    texts = dense.references(found, [*found.examples("search"), *found.examples("select")])
    assert rows[dense.folder_of()] == 17 * len(texts)
    numbers = json.loads(call("transfer", folder, "--json"))
    assert len(numbers["selectors"]) == 6
    assert numbers["candidates"][3]["seed"] == found.recipes[3].terms[0].seed
    with Journal.read(folder / "transfer") as journal:
        held = [row.reward for row in journal.rows(found.recipes[3].key, 0)]
    assert numbers["candidates"][3]["held"] == pytest.approx(np.mean(held))
    few = json.loads(call("transfer", folder, "--no-logprobs", "--reliability", 0.75, "--json"))
    assert len(few["selectors"]) == 4
    for name in ("search", "held"):  # a quarter of the noise, so three times the odds
        r = few[f"{name}_reliability"]["value"]
        middle = few["examples_needed"][name]["0.75"][0]
        assert middle is None if r <= 0 else middle == pytest.approx(few[f"{name}_examples"] * 3 * (1 - r) / r)
    assert "examples for 0.75" in call("transfer", folder, "--no-logprobs", "--reliability", 0.75)
    with pytest.raises(SystemExit):
        cli.main(["diagnose", "transfer", str(folder), "--reliability", "1"])


def test_log_probabilities_are_those_of_the_candidate_on_the_answer(answered: Path) -> None:
    """By hand: the prompt, the reference behind it, one model at a time."""
    found = saved.load(answered)
    with Journal.read(answered / dense.folder_of()) as journal:
        row = journal.rows(found.recipes[5].key, 0)[2]
    example = next(e for part in ("search", "select") for e in found.examples(part) if e.id == row.example)
    with opened(found.config.model, found.config.engine) as engine:
        tail = tuple(engine.tokenizer(row.completion.strip(), add_special_tokens=False)["input_ids"])
        messages = found.dealt.task.messages(example)
        assert dense.continuation(engine, messages, row.completion) == tail
        engine.become(found.recipes[5])
        (tokens,) = engine.logprobs([Prompt(engine.encode(messages), "")], [tail])
    assert row.reward == pytest.approx(sum(tokens))
    assert found.dealt.task.grade(row.completion, example).strict == 1


def test_references_are_right_answers_the_bases_own_first_or_a_column(answered: Path) -> None:
    found = saved.load(answered)
    examples = [*found.examples("search"), *found.examples("select")]
    texts = dense.references(found, examples)
    column = dense.references(found, examples, "prompt")
    assert column == {example.id: example.columns["prompt"] for example in examples}
    with Journal.read(answered / "transfer") as held, Journal.read(answered) as search:
        for example in examples:
            rows = [
                row
                for recipe in (found.base, *found.recipes)
                for journal in (search, held)
                for row in journal.rows(recipe.key, 0, [example.id])
                if row.reward == 1
            ]
            assert (example.id in texts) == bool(rows)
            own = [row.completion for row in rows if row.recipe == found.base.key]
            assert not own or texts[example.id] == own[0]
            assert not rows or texts[example.id] in [row.completion for row in rows]


def test_merges(call: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--families", "top", "random", "oracle-top", "--parents", 2, 3, "--weights=-1,1", "--merges", 2]
    text = call("merges", folder, *options)
    assert "*oracle-top" in text
    assert "-1,1" in text
    monkeypatch.setattr(answers, "opened", None)
    assert call("merges", folder, *options) == text
    numbers = json.loads(call("merges", folder, *options, "--json"))
    assert len(numbers["cells"]) == 3 * (3 + 3 + 1)
    line = next(line for line in numbers["merges"] if line["merge"]["operator"] == "-1,1")
    found = saved.load(folder)
    places = line["merge"]["parents"]
    assert line["parents"] == [found.recipes[i].terms[0].seed for i in places]
    made = combine([found.recipes[i] for i in places], [-1, 1])
    with Journal.read(folder / "merges") as journal:
        assert Recipe.from_json(journal.recipe_text(made.key)).terms == made.terms
        answered = {row.example: row.reward for row in journal.rows(made.key, 0)}
        base = {row.example: row.reward for row in journal.rows(found.base.key, 0)}
    assert set(line["fixed"]) == {key for key, reward in answered.items() if reward > base[key]}
    assert set(line["broken"]) == {key for key, reward in answered.items() if reward < base[key]}


def test_a_diagnostic_that_was_stopped_ends_like_one_that_was_not(
    call: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    whole = call("merges", folder, "--merges", 2, "--json")
    record = Journal.record
    for stop in (3, 9):
        left = iter(range(stop))

        def until(self: Journal, rows: Any, left: Any = left) -> None:
            record(self, rows)
            if next(left, None) is None:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "record", until)
        assert cli.main(["diagnose", "merges", str(other), "--merges", "2"]) == cli.STOPPED
        assert 0 < _count(other / "merges") < _count(folder / "merges")
    monkeypatch.setattr(Journal, "record", record)
    assert call("merges", other, "--merges", 2, "--json") == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merges", "--families", "best"], '"--families" has best; use any of top'),
        (["merges", "--weights", "a"], "\"--weights\" is 'a'; give numbers with commas"),
        (["merges", "--parents", "20"], '"--parents" has 20, but a merge takes 2 to 16 of 16 candidates'),
        (["transfer", "--reference", "label"], '"--reference" is "label", which no row has; its columns are prompt'),
        (["transfer", "--split", "gate"], '"--split" is gate, which has no examples'),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str], closed: None
) -> None:
    assert cli.main(["diagnose", arguments[0], str(folder), *arguments[1:]]) == cli.BAD_INPUT
    error = capsys.readouterr().err.strip()
    assert error.startswith("seedfold: ")
    assert message in error
    assert "\n" not in error


def _count(folder: Path) -> int:
    with Journal.read(folder) as journal:
        return journal.count()
