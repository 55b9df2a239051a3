"""CoRP as its authors' released code does it (arXiv:2605.31494), for comparison: every constant is a setting.

Geometry is in seed space, where a candidate is one axis, so alignment and dispersion repeat its own weight and σ. The
best of 126 updates on the probe is committed without a gate, and the local rounds' gate has z = 1, is met by 63
proposals at once, and its examples also scored the population. `corp` is the operator without these; what this one
reports about itself is too good, so its result has to be measured on `test` like any other.

Where the description leaves something open: the probe is the start of `select`; η starts at the scale that stage 1
committed; a local round merges its candidates by their select score, and is rejected if none scores above 0; the
standard deviation of the gate's differences has divisor n − 1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedfold.fold.attempt import Folded
from seedfold.fold.base import Array, Bench, Population, Proposal, Step, add, scaled, step_of
from seedfold.fold.settings import ReleasedCorp
from seedfold.recipe import Term
from seedfold.search.population import seed


@dataclass(frozen=True)
class Merge:
    """A merged direction with the top of its weighted covariance, in coefficient space."""

    axes: tuple[tuple[str, int], ...]
    mean: Array  # (A,) μ = Σ w² δ
    variances: Array  # (r,) λⱼ
    directions: Array  # (r, A) vⱼ, unit
    kappa: float  # ‖μ‖² / trace
    effective_rank: float  # exp(entropy of the whole spectrum)

    def step(self, scale: float) -> Step:
        """scale · ‖μ‖ · u, which is scale · μ."""
        return step_of(self.axes, scale * self.mean)


def run(population: Population, bench: Bench, settings: ReleasedCorp) -> Folded:
    """Stages 1 and 2 on a population that was scored on the whole of `search` (stage 0), around the pretrained base."""
    axes, matrix, rewards = population.axes, population.matrix.toarray(), population.rewards.mean(axis=1)
    probe = np.arange(min(settings.probe, bench.sizes["select"]))
    before = bench.spent

    # Stage 1: the sweep. No gate.
    grid = sweep(axes, matrix, rewards, settings)
    accuracy = bench.rewards([proposal.terms for proposal in grid], "select", probe).mean(axis=1)
    chosen = grid[int(accuracy.argmax())]
    pick = (chosen.settings["q"], chosen.settings["beta"])
    state = _State(
        centre=chosen.terms,
        merge=merge(axes, matrix, rewards, *pick, settings),
        sigma=best_sigma(population),
        eta=chosen.settings["scale"],
        lam=settings.lam,
    )
    details = [{"stage": 1, "proposal": dict(chosen.settings), "probe": float(accuracy.max())}]

    # Stage 2: local rounds.
    order = np.random.default_rng(settings.split_seed).permutation(bench.sizes["search"])
    select, gate = order[: len(order) // 2], order[len(order) // 2 :]
    accepted = rejected = 0
    for number in range(settings.rounds):
        if accepted >= settings.accepted or rejected >= settings.patience:
            break
        found = _round(number, state, bench, select, gate, probe, settings)
        details.append(found)
        if found["accepted"]:
            accepted, rejected = accepted + 1, 0
            state.sigma *= settings.sigma_up
        else:
            rejected += 1
            state.sigma *= settings.sigma_down
    return Folded(state.centre, (), bench.spent - before, tuple(details))


# The merge


def merge(
    axes: tuple[tuple[str, int], ...], matrix: Array, rewards: Array, q: float, beta: float, settings: ReleasedCorp
) -> Merge:
    """The two-pass merge of candidates with coefficients `matrix` (N, A) and mean rewards (N,)."""
    members, w = two_pass(matrix, rewards, q, beta, settings.tiny)
    return _weighted(axes, matrix[members], w, settings.rank)


def two_pass(matrix: Array, rewards: Array, q: float, beta: float, tiny: float) -> tuple[NDArray[np.intp], Array]:
    """(elite, its weights): softmax of βR, then of βR + z(alignment) − z(dispersion)."""
    elite = np.flatnonzero(rewards >= np.quantile(rewards, q))
    deltas, reward = matrix[elite], rewards[elite]
    m = _softmax(beta * reward) @ deltas
    length = float(np.linalg.norm(m))
    squares = (deltas**2).sum(axis=1)
    along = deltas @ m / length if length else np.zeros(len(elite))
    alignment = along / np.sqrt(squares)
    dispersion = np.maximum(squares - along**2, 0.0)
    return elite, _softmax(beta * reward + _z(alignment, tiny) - _z(dispersion, tiny))


def sweep(axes: tuple[tuple[str, int], ...], matrix: Array, rewards: Array, settings: ReleasedCorp) -> list[Proposal]:
    """Stage 1's proposals: q × β × scale."""
    found = []
    for q, beta in itertools.product(settings.quantiles, settings.betas):
        elite, w = two_pass(matrix, rewards, q, beta, settings.tiny)
        mean = w @ matrix[elite]
        for scale in settings.scales:
            terms = step_of(axes, scale * mean)
            found.append(Proposal(terms, "released_corp", {"q": q, "beta": beta, "scale": scale}))
    return found


