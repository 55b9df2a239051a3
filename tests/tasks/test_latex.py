r"""Mathematical equality: what equals what, what does not, which answers pool, and that no text hangs it."""

import resource
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedfold.tasks import latex, rational, symbolic
from seedfold.tasks.latex import Judge, Reference
from seedfold.tasks.latex_form import read
from seedfold.tasks.latex_text import boxed

pytest.importorskip("math_verify", reason="the extra seedfold[tasks] is not installed")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


EQUAL = [
    # numbers
    ("18.", "18"),
    ("18.00", "18"),
    ("1,000", "1000"),
    ("\\boxed{1,000}", "1000"),
    ("$\\boxed{12,000}$.", "12000"),
    ("x = 1,000", "1000"),
    ("(1{,}234,567)", "1234567"),
    ("1{,}000", "1000"),
    ("1\\,000", "1000"),
    ("1 000", "1000"),
    ("12,345,678", "12345678"),
    ("$18", "18"),
    ("\\$18.50", "18.5"),
    ("$18$", "18"),
    ("\\(18\\)", "18"),
    ("**18**", "18"),
    ("１８", "18"),
    ("١٨", "18"),
    ("−3", "-3"),
    ("+3", "3"),
    ("3/2", "1.5"),
    ("\\frac32", "1.5"),
    ("\\frac43", "\\frac{4}{3}"),
    ("\\dfrac{4}{3}", "\\frac43"),
    ("\\tfrac{-4}{3}", "-\\frac{4}{3}"),
    ("\\frac{4}{-3}", "-\\frac43"),
    ("1\\frac{1}{2}", "3/2"),
    ("1 1/2", "\\frac{3}{2}"),
    ("-1\\frac12", "-1.5"),
    (".5", "\\frac12"),
    ("0.\\overline{3}", "1/3"),
    ("0.1\\overline{6}", "\\frac16"),
    ("½", "0.5"),
    ("2^{10}", "1024"),
    ("2^10", "1024"),
    ("10^{-2}", "0.01"),
    ("1.2 \\times 10^{3}", "1200"),
    ("5!", "120"),
    ("2^3^2", "512"),
    ("\\binom{6}{2}", "15"),
    ("2 \\cdot 3^2", "18"),
    ("\\sqrt{16}", "4"),
    ("\\sqrt[3]{27}", "3"),
    ("6 \\cdot 3 = 18", "18"),
    ("{18}", "18"),
    ("(18)", "18"),
    ("\\boxed{18}", "18"),
    ("\\text{18}", "18"),
    ("\\left(18\\right)", "18"),
    # units
    ("18\\text{ cm}", "18"),
    ("18 cm", "18"),
    ("18\\,\\mathrm{cm}^2", "18"),
    ("18 \\text{ square units}", "18"),
    ("18 \\mbox{ inches}^3", "18"),
    ("18 dollars", "18"),
    ("90^\\circ", "90"),
    ("90", "90^{\\circ}"),
    ("90°", "90"),
    ("90 degrees", "90^\\circ"),
    ("90\\text{ degrees}", "90"),
    ("\\frac{7}{2}\\pi\\text{ cm}^2", "\\frac{7\\pi}{2}"),
    ("50\\%", "50"),
    ("50", "50\\%"),
    ("50%", "\\frac12"),
    ("0.5", "50\\%"),
    ("50 \\text{ percent}", "50\\%"),
    # names and equations
    ("x=5", "5"),
    ("5", "x=5"),
    ("x = 2 + 3 = 5", "5"),
    ("f(x) = 2x+1", "2x+1"),
    ("y=-2x", "y = - 2 x"),
    ("2x+y=0", "y=-2x"),
    ("x^2+y^2=4", "x^2 + y^2 - 4 = 0"),
    ("2x + 4y = 6", "x+2y=3"),
    # algebra
    ("x^2+2x+1", "(x+1)^2"),
    ("\\frac{1}{\\sqrt{3}}", "\\frac{\\sqrt{3}}{3}"),
    ("\\sqrt{12}", "2\\sqrt{3}"),
    ("2 \\sqrt 3", "2\\sqrt{3}"),
    ("2sqrt(3)", "2\\sqrt{3}"),
    ("2√3", "2\\sqrt{3}"),
    ("\\frac{\\sqrt3}2", "\\frac{\\sqrt{3}}{2}"),
    ("\\sqrt{2}-1", "\\frac{1}{1+\\sqrt2}"),
    ("12pi", "12\\pi"),
    ("12 π", "12\\pi"),
    ("\\frac{1}{2}n(n+1)", "\\frac{n^2+n}{2}"),
    ("\\sin 2x", "2\\sin x\\cos x"),
    ("\\sin(\\theta)", "\\sin \\theta"),
    ("\\tan^2 x + 1", "\\sec^2 x"),
    ("2\\cos 60^\\circ", "1"),
    ("\\cos 20^\\circ", "\\cos\\frac{\\pi}{9}"),
    ("5i+3", "3+5i"),
    ("(1+i)^2", "2i"),
    ("64i\\sqrt{3}", "64\\sqrt{3}i"),
    ("0.5x", "\\frac{x}{2}"),
    ("e^{2x}", "(e^x)^2"),
    ("\\ln 4", "2\\ln 2"),
    ("\\log_2 8", "3"),
    ("n - \\lfloor n/2 \\rfloor", "\\lceil n/2 \\rceil"),
    ("\\binom{2n}{n}", "\\frac{(2n)!}{(n!)^2}"),
    ("2^{1009}", "2 \\cdot 2^{1008}"),
    ("|x|", "\\left|x\\right|"),
    ("x⁻¹⁰", "x^{-10}"),
    ("1\\frac{1}{2}\\pi", "\\frac{3\\pi}{2}"),
    ("\\frac{\\pi}{4} \\approx 0.785", "\\frac{\\pi}{4}"),
    ("\\sqrt{8} = 2\\sqrt{2}", "2\\sqrt{2}"),
    ("a + b = 5", "5"),
    ("\\approx 3", "3"),
    ("\\mathbb{R}", "\\mathbb R"),
    ("\\mathbb{R}", "(-\\infty, \\infty)"),
    ("\\mathbf{\\frac{1}{2}}", "0.5"),
    ("a_1+b", "b+a_{1}"),
    # lists, tuples, intervals, matrices
    ("1, -2", "-2,1"),
    ("\\{1,-2\\}", "-2,1"),
    ("\\{5\\}", "5"),
    ("x=1 \\text{ or } x=-2", "-2, 1"),
    ("x = 1, x = -2", "1,-2"),
    ("1 and -2", "-2, 1"),
    ("100,200", "200, 100"),
    ("1,000, 2,000", "2000, 1000"),
    ("\\pm 3", "3, -3"),
    ("1 \\pm \\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2"),
    ("1 ± √2", "1 \\mp \\sqrt2"),
    ("(3, \\frac12)", "\\left(3,0.5\\right)"),
    ("(1,2), (3,4)", "(3,4),(1,2)"),
    ("(100,200)", "(100, 200)"),
    ("\\left[0,1\\right)", "[0, 1)"),
    ("(-\\infty, 3)", "(-\\infty,3)"),
    ("(3, +\\infty)", "(3, \\infty)"),
    ("(3,4) \\cup (0,1)", "(0,1)\\cup(3,4)"),
    ("(0,1) U (3,4)", "(0,1)\\cup(3,4)"),
    ("x \\in [2,5)", "[2,5)"),
    ("2 \\leq x < 5", "[2,5)"),
    ("5 > x \\ge 2", "[2,5)"),
    ("x > 3", "(3,\\infty)"),
    ("x < 1 \\text{ or } x \\ge 3", "(-\\infty,1)\\cup[3,\\infty)"),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & \\frac82 \\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\\\ \\end{pmatrix}"),
    ("\\varnothing", "\\emptyset"),
    # words
    ("C", "\\text{(C)}"),
    ("(C)", "\\text{(C)}"),
    ("\\textbf{(C)}", "\\text{(C)}"),
    ("even", "\\text{even}"),
    ("\\text{Even}", "\\text{even}"),
    ("\\text{Paula}", "Paula"),
    # bases
    ("101_2", "101_{2}"),
    ("101", "101_2"),
    ("101_{\\text{two}}", "101_2"),
]

