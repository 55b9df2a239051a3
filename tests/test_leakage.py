"""Near-duplicates across splits: planted ones are found, problems that are alike by design are not, and it is quick."""

import json
import random
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
from checkpoints import small_study, write_tiny

from seedfold import config, leakage, study
from seedfold.engines.base import Image
from seedfold.leakage import near, normal, prompt_text
from seedfold.progress import Progress
from seedfold.splits import deal

SAMPLE = Path(__file__).parent / "data" / "gsm8k_sample.jsonl"
QUESTIONS = [json.loads(line)["question"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


def parts(*texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Splits search, test of these texts; ids are their places."""
    return {
        name: {f"{name}{i}": text for i, text in enumerate(part)}
        for name, part in zip(("search", "test"), texts, strict=True)
    }


def names(pairs: Sequence[leakage.Pair]) -> list[tuple[str, str]]:
    return [(pair.example, pair.other) for pair in pairs]


def test_the_normal_form_is_what_spellings_share() -> None:
    assert normal("  Ｗhat\n\tIS 2+2？ ") == normal("what is 2+2?")
    assert normal("Straße") == normal("STRASSE")
    assert normal("7 + 8") != normal("7 - 8")


def test_a_chat_as_text_keeps_what_is_no_text() -> None:
    said = [{"role": "user", "content": "What is this?"}]
    shown = [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]}]
    assert prompt_text(said) == "user: What is this?"
    assert "a.png" in prompt_text(shown)
    pictures = [Image(b"one", "digest of one"), Image(b"two", "digest of two")]
    asked = [prompt_text([{"role": "user", "content": [{"type": "image", "image": each}]}]) for each in pictures]
    assert "digest of one" in asked[0]
    assert asked[0] != asked[1]


def test_the_published_problems_are_no_duplicates_of_each_other() -> None:
    assert near(parts(QUESTIONS[:25], QUESTIONS[25:])) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.upper(),
        lambda text: text.replace(" ", "  ") + "\n",
        lambda text: text.replace(".", "!", 1),
        lambda text: "Please help me: " + text,
        lambda text: text.replace(" the ", " this ", 1),
    ],
)
def test_planted_duplicates_are_found(change: Callable[[str], str]) -> None:
    planted = {3: 30, 7: 40, 20: 49}
    test = list(QUESTIONS[25:])
    for source, place in planted.items():
        test[place - 25] = change(QUESTIONS[source])
    found = near(parts(QUESTIONS[:25], test))
    assert set(names(found)) == {(f"test{place - 25}", f"search{source}") for source, place in planted.items()}
    assert all(0.7 <= pair.similarity <= 1 for pair in found)


def test_an_instruction_that_all_share_makes_no_duplicates() -> None:
    long = "Solve the problem and think step by step before you write the answer on the last line, as a number. "
    texts = [f"{long}Problem: {text} Remember the last line, and nothing after it." for text in QUESTIONS]
    assert near(parts(texts[:25], texts[25:])) == []
    assert names(near(parts(texts[:25], [*texts[25:], texts[4] + " Thank you."]))) == [("test25", "search4")]


def test_problems_of_one_template_are_no_duplicates() -> None:
    sums = [f"Compute {a} {sign} {b}." for a, b, sign in product(range(10, 25), range(10, 25), "+-")]
    random.Random(0).shuffle(sums)
    assert near(parts(sums[:200], sums[200:])) == []
    words = ["Write this word backwards: " + word for word in ("alpha", "beta", "gamma", "delta")]
    assert near(parts(words[:2], words[2:])) == []
    letters = [f'How often is "{letter}" in the text "{text}"?' for letter in "aeiounrst" for text in QUESTIONS[:5]]
    assert near(parts(letters[::2], letters[1::2])) != []  # long texts that share all but one letter are told
    short = [f'How often is "{letter}" in "{word}"?' for letter in "aeiounrst" for word in ("tree", "house", "lake")]
    assert near(parts(short[::2], short[1::2])) == []


def test_how_often_a_word_stands_there_counts() -> None:
    bars = ["# " * length for length in range(4, 60)]
    assert len(near(parts(bars[:28], ["# " * 90]))) == 0


def test_each_example_has_its_most_similar_one() -> None:
    text = QUESTIONS[0]
    nearly, almost = text.replace("clips", "pins", 1), text.replace("friends", "cousins").replace("clips", "pins", 1)
    found = near(parts([almost, nearly, *QUESTIONS[5:25]], [text]))
    assert names(found) == [("test0", "search1")]


def test_every_pair_of_splits_is_compared_and_only_across() -> None:
    splits = {"search": {"a": QUESTIONS[0], "b": QUESTIONS[0] + " Now!"}, "select": {"c": QUESTIONS[1]}, "gate": {}}
    splits["test"] = {"d": QUESTIONS[1] + " So?", "e": QUESTIONS[2]}
    found = near(splits)
    assert [(pair.example, pair.split, pair.other, pair.other_split) for pair in found] == [
        ("d", "test", "c", "select")
    ]
    assert leakage.summary(found, 2)["near_duplicates"] == {"test like select": 1}


@pytest.mark.parametrize("texts", [([], []), ([""], [""]), (["a"], []), (["a"], ["b"]), (["?", "."], ["!"])])
def test_little_to_compare_is_no_error(texts: tuple[list[str], list[str]]) -> None:
    assert near(parts(*texts)) == []


def naive(one: str, two: str) -> float:
    """Jaccard of padded 5-grams, counted with their number, by another road."""
    sets = []
    for text in (one, two):
        words = ["<"] * 4 + text.split() + [">"] * 4
        grams = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
        sets.append({(gram, grams[:i].count(gram)) for i, gram in enumerate(grams)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_similarities_are_exact() -> None:
    draw = random.Random(1)
    base = [[draw.choice("abcdefghijklmnop") for _ in range(30)] for _ in range(40)]
    other = [[letter if draw.random() < 0.97 else "z" for letter in text] for text in base]
    one, two = [" ".join(text) for text in base], [" ".join(text) for text in other]
    found = {(pair.example, pair.other): pair.similarity for pair in near(parts(one, two), common=1.0)}
    expected = {}
    for i, text in enumerate(two):
        best = max(range(len(one)), key=lambda j: (naive(text, one[j]), -j))
        if naive(text, one[best]) >= 0.7:
            expected[f"test{i}", f"search{best}"] = pytest.approx(naive(text, one[best]))
    assert found == expected
    assert 5 < len(found) < 40


def test_ten_thousand_prompts_take_seconds() -> None:
    draw = random.Random(2)
    words = [f"word{i}" for i in range(3000)]
    texts = ["Read this. " + " ".join(draw.choices(words, k=60)) for _ in range(10_000)]
    texts[9000:9100] = [text + " again" for text in texts[:100]]
    start = time.process_time()
    found = near(parts(texts[:6000], texts[6000:]))
    assert time.process_time() - start < 5
    assert len(found) == 100


def test_a_summary_counts_and_names_and_says() -> None:
    pairs = [leakage.Pair(f"t{i}", "test", f"s{i}", "search", 0.9) for i in range(7)]
    pairs += [leakage.Pair("t0", "test", "x", "gate", 0.8), leakage.Pair("y", "gate", "z", "search", 0.75)]
    found = leakage.summary(pairs, 3)
    assert found["near_duplicates"] == {"test like search": 7, "test like gate": 1, "gate like search": 1}
    assert (found["test"], found["repeated_prompts"], len(found["pairs"])) == (7, 3, 5)
    assert json.loads(json.dumps(found)) == found
    assert "7 of 64 test examples have a near-duplicate" in leakage.sentence(found, 64)
    assert leakage.sentence(leakage.summary(pairs[-1:], 3), 64) == ""


def test_a_study_says_what_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = small_study(tmp_path, write_tiny(tmp_path / "model"), candidates=2, votes=[1])
    rows = [{"prompt": text, "share": 0.4} for text in QUESTIONS]
    rows += [{"prompt": text.upper(), "share": 0.4} for text in QUESTIONS[:5]]
    rows += [{"prompt": f"{text} Thank you.", "share": 0.4} for text in QUESTIONS]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine["splits"] = {"search": 50, "select": 20, "test": 30}
    done = study.run(mine, tmp_path / "out", Progress())
    found = done.record["leakage"]
    assert found["repeated_prompts"] == 5
    assert found["near_duplicates"].keys() >= {"test like search", "test like select", "select like search"}
    assert 5 <= found["test"] <= 30
    sentence = f"Leakage: {found['test']} of 30 test examples have a near-duplicate"
    told = capsys.readouterr().err
    assert "left out 5 examples whose prompt another one has" in told
    assert sentence in told
    assert sentence in " ".join(str(done).split())
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert sentence in page
    assert "for which 5 examples were left out" in page


@pytest.mark.parametrize(
    "task",
    [{"name": "arithmetic"}, {"name": "countdown"}, {"name": "arithmetic", "options": {"low": 1, "high": 9}}],
)
def test_generated_tasks_are_clean(task: dict[str, object]) -> None:
    dealt = deal(config.from_dict({"task": task, "splits": {"search": 30, "select": 20, "test": 40}}))
    assert dealt.leakage() == []
    assert dealt.repeated == 0
