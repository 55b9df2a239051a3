"""Story order: the reward, what is read as an order, the shuffle, and how texts are cut into sentences."""

import json
import time
from itertools import permutations
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.search.vote import vote
from seedfold.tasks import story_order
from seedfold.tasks.base import Example
from seedfold.tasks.story_order import StoryOrder

SAMPLE = Path(__file__).parents[1] / "data" / "stories_sample.jsonl"
STORY = ["Ann got up.", "She ate.", "She left home.", "It rained.", "She came back wet."]
EXAMPLE = Example.of({"sentences": ["2", "5", "1", "3", "4"], "order": [3, 1, 5, 2, 4]})


def graded(text: str) -> tuple[float, float, str | None]:
    grade = StoryOrder([EXAMPLE]).grade(text, EXAMPLE)
    return grade.strict, grade.lenient, grade.answer


@pytest.mark.parametrize(
    ("order", "reward"),
    [
        ([3, 1, 5, 2, 4], 1.0),
        ([3, 1, 5, 4, 2], 0.6 * 3 / 5 + 0.4 * 2 / 4),
        ([1, 5, 2, 4, 3], 0.4 * 3 / 4),  # all moved by one place: neighbours are kept
        ([4, 2, 5, 1, 3], 0.6 * 1 / 5),  # backwards
        ([1, 3, 5, 2, 4], 0.6 * 3 / 5 + 0.4 * 2 / 4),
        ([2, 4, 3, 1, 5], 0.4 * 3 / 4),
        ([5, 3, 2, 4, 1], 0.4 * 1 / 4),
    ],
)
def test_reward(order: list[int], reward: float) -> None:
    assert story_order.score(order, EXAMPLE.columns["order"]) == pytest.approx(reward, abs=1e-12)


def test_a_random_order_earns_a_fifth() -> None:
    rewards = [story_order.score(order, EXAMPLE.columns["order"]) for order in permutations(range(1, 6))]
    assert mean(rewards) == pytest.approx(0.2)
    assert sum(reward == 1 for reward in rewards) == 1


RIGHT = "3 1 5 2 4"


@pytest.mark.parametrize(
    ("text", "strict", "lenient", "answer"),
    [
        ("<answer>3 1 5 2 4</answer>", 1, 1, RIGHT),
        ("She eats first.\n<Answer> 3, 1, 5, 2, 4. </Answer>", 1, 1, RIGHT),
        ("<answer>[3, 1, 5, 2, 4]</answer>", 1, 1, RIGHT),
        ("<answer>3 -> 1 -> 5 -> 2 -> 4</answer>", 1, 1, RIGHT),
        ("<answer>3\n1\n5\n2\n4\n</answer>", 1, 1, RIGHT),
        ("<answer>３ １ ５ ２ ４</answer>", 1, 1, RIGHT),
        ("<answer>31524</answer>", 1, 1, RIGHT),
        ("<answer>1 2 3 4 5</answer> no: <answer>3 1 5 2 4</answer>", 1, 1, RIGHT),
        ("<answer>3 1 5 2 4</answer> no: <answer>4 2 5 1 3</answer>", 0.12, 0.12, "4 2 5 1 3"),
        ("<answer>4 2 5 1 3</answer>, that is 3 1 5 2 4", 0.12, 0.12, "4 2 5 1 3"),
        ("<answer>sentences 3, 1, 5, 2, 4</answer>", 0, 1, None),
        ("<answer>3 1 5 2</answer>", 0, 0, None),
        ("<answer>3 1 5 2 2</answer>", 0, 0, None),
        ("<answer>3 1 5 2 6</answer>", 0, 0, None),
        ("<answer>0 1 2 3 4</answer>", 0, 0, None),
        ("<answer>3 1 5 24</answer>", 0, 0, None),
        ("<answer></answer>", 0, 0, None),
        ("<answer>3 1 5 2 4", 0, 1, None),
        ("3 1 5 2 4", 0, 1, None),
        ("Order: 3→1→5→2→4", 0, 1, None),
        ("3.1.5.2.4", 0, 1, None),
        ("(3) (1) (5) (2) (4)", 0, 1, None),
        ("**3**, **1**, **5**, **2**, **4**", 0, 1, None),
        ("$3 \\to 1 \\to 5$", 0, 0, None),
        ("\\boxed{3, 1, 5, 2, 4}", 0, 1, None),
        ("Not 1 2 3 4 5 but 3 1 5 2 4: five sentences, all 5 used.", 0, 1, None),
        ("First sentence 3, then 1, then 5, followed by 2 and finally sentence 4.", 0, 1, None),
        ("1. 3\n2. 1\n3. 5\n4. 2\n5. 4", 0, 1, None),
        ("1. Sentence 3\n2. Sentence 1\n3. Sentence 5\n4. Sentence 2\n5. Sentence 4\n", 0, 1, None),
        ("3. Ann got up at 7.\n1. She ate 2 eggs.\n\n5. She left.\n2. It rained.\n4. She came back.", 0, 1, None),
        ("- (3) Ann\n- (1) She\n- (5) She\n- (2) It\n- (4) She", 0, 1, None),
        ("At 3 she had 1 egg and 5 beans, 2 peas, 4 nuts", 0, 0, None),
        ("1 3 5 2 4", 0, 0.56, None),
        ("", 0, 0, None),
    ],
)
def test_readings(text: str, strict: float, lenient: float, answer: str | None) -> None:
    assert graded(text) == (pytest.approx(strict), pytest.approx(lenient), answer)


