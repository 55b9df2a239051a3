"""Gaussian noise: 65,536 equally likely quantiles of the standard normal, scaled to unit variance; 8 weights per call.

Weight i takes 16 bits u of block i // 8 (see ``counter.halves``) and is the quantile at (u + 1/2) / 65536, divided by
the root mean square of all of them. The largest magnitude is about 4.3.
"""

from __future__ import annotations

from functools import cache
from math import fsum, sqrt
from statistics import NormalDist

import torch

from seedfold.noise import counter
from seedfold.noise.segment import tensor_key

BLOCK = 8
LEVELS = 65536


def fill(
    out: torch.Tensor,
    *,
    seed: int,
    tensor: str,
    first: int,
    stride: int,
    scale: float,
    shape: tuple[int, ...] | None = None,
) -> None:
    """See ``Family.fill``."""
    rows, columns = out.shape
    draws = counter.halves(
        seed, tensor_key(tensor), first // BLOCK, stride // BLOCK, rows, columns // BLOCK, out.device
    )
    torch.index_select(table(out.device), 0, draws, out=out.view(-1)).mul_(scale)


@cache
def table(device: torch.device) -> torch.Tensor:
    """float32 (65536,), antisymmetric: entry 65535 - u is minus entry u. Do not write to it.

    Quantiles (Wichura's AS 241, as in the standard library) and their root mean square are float64, the root mean
    square from an exactly rounded sum; the quotient is rounded to float32 last, so it is the same on every machine.
    """
    quantile = NormalDist().inv_cdf
    upper = [quantile((u + 0.5) / LEVELS) for u in range(LEVELS // 2, LEVELS)]
    rms = sqrt(fsum(q * q for q in upper) / len(upper))
    positive = [q / rms for q in upper]
    negative = [-q for q in reversed(positive)]
    return torch.tensor(negative + positive, dtype=torch.float64).to(torch.float32).to(device)
