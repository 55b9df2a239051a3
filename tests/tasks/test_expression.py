"""The Countdown checker: exact, bounded, and canonical."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seedfold.tasks import expression


def value(text: str) -> Fraction | None:
    node = expression.parse(expression.plain(text))
    return None if node is None else expression.value(node)


VALUES = {
    "3*8": "24",
    "3 × 8": "24",
    "8 ÷ 3": "8/3",
    "8−3": "5",
    "$3 \\times 8$": "24",
    "`(7+5)*2`": "24",
    "**3*8**": "24",
    "8/(3-8/3)": "24",
    "-3+8": "5",
    "8-(-3)": "11",
    "2-3-4": "-5",
    "24/4/3": "2",
    "3*8.": "24",
    "1/(2-2)": None,
    "9**9**9": None,
    "9^9": None,
    "3(8)": None,
    "3 8": None,
    "3.0*8": None,
    "3*x": None,
    "(3*8": None,
    "3*8)": None,
    "": None,
    "()": None,
    "__import__('os')": None,
    "9" * 10: None,
    "(" * 90 + "3" + ")" * 90: None,
    "-" * 150 + "3": None,
    "1+" * 150 + "1": None,
}


@pytest.mark.parametrize(("text", "result"), VALUES.items(), ids=lambda text: repr(text)[:20])
def test_value(text: str, result: str | None) -> None:
    assert value(text) == (None if result is None else Fraction(result))


@pytest.mark.parametrize(
    "same",
    [
        ["8+4*2", "(2*4)+8", "8 - (-(4*2))", "((8))+2*4"],
        ["6/3/2", "6/(3*2)", "(6/2)/3"],
        ["9-(5-2)", "9-5+2", "2+9-5"],
        ["(1+2)*(3+4)", "(4+3)*(2+1)"],
        ["-3+8", "8-3"],
    ],
)
def test_same_expressions_pool(same: list[str]) -> None:
    assert len({expression.normal(expression.parse(text)) for text in same}) == 1


def test_other_expressions_do_not_pool() -> None:
    different = ["8-3", "3-8", "8*3", "8/3", "3/8", "8+3", "3*8+1", "3*(8+1)", "12*2", "4*6"]
    assert len({expression.normal(expression.parse(text)) for text in different}) == len(different)


def test_a_zero_of_the_answer_counts_as_a_number() -> None:
    assert expression.literals(expression.parse("0+3")) == [0, 3]
    assert expression.literals(expression.parse("-3")) == [3]


TREES = st.recursive(
    st.integers(0, 99).map(str),
    lambda side: st.tuples(side, st.sampled_from("+-*/"), side).map(lambda parts: f"({''.join(parts)})"),
    max_leaves=6,
)


@given(TREES)
@example("(0/(1/0))")
def test_the_normal_form_is_fixed_and_keeps_value_and_numbers(text: str) -> None:
    node = expression.parse(text)
    again = expression.parse(expression.normal(node))
    assert expression.normal(again) == expression.normal(node)
    assert expression.value(again) == expression.value(node)
    assert sorted(expression.literals(again)) == sorted(expression.literals(node))


@given(st.text(alphabet="0123456789+-*/()= .x×−", max_size=300))
def test_no_text_raises(text: str) -> None:
    node = expression.parse(expression.plain(text))
    if node is not None:
        expression.value(node)
        expression.normal(node)
