"""The gate: a held-out test that errs with chance at most `level` over all updates a run may propose.

An update is useless if its true gain, the expected paired difference of reward over the examples' distribution, is at
most 0 against the incumbent of the moment. Every proposal meets the same n gate examples. Three things bound the chance
that any useless one is committed.

1. One proposal. The differences d of n independent examples are tested against E d ≤ 0, exactly at any n. Right-or-wrong
   rewards: given that an answer changed, it was fixed with chance at most ½, so the upper tail of Binomial(fixed +
   broken, ½) is a valid p-value (McNemar 1947, one-sided). Graded rewards: differences are at least −span, so with bets
   0 ≤ λⱼ ≤ 1/span, each chosen before its example is seen, the wealth Π (1 + λⱼ dⱼ) is never negative and a
   supermartingale; by Ville's inequality it ever reaches 1/a with chance at most a, and 1 / (greatest wealth) is a valid
   p-value (betting: Waudby-Smith and Ramdas 2024, JRSS B 86:1). A sign-flip test would need symmetric noise, a t-test a
   large n.

2. Many proposals, one of them after the other. What is proposed next may depend on what the gate said before; with the
   same examples, that is the problem of the reusable holdout (Dwork et al. 2015, Science 349:636; Blum and Hardt 2015).
   The gate says one bit, committed or not. Given everything that is not gate data (search, select, seeds), proposal k and
   its incumbent are fixed functions of the k − 1 bits before: there is one proposal per history of bits, so a tree of
   them, each fixed before gate data were seen. If each node h of the tree is tested at its own level aₕ, the chance that
   some useless node, and so some useless node on the path taken, passes is at most Σ aₕ: a union bound over the tree
   that needs no independence between tests.

3. The levels. A run of rejections is one history, a commit opens a branch. A history is written as the lengths g₁, g₂,
   … of its finished stretches, each of which ended in a commit, and the place j in the present one. Its level is
       a = level · q(commits) · p(g₁) · p(g₂) ⋯ · p(j),   p(j) ∝ 1/j²,  q(c) ∝ 1/(c+1)²,
   both made to sum to 1 over 1 … K, K the greatest number of proposals. Summed over j, every g and the number of
   commits, the levels add up to at most `level` (a code for histories, as in Kraft's inequality). One planned proposal
   gets all of it; the j-th after the last commit gets about 1/j² of what the first would.

What this needs: only the bit goes back. Whoever reads p or the gain of a rejected proposal and starts another run on the
same gate examples has left the tree, and needs new gate examples. Examples must be independent draws, as they are when
the splits are dealt at random from a larger pool; true gain then means gain on the pool's distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedfold import stats
from seedfold.errors import UserError
from seedfold.fold.settings import Gate

Array = NDArray[np.float64]

CAP = 0.9
"""The largest bet, as a share of the largest that cannot lose everything."""

PRIOR = 0.25
"""One imagined example's squared difference, in squared spans: what the variance is taken for before any is seen."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One test of the gate. The record may show all of it; only `committed` may guide what is proposed next."""

    committed: bool
    gain: float  # mean paired difference, in units of reward
    lower: float  # one-sided lower confidence bound of the true gain at 1 − level
    p: float  # one-sided, of a true gain of at most 0
    level: float  # that this proposal had to meet
    fixed: int
    broken: int
    n: int


