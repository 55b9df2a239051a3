"""What check-task finds in data and rewards: each kind of mistake, planted, and nothing where nothing is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from seedfold import UserError, config
from seedfold.check import Report, check

WORDS = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
    "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
]  # fmt: skip
ROWS: list[dict[str, Any]] = [{"question": f"Say letter {n}.", "answer": word} for n, word in enumerate(WORDS, 1)]
GOOD = "def reward(completion, example):\n    return float(completion.strip() == example['answer'])\n"

Look = Callable[..., Report]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    def look(rows: list[dict[str, Any]] = ROWS, code: str = GOOD, reference: str = "", **changes: Any) -> Report:
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / "reward.py").write_text(code, encoding="utf-8")
        task = {
            "name": "custom",
            "path": str(tmp_path / "data.jsonl"),
            "reward": f"{tmp_path / 'reward.py'}:reward",
            "prompt": "{question}",
            "max_tokens": 16,
        } | changes.pop("task", {})
        splits = {"search": 8, "select": 6, "test": 10} | changes.pop("splits", {})
        return check(config.from_dict({"task": task, "splits": splits, **changes}), 2, reference)

    return look


def only(texts: list[str]) -> str:
    assert len(texts) == 1, texts
    return texts[0]


def test_nothing_is_found_where_nothing_is_wrong(look: Look) -> None:
    found = look()
    assert (found.problems, found.notes, found.good) == ([], [], True)
    assert found.facts["references"] == {"column": "answer", "n": 24, "strict": 1.0, "lenient": 1.0}
    assert (found.facts["another example's reference"], found.facts["empty answer"]) == (0.0, 0.0)
    assert found.facts["examples"]["have"] == found.facts["examples"]["needed"] == 24
    assert found.prompts[0].endswith("<|im_start|>user\nSay letter 1.<|im_end|>\n<|im_start|>assistant\n")
    assert len(found.prompts) == 2
    text = str(found)
    assert "nothing to mend" in text
    assert "  | Say letter 1.<|im_end|>" in text
    assert json.loads(json.dumps(found.to_dict()))["good"] is True


def test_tokens_are_those_of_the_engine(look: Look, smol: Any) -> None:
    found = look()
    lengths = sorted(len(smol.encode([{"role": "user", "content": row["question"]}])) for row in ROWS)
    tokens = found.facts["prompt tokens"]
    assert (tokens["min"], tokens["max"]) == (lengths[0], lengths[-1])
    assert lengths[11] <= tokens["median"] <= lengths[12]
    assert found.facts["positions"] == smol.positions


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("    return 1.0", ["right, wrong and empty answers all earn 1"]),
        ("    return 0.0", ["right, wrong and empty answers all earn 0", "--reference"]),
        ("    return float(bool(completion))", ["another example's reference earns no less", "24 of 24", "row 1 ("]),
        (
            "    return float(completion in example['answer'])",
            ["an empty answer earns no less", "24 of 24", "1 against 1"],
        ),
        (
            "    return 0.4 if completion == 'gamma' else float(completion == example['answer'])",
            ["references that earn less than the most, 1: 1 of 24", "row 3 (", '"gamma", with 0.4'],
        ),
        (
            "    if completion == 'gamma': raise KeyError('x')\n    return float(completion == example['answer'])",
            ["fails on 1 of", "row 3 (", "KeyError: 'x'"],
        ),
        (
            "    if not completion.strip(): return completion[0] + 1\n    return float(completion == example['answer'])",
            ["the reward fails on", "row 1 (", "IndexError"],
        ),
        (
            "    return float(completion) if completion == 'NaN' else float(completion == example['answer'])",
            ["gives nan"],
        ),
        (
            "    reward.n = getattr(reward, 'n', 0) + 1\n    return (completion == example['answer']) + reward.n / 1000",
            ["another reward the second time"],
        ),
    ],
)
def test_rewards_that_are_wrong(look: Look, code: str, words: list[str]) -> None:
    found = look(code=f"def reward(completion, example):\n{code}\n")
    assert not found.good
    assert any(all(word in text for word in words) for text in found.problems), found.problems
    assert f"to mend: {len(found.problems)}" in str(found)


def test_a_reward_of_the_whole_batch(look: Look) -> None:
    code = (
        "def reward(completions, answer, **kwargs):\n    good = [float(c == a) for c, a in zip(completions, answer)]\n"
    )
    assert look(code=code + "    return good\n").good
    found = look(code=code + "    return [value / len(good) for value in good]\n")
    assert found.problems  # right answers earn 1/16 or 1/8, by the size of their batch
    found = look(code=code + "    return [value + len(good) / 100 for value in good]\n")
    assert any("in a batch than alone" in text for text in found.problems)


def test_slow_rewards_are_told_with_what_they_cost(look: Look) -> None:
    code = "import time\n" + GOOD.replace("    return", "    time.sleep(0.025)\n    return")
    found = look(code=code)
    assert found.good
    assert "a call to the reward takes" in only(found.notes)
    assert "minutes for the study's" in found.notes[0]


def test_a_reference_column_may_be_named(look: Look) -> None:
    rows = [{"question": row["question"], "gold": row["answer"]} for row in ROWS]
    code = GOOD.replace("'answer'", "'gold'")
    found = look(rows, code)
    assert found.good
    assert "odd and empty answers alone, and all earned 0; name the column" in only(found.notes)
    assert look(rows, code, "gold").facts["references"]["strict"] == 1
    with pytest.raises(UserError, match='"--reference" is "silver", which no row has; its columns are question, gold'):
        look(rows, code, "silver")


def test_right_answers_out_of_format_are_told_apart(look: Look) -> None:
    code = (
        "def reward(completion, example): return float(completion == '#' + example['answer'])\n"
        "def lenient(completion, example): return float(example['answer'] == completion.strip('#'))\n"
    )
    found = look(code=code)
    assert found.good
    assert "not in the format that the strict reading asks for: it gives 0, the lenient one 1" in only(found.notes)


def test_answers_that_nobody_can_vote_on(look: Look) -> None:
    found = look(code=GOOD + "def answer(completion, example):\n    return None\n")
    assert found.good
    assert "nothing to vote on: 24 of 24" in only(found.notes)


def test_one_prompt_with_two_references(look: Look) -> None:
    found = look(
        [*ROWS, {"question": "say  LETTER 1.", "answer": "beta"}, {"question": "SAY LETTER 2.", "answer": "beta"}]
    )
    assert "prompts with more than one reference: 1" in only(found.problems)
    assert '"alpha", and row 25' in found.problems[0]
    assert "examples with the prompt of another one, up to case and white space: 2" in only(found.notes)


def test_too_few_examples_are_a_finding_and_what_is_there_is_looked_at(look: Look) -> None:
    found = look(splits={"search": 100})
    assert "24 different examples but the splits need 116" in only(found.problems)
    assert found.facts["references"]["n"] == 24
    found = look([*ROWS[:-1], {"question": "say  LETTER 1.", "answer": "alpha"}])
    assert "(1 repeat the prompt of another) has 23 different examples but the splits need 24" in only(found.problems)


def test_empty_fields(look: Look) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in ROWS]
    rows[3]["answer"] = " "
    rows[4]["hint"] = "think"
    rows[5]["question"] = " "
    found = look(rows)
    assert any(
        'rows with an empty or missing "answer": 1 of 24; the first is row 4 (' in text for text in found.problems
    )
    assert any("empty prompts: 1; the first is row 6 (" in text for text in found.problems)
    assert any('rows with an empty or missing "hint": 23 of 24' in text for text in found.notes)


def test_answers_given_away(look: Look) -> None:
    rows = [{"question": f"Word {number}?", "answer": row["answer"]} for number, row in enumerate(ROWS)]
    assert look(rows).notes == []
    rows[7]["question"] += " It is THETA, of course."
    rows[8]["question"] += " It is not piota."
    assert "word for word: 1; the first is row 8 (" in only(look(rows).notes)
    listed = [{"question": f"{n}. Is it {', '.join(WORDS)}?", "answer": row["answer"]} for n, row in enumerate(ROWS)]
    assert look(listed).notes == []  # all of them name all answers


def test_balance(look: Look) -> None:
    rows = [{"question": f"Is {n} large?", "answer": "yes" if n % 3 else "no"} for n in range(24)]
    found = look(rows)
    assert found.facts["balance"] == {"yes": 16, "no": 8}
    assert "yes 16, no 8" in str(found)
    assert found.notes == []
    rows = [{"question": f"Is {n} large?", "answer": "yes" if n else "no"} for n in range(24)]
    assert '"yes" is the reference of 23 in 24' in only(look(rows).notes)


def test_room(look: Look) -> None:
    rows = [*ROWS[:-1], {"question": "Say omega. " + "really " * 9000, "answer": "omega"}]
    found = look(rows)
    assert "more than the model's 8,192 positions with an answer of 16 tokens: 1; the first is that of row 24" in only(
        found.problems
    )
    rows = [*ROWS[:-1], {"question": "Say much.", "answer": "omega " * 20 + "\n\nend"}]
    found = look(rows, task={"stop": ["\n\n"]}, code=GOOD.replace("completion.strip()", "completion"))
    assert any('references that do not fit "task.max_tokens", which is 16: 1 of 24' in text for text in found.problems)
    assert any('references with a string of "task.stop" in them' in text for text in found.problems)


def test_near_duplicates_are_shown_side_by_side(look: Look) -> None:
    long = "Tell me which of the many words on the long list in my old book was written by hand in red ink on page"
    rows = [{"question": f"{long} {n} {word}?", "answer": word} for n, word in enumerate(WORDS)]
    assert look(rows).good
    stories = [
        {
            "question": f"{word} went to {other} and found {third} under the {word} of {other}, {n} days late; then "
            f"{third} ran from {other} to {word} {n} times and asked {word} for {other}.",
            "answer": word,
        }
        for n, (word, other, third) in enumerate(zip(WORDS, WORDS[1:] + WORDS[:1], WORDS[2:] + WORDS[:2], strict=True))
    ]
    again = [{**row, "question": "Please: " + row["question"]} for row in stories]
    found = look(stories + again, splits={"search": 24, "select": 12, "test": 12})
    text = only(found.problems)
    assert text.startswith(f"Leakage: {found.facts['leakage']['test']} of 12 test examples have a near-duplicate")
    assert "test like search" in text
    assert text.count("\n") == 6
    assert "Please:" in text


@pytest.mark.parametrize(
    "task",
    [
        {"name": "arithmetic"},
        {"name": "countdown"},
        {"name": "gsm8k", "path": str(Path(__file__).parents[1] / "data" / "gsm8k_sample.jsonl")},
        {"name": "reasoning-gym:chain_sum"},
    ],
)
def test_built_in_tasks_pass(task: dict[str, Any]) -> None:
    found = check(config.from_dict({"task": task, "splits": {"search": 20, "select": 14, "test": 16}}))
    assert found.problems == []
    if task["name"] in ("arithmetic", "gsm8k"):
        assert found.facts["references"]["strict"] == 1
        assert found.notes == []


@pytest.mark.parametrize(("name", "column"), [("mbpp", "code"), ("humaneval", "canonical_solution")])
def test_references_that_are_programs(name: str, column: str) -> None:
    path = str(Path(__file__).parents[1] / "data" / f"{name}_sample.jsonl")
    chosen = config.from_dict(
        {"task": {"name": name, "path": path, "examples": 20}, "splits": {"search": 6, "select": 6, "test": 8}}
    )
    try:
        found = check(chosen)
    except UserError as error:
        if "bubblewrap" not in str(error):
            raise
        pytest.skip(str(error))
    assert found.good
    assert found.facts["references"] == {"column": column, "n": 20, "strict": 0.0, "lenient": 1.0}
    assert found.facts["another example's reference"] == 0


def test_tokens_of_prompts_with_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image as pillow

    from seedfold import check as module
    from seedfold.engines.vision import VisionEngine
    from seedfold.splits import deal

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "engines"))
    from vision_models import write_vision

    for shade in range(12):
        pillow.new("RGB", (40, 30), (20 * shade, 90, 10)).save(tmp_path / f"{shade}.png")
    lines = [{"question": f"How dark is picture {n}?", "answer": f"{n}", "image": f"{n}.png"} for n in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tree = {
        "model": {"name": str(write_vision("llava", tmp_path / "model"))},
        "task": {"name": "gqa", "path": str(tmp_path / "data.jsonl")},
        "splits": {"search": 4, "select": 4, "test": 4},
    }
    chosen = config.from_dict(tree)
    found = check(chosen, 2)
    engine = VisionEngine.open(chosen.model, chosen.engine)
    task = deal(chosen).task
    lengths = [len(engine.encode(task.messages(example))) for example in task.examples]
    assert found.facts["prompt tokens"] == {"min": min(lengths), "median": median(lengths), "max": max(lengths)}
    assert (found.facts["positions"], found.facts["too long"]) == (512, 0)
    assert found.prompts[0].startswith("<|im_start|>user\n<image> × 4How dark is picture 0?")
    assert len(found.prompts) == 2
    assert not any("tokens" in note for note in found.notes)
    # Preparing pictures costs time: of many, the first are counted, and the report says so.
    monkeypatch.setattr(module, "PICTURES", 5)
    assert "of the first 5 prompts with pictures, of 12" in " ".join(check(chosen, 2).notes)
    # A model of text alone could not do the study, and neither is it said to.
    with pytest.raises(UserError, match='the task shows images, but model "smollm2-135m"'):
        check(config.from_dict({**tree, "model": {"name": "smollm2-135m"}}))


def test_what_cannot_be_loaded_is_a_user_error(look: Look) -> None:
    with pytest.raises(UserError, match=r'"model.name" is "/nowhere/model"'):
        look(model={"name": "/nowhere/model"})
    with pytest.raises(UserError, match='no column "text"'):
        look(task={"prompt": "{text}"})
