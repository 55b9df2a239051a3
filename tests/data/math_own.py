r"""Writes math_own.jsonl: problems in the style of MATH, all our own, each answer checked by a computation beside it.

Run `python tests/data/math_own.py` after a change. A check is Python that gives the answer anew (mostly by brute force
or sympy) and must equal the answer's value, given as Python too, so that the LaTeX is the only thing written by hand.
"""

import json
from fractions import Fraction as F
from itertools import combinations, permutations, product
from math import comb, factorial, gcd, lcm
from pathlib import Path

import sympy as sp
from sympy.abc import k, n, r, t, x, y

# level, subject, problem, answer, value of the answer, check
ALGEBRA = [
    (1, "If $3x - 7 = 20$, what is $x$?", "9", 9, sp.solve(3 * x - 27, x)[0]),
    (
        2,
        "Simplify $(2x - 3)(x + 5) - x^2$.",
        "x^2 + 7x - 15",
        x**2 + 7 * x - 15,
        sp.expand((2 * x - 3) * (x + 5) - x**2),
    ),
    (
        2,
        "A phone plan costs $\\$14$ a month and $8$ cents a message. What is the cost in dollars of a month with 75 "
        "messages?",
        "20",
        20,
        14 + F(8, 100) * 75,
    ),
    (
        3,
        "Find all solutions of $x^2 - 3x = 28$. Separate them by a comma.",
        "-4, 7",
        {-4, 7},
        set(sp.solve(x**2 - 3 * x - 28)),
    ),
    (
        3,
        "The line through $(1, 4)$ and $(5, -2)$ meets the $x$-axis at the point $(a, 0)$. Find $a$.",
        "\\frac{11}{3}",
        F(11, 3),
        1 + F(-4) * F(5 - 1, -2 - 4),
    ),
    (
        3,
        "Rationalise the denominator: $\\frac{6}{3 - \\sqrt{5}}$.",
        "\\frac{9 + 3\\sqrt{5}}{2}",
        (9 + 3 * sp.sqrt(5)) / 2,
        sp.expand(sp.radsimp(6 / (3 - sp.sqrt(5)))),
    ),
    (
        4,
        "For which values of $x$ is $x^2 - 5x < 6$? Answer in interval notation.",
        "(-1,6)",
        sp.Interval.open(-1, 6),
        sp.solve_univariate_inequality(x**2 - 5 * x < 6, x, False),
    ),
    (
        4,
        "A geometric sequence has second term $12$ and fifth term $\\frac{81}{2}$. What is its first term?",
        "8",
        8,
        12 / sp.root(sp.Rational(81, 2) / 12, 3),
    ),
    (
        5,
        "Find the range of $f(x) = \\frac{4x}{x^2 + 4}$ over the real numbers. Answer in interval notation.",
        "[-1,1]",
        sp.Interval(-1, 1),
        sp.calculus.util.function_range(4 * x / (x**2 + 4), x, sp.S.Reals),
    ),
]
INTERMEDIATE = [
    (
        2,
        "Factor $x^3 - 4x^2 - 11x + 30$ completely.",
        "(x-2)(x-5)(x+3)",
        (x - 2) * (x - 5) * (x + 3),
        sp.factor(x**3 - 4 * x**2 - 11 * x + 30),
    ),
    (
        3,
        "Find all roots of $z^2 - 6z + 13 = 0$, separated by a comma.",
        "3+2i, 3-2i",
        {3 + 2 * sp.I, 3 - 2 * sp.I},
        set(sp.solve(x**2 - 6 * x + 13)),
    ),
    (
        3,
        "Find the remainder when $x^5 - 2x^3 + 7$ is divided by $x^2 - 1$.",
        "-x+7",
        7 - x,
        sp.rem(x**5 - 2 * x**3 + 7, x**2 - 1, x),
    ),
    (
        4,
        "Write $\\frac{7x + 4}{(x - 2)(x + 4)}$ as $\\frac{A}{x - 2} + \\frac{B}{x + 4}$ and give the ordered pair "
        "$(A, B)$.",
        "(3,4)",
        (3, 4),
        (F(7 * 2 + 4, 6), F(7 * -4 + 4, -6)),
    ),
    (
        4,
        "The roots of $2x^3 - 9x^2 + 3x + 5 = 0$ are $p$, $q$ and $r$. Compute $p^2 + q^2 + r^2$.",
        "\\frac{69}{4}",
        F(69, 4),
        F(9, 2) ** 2 - 2 * F(3, 2),
    ),
    (
        4,
        "Solve $x^2 - 4x = 7$.",
        "2 \\pm \\sqrt{11}",
        {2 + sp.sqrt(11), 2 - sp.sqrt(11)},
        set(sp.solve(x**2 - 4 * x - 7)),
    ),
    (
        5,
        "Evaluate $\\sum_{n=1}^{\\infty} \\frac{n}{4^n}$.",
        "\\frac{4}{9}",
        sp.Rational(4, 9),
        sp.summation(n / 4**n, (n, 1, sp.oo)),
    ),
    (
        5,
        "Find the domain of $g(x) = \\sqrt{\\frac{x - 1}{x + 3}}$. Answer in interval notation.",
        "(-\\infty,-3) \\cup [1,\\infty)",
        sp.Union(sp.Interval.open(-sp.oo, -3), sp.Interval(1, sp.oo)),
        sp.solve_univariate_inequality((x - 1) / (x + 3) >= 0, x, False),
    ),
]
PREALGEBRA = [
    (1, "Compute $48 \\div 6 - 3 \\cdot (2 - 7)$.", "23", 23, 48 // 6 - 3 * (2 - 7)),
    (1, "Write $\\frac{7}{8}$ as a decimal.", "0.875", F(875, 1000), F(7, 8)),
    (
        2,
        "A recipe needs $2\\frac{1}{3}$ cups of flour for one cake. How many cups do three and a half cakes need? "
        "Answer as a mixed number.",
        "8\\frac{1}{6}",
        8 + F(1, 6),
        F(7, 3) * F(7, 2),
    ),
    (2, "What percent of $160$ is $36$?", "22.5\\%", F(225, 10), F(36, 160) * 100),
    (
        2,
        "The angles of a triangle are in the ratio $2 : 3 : 7$. How many degrees is the largest?",
        "105^\\circ",
        105,
        F(7, 12) * 180,
    ),
    (
        3,
        "A jacket loses a fifth of its price, and then a quarter of the new price. It now costs $\\$51$. What did it "
        "cost at first, in dollars?",
        "\\$85",
        85,
        51 / (F(4, 5) * F(3, 4)),
    ),
    (
        3,
        "Order the numbers $\\frac{5}{9}$, $0.55$ and $\\frac{6}{11}$ from the smallest to the largest. Which is in the "
        "middle: the first, the second or the third of the list? Answer with one word.",
        "\\text{second}",
        F(55, 100),
        sorted([F(5, 9), F(55, 100), F(6, 11)])[1],
    ),
    (
        4,
        "A water tank is $\\frac{3}{8}$ full. After 21 litres are added it is $\\frac{3}{5}$ full. How many litres does "
        "it hold?",
        "\\frac{280}{3}",
        F(280, 3),
        21 / (F(3, 5) - F(3, 8)),
    ),
]
NUMBER_THEORY = [
    (1, "What is the greatest common divisor of $126$ and $198$?", "18", 18, gcd(126, 198)),
    (2, "What is the remainder when $7^{50}$ is divided by $11$?", "1", 1, 7**50 % 11),
    (
        2,
        "Write the number $75$ in base $4$.",
        "1023_4",
        "1023",
        "".join(str(75 // 4**place % 4) for place in (3, 2, 1, 0)),
    ),
    (
        3,
        "How many positive divisors of $2160$ are perfect squares?",
        "6",
        6,
        sum(2160 % (d * d) == 0 for d in range(1, 50)),
    ),
    (
        3,
        "What is the smallest positive integer that leaves remainder $2$ on division by $5$, by $6$ and by $8$, and is "
        "larger than $200$?",
        "242",
        242,
        next(m for m in range(201, 999) if m % 5 == m % 6 == m % 8 == 2),
    ),
    (
        3,
        "List all prime factors of $8{,}463$, separated by commas.",
        "3, 7, 13, 31",
        {3, 7, 13, 31},
        set(sp.primefactors(8463)),
    ),
    (
        4,
        "For how many integers $m$ with $1 \\le m \\le 120$ is $m^2 + m$ divisible by $15$?",
        "32",
        32,
        sum((m * m + m) % 15 == 0 for m in range(1, 121)),
    ),
    (
        5,
        "Find all ordered pairs $(a, b)$ of positive integers with $a < b$ and $\\frac{1}{a} + \\frac{1}{b} = "
        "\\frac{1}{6}$ for which $a$ is odd.",
        "(7,42), (9,18)",
        {(7, 42), (9, 18)},
        {(a, b) for a in range(1, 99, 2) for b in range(a + 1, 999) if 6 * (a + b) == a * b},
    ),
    (
        4,
        "How many trailing zeros does $\\frac{100!}{50!}$ have?",
        "12",
        12,
        len(s := str(factorial(100) // factorial(50))) - len(s.rstrip("0")),
    ),
]
COUNTING = [
    (1, "In how many ways can 5 different books stand on a shelf?", "120", 120, len(list(permutations(range(5))))),
    (
        2,
        "Two fair dice are thrown. What is the probability that the sum is $8$?",
        "\\frac{5}{36}",
        F(5, 36),
        F(sum(a + b == 8 for a, b in product(range(1, 7), repeat=2)), 36),
    ),
    (
        3,
        "In how many ways can the letters of BALLOON be arranged?",
        "1,260",
        1260,
        factorial(7) // (factorial(2) * factorial(2)),
    ),
    (
        3,
        "A committee of 4 is drawn from 6 cooks and 5 waiters. In how many ways can it have at least 3 cooks?",
        "115",
        115,
        sum(sum(person < 6 for person in group) >= 3 for group in combinations(range(11), 4)),
    ),
    (
        4,
        "A fair coin is thrown $7$ times. What is the probability of more than two heads?",
        "\\frac{99}{128}",
        F(99, 128),
        F(sum(comb(7, heads) for heads in range(3, 8)), 2**7),
    ),
    (
        4,
        "What is the coefficient of $x^4$ in $\\left(2x - \\frac{1}{x}\\right)^{8}$?",
        "1792",
        1792,
        sp.expand((2 * x - 1 / x) ** 8).coeff(x, 4),
    ),
    (
        5,
        "How many paths of $10$ unit steps, each to the right or up, lead from $(0,0)$ to $(6,4)$ and avoid the point "
        "$(3,2)$?",
        "110",
        110,
        comb(10, 4) - comb(5, 2) * comb(5, 2),
    ),
]
GEOMETRY = [
    (
        1,
        "A rectangle has sides $7$ and $24$. How long is its diagonal?",
        "25",
        25,
        sp.sqrt(7**2 + 24**2),
    ),
    (
        2,
        "A circle has circumference $14\\pi$ cm. What is its area in square centimetres?",
        "49\\pi",
        49 * sp.pi,
        sp.pi * sp.Rational(14, 2) ** 2,
    ),
    (
        2,
        "An equilateral triangle has side $10$. What is its area?",
        "25\\sqrt{3}",
        25 * sp.sqrt(3),
        sp.Rational(1, 2) * 10 * sp.sqrt(75),
    ),
    (
        3,
        "A cone has radius $6$ and height $8$. What is its lateral (side) surface area?",
        "60\\pi",
        60 * sp.pi,
        sp.pi * 6 * sp.sqrt(36 + 64),
    ),
    (
        4,
        "In triangle $ABC$, $AB = 5$, $BC = 6$ and $CA = 7$. What is the area of the triangle?",
        "6\\sqrt{6}",
        6 * sp.sqrt(6),
        sp.sqrt(9 * (9 - 5) * (9 - 6) * (9 - 7)),
    ),
    (
        4,
        "Give the centre of the circle $x^2 + y^2 - 6x + 5y = 1$ as an ordered pair.",
        "\\left(3, -\\frac{5}{2}\\right)",
        (3, -F(5, 2)),
        (F(6, 2), F(-5, 2)),
    ),
    (
        5,
        "Two circles of radius $6$ pass through each other's centres. What is the area of the region inside both?",
        "24\\pi - 18\\sqrt{3}",
        24 * sp.pi - 18 * sp.sqrt(3),
        2 * (36 * sp.pi / 3 - 9 * sp.sqrt(3)),
    ),
    (
        3,
        "A sphere is cut out of a cube of side $s$ so that it touches every face. Which share of the cube's volume "
        "remains? Answer in terms of $\\pi$.",
        "1 - \\frac{\\pi}{6}",
        1 - sp.pi / 6,
        sp.simplify((r**3 * 8 - sp.Rational(4, 3) * sp.pi * r**3) / (8 * r**3)),
    ),
]
PRECALCULUS = [
    (1, "Evaluate $\\sin 150^\\circ$.", "\\frac{1}{2}", sp.Rational(1, 2), sp.sin(sp.rad(150))),
    (
        2,
        "Compute $\\begin{pmatrix} 2 & -1 \\\\ 0 & 3 \\end{pmatrix} \\begin{pmatrix} 1 & 4 \\\\ 5 & -2 \\end{pmatrix}$.",
        "\\begin{pmatrix} -3 & 10 \\\\ 15 & -6 \\end{pmatrix}",
        sp.Matrix([[-3, 10], [15, -6]]),
        sp.Matrix([[2, -1], [0, 3]]) * sp.Matrix([[1, 4], [5, -2]]),
    ),
    (
        3,
        "Convert the point $(x, y) = (-3, 3)$ to polar coordinates $(r, \\theta)$ with $r > 0$ and $0 \\le \\theta < "
        "2\\pi$.",
        "\\left(3\\sqrt{2}, \\frac{3\\pi}{4}\\right)",
        (3 * sp.sqrt(2), 3 * sp.pi / 4),
        (sp.sqrt(18), sp.atan2(3, -3)),
    ),
    (
        3,
        "Find all $x$ with $0 \\le x < 2\\pi$ and $2\\cos x = -\\sqrt{3}$. Separate them by a comma.",
        "\\frac{5\\pi}{6}, \\frac{7\\pi}{6}",
        {5 * sp.pi / 6, 7 * sp.pi / 6},
        set(sp.solveset(2 * sp.cos(x) + sp.sqrt(3), x, sp.Interval.Ropen(0, 2 * sp.pi))),
    ),
    (
        4,
        "Compute $\\tan 75^\\circ$ in simplest exact form.",
        "2+\\sqrt{3}",
        2 + sp.sqrt(3),
        sp.expand(sp.radsimp((1 + sp.sqrt(3) / 3) / (1 - sp.sqrt(3) / 3))),
    ),
    (
        4,
        "Express $\\frac{\\sin 2t}{1 + \\cos 2t}$ as a single trigonometric function of $t$.",
        "\\tan t",
        0,
        sp.simplify(sp.sin(2 * t) / (1 + sp.cos(2 * t)) - sp.tan(t)),
    ),
    (
        4,
        "Find the cross product of $\\begin{pmatrix} 1 \\\\ 2 \\\\ 3 \\end{pmatrix}$ and "
        "$\\begin{pmatrix} 4 \\\\ 0 \\\\ -1 \\end{pmatrix}$.",
        "\\begin{pmatrix} -2 \\\\ 13 \\\\ -8 \\end{pmatrix}",
        sp.Matrix([-2, 13, -8]),
        sp.Matrix([1, 2, 3]).cross(sp.Matrix([4, 0, -1])),
    ),
    (
        5,
        "Compute $(1 + i\\sqrt{3})^{7}$.",
        "64 + 64i\\sqrt{3}",
        64 + 64 * sp.sqrt(3) * sp.I,
        sp.expand((1 + sp.I * sp.sqrt(3)) ** 7),
    ),
    (
        5,
        "The line with equation $y = mx$ reflects the point $(5, 0)$ to the point $(3, 4)$. Give the equation of the line.",
        "y = \\frac{1}{2}x",
        sp.Rational(1, 2),
        sp.Rational(4, 5) / (1 + sp.Rational(3, 5)),
    ),
]

SUBJECTS = {
    "Algebra": [
        *ALGEBRA,
        (
            5,
            "Which one is true? (A) $2^{30} > 3^{20}$. (B) $2^{30} < 3^{18}$. (C) $2^{30} > 10^9$. Answer with its letter.",
            "\\text{(C)}",
            (False, False, True),
            (2**30 > 3**20, 2**30 < 3**18, 2**30 > 10**9),
        ),
    ],
    "Intermediate Algebra": [
        *INTERMEDIATE,
        (
            5,
            "Find a closed form of $\\sum_{k=1}^{n} k(k+1)$ in terms of $n$.",
            "\\frac{n(n+1)(n+2)}{3}",
            0,
            sp.simplify(sp.summation(k * (k + 1), (k, 1, n)) - n * (n + 1) * (n + 2) / 3),
        ),
    ],
    "Prealgebra": PREALGEBRA,
    "Number Theory": [
        *NUMBER_THEORY,
        (3, "What is the least common multiple of $84$, $90$ and $140$?", "1260", 1260, lcm(84, 90, 140)),
    ],
    "Counting & Probability": COUNTING,
    "Geometry": [
        *GEOMETRY,
        (
            4,
            "The points $(0,0)$, $(4,1)$ and $(1,y)$ with $y > 0$ form a triangle of area $6$. Find $y$.",
            "\\frac{13}{4}",
            sp.Rational(13, 4),
            max(sp.solve((4 * y - 1) ** 2 - 144, y)),
        ),
    ],
    "Precalculus": PRECALCULUS,
}


def rows() -> list[dict[str, object]]:
    """The rows of the file. Raises ValueError for an answer whose check gives something else."""
    made: list[dict[str, object]] = []
    for subject, problems in SUBJECTS.items():
        for number, (level, problem, answer, value, check) in enumerate(problems, 1):
            if value != check:
                raise ValueError(f"{problem} gives {check}, not {value}")
            place = f"own/{subject.lower().replace(' & ', '_and_').replace(' ', '_')}/{number}.json"
            made.append({"problem": problem, "answer": answer, "level": level, "subject": subject, "unique_id": place})
    return made


if __name__ == "__main__":
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows()]
    Path(__file__).with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
