"""What the published loop does to the weights inside a vLLM worker, for `seeds_per_second.py`."""

from __future__ import annotations

from typing import Any

import torch


class Perturb:
    """A worker extension: adds seeded Gaussian noise to every parameter in place."""

    model_runner: Any

    def perturb(self, seed: int, scale: float) -> None:
        """One pass: a full randn tensor per parameter, in the dtype of the weights, times `scale`, added."""
        for parameter in self.model_runner.model.parameters():
            generator = torch.Generator(device=parameter.device).manual_seed(seed)
            noise = torch.randn(parameter.shape, dtype=parameter.dtype, device=parameter.device, generator=generator)
            parameter.data.add_(noise, alpha=scale)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
