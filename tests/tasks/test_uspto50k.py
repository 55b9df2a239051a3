"""USPTO-50K: what is read as which class, what atom mapping becomes, and which rows are refused."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold import tasks
from seedfold.config import Task as Settings
from seedfold.errors import UserError
from seedfold.tasks import uspto50k
from seedfold.tasks.base import Example
from seedfold.tasks.uspto50k import CLASSES, USPTO50K

SAMPLE = Path(__file__).parents[1] / "data" / "uspto50k_sample.jsonl"

THREE = Example.of({"reaction": "[CH3]Br.[CH3]I>>[CH3][CH3]", "class": 3})
TEN = Example.of({"reaction": "[CH3]>>[CH3]Br", "class": 10})


def graded(text: str, example: Example) -> tuple[float, float, str | None]:
    grade = USPTO50K([example]).grade(text, example)
    return grade.strict, grade.lenient, grade.answer


@pytest.mark.parametrize(
    ("text", "example", "strict", "lenient", "answer"),
    [
        ("<answer>3</answer>", THREE, 1, 1, "3"),
        ("A bond is made.\n<answer> 3. </answer>.", THREE, 1, 1, "3"),
        ("<ANSWER>**3**</ANSWER>", THREE, 1, 1, "3"),
        ("<answer>３</answer>", THREE, 1, 1, "3"),
        ("<answer>3.0</answer>", THREE, 1, 1, "3"),
        ("<answer>03</answer>", THREE, 1, 1, "3"),
        ("<answer>\n3: C-C bond formation\n</answer>", THREE, 1, 1, "3"),
        ("<answer>10</answer>", TEN, 1, 1, "10"),
        ("<answer>1</answer> or rather <answer>3</answer>", THREE, 1, 1, "3"),
        ("<answer>3</answer> or rather <answer>1</answer>", THREE, 0, 0, "1"),
        ("<answer>1</answer> though it could be class 3", THREE, 0, 0, "1"),
        ("<answer>1</answer>", TEN, 0, 0, "1"),
        ("<answer>class 3</answer>", THREE, 0, 1, None),
        ("<answer>C-C bond formation</answer>", THREE, 0, 1, None),
        ("<answer>N=3</answer>", THREE, 0, 1, None),
        ("<answer>3", THREE, 0, 1, None),
        ("<answer>13</answer>", THREE, 0, 0, None),
        ("<answer>0</answer>", TEN, 0, 0, None),
        ("<answer>-3</answer>", THREE, 0, 0, None),
        ("<answer>3.5</answer>", THREE, 0, 0, None),
        ("<answer>3/10</answer>", THREE, 0, 0, None),
        ("<answer>2-3</answer>", THREE, 0, 0, None),
        ("<answer>9**9**9</answer>", THREE, 0, 0, None),
        ("<answer></answer>", THREE, 0, 0, None),
        ("Class 3", THREE, 0, 1, None),
        ("The class is **3**, not an oxidation of 2 groups.", THREE, 0, 0, None),  # the last one named counts
        ("The answer is 3, not an oxidation.", THREE, 0, 1, None),
        ("Answer: 3 (class 2 would need an acyl group)", THREE, 0, 1, None),
        ("#### 3", THREE, 0, 1, None),
        ("\\boxed{3} by way of class 1", THREE, 0, 1, None),
        ("It is no reduction but a carbon–carbon bond formation.", THREE, 0, 1, None),
        ("It makes a C–C bond: C—C Bond Forming", THREE, 0, 1, None),
        ("CLASS NUMBER 10", TEN, 0, 1, None),
        ("Functional Group Additions", TEN, 0, 1, None),
        ("class 1", TEN, 0, 0, None),
        ("class 103", THREE, 0, 0, None),
        ("3 becomes 7", THREE, 0, 0, None),
        ("[CH3]1[CH2]3>>CC3", THREE, 0, 0, None),
        ("", THREE, 0, 0, None),
    ],
)
def test_readings(text: str, example: Example, strict: float, lenient: float, answer: str | None) -> None:
    assert graded(text, example) == (strict, lenient, answer)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("deprotection", 6),
        ("It is a de-protection.", 6),
        ("protection", 5),
        ("N-oxidation", 8),
        ("an acylation", 2),
        ("FGI", 9),
        ("functional group interconversions", 9),
        ("Heteroatom alkylation/arylation", 1),
        ("heterocycle synthesis", 4),
        ("protecting group", None),
        ("", None),
    ],
)
def test_names(text: str, kind: int | None) -> None:
    assert uspto50k.substance(text, []) == kind


@given(
    st.integers(1, 10),
    st.sampled_from(
        [
            "<answer>{n}</answer>",
            "class {n}",
            "Class: **{n}**.",
            "I think that it is class number {n}",
            "Answer: {n}",
            "The answer is {n} ({name}).",
            "\\boxed{{{n}}}",
            "{name}",
            "It is an example of **{name}**.",
            "{n}",
            "{n}. {name}",
        ]
    ),
)
def test_right_answers_in_usual_forms(number: int, form: str) -> None:
    example = Example.of({"reaction": "C>>C", "class": number})
    for name in (CLASSES[number - 1], CLASSES[number - 1].title(), CLASSES[number - 1].upper()):
        strict, lenient, answer = graded("Bonds are made.\n" + form.format(n=number, name=name), example)
        assert lenient == 1
        assert (strict, answer) == ((1, str(number)) if form.startswith("<answer>") else (0, None))


NASTY = ["\x00\x01\x1b[2J", "9" * 1_000_000, "<answer>" * 120_000, "class " * 170_000, "functional group " * 60_000]
NASTY += [
    "<answer>" + "9" * 900 + "</answer>",
    "\ud800",
    "1 " * 500_000,
    "heteroatom - and - " * 50_000,
    "(" * 1_000_000,
]
NASTY += [
    "answer is " * 100_000,
    "\\boxed{" * 150_000,
    "²",
    "<answer>²</answer>",
    "\u2028\u0085" * 1000,
    "=" * 1_000_000,
]


@pytest.mark.parametrize("text", NASTY, ids=lambda text: repr(text)[:20])
def test_nasty_texts_are_wrong_at_once(text: str) -> None:
    start = time.perf_counter()
    assert graded(text, THREE) == (0, 0, None)
    assert time.perf_counter() - start < 1


@settings(max_examples=300)
@given(st.text(max_size=300), st.sampled_from(["{}", "<answer>{}</answer>", "class {}", "Answer: {}", "\\boxed{{{}}}"]))
def test_no_text_raises_and_only_classes_vote(text: str, form: str) -> None:
    strict, lenient, answer = graded(form.format(text), THREE)
    assert lenient >= strict
    assert answer in {None, *map(str, range(1, 11))}
    assert strict == (answer == "3")


def test_sample_grades_its_own_answers_right() -> None:
    task = tasks.load(Settings(name="uspto50k", path=str(SAMPLE)), 40)
    assert len(task.examples) == 40
    assert {example.columns["class"] for example in task.examples} == set(range(1, 11))
    for example in task.examples:
        right = example.columns["class"]
        assert task.grade(f"<answer>{right}</answer>", example).strict == 1
        assert task.grade(f"<answer>{right % 10 + 1}</answer>", example).lenient == 0


def test_only_the_atom_mapping_is_removed() -> None:
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    task = tasks.load(Settings(name="uspto50k", path=str(SAMPLE)), 40)
    for row, example in zip(rows, task.examples, strict=True):
        mapped, bare = row["reactants>reagents>production"], example.columns["reaction"]
        assert re.findall(r"[^:\d\]]", mapped) == re.findall(r"[^:\d\]]", bare)
        assert mapped.count("]") == bare.count("]")
        assert ":" in mapped
        assert ":" not in bare
    assert (
        uspto50k.unmapped("[13CH3:12][N+:1]([O-:2])=[O:3].c1:c:1>>[C@@H:4]") == "[13CH3][N+]([O-])=[O].c1:c:1>>[C@@H]"
    )


def test_prompt_lists_the_classes_and_ends_with_the_reaction() -> None:
    prompt = USPTO50K([TEN]).messages(TEN)[-1]["content"]
    assert "\n7. reductions\n" in prompt
    assert prompt.endswith("Reaction: [CH3]>>[CH3]Br")


REACTION = "reactants>reagents>production"


@pytest.mark.parametrize(
    "row",
    [
        {"class": "3", REACTION: "[CH4:1]>>[CH4:1]"},
        {"class": 3.0, "rxn_smiles": "[CH4:1]>>[CH4:1]"},
        {"class": "<RX_3>", "reactants": "[CH4:1]", "product": "[CH4:1]"},
    ],
)
def test_other_spellings_of_a_row(row: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    task = tasks.load(Settings(name="uspto50k", path=str(file)), 1)
    assert task.examples[0].columns == {"class": 3, "reaction": "[CH4]>>[CH4]"}


@pytest.mark.parametrize(
    "row",
    [
        {"class": 0, REACTION: "C>>C"},
        {"class": 11, REACTION: "C>>C"},
        {"class": True, REACTION: "C>>C"},
        {"class": 2.5, REACTION: "C>>C"},
        {"class": "UNK", REACTION: "C>>C"},
        {"class": 1, REACTION: "CC"},
        {"class": 1, "reactants": "C"},
        {REACTION: "C>>C"},
    ],
)
def test_other_rows_are_refused(row: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"class": 1, REACTION: "C>>C"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r'row 2 is no USPTO-50K row .*it needs a "class" from 1 to 10'):
        tasks.load(Settings(name="uspto50k", path=str(file)), 1)


def test_a_path_is_needed_and_options_are_refused() -> None:
    with pytest.raises(UserError, match=r'"task.path" is empty.*give a .jsonl'):
        tasks.load(Settings(name="uspto50k"), 1)
    with pytest.raises(UserError, match='no option "classes"'):
        tasks.load(Settings(name="uspto50k", path=str(SAMPLE), options={"classes": 10}), 1)
