"""A synthetic record of any size and fortune: what a study would write, from a seeded generator, no model."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from seedfold.config import from_dict


def record(
    candidates: int = 64,
    examples: int = 128,
    votes: Sequence[int] = (1, 2, 4, 8),
    sigmas: Sequence[float] = (5e-4, 1e-3, 2e-3),
    gain: float = 0.05,
    edge: float = 0.03,
    racing: bool = False,
    selected: bool = True,
    spread: float = 0.02,
    seed: int = 0,
) -> dict[str, Any]:
    """A record.

    gain: the vote's true gain over the base; edge: its lead over self-consistency; spread: standard deviation of the
    candidates' true accuracies (0: all candidates and all their scores are equal).
    """
    draw = random.Random(seed)
    base, n = 0.40, 2 * examples
    votes = sorted(k for k in votes if k <= candidates) or [1]
    chosen = votes[-1]
    population = [_candidate(draw, i, base, examples, sigmas[i % len(sigmas)], spread) for i in range(candidates)]
    if racing:
        for candidate in population[::2]:
            candidate["examples"] = examples // 2
    for rank, candidate in enumerate(sorted(population, key=lambda one: -one["shrunk"]), 1):
        candidate["rank"] = rank
        if rank <= max(votes):
            candidate["recipe"] = f"recipes/rank-{rank:02d}.json"
            if selected:
                true = base + (candidate["shrunk"] - base) * 0.5
                candidate["select"] = _share(draw, true, examples) if spread else base
    scores = [candidate["search"] for candidate in population]
    results = [
        _result("base", "base", 1, n, base, None),
        _result("best single", "single", 1, n, base + (gain if chosen == 1 else gain / 2), base),
        _result(f"vote of {chosen}", "vote", chosen, n, base + gain, base),
        _result(f"self-consistency of {chosen}", "self-consistency", chosen, n, base + gain - edge, base),
    ]
    config = {
        "name": "sample",
        "search": {"candidates": candidates, "votes": list(votes), "sigmas": list(sigmas), "racing": racing},
    }
    return {
        "format": "seedfold.record/1",
        "name": "arithmetic, SmolLM2-135M",
        "created": "2026-03-01T12:00:00+00:00",
        "versions": {"seedfold": "0.1.0", "python": "3.11.7", "torch": "2.8.0", "transformers": "5.0.0"},
        "config": from_dict(config).to_dict(),
        "model": {"name": "smollm2-135m", "revision": "", "fingerprint": "9f2c61d0a4e8b753", "dtype": "bfloat16"},
        "machine": {"device": "cpu", "threads": 2, "exact": True},
        "evaluations": candidates * examples + (2 * chosen + 1) * n,
        "tokens": 1_234_567,
        "prompt_tokens": 987_654,
        "seconds": 3725.0,
        "splits": {"search": examples, "select": examples, "gate": 0, "test": n},
        "results": results,
        "comparison": {
            "vote against self-consistency": {"difference": edge, "ci95": [edge - 0.04, edge + 0.04], "p": _p(edge)}
        },
        "candidates": population,
        "base": {"search": base, "select": base + 0.01, "test": base},
        "search": {
            "examples": examples // 2 if racing else examples,
            "reliability": 0.34 if spread and candidates > 1 else 0.0,
            "prior_mean": sum(scores) / len(scores),
            "prior_sd": spread,
            "lead": max(scores) - base,
            "chance_mean": 0.061 if spread else 0.0,
            "chance_high": 0.094 if spread else 0.0,
            "by_sigma": [_group(population, sigma, base) for sigma in sigmas[:candidates]],
        },
        "votes": [_vote(k, base, gain, edge) for k in votes],
        "chosen_k": chosen,
        "racing": _racing(candidates, examples) if racing else None,
        "progress": _progress(population),
    }


def _share(draw: random.Random, chance: float, n: int) -> float:
    return sum(draw.random() < chance for _ in range(n)) / n


def _candidate(
    draw: random.Random, number: int, base: float, examples: int, sigma: float, spread: float
) -> dict[str, Any]:
    true = base - 10 * sigma + spread * draw.gauss(0, 1)
    score = _share(draw, true, examples) if spread else base
    return {
        "seed": draw.getrandbits(63),
        "scale": sigma if number % 2 else -sigma,
        "family": "rademacher",
        "search": score,
        "se": 0.03,
        "shrunk": base - 0.01 + 0.34 * (score - base + 0.01) if spread else base,
        "examples": examples,
        "select": None,
        "lenient": min(1.0, score + 0.03),
        "truncated": number % 3,
        "recipe": None,
        "rank": 0,
    }


def _result(method: str, kind: str, k: int, n: int, accuracy: float, base: float | None) -> dict[str, Any]:
    gain = None if base is None else accuracy - base
    return {
        "method": method,
        "kind": kind,
        "split": "test",
        "k": k,
        "passes": k,
        "n": n,
        "accuracy": accuracy,
        "interval": [max(0.0, accuracy - 0.06), min(1.0, accuracy + 0.06)],
        "difference": gain,
        "ci95": None if gain is None else [gain - 0.04, gain + 0.04],
        "p": None if gain is None else _p(gain),
        "fixed": None if gain is None else 20 + max(0, round(gain * n)),
        "broken": None if gain is None else 20 - min(0, round(gain * n)),
        "strict": accuracy,
        "lenient": accuracy + 0.03,
        "format_gain": None if gain is None else gain / 4,
        "substance_gain": None if gain is None else 3 * gain / 4,
        "truncated": 3 * k,
        "answers": n * k,
        "evaluations": {"single": 8_320, "vote": 10_496}.get(kind, 0),
        "recipes": [f"recipes/rank-{rank:02d}.json" for rank in range(1, k + 1)] if kind in ("single", "vote") else [],
    }


def _p(difference: float) -> float:
    """Two-sided, of a normal difference whose 95 % interval is 4 points to either side."""
    return math.erfc(abs(difference) / (0.04 / 1.96) / math.sqrt(2))


def _group(population: list[dict[str, Any]], sigma: float, base: float) -> dict[str, Any]:
    scores = [one["search"] for one in population if abs(one["scale"]) == sigma]
    return {
        "sigma": sigma,
        "n": len(scores),
        "mean": sum(scores) / len(scores),
        "sd": 0.04 if len(scores) > 1 else None,
        "best": max(scores),
        "share_above_base": sum(score > base for score in scores) / len(scores),
    }


def _vote(k: int, base: float, gain: float, edge: float) -> dict[str, Any]:
    share = 1 - 1 / (2 * k)
    voted, sampled = base + gain * share, base + (gain - edge) * share - 0.01
    return {
        "k": k,
        "split": "select",
        "vote": voted,
        "vote_ci95": [voted - 0.08, voted + 0.08],
        "self_consistency": sampled,
        "self_consistency_ci95": [sampled - 0.08, sampled + 0.08],
    }


def _racing(candidates: int, examples: int) -> dict[str, Any]:
    rounds = [(candidates, examples // 2), ((candidates + 1) // 2, examples)]
    spent = sum(count * (examples // 2) for count, _ in rounds)
    full = candidates * examples
    return {
        "evaluated": spent,
        "full": full,
        "saved": 1 - spent / full,
        "rounds": [{"candidates": count, "examples": answered} for count, answered in rounds],
    }


def _progress(population: list[dict[str, Any]]) -> list[list[float]]:
    spent, best, points = 0, 0.0, []
    for candidate in population:
        spent += candidate["examples"]
        best = max(best, candidate["search"])
        points.append([spent, best])
    return points
