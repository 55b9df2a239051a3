"""The record: every number of a study in one JSON file, from which the report and the result lines are made."""

from __future__ import annotations

import datetime
import json
import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seedfold import __version__, stats
from seedfold.search import racing

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.engines.base import Engine
    from seedfold.folds import Fold
    from seedfold.journal import Journal, Row
    from seedfold.splits import Dealt, Splits
    from seedfold.study import Outcome, Scored

FORMAT = "seedfold.record/1"
TIMES = ("created", "seconds")
"""Fields that differ between two runs of the same study; all the others are equal."""


def build(
    config: Config,
    engine: Engine,
    journal: Journal,
    splits: Splits,
    scored: Scored,
    selected: dict[str, list[Row]],
    votes: list[dict[str, Any]],
    chosen: int,
    final: list[Outcome],
    folded: list[Fold],
) -> dict[str, Any]:
    """Assemble the record. Accuracies and differences are fractions of one; `passes` are forward passes per answer.

    `evaluations` and `tokens` of a result line are what it took to find the method, the answers to test left out.
    """
    evaluations, tokens, prompt_tokens = journal.totals()
    machine = engine.describe()
    base = final[0]
    return {
        "format": FORMAT,
        "name": config.name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "versions": {
            "seedfold": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": machine.pop("torch"),
            "transformers": machine.pop("transformers"),
        },
        "machine": machine,
        "config": config.to_dict(),
        "model": {
            "name": config.model.name,
            "revision": config.model.revision,
            "fingerprint": engine.fingerprint,
            "dtype": engine.dtype,
        },
        "evaluations": evaluations,
        "tokens": tokens,
        "prompt_tokens": prompt_tokens,
        "splits": {name: len(getattr(splits, name)) for name in ("search", "select", "gate", "test")},
        "results": [
            result(outcome, base, config) | cost
            for outcome, cost in zip(final, _costs(config, journal, splits, scored, selected, folded), strict=True)
        ],
        "folds": [fold.to_dict() for fold in folded],
        "comparison": {"vote against self-consistency": compared(final[2], final[3], config)},
        "base": {
            "search": _mean(scored.base),
            "select": _mean(selected[scored.base[0].recipe]),
            "test": float(np.mean([grade.strict for grade in base.grades])),
        },
        "candidates": _candidates(scored, selected, config),
        "search": _search(scored, config),
        "votes": votes,
        "chosen_k": chosen,
        "racing": _racing(scored, config),
        "progress": _progress(scored),
    }


def result(outcome: Outcome, base: Outcome, config: Config) -> dict[str, Any]:
    """A result line: accuracy, and the paired difference to the base with its interval and p."""
    from seedfold.study import interval

    strict = float(np.mean([grade.strict for grade in outcome.grades]))
    lenient = float(np.mean([grade.lenient for grade in outcome.grades]))
    line: dict[str, Any] = {
        "method": outcome.method,
        "kind": outcome.kind,
        "split": "test",
        "k": outcome.k,
        "passes": outcome.k,
        "n": len(outcome.grades),
        "accuracy": strict,
        "interval": _finite(interval(outcome.grades, config)),
        "strict": strict,
        "lenient": lenient,
        "answers": len(outcome.rows),
        "truncated": sum(row.finish == "length" for row in outcome.rows),
        "recipes": list(outcome.files),
        "difference": None,
        "ci95": None,
        "p": None,
        "fixed": None,
        "broken": None,
        "format_gain": None,
        "substance_gain": None,
    }
    if outcome.kind != "base":
        line |= compared(outcome, base, config)
        substance = lenient - float(np.mean([grade.lenient for grade in base.grades]))
        line |= {"substance_gain": substance, "format_gain": line["difference"] - substance}
    return line


def _costs(
    config: Config,
    journal: Journal,
    splits: Splits,
    scored: Scored,
    selected: dict[str, list[Row]],
    folded: list[Fold],
) -> list[dict[str, Any]]:
    """Answers and tokens spent to find each result, in their order: base, single, vote, self-consistency, folds.

    Dense scores cost the answers that the base draws to search; their prefills are no answers.
    """
    rows = [*scored.base, *(row for line in scored.rows for row in line if row is not None)]
    drawn: list[Row] = []
    if config.search.score != "reward" or (config.fold.methods and config.fold.score != "reward"):
        ids = [example.id for example in splits.search]
        drawn = [
            row for row in journal.rows(scored.base[0].recipe, examples=ids) if 0 < row.sample <= config.fold.samples
        ]
    if config.search.score != "reward":
        rows += drawn
    searched = (len(rows), sum(row.tokens for row in rows))
    chosen = [row for line in selected.values() for row in line]
    voted = (searched[0] + len(chosen), searched[1] + sum(row.tokens for row in chosen))
    # K is chosen by the vote, not by self-consistency, which costs nothing to find; evolution needs no population.
    scoring = searched
    if config.search.score == "reward":
        scoring = (searched[0] + len(drawn), searched[1] + sum(row.tokens for row in drawn))
    before = {"evolution": (0, 0), "released_corp": searched}
    folds = [
        (start[0] + fold.evaluations, start[1] + fold.tokens)
        for fold in folded
        for start in [before.get(fold.method, scoring)]
    ]
    return [{"evaluations": n, "tokens": t} for n, t in ((0, 0), searched, voted, (0, 0), *folds)]


