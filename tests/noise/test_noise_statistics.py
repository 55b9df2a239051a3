"""Mean, variance and correlations over 10**8 draws per family, within sampling error."""

import pytest
import torch

from seedfold.noise import values

STREAMS = [(seed, f"model.layers.{layer}.mlp.up_proj.weight") for seed in (0, 1, 2**32, 2**63) for layer in range(6)]
LENGTH = 2**22  # 24 streams: 100.7 million draws
LAGS = (1, 2, 3, 4, 7, 8, 16, 32, 64, 96, 127, 128, 129, 256, 576, 4096)
BOUND = 5.0


@pytest.mark.parametrize(("family", "kurtosis"), [("rademacher", 1.0), ("gaussian", 3.0)])
def test_moments_and_correlations(family, kurtosis):
    start = 2**40 - LENGTH // 2
    total = square = 0.0
    kept = []
    for seed, name in STREAMS:
        x = values(family, seed, name, start, start + LENGTH)
        total += x.sum(dtype=torch.float64).item()
        square += x.dot(x).item()
        kept.append(x[: 2**20].clone())
    n = LENGTH * len(STREAMS)
    assert abs(total) / n**0.5 < BOUND
    if family == "rademacher":
        assert square == n
    else:
        assert abs(square - n) / ((kurtosis - 1) * n) ** 0.5 < BOUND

    # Every pair: same seed and another tensor of the same shape, same tensor and another seed, or both differ.
    streams = torch.stack(kept)
    length = streams.shape[1]
    z = streams @ streams.T / length**0.5
    assert z.fill_diagonal_(0).abs().max() < BOUND
    for lag in LAGS:
        z = (streams[:, lag:] * streams[:, :-lag]).sum(1) / (length - lag) ** 0.5
        assert z.abs().max() < BOUND, lag
        across = streams[0, lag:].dot(streams[1, :-lag]) / (length - lag) ** 0.5
        assert abs(across) < BOUND, lag


def test_gaussian_levels_are_equally_likely():
    x = values("gaussian", 11, "w", 0, 2**23)
    counts = torch.bincount((torch.special.ndtr(x.double()) * 64).long(), minlength=64).double()
    # Dividing by the root mean square moves the bin edges by less than a thousandth of a bin.
    chi_square = ((counts - 2**17) ** 2 / 2**17).sum().item()
    assert 20 < chi_square < 130
