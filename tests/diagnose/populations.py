"""Simulated populations on two slices: right-or-wrong answers of candidates whose true worth is known."""

import numpy as np

from seedfold.diagnose.selectors import Slice


def slices(
    seed: int, candidates: int = 40, examples: int = 48, sd: float = 0.0, harm: float = 0.0, dense_noise: float = 1.0
) -> tuple[Slice, Slice, np.ndarray, np.ndarray]:
    """(search, held out, sizes, true worth). sd: of the worth; harm: what the greater of two sizes costs everyone."""
    rng = np.random.default_rng(seed)
    sigmas = np.repeat([1.0, 2.0], candidates // 2)
    true = rng.normal(size=candidates) * sd - harm * (sigmas == 2)

    def one() -> Slice:
        ease = rng.normal(size=examples)
        base = (ease + rng.normal(size=examples) * 0.5 > 0).astype(float)
        rewards = (true[:, None] + ease + rng.normal(size=(candidates, examples)) * 0.5 > 0).astype(float)
        dense = true[:, None] + rng.normal(size=(candidates, examples)) * dense_noise
        return Slice(rewards, base, dense)

    return one(), one(), sigmas, true
