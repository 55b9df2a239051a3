"""Which desk a customer's message belongs to: right is one of four words, alone."""

LABELS = ("billing", "delivery", "returns", "account")


def reward(completion: str, example: dict) -> float:
    """1 for the right label and nothing else: what a program that reads the answer needs."""
    return float(label(completion) == example["label"])


def lenient(completion: str, example: dict) -> float:
    """1 where the right label is the only one named, whatever stands around it."""
    named = [word for word in LABELS if word in completion.lower()]
    return float(named == [example["label"]])


def answer(completion: str, example: dict) -> str | None:
    """What the vote counts: the label; whoever writes something else does not vote."""
    return label(completion)


def label(completion: str) -> str | None:
    word = completion.strip().rstrip(".").lower()
    return word if word in LABELS else None