def meet(
    proposed: ArrayLike, incumbent: ArrayLike, history: Sequence[bool], settings: Gate, graded: bool = False
) -> Verdict:
    """Let one proposal meet the gate.

    Args:
        proposed, incumbent: rewards on the same gate examples, (n,), in an order fixed before any answer was seen.
        history: verdicts before this one, in order, True for committed.
        settings: `level`, `proposals` and `span`.
        graded: rewards other than 0 and 1 occur. To be known from other splits: a test chosen by the gate's own data is
            not exact. Rewards that turn out graded all the same are tested with bets.

    Raises:
        UserError: all planned proposals have been tried, or rewards are further apart than `span`.
        ValueError: rewards that are not paired or not finite.
    """
    level = allowance(history, settings)
    new, old = np.asarray(proposed, dtype=np.float64), np.asarray(incumbent, dtype=np.float64)
    if new.shape != old.shape or new.ndim != 1 or not len(new):
        raise ValueError(f"gate rewards must be paired, but have shapes {new.shape} and {old.shape}")
    d = new - old
    if not np.isfinite(d).all():
        raise ValueError("gate rewards must be finite: every example is answered by both")
    if (widest := float(np.abs(d).max())) > settings.span:
        raise UserError(
            f'"fold.gate.span" is {settings.span:g}, but two rewards of one example differ by {widest:g}; set it to the '
            "range of the task's rewards"
        )
    fixed, broken, n = int((d > 0).sum()), int((d < 0).sum()), len(d)
    if not graded and np.isin(new, (0, 1)).all() and np.isin(old, (0, 1)).all():
        p = binomial_p(fixed, broken)
        # The score interval is not exact: it is shown, and may only veto.
        lower = stats.tango(fixed, broken, n, 1 - 2 * level)[0]
    else:
        p = betting_p(d, settings.span, level)
        lower = betting_bound(d, settings.span, level)
    return Verdict(p <= level and lower > 0, float(d.mean()), lower, p, level, fixed, broken, n)


def allowance(history: Sequence[bool], settings: Gate) -> float:
    """The level of the next test after `history`; over the tree of all histories these add up to at most `level`."""
    most = settings.planned(1).proposals
    if len(history) >= most:
        raise UserError(
            f'"fold.gate.proposals" is {most} and as many proposals have met the gate; plan more of them before a run '
            "begins"
        )
    inverse_squares = 1 / np.arange(1, most + 1) ** 2
    share = inverse_squares / inverse_squares.sum()
    level, place, commits = settings.level, 0, 0
    for committed in history:
        place += 1
        if committed:
            level *= share[place - 1]
            place, commits = 0, commits + 1
    return float(level * share[place] * share[commits])


def binomial_p(fixed: int, broken: int) -> float:
    """Chance of at least `fixed` heads in fixed + broken tosses of a fair coin: the one-sided exact McNemar test."""
    from scipy.special import bdtr

    # Heads ≥ fixed is tails ≤ broken.
    return float(bdtr(broken, fixed + broken, 0.5)) if fixed + broken else 1.0


def betting_p(d: ArrayLike, span: float, level: float, mean: float = 0.0) -> float:
    """p-value of E d ≤ `mean` for independent d in [−span, span], (n,), at its best when it comes out near `level`.

    Bets are the predictable plug-in ones for n examples, √(2 ln(1/level) / (n v)), v the variance of the examples before
    (Waudby-Smith and Ramdas 2024, section 3.2). A gain is found when it is about 2.5 standard errors where a t-test would
    want 1.6: the price of holding for any distribution.
    """
    x = np.asarray(d, dtype=np.float64)
    n, most = len(x), span + mean  # −most is the least that x − mean can be
    if most <= 0:
        return 0.0
    seen = np.arange(n)
    total, squares = np.cumsum(x) - x, np.cumsum(x * x) - x * x
    variance = (PRIOR * span**2 + np.maximum(squares - total**2 / np.maximum(seen, 1), 0.0)) / (seen + 1)
    bets = np.minimum(np.sqrt(2 * math.log(1 / level) / (n * variance)), CAP / most)
    wealth = np.cumsum(np.log1p(bets * (x - mean)))
    return math.exp(-max(float(wealth.max()), 0.0))


def betting_bound(d: ArrayLike, span: float, level: float) -> float:
    """Lower confidence bound of the mean at 1 − level: the least mean that betting does not reject at that level.

    The p-value grows with the mean tested m: each factor 1 + min(λ, CAP / (span + m)) (d − m) falls in m.
    """
    lo, hi = -span, span
    for _ in range(50):
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if betting_p(d, span, level, middle) <= level else (lo, middle)
    return lo
