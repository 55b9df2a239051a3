"""The vendor's vector functions, called once before several threads call them at once.

On x86 CPUs torch hands exp, cos, sqrt and their like to Intel's MKL, which chooses its code for the processor when it is
first called. When several threads come first together, one of them may be given code of low accuracy for that call
(pytorch/pytorch, issue 188792). Of fresh processes one in a hundred got half of its first cosines wrong by up to 1.5e-4
(`benchmarks/vector_math.py`), and so other rotary embeddings, other logits and now and then another answer.
"""

from __future__ import annotations

from functools import cache

FUNCTIONS = (
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "sqrt",
    "rsqrt",
    "cos",
    "sin",
    "tan",
    "acos",
    "asin",
    "atan",
    "cosh",
    "sinh",
    "tanh",
    "sigmoid",
    "erf",
    "erfc",
    "erfinv",
    "lgamma",
)


@cache
def settle() -> None:
    """Have the code chosen, by one number on the calling thread. Comes before anything is computed in a process."""
    import torch

    for dtype in (torch.float32, torch.float64):
        for name in FUNCTIONS:
            getattr(torch, name)(torch.full((1,), 0.5, dtype=dtype))
