r"""GSM8K for models that were taught to put their answer into a box: right is what the last \boxed{…} says."""

from fractions import Fraction

from seedfold.tasks import gsm8k, numbers


def reward(completion: str, example: dict) -> float:
    """1 where the box holds the right number."""
    return float(_boxed(completion) == gsm8k.reference(example["answer"]))


def lenient(completion: str, example: dict) -> float:
    """1 where the right number is the answer, however it is written."""
    return max(reward(completion, example), float(gsm8k.substance(completion) == gsm8k.reference(example["answer"])))


def answer(completion: str, example: dict | None = None) -> str | None:
    """The number in the box."""
    value = _boxed(completion)
    return None if value is None else numbers.normal(value)


def _boxed(completion: str) -> Fraction | None:
    box = numbers.boxed(completion)
    return None if box is None else numbers.parse(box)
