"""Stochastic rounding: to one of the two neighbours, with probabilities that make it unbiased."""

from __future__ import annotations

import torch

from seedfold.noise import counter
from seedfold.noise.segment import tensor_key

BLOCK = 8


def draws(
    *, seed: int, tensor: str, first: int, stride: int, rows: int, columns: int, device: torch.device
) -> torch.Tensor:
    """int32 (rows, columns) in [0, 65536): the draw of the weight at flat index first + r * stride + c.

    The 16-bit layout is the Gaussian family's, under the tensor name + "#dither", so that no draw is shared with noise.
    ``first``, ``stride`` and ``columns`` are multiples of ``BLOCK``.
    """
    key = tensor_key(tensor + "#dither")
    flat = counter.halves(seed, key, first // BLOCK, stride // BLOCK, rows, columns // BLOCK, device)
    return flat.view(rows, columns)


def round_dither(x: torch.Tensor, dtype: torch.dtype, draw: torch.Tensor) -> torch.Tensor:
    """Round float32 ``x`` to bfloat16 or float16 by ``draw`` (int32 in [0, 65536), same shape).

    With t and a the neighbours of x in ``dtype`` towards and away from zero, the result is a where
    draw + floor(65536 * (|x| - |t|) / (|a| - |t|)) >= 65536, else t. Values of ``dtype`` stay, and so do their signs.
    From the largest finite value on, infinities and NaN included, there is no pair to choose from: nearest even.
    """
    nearest = x.to(dtype)
    bits = nearest.view(torch.int16)
    # Sign and magnitude: one less in the bits is one step towards zero, whatever the sign.
    overshot = nearest.to(torch.float32).abs() > x.abs()
    toward = bits - overshot.to(torch.int16)
    low = _magnitude(toward, dtype)
    high = _magnitude(toward + 1, dtype)
    # All three operations are exact, and so is the product with 65536: the operands share an exponent and the gap is
    # a power of two.
    share = (x.abs() - low).div_(high - low).mul_(65536.0).to(torch.int32)
    away = share.add_(draw).ge_(65536)
    in_range = x.abs() < torch.finfo(dtype).max
    return torch.where(in_range, toward + away.to(torch.int16), bits).view(dtype)


def _magnitude(bits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return bits.view(dtype).to(torch.float32).abs_()