def best_sigma(population: Population) -> float:
    """The size with the highest mean reward."""
    sizes = np.array([float(f"{size:.6g}") for size in population.sizes])
    return max(np.unique(sizes).tolist(), key=lambda size: float(population.rewards[sizes == size].mean()))


def _weighted(axes: tuple[tuple[str, int], ...], matrix: Array, w: Array, rank: int) -> Merge:
    """Weighted mean and the weighted, centred SVD."""
    mean = w @ matrix
    _, values, directions = np.linalg.svd(np.sqrt(w)[:, None] * (matrix - mean), full_matrices=False)
    spectrum = values**2
    trace = float(spectrum.sum())
    share = spectrum[spectrum > 0] / trace if trace else np.ones(1)
    return Merge(
        axes,
        mean,
        spectrum[:rank],
        directions[:rank],
        float(mean @ mean) / trace if trace else math.inf,
        math.exp(-float((share * np.log(share)).sum())),
    )


# The local rounds


@dataclass
class _State:
    centre: Step
    merge: Merge
    sigma: float
    eta: float
    lam: float


def _round(
    number: int,
    state: _State,
    bench: Bench,
    select: NDArray[np.intp],
    gate: NDArray[np.intp],
    probe: NDArray[np.intp],
    settings: ReleasedCorp,
) -> dict[str, Any]:
    """One local round; moves `state` if a proposal is accepted, and its λ and sampling distribution in any case."""
    told: dict[str, Any] = {"stage": 2, "round": number, "sigma": state.sigma, "lambda": state.lam, "accepted": False}
    base = bench.incumbent(state.centre, "search")
    steps = sample(number, state.merge, state.sigma, state.lam, settings)
    answers = bench.rewards([add(state.centre, step) for step in steps], "search", select)
    score = fixes_less_regressions(answers - base[select], settings.regression)
    positive = score > 0
    told["positive"] = float(positive.mean())
    state.lam = next_lambda(state.lam, told["positive"], settings)
    if not positive.any():
        return told

    local = Population(tuple(steps), answers, base[select])
    axes, matrix = local.axes, local.matrix.toarray()
    ess = schedule(number, settings)
    w = tempered(score[positive], min(float(positive.sum()), settings.ess_factor * ess))
    state.merge = _weighted(axes, matrix[positive], w, settings.rank)

    proposals = []
    for q, beta in itertools.product(settings.quantiles, settings.betas):
        elite, weights = two_pass(matrix, score, q, beta, settings.tiny)
        mean = weights @ matrix[elite]
        proposals += [(step_of(axes, state.eta * eta * mean), state.eta * eta) for eta in settings.etas]
    models = [add(state.centre, step) for step, _ in proposals]
    on_select = fixes_less_regressions(bench.rewards(models, "search", select) - base[select], settings.regression)
    difference = bench.rewards(models, "search", gate) - base[gate]
    passing = passes(difference, settings.z) & (fixes_less_regressions(difference, settings.regression) > 0)
    told["passing"] = int(passing.sum())
    if not passing.any():
        return told

    step, eta = proposals[int(np.where(passing, on_select, -np.inf).argmax())]
    tried = [add(state.centre, scaled(step, alpha)) for alpha in settings.line]
    on_probe = bench.rewards([state.centre, *tried], "select", probe)
    best = 1 + int(on_probe[1:].mean(axis=1).argmax())
    change = on_probe[best] - on_probe[0]
    if passes(change[None], settings.z)[0] and change.mean() >= 0:
        state.centre, state.eta = tried[best - 1], eta
        told.update(accepted=True, eta=eta, alpha=settings.line[best - 1], probe=float(on_probe[best].mean()))
    return told


