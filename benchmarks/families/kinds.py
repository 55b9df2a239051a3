"""What kind of thing a word names: right is one of four words, alone."""

KINDS = ("animal", "food", "clothing", "tool")


def reward(completion: str, example: dict) -> float:
    """1 for the right kind and nothing else."""
    return float(answer(completion) == example["label"])


def lenient(completion: str, example: dict) -> float:
    """1 where the right kind is the only one named."""
    return float([kind for kind in KINDS if kind in completion.lower()] == [example["label"]])


def answer(completion: str, example: dict | None = None) -> str | None:
    """The kind that an answer states."""
    word = completion.strip().rstrip(".").lower()
    return word if word in KINDS else None
