"""Majority vote: K models answer, the most common answer wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from seedfold.tasks.base import Grade, grade_of_vote


def majority(answers: Sequence[str | None]) -> str | None:
    """The most common answer; of equally common ones that of the earliest voter. None answers do not vote.

    Voters come best first, so that a tie goes to the better model. None if nobody voted.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return None
    most = max(counts.values())
    return next(answer for answer in answers if answer is not None and counts[answer] == most)


def vote(grades: Sequence[Grade]) -> Grade:
    """The grade of the vote on one example; `grades` are the voters', best voter first."""
    return grade_of_vote(majority([grade.answer for grade in grades]), grades)