def sample(number: int, merged: Merge, sigma: float, lam: float, settings: ReleasedCorp) -> list[Step]:
    """Local candidates σ√λ·ε + Σⱼ σ√(1−λ)·√λⱼ·zⱼ·vⱼ. λⱼ is of order σ² already, so the second part hardly counts."""
    rng = np.random.default_rng((settings.seed, number))
    z = rng.normal(size=(settings.candidates, len(merged.variances)))
    low_rank = sigma * math.sqrt(1 - lam) * (z * np.sqrt(merged.variances)) @ merged.directions
    return [
        add(
            (Term(settings.family, seed(settings.seed, number * settings.candidates + i), sigma * math.sqrt(lam)),),
            step_of(merged.axes, low_rank[i]),
        )
        for i in range(settings.candidates)
    ]


def fixes_less_regressions(difference: Array, regression: float) -> Array:
    """(fixes − regression · regressions) / n of each row of paired differences (k, n)."""
    return np.asarray(((difference > 0).sum(axis=1) - regression * (difference < 0).sum(axis=1)) / difference.shape[1])


def passes(difference: Array, z: float) -> NDArray[np.bool_]:
    """mean − z · sd / √n > 0, for each row of (k, n)."""
    n = difference.shape[1]
    sd = difference.std(axis=1, ddof=1) if n > 1 else np.zeros(len(difference))
    return np.asarray(difference.mean(axis=1) - z * sd / math.sqrt(n) > 0)


def next_lambda(lam: float, positive: float, settings: ReleasedCorp) -> float:
    """More isotropic the fewer candidates score above 0."""
    target = settings.lam_base + settings.lam_slope * (1 - positive)
    target = min(max(target, settings.lam_base), settings.lam_top)
    mixed = settings.lam_inertia * lam + (1 - settings.lam_inertia) * target
    return min(max(mixed, settings.lam_low), settings.lam_high)


def schedule(number: int, settings: ReleasedCorp) -> float:
    """The effective sample size of a round: from ess_start to ess_end, evenly in its logarithm."""
    share = number / (settings.rounds - 1) if settings.rounds > 1 else 0.0
    return settings.ess_start ** (1 - share) * settings.ess_end**share


def tempered(scores: Array, target: float) -> Array:
    """Softmax weights of the temperature, found by bisection, at which 1 / Σ w² is `target`."""
    centred = scores - scores.max()
    cold, hot = 1e-8, 1e8  # temperatures
    for _ in range(200):
        middle = math.sqrt(cold * hot)
        w = _softmax(centred / middle)
        cold, hot = (middle, hot) if 1 / float(w @ w) < target else (cold, middle)
    return w


def _softmax(logits: Array) -> Array:
    w = np.exp(logits - logits.max())
    return np.asarray(w / w.sum())


def _z(values: Array, tiny: float) -> Array:
    sd = float(values.std())
    return np.zeros_like(values) if sd < tiny else np.asarray((values - values.mean()) / sd)
