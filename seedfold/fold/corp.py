"""CoRP, consolidating rewarded perturbations (Zhang, Yang, Kasneci 2026, arXiv:2605.31494), with its defects mended.

A candidate's score z is its centred, shrunken score per unit of size, in standard deviations over the population: β then
means the same whatever the reward, the number of examples and the model. Two passes:

    pass 1   w¹ ∝ exp(β z) over the elite, the candidates from the q-quantile of z up
    pass 2   w² ∝ exp(β z + Z(alignment) − Z(dispersion)), Z the standard score

alignment is the cosine of a candidate's effect with the weighted mean effect of the *others* (its own share would only
repeat its weight), dispersion the squared norm of what of its effect is off that direction. `geometry` says what an
effect is: behaviour (paired differences on the examples), weights (coefficients of the seeds; independent seeds are
orthogonal there, so both scores are the same for candidates of one size), none (one pass).

`positive` weights are w. Whatever is chosen, they reach at most √½ of what signed weights gain where effects are
linear (docs/fold.md). `signed` weights are w − p, p the same softmax over the whole population without rewards (β = 0,
q = 0): what the rewards moved. As β → 0 with q = 0 that is proportional to p · (z − mean of z): the linear fold, if the
geometry is none. β = 0, q = 0 stands for this limit.

The update is Σ wᵢ · stepᵢ / ‖stepᵢ‖, of norm `step` times the population's median candidate.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from seedfold.fold.base import Array, Population, Proposal
from seedfold.fold.settings import Corp


def proposals(population: Population, settings: Corp) -> list[Proposal]:
    """The grid of weights, geometry, q, β and step; equal steps appear once, under the first that makes them."""
    found: dict[tuple[object, ...], Proposal] = {}
    # Gram matrices of the second pass are the costly part: one per geometry, not one per grid point.
    grams = {geometry: gram(population, geometry) for geometry in settings.geometry}
    scores = standard(population.slopes)
    grid = itertools.product(settings.weights, settings.geometry, settings.quantiles, settings.betas)
    for kind, geometry, q, beta in grid:
        w = weights(scores, q, beta, kind, grams[geometry])
        if w is None:
            continue
        for step in settings.steps:
            terms = population.combine(w, step * population.size)
            if terms:
                provenance = {"weights": kind, "geometry": geometry, "q": q, "beta": beta, "step": step}
                found.setdefault(terms, Proposal(terms, "corp", provenance))
    return list(found.values())


def weights(scores: Array, q: float, beta: float, kind: str, gram: Array | None) -> Array | None:
    """Weights of all candidates, (N,); 0 outside the elite if positive. None where rewards would play no part.

    Args:
        scores: (N,) standard scores of the candidates' slopes.
        q, beta: of the elite and its softmax.
        kind: "positive" or "signed".
        gram: (N, N) inner products of the effects; None for one pass.
    """
    everyone = np.ones(len(scores), dtype=bool)
    elite = scores >= np.quantile(scores, q) if q > 0 else everyone
    if not scores.any():
        return None
    if kind == "positive":
        if beta == 0 and elite.all() and gram is None:
            return None
        return _softmax(beta * scores + _second_pass(scores, beta, elite, gram), elite)
    compatible = _second_pass(scores, beta, everyone, gram)
    reference = _softmax(compatible, everyone)
    if beta == 0 and elite.all():
        return np.asarray(reference * (scores - reference @ scores))
    return np.asarray(_softmax(beta * scores + compatible, elite) - reference)


def gram(population: Population, geometry: str) -> Array | None:
    """Inner products (N, N) of the candidates' effects, in one geometry; behaviour on the examples that all answered."""
    if geometry == "none":
        return None
    if geometry == "weights":
        return population.gram
    effects = population.effects
    effects = effects[:, ~np.isnan(effects).any(axis=0)]
    return np.asarray(effects @ effects.T)


def compatibility(gram: Array, w: Array) -> tuple[Array, Array]:
    """(alignment, dispersion) of each effect with the weighted mean effect of the others, all (N,).

    gram: (N, N) inner products of effects. w: (N,) weights that sum to 1. Where the others' mean vanishes, alignment is 0.
    """
    own = np.diag(gram)
    along = gram @ w
    with_others = along - w * own
    others = np.sqrt(np.maximum(w @ along - 2 * w * along + w * w * own, 0.0))
    floor = 1e-12 * np.sqrt(max(float(own.max()), 0.0))
    projection = np.divide(with_others, others, out=np.zeros_like(own), where=others > floor)
    length = np.sqrt(own)
    alignment = np.divide(projection, length, out=np.zeros_like(own), where=length > floor)
    return alignment, np.maximum(own - projection**2, 0.0)


def standard(values: Array) -> Array:
    """Standard scores with the population's standard deviation; 0 if the values do not differ."""
    centred = values - values.mean()
    sd = float(centred.std())
    return np.asarray(centred / sd) if sd > 1e-9 * float(np.abs(values).max(initial=0.0)) else np.zeros_like(centred)


def _second_pass(scores: Array, beta: float, scope: NDArray[np.bool_], gram: Array | None) -> Array:
    """Z(alignment) − Z(dispersion) over `scope`, (N,), 0 elsewhere; the mean effect has the weights of pass 1."""
    found = np.zeros(len(scores))
    if gram is not None:
        w = _softmax(beta * scores[scope], np.ones(int(scope.sum()), dtype=bool))
        alignment, dispersion = compatibility(gram[np.ix_(scope, scope)], w)
        found[scope] = standard(alignment) - standard(dispersion)
    return found


def _softmax(logits: Array, scope: NDArray[np.bool_]) -> Array:
    masked = np.where(scope, logits, -np.inf)
    w = np.exp(masked - masked.max())
    return np.asarray(w / w.sum())