UNEQUAL = [
    ("19", "18"),
    ("-18", "18"),
    ("3\\sqrt{2}", "3/2"),
    ("12", "12\\pi"),
    ("12\\pi", "12"),
    ("x^{-3}", "-3"),
    ("-3", "x^{-3}"),
    ("0.333333", "\\frac13"),
    ("1.41421356", "\\sqrt{2}"),
    ("3.14", "\\pi"),
    ("3.14159265358979", "\\pi"),
    ("2^{-100}", "2^{-101}"),
    ("10^{-40}", "0"),
    ("10^{-40}\\pi", "10^{-41}\\pi"),
    ("\\sqrt{10^{40}+1}", "10^{20}"),
    ("6", "6m"),
    ("6m", "6"),
    ("6", "6h"),
    ("5x", "5"),
    ("5 xy", "5"),
    ("R", "r"),
    ("\\sqrt{x^2}", "x"),
    ("x=5", "y=5"),
    ("x=2", "x=3"),
    ("2x=10", "10"),
    ("\\text{3}", "-3"),
    ("\\text{+}", "\\text{-}"),
    ("10^{4000}", "18"),
    ("(1+\\sqrt{2})^{1000}", "18"),
    ("9" * 900, "x+1"),
    ("]0,1[", "(0,1)"),
    ("R", "\\mathbb{R}"),
    ("y = 2x", "y = 3x"),
    ("101_2", "5"),
    ("101_2", "101_3"),
    ("102_3", "101_3"),
    ("50\\%", "5"),
    ("0.5\\%", "50\\%"),
    ("(2,1)", "(1,2)"),
    ("(0,100)", "100"),
    ("1,000, 2,000", "1000"),
    ("12,34", "1234"),
    ("[1,2]", "(1,2)"),
    ("[1,2)", "(1,2]"),
    ("1,2", "(1,2)"),
    ("1, 2", "1"),
    ("1", "1, 2"),
    ("1, 2, 3", "1, 2"),
    ("(0,1)", "(0,1) \\cup (2,3)"),
    ("x \\ge 3", "(3,\\infty)"),
    ("x < 3", "(3,\\infty)"),
    ("2 + \\sqrt{3}", "2 \\pm \\sqrt{3}"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"),
    ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("odd", "\\text{even}"),
    ("\\text{(A)}", "\\text{(C)}"),
    ("c", "C"),
    ("3-5i", "3+5i"),
    ("3+5i", "3"),
    ("(x+1)^3", "x^3+1"),
    ("\\sin x", "\\cos x"),
    ("\\frac{1}{3}x^3", "\\frac{1}{3}x^3 + 10^{-9}"),
    ("", "0"),
    ("?", "0"),
    ("1/0", "0"),
    ("\\infty", "-\\infty"),
    ("\\infty", "0"),
    ("18 or 19", "18"),
    ("18 19", "18"),
    ("1 2", "3"),
    ("{2}{3}", "5"),
    ("\\frac{1}{2", "1/2"),
    ("2x+y=1", "y=-2x"),
    ("x^2+y^2=4", "x^2+y^2=5"),
]


@pytest.mark.parametrize(("answer", "reference"), EQUAL)
def test_equal(judge: Judge, answer: str, reference: str) -> None:
    assert judge(answer, Reference(reference)).equal


@pytest.mark.parametrize(("answer", "reference"), UNEQUAL)
def test_unequal(judge: Judge, answer: str, reference: str) -> None:
    assert not judge(answer, Reference(reference)).equal


@pytest.mark.parametrize(
    "spellings",
    [
        ["1/2", "0.5", "\\frac12", "\\dfrac{1}{2}", "x = \\frac{1}{2}", "0.50 \\text{ cm}"],
        ["(x+1)^2", "x^2+2x+1", "1 + 2x + x^2"],
        ["\\frac{1}{\\sqrt{3}}", "\\frac{\\sqrt3}{3}"],
        ["\\frac{9+3\\sqrt5}{2}", "\\frac{3\\sqrt{5}}{2} + 4.5"],
        ["1,-2", "\\{-2, 1\\}", "x=1 \\text{ or } x=-2"],
        ["[2,5)", "2 \\le x < 5"],
        ["\\text{(C)}", "(C)", "C"],
    ],
)
def test_equal_answers_pool(judge: Judge, spellings: list[str]) -> None:
    reference = Reference("\\text{(C)}" if "C" in spellings else "7")
    assert len({judge(text, reference).key for text in spellings}) == 1


def test_answers_that_pool_earn_the_same(judge: Judge) -> None:
    """A vote is worth what one of its answers is worth: no key may stand for a right and a wrong answer."""
    texts = list(dict.fromkeys(text for pair in EQUAL + UNEQUAL for text in pair))
    # All the texts with the same key against each reference that one of them equals.
    for reference in dict.fromkeys(right for _, right in EQUAL):
        first = judge(reference, Reference(reference))
        pool = [text for text in texts if read_key(text) == read_key(reference)]
        verdicts = [judge(text, Reference(reference)) for text in pool]
        assert all(verdict.equal for verdict in verdicts if verdict.key == first.key), reference


def read_key(text: str) -> str | None:
    form = read(text)
    return None if form is None else latex.spell(form)


def test_several_answers_a_tolerance_and_a_unit(judge: Judge) -> None:
    assert judge("100,200", Reference("200,100", many=True)).equal
    assert not judge("100200", Reference("200,100", many=True)).equal
    assert judge("4.25", Reference("4.2", tolerance=0.1)).equal
    assert not judge("4.31", Reference("4.2", tolerance=0.1)).equal
    assert judge("3\\sqrt{2}", Reference("4.2", tolerance=0.1)).equal
    assert not judge("3\\sqrt{2}", Reference("4.2")).equal
    assert judge("7 km/h", Reference("7", unit="km/h")).equal
    assert judge("7\\text{ km/h}", Reference("7", unit="km/h")).equal


NASTY = ["9**9**9", "9^{9^{9}}", "x^{9^{9^{9}}}", "(x+1)^{99999}", "(x+y+z)^{500}", "(10^6)!", "(((3!)!)!)!"]
NASTY += [
    "3!!!!!!!!!",
    "x!!!!!!!!!!",
    "\\binom{10^9}{10^8}",
    "\\tan(10^{100})",
    "e^{e^{e^{e^{10}}}}",
    "e^{-e^{e^{10}}}",
]
NASTY += ["9" * 5000, "0." + "9" * 990, "1" * 1_000_000, "x" * 900, "\\text{a} " * 160 + "x", "\\pm" * 9]
NASTY += ["(" * 400 + "x" + ")" * 400, "\\sqrt{" * 18 + "2" + "}" * 18, "\\frac{" * 18 + "x" + "}{2}" * 18]
NASTY += ["x^{" * 18 + "x" + "}" * 18, "\\sin(" * 18 + "1" + ")" * 18, ",".join(map(str, range(230)))]
NASTY += ["\\sum_{k=1}^{1000000000} \\frac{1}{k^2}", "\\prod_{k=1}^{10^9} k", "\\int \\frac{1}{x^5+x+1} dx"]
NASTY += [",".join(f"\\sqrt{{{n}}}" for n in range(2, 80)), "\\begin{pmatrix}" + "x&" * 90 + "x\\end{pmatrix}"]
NASTY += [
    "",
    " ",
    "\x00\x01\x1b[2J",
    "\ud800",
    "\\",
    "$$",
    "^",
    "_",
    "=",
    "x=",
    "=x",
    "<",
    ",",
    "(,)",
    "[]",
    "\\{\\}",
    "%",
]
NASTY += ["1%%", "\\frac{0}{0}", "\\log_{1} 2", "0^{-1}", "\\sqrt[0]{2}", "\\infty-\\infty", "__import__('os').abort()"]


@pytest.mark.parametrize("text", NASTY, ids=lambda text: repr(text)[:20])
@pytest.mark.parametrize("reference", ["18", "x+1", "(1, \\sqrt{2})"])
def test_nasty_texts_are_wrong_at_once(judge: Judge, text: str, reference: str) -> None:
    judge("1+1", Reference("y+1"))  # the child has started
    start, cpu = time.perf_counter(), cpu_seconds()
    verdict = judge(text, Reference(reference))
    assert not verdict.equal
    assert cpu_seconds() - cpu < 0.5  # of this process
    assert time.perf_counter() - start < 10  # with the child; on a busy machine its CPU time takes longer
    assert judge("1+y", Reference("y+1")).equal  # the next question is answered


def test_a_grade_takes_less_than_a_second() -> None:
    assert 2 * symbolic.CPU_SECONDS < 1  # the box, and another reading


def cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def test_an_exhausted_comparison_says_so(judge: Judge) -> None:
    verdict = judge("\\prod_{k=1}^{10^9} k", Reference("x"))
    assert verdict.exhausted
    assert verdict.key == "\\prod_{k=1}^{10^{9}}k"


numbers_of_all_kinds = st.fractions(max_denominator=10_000).filter(lambda value: abs(value) < 10**12)
FORMS = [
    "{}",
    " {}. ",
    "${}$",
    "\\({}\\)",
    "\\boxed{{{}}}",
    "**{}**",
    "x = {}",
    "{}\\text{{ cm}}",
    "{}^\\circ",
    "\\${}",
]
FORMS += ["\\left({}\\right)", "\\text{{{}}}", "\\mathbf{{{}}}", "\n{}\n", "{} dollars", "{} square meters"]


def spellings(value: Fraction) -> list[str]:
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    found = [f"{sign}{top}/{bottom}", f"{sign}\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{sign}{top}}}{{{bottom}}}"]
    if top > bottom > 1:
        found.append(f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}")
    if bottom == 1:
        found += [f"{sign}{top}", f"{sign}{top:,}", f"{sign}{top:,}".replace(",", "{,}"), f"{sign}{top}.00"]
    if 10**6 % bottom == 0:
        scaled = f"{top * 10**6 // bottom:07d}"
        found.append(f"{sign}{scaled[:-6]}.{scaled[-6:]}")
    return found


@settings(max_examples=200, deadline=None)
@given(numbers_of_all_kinds, st.sampled_from(FORMS), st.data())
def test_a_right_number_in_any_usual_form_is_right(value: Fraction, form: str, data: st.DataObject) -> None:
    answer = form.format(data.draw(st.sampled_from(spellings(value))))
    reference = data.draw(st.sampled_from(spellings(value)))
    verdict = SHARED(answer, Reference(reference))
    assert verdict.equal
    assert verdict.key == str(value)
    wrong = value + data.draw(st.fractions(max_denominator=1000).filter(bool))
    assert not SHARED(answer, Reference(data.draw(st.sampled_from(spellings(wrong))))).equal


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=3, max_size=3), st.sampled_from(["{}", "\\boxed{{{}}}", "y = {}", "${}$."])
)
def test_polynomials_in_another_form(roots: list[int], form: str) -> None:
    a, b, c = roots
    factored = f"(x-({a}))(x-({b}))(x-({c}))"
    expanded = f"x^3 + ({-a - b - c})x^2 + ({a * b + b * c + c * a})x + ({-a * b * c})"
    shifted = f"x^3 + ({-a - b - c})x^2 + ({a * b + b * c + c * a})x + ({-a * b * c + 1})"
    assert SHARED(form.format(factored), Reference(expanded)).equal
    assert not SHARED(form.format(factored), Reference(shifted)).equal


