import numpy as np
import torch

from seedfold.engines.base import Decoding
from seedfold.engines.sampling import choose, draws


def test_every_example_and_sample_has_numbers_of_its_own():
    numbers = draws("a", 1, 1000)
    assert numbers.shape == (1000,)
    assert numbers.dtype == np.float64
    assert (numbers == draws("a", 1, 1000)).all()
    assert (draws("a", 1, 10) == numbers[:10]).all()
    for other in (draws("a", 2, 1000), draws("b", 1, 1000)):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.15
    assert abs(numbers.mean() - 0.5) < 0.05


def test_tokens_are_chosen_as_often_as_they_are_likely():
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawn = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    logits = (2.0 * chances.log()).expand(10_000, -1)  # at temperature 2 these are the chances
    counts = torch.bincount(choose(logits, drawn, Decoding(1, temperature=2.0)), minlength=4)
    assert (counts / 10_000 - chances).abs().max() < 1e-3
    nucleus = torch.bincount(choose(logits, drawn, Decoding(1, temperature=2.0, top_p=0.7)), minlength=4)
    assert (nucleus / 10_000 - torch.tensor([0.625, 0.375, 0.0, 0.0])).abs().max() < 1e-3