ORDERS = st.permutations(range(1, 6))
FORMS = [" ", ",", ", ", "-", " > ", " -> ", " → ", "\n", "; ", ") (", "", " then ", ", sentence ", " and ", "\n\n- "]


@given(ORDERS, ORDERS, st.sampled_from(FORMS))
def test_any_order_in_usual_forms(order: list[int], other: list[int], between: str) -> None:
    text = between.join(map(str, order))
    formal = not any(map(str.isalpha, text))
    plain = " ".join(map(str, order))
    assert story_order.read(text) == (tuple(order) if formal else None)
    assert story_order.substance(f"Not {other}. The order is {text}.") == tuple(order)
    reward = story_order.score(order, EXAMPLE.columns["order"])
    assert graded(f"<answer>{text}</answer>") == (reward if formal else 0, reward, plain if formal else None)


SHOWN = ["It rained.", "Ann got up.", "She left home.", "She ate two eggs.", "She came back wet."]
TOLD = [SHOWN[number - 1] for number in (2, 4, 3, 1, 5)]
LINES = "\n".join(f"{number}. {text}" for number, text in enumerate(TOLD, 1))
COPIED = (2, 4, 3, 1, 5)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        (LINES, COPIED),
        (f"The order of the story is: {LINES}", COPIED),
        (LINES.replace("\n", " "), COPIED),
        ("So: " + LINES.replace("\n", " ") + "\nThat is the story.", COPIED),
        (LINES.replace("two eggs.", "two eggs, and then it rained."), COPIED),  # it goes on
        (LINES.replace("two eggs", "eggs"), COPIED),
        (LINES.replace("1. ", "**1.** ").replace("2. ", "(2) "), COPIED),
        (f"{LINES}\n\nSo the answer is 5 1 3 4 2.", (5, 1, 3, 4, 2)),
        (f"Not 5 1 3 4 2.\n{LINES}", COPIED),
        (f"{LINES}\n\nThe order is: {LINES}", COPIED),
        (f"{LINES}\n\nThe order is: {LINES[:70]}", COPIED),  # cut off while it repeats itself
        (f"{LINES}\n\nThe order is: 1. Ann got up; 2. She ate two eggs", COPIED),
        ("2. Ann got up. 4. She ate two eggs. 3. She left home. 1. It rained. 5. She came back wet.", COPIED),
        (LINES.replace("It rained", "Ann got up"), None),  # one twice, one missing
        (LINES.replace("It rained", "Bob slept"), None),
        (LINES.rpartition("\n")[0], None),
        ("1. One\n2. Two\n3. Three\n4. Four\n5. Five", None),
        ("1. \n2. \n3. \n4. \n5. ", (1, 2, 3, 4, 5)),  # numbers in a row
        ("\n".join(f"Sentence {number} is good." for number in range(1, 6)), None),
        ("She had 1. It rained in 2. It was 3. So 4. And 5. Then", None),
    ],
)
def test_lists_of_copied_sentences(text: str, order: tuple[int, ...] | None) -> None:
    assert story_order.substance(text, SHOWN) == order


