"""Reward functions of the tests of the custom task: right ones in both forms, and one for each way to be wrong."""

import math
import re
import sys

import numpy as np

CALLS = []


def exact(completion, example):
    return 1.0 if completion.strip() == example["answer"] else 0.0


def scalar(completion, example):
    return np.float32(0.5) if completion else np.bool_(True)


def truth(completion, example):
    return completion == example["answer"]


# The three below are written for TRL's GRPOTrainer, in the forms that its documentation shows.
def trl_match(completions, answer, **kwargs):
    return [1.0 if text.strip() == right else 0.0 for text, right in zip(completions, answer, strict=True)]


def trl_chat(prompts, completions, answer, **kwargs):
    CALLS.append((prompts, completions, kwargs))
    texts = [completion[0]["content"] for completion in completions]
    return [1.0 if right in text else 0.0 for text, right in zip(texts, answer, strict=True)]


def trl_format(completions, **kwargs):
    return [bool(re.match(r"^<answer>.*</answer>$", text)) for text in completions]


async def trl_async(completions, **kwargs):
    return [float(len(text)) for text in completions]


def trl_no_kwargs(completions):
    return np.array([len(text) for text in completions])


def trl_none(completions, **kwargs):
    return [0.0] + [None] * (len(completions) - 1)


def trl_short(completions, **kwargs):
    return [0.0]


def trl_number(completions, **kwargs):
    return 1.0


def trl_raises(completions, answer, **kwargs):
    return [1 / (right != "b") for right in answer]


def trl_ids(completions, completion_ids, **kwargs):
    return [0.0] * len(completions)


def raises(completion, example):
    return example["nothing"]


def exits(completion, example):
    sys.exit(3)


def nan(completion, example):
    return math.nan


def infinite(completion, example):
    return 10**400


def text(completion, example):
    return "1.0"


def nothing(completion, example):
    return None


def array(completion, example):
    return np.zeros(3)


def spoils(completion, example):
    example["tags"].append("x")
    return float(len(example["tags"]))


def three(a, b, c):
    return 0.0


NOT_A_FUNCTION = 3
