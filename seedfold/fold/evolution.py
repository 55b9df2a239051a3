"""Evolution strategies: many small steps along reward-weighted noise, the iterative baseline.

Salimans, Ho, Chen, Sidor, Sutskever 2017 (arXiv:1703.03864), with normalised rewards and no division by σ, as Qiu et al.
2025 (arXiv:2509.24372) use it on language models: θ ← θ + α / n · Σ zᵢ εᵢ, zᵢ the standard score of candidate i's reward
within its iteration. With antithetic pairs, ε and −ε answer the same examples.

Steps add up as recipe terms, one per seed ever drawn; nothing is rounded between them. θ wanders without a test and
meets the gate at the end, or every few updates, against the last committed model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seedfold.fold.attempt import Attempt, Folded, meet, verdicts
from seedfold.fold.base import Array, Bench, Proposal, Step, add, scaled
from seedfold.fold.settings import Evolution, Gate
from seedfold.recipe import Term
from seedfold.search.population import seed


def run(bench: Bench, settings: Evolution, gating: Gate) -> Folded:
    """Evolve from the pretrained base.

    Raises:
        ValueError: sigma or rate is 0, which stands for what `Evolution.sized` takes from a population.
    """
    if not (settings.sigma > 0 and settings.rate > 0):
        raise ValueError("evolution needs a sigma and a rate above 0; Evolution.sized takes them from a population")
    before, gating = bench.spent, gating.planned(settings.tests)
    committed: Step = ()
    walked: Step = ()
    attempts: list[Attempt] = []
    details: list[dict[str, Any]] = []
    for iteration in range(settings.iterations):
        noise = draw(settings, iteration)
        which = batch(settings, iteration, bench.sizes["search"])
        rewards = bench.rewards([add(walked, (term,)) for term in noise], "search", which).mean(axis=1)
        walked = add(walked, update(noise, rewards, settings))
        details.append({"iteration": iteration, "mean": float(rewards.mean()), "best": float(rewards.max())})
        last = iteration + 1 == settings.iterations
        if not (last or (settings.gate_every and (iteration + 1) % settings.gate_every == 0)):
            continue
        proposal = Proposal(add(walked, scaled(committed, -1.0)), "evolution", {"iterations": iteration + 1})
        attempts.append(Attempt(proposal, meet(bench, walked, committed, verdicts(attempts), gating)))
        if attempts[-1].committed:
            committed = walked
    return Folded(committed, tuple(attempts), bench.spent - before, tuple(details))


def draw(settings: Evolution, iteration: int) -> list[Term]:
    """The iteration's candidates, one term each; with `antithetic`, 2i and 2i + 1 are plus and minus the same noise."""
    pair = 2 if settings.antithetic else 1
    count = settings.candidates // pair
    return [
        Term(settings.family, seed(settings.seed, iteration * count + number), sign * settings.sigma)
        for number in range(count)
        for sign in (1, -1)[:pair]
    ]


def batch(settings: Evolution, iteration: int, examples: int) -> np.ndarray:
    """The examples that all candidates of an iteration answer: blocks of `search` in turn, round and round."""
    size = min(settings.batch or examples, examples)
    return (iteration * size + np.arange(size)) % examples


def update(noise: list[Term], rewards: Array, settings: Evolution) -> Step:
    """α / n · Σ zᵢ εᵢ; nothing if the rewards are all equal."""
    sd = float(rewards.std())
    if not sd > 1e-12:
        return ()
    z = (rewards - rewards.mean()) / sd
    pull = settings.rate / len(noise) * z / settings.sigma  # a term is σ · ε
    return add(*((term._replace(scale=term.scale * float(w)),) for term, w in zip(noise, pull, strict=True)))
