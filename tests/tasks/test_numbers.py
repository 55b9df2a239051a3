"""Reading numbers: a table of hard cases, and properties over all texts."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold.tasks import numbers

LAST = {
    "18": "18",
    "18.": "18",
    "18.00": "18",
    "1,000": "1000",
    "1{,}000": "1000",
    "1,234.50": "2469/2",
    "$18": "18",
    "$ 18": "18",
    "\\$18": "18",
    "-$18": "-18",
    "$-18": "-18",
    "€18": "18",
    "-3": "-3",
    "−3": "-3",
    "+3": "3",
    "- 18 apples": "18",
    "5-3": "3",
    "5 - -3": "-3",
    "3/2": "3/2",
    "1.5": "3/2",
    ".5": "1/2",
    "1 1/2": "3/2",
    "\\frac{3}{2}": "3/2",
    "-\\frac{3}{2}": "-3/2",
    "2\\dfrac{1}{2}": "5/2",
    "12 / 4": "3",
    "50%": "50",
    "18km": "18",
    "25 cm^2": "25",
    "25 m²": "25",
    "**18**": "18",
    "is **18**.": "18",
    "is**18**": "18",
    "(18)": "18",
    "1e5": "100000",
    "1,2,3": "3",
    "１２": "12",
    "٣": "3",
    "\x00 7 \x07": "7",
    "x3 and CO2": None,
    "x^{-3}": None,
    "x**-3": None,
    "10^6": None,
    "10²": None,
    "2^{10}": None,
    "9**9**9": None,
    "9 ** 9 ** 9": None,
    "1/0": None,
    "9" * 101: None,
    "9" * 5000: None,
    "": None,
    "no number": None,
    "nan inf ∞": None,
}


@pytest.mark.parametrize(("text", "value"), LAST.items(), ids=lambda text: repr(text)[:20])
def test_last(text: str, value: str | None) -> None:
    assert numbers.last(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize("text", ["18", "18.", "$18", " 18 ", "**18**", "18 apples", "18.00", "\\(18\\)", "18%"])
def test_parse_takes_one_number_with_its_trimmings(text: str) -> None:
    assert numbers.parse(text) == 18


@pytest.mark.parametrize("text", ["3 + 4", "3, 4", "x = 18", "the 18", "", "9**9", "5-3"])
def test_parse_refuses_anything_else(text: str) -> None:
    assert numbers.parse(text) is None


def test_marked_answers() -> None:
    assert numbers.boxed("a \\boxed{1} then \\boxed{\\frac{3}{2}}.") == "\\frac{3}{2}"
    assert numbers.boxed("\\boxed{never closed") is None
    assert numbers.after_hashes("#### 1\nmore\n####  2 \nrest") == "2 "
    assert numbers.after_hashes("none") is None
    assert numbers.after_answer("The answer is: 3 + 4 = 7.\nBye 9") == " 7."
    assert numbers.after_answer("Final answer:\n**18**") == "18**"


NASTY = [
    "1",
    "1 ",
    "1,111",
    "111,",
    "-",
    "{",
    "\\boxed{",
    "answer ",
    "#",
    "1/",
    "1 1/",
    "^",
    "**1",
    "$",
    "1e",
    "\\frac{",
]


@pytest.mark.parametrize("piece", NASTY)
def test_a_megabyte_is_read_at_once(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    for read in (numbers.last, numbers.first, numbers.parse, numbers.boxed, numbers.after_hashes, numbers.after_answer):
        read(text)
    assert time.perf_counter() - start < 1


@given(st.text(alphabet=st.one_of(st.sampled_from("0123456789.,-+/*^$%eE{}\\ ½²٣−"), st.characters()), max_size=200))
def test_no_text_raises(text: str) -> None:
    for read in (numbers.last, numbers.first, numbers.parse, numbers.boxed, numbers.after_hashes, numbers.after_answer):
        read(text)


@settings(max_examples=200)
@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{}", "{}.", "{}.00", "{:,}", "${:,}", "The answer is {}.", "**{}**", "= {:,} dollars", "{}%"]),
)
def test_whole_numbers_in_usual_forms(value: int, form: str) -> None:
    assert numbers.last(form.format(value)) == value


@given(st.fractions(max_denominator=10**6))
def test_normal_form_reads_back(value: Fraction) -> None:
    assert numbers.parse(numbers.normal(value)) == value