def compared(outcome: Outcome, other: Outcome, config: Config) -> dict[str, Any]:
    """The paired difference of two methods on the same examples."""
    paired = stats.paired(
        [grade.strict for grade in outcome.grades],
        [grade.strict for grade in other.grades],
        level=config.stats.level,
        resamples=config.stats.resamples,
        seed=config.stats.seed,
    )
    return {
        "difference": paired.difference,
        "ci95": _finite([paired.lo, paired.hi]),
        "p": paired.p,
        "fixed": paired.fixed,
        "broken": paired.broken,
    }


def _candidates(scored: Scored, selected: dict[str, list[Row]], config: Config) -> list[dict[str, Any]]:
    from seedfold.search.population import seed_of, sigma_of
    from seedfold.study import rank_path

    written, sigmas, family = max(config.search.votes), config.search.sigmas, config.search.family
    rank = {number: place for place, number in enumerate(scored.ranking, 1)}
    lines = []
    for number, recipe in enumerate(scored.population):
        rows = [row for row in scored.rows[number] if row is not None]  # none with dense scores
        term = recipe.terms[0]
        # A subspace's candidate is several terms, whose size together is its sigma.
        scale = term.scale if len(recipe.terms) == 1 else sigma_of(recipe, sigmas)
        select = selected.get(recipe.key)
        lines.append(
            {
                "seed": seed_of(recipe),
                "scale": scale,
                "family": family,
                "search": _mean(rows) if rows else None,
                "shrunk": float(scored.shrinkage.shrunk[number]) if rows else None,
                "se": _number(scored.shrinkage.se[number]) if rows else None,
                "nats": None if rows else float(scored.scores[number].mean() - scored.base_scores.mean()),
                "examples": len(rows) or scored.scores.shape[1],
                "select": None if select is None else _mean(select),
                "lenient": float(np.mean([row.lenient for row in rows])) if rows else None,
                "truncated": sum(row.finish == "length" for row in rows) if rows else None,
                "rank": rank[number],
                "recipe": rank_path(rank[number]) if rank[number] <= written else None,
                "key": recipe.key,
            }
        )
    return lines


def _search(scored: Scored, config: Config) -> dict[str, Any]:
    from seedfold.search.population import sigma_of

    if scored.dense is not None:
        assert scored.bank is not None
        return {
            "score": config.search.score,
            "examples": scored.scores.shape[1],
            "complete": len(scored.population),
            "texts": len(scored.bank.texts),
            "reliability": _number(scored.shrinkage.reliability),
        }
    rewards, base = scored.scores, scored.base_scores
    full = ~np.isnan(rewards).any(axis=1)
    # The best candidate's lead is compared with chance on the examples that everybody answered.
    common = ~np.isnan(rewards).any(axis=0)
    shared = rewards[:, common]
    chance_mean, chance_high = stats.chance_lead(shared, base[common], seed=config.stats.seed, level=config.stats.level)
    by_sigma = []
    for sigma in config.search.sigmas:
        group = [i for i, recipe in enumerate(scored.population) if sigma_of(recipe, config.search.sigmas) == sigma]
        if group:
            means = shared[group].mean(axis=1)
            by_sigma.append(
                {
                    "sigma": sigma,
                    "n": len(group),
                    "mean": float(means.mean()),
                    "sd": float(means.std(ddof=1)) if len(group) > 1 else None,
                    "best": float(means.max()),
                    "share_above_base": float((means > base[common].mean()).mean()),
                }
            )
    return {
        "score": config.search.score,
        "examples": int(common.sum()),
        "complete": int(full.sum()),
        "reliability": _number(scored.shrinkage.reliability),
        "prior_mean": _number(scored.shrinkage.prior_mean),
        "prior_sd": _number(scored.shrinkage.prior_sd),
        "lead": float(shared.mean(axis=1).max() - base[common].mean()),
        "chance_mean": _number(chance_mean),
        "chance_high": _number(chance_high),
        "by_sigma": by_sigma,
    }


def _racing(scored: Scored, config: Config) -> dict[str, Any] | None:
    if not config.search.racing:
        return None
    spent, full = racing.evaluations(scored.rounds), config.search.candidates * config.splits.search
    return {
        "evaluated": spent,
        "full": full,
        "saved": 1 - spent / full,
        "rounds": [{"candidates": count, "examples": answered} for count, answered in scored.rounds],
    }


def _progress(scored: Scored) -> list[list[float]]:
    """[answers spent, best mean so far], candidate by candidate; of those that answered everything that was asked."""
    spent, best, points = 0, -math.inf, []
    if scored.dense is not None:
        return []
    most = max(sum(row is not None for row in rows) for rows in scored.rows)
    for rows in scored.rows:
        answered = [row.reward for row in rows if row is not None]
        spent += len(answered)
        if len(answered) == most:
            best = max(best, float(np.mean(answered)))
        if best > -math.inf:
            points.append([spent, best])
    return points


def write(record: dict[str, Any], folder: Path, dealt: Dealt | None = None) -> None:
    """Write record.json and report.html, each whole or not at all; `dealt`: the study's task and splits."""
    from seedfold.report import page, parts

    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    parts.write(text, folder / "record.json")
    page.of_folder(record, folder, dealt)


def _mean(rows: list[Row]) -> float:
    return float(np.mean([row.reward for row in rows]))


def _number(value: float) -> float | None:
    """JSON has no infinities."""
    return float(value) if math.isfinite(value) else None


def _finite(values: list[float]) -> list[float] | None:
    return values if all(map(math.isfinite, values)) else None