def test_the_vote_is_scored_as_the_order_it_chose() -> None:
    """A wrong order that most voters give must not count as right."""
    task = StoryOrder([EXAMPLE])
    texts = [
        "<answer>3 1 5 2 4</answer>",
        *["<answer>4, 2, 5, 1, 3</answer>", "<answer>4 2 5 1 3</answer>"],
        "1 2 3 4 5",
    ]
    grade = vote([task.grade(text, EXAMPLE) for text in texts])
    assert (grade.answer, grade.strict) == ("4 2 5 1 3", pytest.approx(0.12))


NASTY = ["\x00\x01\x1b[2J", "9" * 1_000_000, "<answer>" * 120_000, "1 " * 500_000, "1\n" * 500_000, "\ud800", "²³¹"]
NASTY += ["<answer>" + "3 " * 490 + "</answer>", "then " * 200_000, "1" + " then" * 200_000, "1" + " " * 999_999 + "2"]
NASTY += ["1.1" * 300_000, "(" * 1_000_000, "3 1 5 2 " * 120_000, "\u2028\u0085" * 1000, "sentence 1 " * 90_000]


@pytest.mark.parametrize("text", NASTY, ids=lambda text: repr(text)[:20])
def test_nasty_texts_are_wrong_at_once(text: str) -> None:
    start = time.perf_counter()
    assert graded(text) == (0, 0, None)
    assert time.perf_counter() - start < 1


@settings(max_examples=300)
@given(st.text(max_size=300), st.sampled_from(["{}", "<answer>{}</answer>", "3 1 5 {}", "1. {}\n2. 3"]))
def test_no_text_raises_and_only_orders_vote(text: str, form: str) -> None:
    strict, lenient, answer = graded(form.format(text))
    assert lenient >= strict
    assert answer is None or tuple(map(int, answer.split())) in set(permutations(range(1, 6)))


# Examples


def test_sample_grades_its_own_orders_right() -> None:
    task = tasks.load(Settings(name="story-order", path=str(SAMPLE)), 30)
    assert len(task.examples) == 30
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    for row, example in zip(rows, task.examples, strict=True):
        order = example.columns["order"]
        assert task.grade(f"<answer>{' '.join(map(str, order))}</answer>", example).strict == 1
        assert order != [1, 2, 3, 4, 5]
        # In the order that is called right, the sentences are the start of the story.
        story = " ".join(example.columns["sentences"][number - 1] for number in order)
        assert " ".join(row["text"].split()).startswith(story)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=5, max_size=5, unique=True))
def test_the_shuffle_is_fixed_and_never_the_story_itself(story: list[str]) -> None:
    example = story_order.shuffled(story)
    assert example == story_order.shuffled(list(story))
    assert example.columns["sentences"] != story
    assert [example.columns["sentences"][number - 1] for number in example.columns["order"]] == story


def test_the_shuffle_uses_all_orders_evenly() -> None:
    orders = [tuple(story_order.shuffled([f"{n}{c}" for c in "abcde"]).columns["order"]) for n in range(3000)]
    assert len(set(orders)) == 119
    for place in range(5):
        assert mean(order[place] for order in orders) == pytest.approx(3, abs=0.15)


def test_the_shuffle_is_pinned() -> None:
    """A change of the shuffle changes every study's examples: it must be on purpose."""
    assert story_order.shuffled(STORY).columns["order"] == PINNED


PINNED = [2, 4, 3, 1, 5]


