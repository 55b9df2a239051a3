"""How large the step of a perturbation is in weight space, as intended and as it is after rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from seedfold import config, models
from seedfold.noise.torch import perturbation, rebuild
from seedfold.recipe import Recipe
from seedfold.weights import Weights, _runs

SAMPLES = 2**17
"""Weights that are looked at: norms are then good to about half a percent."""


@dataclass(frozen=True, slots=True)
class Size:
    """Euclidean norms over all weights of the model, as shares of the base's."""

    touched: float  # share of the weights that are in perturbed tensors
    intended: float  # in float32
    realised: float  # after rounding to the dtype


def weights_of(settings: config.Model) -> Weights:
    """The model's weights on the CPU."""
    if models.sees(settings):
        from seedfold.engines import vision

        return vision.weights_of(models.load_vision(settings)[0], settings.name)
    return Weights(models.load(settings)[0])


def measure(recipe: Recipe, weights: Weights, samples: int = SAMPLES) -> Size:
    """The size of a recipe's step, from evenly spread runs of about `samples` of the weights it may change."""
    steps = weights.steps(recipe)
    share = min(1.0, samples / max(1, sum(weights.tensors[name].numel for name in steps)))
    touched, intended, realised = 0, 0.0, 0.0
    for name, terms in steps.items():
        tensor, base = weights.tensors[name], weights.base(name)
        seen, meant, made = 0, 0.0, 0.0
        for start, stop in _runs(tensor.numel, share):
            part, segment = base[start:stop], tensor.segment(start, stop)
            new = torch.empty_like(part)
            rebuild(part, new, segment, terms, rounding=recipe.rounding, dither_seed=recipe.dither_seed)
            meant += float(perturbation(segment, terms).double().square().sum())
            made += float((new.double() - part.double()).square().sum())
            seen += stop - start
        if seen and meant:
            touched += tensor.numel
            intended += meant * tensor.numel / seen
            realised += made * tensor.numel / seen
    whole = sum(tensor.numel for tensor in weights.tensors.values())
    base_norm = math.sqrt(math.fsum(weights.rms(name) ** 2 * t.numel for name, t in weights.tensors.items()))
    return Size(touched / whole, math.sqrt(intended) / base_norm, math.sqrt(realised) / base_norm)