SHARED = Judge()
MARKS = (
    "\\frac \\sqrt { } ( ) [ ] \\{ \\} ^ _ ! 1 2 10 x y i e + - = , / \\pi \\pm \\le < \\cup \\text{a} \\text % | & ."
)
MORE = "\\sin \\log \\binom \\begin{pmatrix} \\end{pmatrix} \\\\ ^\\circ \\approx \\sum \\infty"
PIECES = st.lists(st.sampled_from([" ", "\\in ", *f"{MARKS} {MORE}".split(" ")]), max_size=25).map("".join)


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.text(max_size=200), PIECES), st.sampled_from(["18", "x+1", "1, 2", "\\text{(A)}", "x^2+y^2=1"]))
def test_no_text_raises_or_takes_long(text: str, reference: str) -> None:
    SHARED("1+1", Reference("y+1"))
    start = cpu_seconds()
    SHARED(text, Reference(reference))
    assert cpu_seconds() - start < 0.5


@settings(max_examples=100, deadline=None)
@given(PIECES)
def test_what_is_read_equals_itself(text: str) -> None:
    form = read(text)
    if form is not None:
        assert latex.same(form, form, latex.exact())


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("\\boxed{18}", "18"),
        ("\\boxed {18}", "18"),
        ("\\fbox{18}", "18"),
        ("\\boxed{\\frac{1}{2}} and \\boxed{3}", "3"),
        ("\\boxed{3} and \\boxed{4", "3"),
        ("\\boxed{x = \\boxed{5}}", "x = \\boxed{5}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("} { \\boxed{1} }", "1"),
        ("\\boxed{", None),
        ("boxed{1}", None),
        ("", None),
        ("\\boxed{" * 3000, None),
    ],
)
def test_boxed(text: str, box: str | None) -> None:
    assert boxed(text) == box


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3*2^{10}", 3072),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^{-2}", Fraction(1, 4)),
        ("2(3)", 6),
        ("-1\\frac{1}{2}", Fraction(-3, 2)),
        ("6/2/3", 1),
        ("1-(2-3)", 2),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("\\sqrt{\\frac{4}{9}}", Fraction(2, 3)),
        ("3!", 6),
        ("2^3^2", 512),
        ("9^9^9", None),
        ("2^{100000}", None),
        ("1000!", None),
        ("1/0", None),
        ("0^0", None),
        ("1 2", None),
        ("x", None),
        ("", None),
        ("(1", None),
        ("1.2.3", None),
        ("(" * 100 + "1" + ")" * 100, None),
    ],
)
def test_rational(text: str, value: Fraction | int | None) -> None:
    assert rational.value(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#### 18\nBut", "18"),
        ("The answer is $x = 5$. Done.", "5"),
        ("The answer is 18, as we saw before.", "18"),
        ("The answer is \\(\\frac{1}{2}\\).", "\\frac{1}{2}"),
        ("The angle is \\(18^\\circ\\). So the answer is:\n\\[\\boxed{18", "18"),
        ("So $x=3$ and finally $y = 2\\pi$.", "y = 2\\pi"),
        ("So $x=3$, which makes 18 apples.", "18"),
        ("18 is it", "18"),
        ("nothing", None),
        ("", None),
    ],
)
def test_substance(text: str, found: str | None) -> None:
    assert latex.substance(text) == found
