"""What the fold can be told: one frozen dataclass per operator, documented as in `seedfold.config`.

Kept apart from the operators, so that reading a config loads no numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from seedfold.errors import UserError
from seedfold.settings import above_zero, at_least, each, fraction, one_of, seed64, setting


def share(value: float) -> str | None:
    return None if 0 <= value < 1 else "use a number of at least 0 and below 1"


def factor_up(value: float) -> str | None:
    return None if math.isfinite(value) and value >= 1 else "use a number of at least 1"


def factor_down(value: float) -> str | None:
    return None if 0 < value <= 1 else "use a number above 0 and at most 1"


def below_half(value: float) -> str | None:
    return None if 0 < value < 0.5 else "use a number above 0 and below 0.5"


def meetings(updates: int, every: int) -> int:
    """Tests of the gate, one every so many updates and one of what is left at the end; 0: that one alone."""
    return math.ceil(updates / every) if every else 1


def nonempty_shares(values: Any) -> str | None:
    return each(share)(values)


@dataclass(frozen=True)
class Gate:
    level: float = setting(
        0.05, "chance, over the whole run and all its methods, that any useless update is committed", below_half
    )
    proposals: int = setting(
        0,
        "proposals of a method that may meet the gate; more of them make the test of each stricter; 0: as many as its "
        "settings can come to",
        at_least(0),
    )
    span: float = setting(1.0, "range of a reward (greatest minus least); graded rewards are bounded by it", above_zero)

    def planned(self, tests: int) -> Gate:
        """The gate of a method that comes to it so many times at most."""
        return replace(self, proposals=self.proposals or tests)


@dataclass(frozen=True)
class Race:
    block: int = setting(32, "select examples that all proposals answer; each later round doubles them", at_least(1))
    keep: float = setting(0.5, "share of the proposals that goes on after each round", fraction)


@dataclass(frozen=True)
class Linear:
    steps: tuple[float, ...] = setting(
        (0.25, 0.5, 1.0, 2.0, 4.0), "sizes of the update, in units of one (median) perturbation's", each(above_zero)
    )


@dataclass(frozen=True)
class Corp:
    quantiles: tuple[float, ...] = setting(
        (0.0, 0.5, 0.8), "q: the elite are the candidates from this quantile of the score up", nonempty_shares
    )
    betas: tuple[float, ...] = setting(
        (0.0, 1.0), "softmax's inverse temperature, per standard deviation of the score", each(at_least(0))
    )
    steps: tuple[float, ...] = setting(
        (0.25, 0.5, 1.0, 2.0, 4.0), "sizes of the update, in units of one (median) perturbation's", each(above_zero)
    )
    weights: tuple[str, ...] = setting(
        ("signed", "positive"),
        "positive: the elite's softmax; signed: that minus the whole population, of which linear is the limit",
        each(one_of("signed", "positive")),
    )
    geometry: tuple[str, ...] = setting(
        ("none", "behaviour"),
        "where alignment and dispersion of the second pass are taken: behaviour (effects on the examples), weights "
        "(coefficients of the seeds), or none (one pass)",
        each(one_of("none", "behaviour", "weights")),
    )


@dataclass(frozen=True)
class Local:
    rounds: int = setting(3, "local rounds at most; 0: only the first update", at_least(0))
    patience: int = setting(2, "stop after this many rejected rounds in a row", at_least(1))
    candidates: int = setting(64, "candidates sampled in a round", at_least(2))
    gate_every: int = setting(
        0,
        "updates, the first included, between tests of the gate; 0: one test at the end. Until then rounds go on from "
        "what select likes",
        at_least(0),
    )
    budget: int = setting(0, "evaluations (answers) that local rounds may spend; 0: no limit", at_least(0))
    sigma: float = setting(0.0, "size of a local candidate's step; 0: the population's median", at_least(0))
    sigma_up: float = setting(1.25, "sigma is multiplied by this after an accepted round", factor_up)
    sigma_down: float = setting(0.7, "sigma is multiplied by this after a rejected round", factor_down)
    rank: int = setting(0, "rank of the rewarded covariance; 0: as many directions as reproduce", at_least(0))
    max_rank: int = setting(8, "greatest rank that the automatic choice tries", at_least(1))
    floor: float = setting(
        0.0,
        "least isotropic share of the sampling energy; 0: the share of the directions that does not reproduce",
        share,
    )
    elite: float = setting(0.5, "quantile of the score from which candidates shape the covariance", share)
    family: str = setting("rademacher", "noise family of the isotropic part")
    seed: int = setting(1, "the local candidates' seeds grow from this one", seed64)

    @property
    def tests(self) -> int:
        """Times that the gate is met at most."""
        return meetings(self.rounds + 1, self.gate_every)


@dataclass(frozen=True)
class Evolution:
    iterations: int = setting(50, "updates", at_least(1))
    candidates: int = setting(30, "perturbed models per update (even with antithetic)", at_least(2))
    sigma: float = setting(0.0, "standard deviation of the noise; 0: the population's median", at_least(0))
    rate: float = setting(
        0.0,
        "learning rate alpha: update = alpha / n * sum of normalised reward * noise; 0: half of sigma",
        at_least(0),
    )
    antithetic: bool = setting(True, "draw +noise and -noise in pairs")
    batch: int = setting(32, "search examples per update, taken in turn; 0: all", at_least(0))
    gate_every: int = setting(0, "updates between proposals to the gate; 0: only at the end", at_least(0))
    family: str = setting("rademacher", "noise family")
    seed: int = setting(2, "the noise seeds grow from this one", seed64)

    @property
    def tests(self) -> int:
        """Times that the gate is met: also at the end, where the last updates have not met it."""
        return meetings(self.iterations, self.gate_every)

    def sized(self, size: float) -> Evolution:
        """With sigma and rate. size: the population's median candidate's."""
        sigma = self.sigma or size
        return replace(self, sigma=sigma, rate=self.rate or sigma / 2)

    def __post_init__(self) -> None:
        if self.antithetic and self.candidates % 2:
            raise UserError(
                f'"fold.evolution.candidates" is {self.candidates}, which is odd, but "antithetic" draws pairs; use an '
                "even number"
            )


@dataclass(frozen=True)
class ReleasedCorp:
    quantiles: tuple[float, ...] = setting((0.5, 0.7, 0.9), "elite quantiles of the merge", nonempty_shares)
    betas: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0), "softmax's inverse temperatures, per unit of reward", each(at_least(0))
    )
    scales: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), "multiples of the merged direction swept in stage 1", each(above_zero)
    )
    probe: int = setting(100, "examples of select that stage 1 and the line search use; at most all", at_least(1))
    rank: int = setting(8, "directions kept of the weighted covariance", at_least(1))
    tiny: float = setting(1e-12, "standard deviation below which a standard score is 0", at_least(0))
    rounds: int = setting(3, "local rounds at most", at_least(0))
    accepted: int = setting(2, "stop after this many accepted rounds", at_least(1))
    patience: int = setting(2, "stop after this many rejected rounds in a row", at_least(1))
    split_seed: int = setting(59, "seed (42 + 17) that halves the support examples into select and gate", seed64)
    candidates: int = setting(100, "local candidates per round", at_least(1))
    regression: float = setting(2.0, "what a broken answer costs against a fixed one", at_least(0))
    lam: float = setting(0.5, "isotropic share of local sampling at the start", fraction)
    lam_base: float = setting(0.15, "least target of lambda, with every candidate positive", share)
    lam_slope: float = setting(
        0.8, "what the share of candidates that are not positive adds to the target", at_least(0)
    )
    lam_top: float = setting(0.95, "greatest target of lambda", fraction)
    lam_low: float = setting(0.05, "least lambda", share)
    lam_high: float = setting(0.95, "greatest lambda", fraction)
    lam_inertia: float = setting(0.5, "share of the old lambda in the new", share)
    ess_start: float = setting(16.0, "effective sample size aimed at in the first round", above_zero)
    ess_end: float = setting(4.0, "effective sample size aimed at in the last round", above_zero)
    ess_factor: float = setting(2.0, "the target is at most this times the scheduled effective sample size", above_zero)
    etas: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0), "multiples of the current step proposed in a round", each(above_zero)
    )
    z: float = setting(1.0, "standard errors of the gate's and the probe's lower bound", at_least(0))
    line: tuple[float, ...] = setting((0.5, 1.0, 2.0), "multiples of the proposal in the line search", each(above_zero))
    sigma_down: float = setting(0.5, "sigma is multiplied by this after a rejected round", factor_down)
    sigma_up: float = setting(1.0, "after an accepted round; the code defines 1.25 and never applies it", factor_up)
    family: str = setting("gaussian", "noise family of the local candidates")
    seed: int = setting(42, "the local candidates' seeds grow from this one", seed64)


METHODS = ("linear", "corp", "evolution", "released_corp")


def known_methods(values: Any) -> str | None:
    if len(set(values)) < len(values):
        return "name each once"
    return each(one_of(*METHODS))(values) if values else None


@dataclass(frozen=True)
class Fold:
    methods: tuple[str, ...] = setting(
        (),
        "operators that fold the scored population into one model, after the search: linear, corp, evolution, "
        "released_corp; none: no fold",
        known_methods,
    )
    score: str = setting(
        "reward",
        "what scores the population for linear and corp: reward (graded greedy answers), or log-probabilities of the "
        "base's own sampled answers: reference (the right ones), advantage (right against wrong)",
        one_of("reward", "reference", "advantage"),
    )
    samples: int = setting(8, "reference, advantage: answers that the base draws to each search example", at_least(2))
    gate: Gate = field(default_factory=Gate)
    race: Race = field(default_factory=Race)
    linear: Linear = field(default_factory=Linear)
    corp: Corp = field(default_factory=Corp)
    local: Local = field(default_factory=Local)
    evolution: Evolution = field(default_factory=Evolution)
    released_corp: ReleasedCorp = field(default_factory=ReleasedCorp)

    @property
    def gated(self) -> tuple[str, ...]:
        """The methods whose updates meet the gate."""
        return tuple(method for method in self.methods if method != "released_corp")