def write(file: Path, *rows: dict[str, object]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def test_rocstories_columns(tmp_path: Path) -> None:
    row = {"storyid": "1", "storytitle": "Rain", **{f"sentence{i}": text + " " for i, text in enumerate(STORY, 1)}}
    same = {**row, "storyid": "2", "sentence5": "she ate."}
    task = tasks.load(Settings(name="story-order", path=write(tmp_path / "roc.jsonl", row, same)), 1)
    assert task.examples == (story_order.shuffled(STORY),)  # the row with two equal sentences is left out
    prompt = task.messages(task.examples[0])[0]["content"]
    assert all(f"\n{n}. {text}" in prompt for n, text in enumerate(task.examples[0].columns["sentences"], 1))


def test_what_is_no_story_is_refused_or_left_out(tmp_path: Path) -> None:
    settings = Settings(name="story-order", path=write(tmp_path / "a.jsonl", {"text": "One. Two."}))
    with pytest.raises(UserError, match="has no story of five different sentences"):
        tasks.load(settings, 1)
    for row in ({"story": "One."}, {"text": 3}, {"sentence1": "One.", "sentence2": None}):
        with pytest.raises(UserError, match=r'row 1 is no story .*"sentence1" to "sentence5", or a column "text"'):
            tasks.load(Settings(name="story-order", path=write(tmp_path / "b.jsonl", row)), 1)
    with pytest.raises(UserError, match=r'"task.path" is empty.*give a .jsonl'):
        tasks.load(Settings(name="story-order"), 1)
    with pytest.raises(UserError, match='no option "length"'):
        tasks.load(Settings(name="story-order", path=str(SAMPLE), options={"length": 4}), 1)


# Sentences


@pytest.mark.parametrize(
    "parts",
    [
        ["Ann ran.", "She fell!", "Why?", "It was wet."],
        ["Mr. Fox and Mrs. Fox met Dr. Owl.", "They ate."],
        ["J. R. Smith was there.", "So was I.", "He left."],
        ["The U.S. Army came.", "It left at 5 p.m.", "All slept."],
        ["He had 3.5 apples.", "No. 5 was bad.", "No.", "He ate it."],
        ["She waited... and waited.", "Then… it came…", "She ran."],
        ['"Why?" asked Tom.', '"Why not!" Lily said.', '"Go!" the old man shouted.', "They went."],
        ['He said, "Go. Now! Please?"', "She went."],
        ["“Run! I can’t,” he said.", "“Stop.”", "They did."],
        ['"Yes."', 'Her mom smiled and said, "No."'],
        ["He came (it was late).", "(She slept.)", "All was well."],
        ["It was 1990.", "2000 came.", "É was a letter.", "Ñandú too."],
        ["One"],
        [],
    ],
)
def test_sentences(parts: list[str]) -> None:
    assert list(story_order.sentences(" ".join(parts))) == parts


def test_lines_end_sentences_unless_a_comma_stands_there() -> None:
    assert list(story_order.sentences("The title\n\nAnn said,\n\n“Go.”\r\nHe went")) == [
        "The title",
        "Ann said, “Go.”",
        "He went",
    ]


def test_a_text_ends_where_quotation_marks_do_not_match() -> None:
    assert list(story_order.sentences('A went.\nB said, "Go.\nC came.')) == ["A went."]


@given(st.text(alphabet="Ab1.!?…\"“”'( \n,", max_size=200))
def test_sentences_lose_no_text(text: str) -> None:
    joined = "".join("".join(sentence.split()) for sentence in story_order.sentences(text))
    assert "".join(text.split()).startswith(joined)


@pytest.mark.parametrize(
    "text",
    [
        "A. " * 350_000,
        "a" * 1_000_000,
        '"' * 1_000_000,
        "." * 1_000_000,
        ",\n" * 500_000,
        "A.b" * 300_000,
        "! \n" * 300_000,
    ],
)
def test_megabytes_are_cut_quickly(text: str) -> None:
    start = time.perf_counter()
    story_order.story_of({"text": text})
    assert time.perf_counter() - start < 1
