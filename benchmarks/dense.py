"""What dense scores are worth: their reliability, and what they tell of graded rewards on other examples, per second.

    python benchmarks/dense.py CONFIG.toml --out DIR [--set FIELD=VALUE …] [--json FILE]

Every candidate of the config answers search and select greedily and is graded, and scores search by log-probability as in
`fold.score`. For each score on search: its reliability across candidates of one size (`stats.shrink`); its correlation
with the graded mean reward on select, over the candidates centred by size, with a bootstrap interval over candidates; that
of an equal mixture of the graded and the dense score, both standardised; and the seconds it took per candidate. All texts
of the bank are scored together: a dense score's seconds are its share by the texts it weighs. DIR keeps what was computed:
the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from seedfold import config as settings
from seedfold import dense, stats
from seedfold.engines import opened
from seedfold.evaluate import Evaluator
from seedfold.journal import Journal
from seedfold.progress import Progress
from seedfold.recipe import Base
from seedfold.search.population import draw
from seedfold.splits import deal
from seedfold.study import base_recipe

RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(settings.load(arguments.config, arguments.set), arguments.out)
    print(
        f"{'score':24} {'examples':>8} {'reliability':>11} {'correlation with graded select':>32} {'s/candidate':>12}"
    )
    for row in rows:
        low, high = row["interval"]
        told = f"{row['correlation']:+.2f} [{low:+.2f}, {high:+.2f}]"
        print(
            f"{row['score']:24} {row['examples']:>8} {_shown(row['reliability']):>11} {told:>32} "
            f"{_shown(row['seconds']):>12}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def measure(config: settings.Config, folder: Path) -> list[dict[str, Any]]:
    """A row per score."""
    dealt, progress = deal(config), Progress()
    with Journal.open(folder, config.binding()) as journal, opened(config.model, config.engine) as engine:
        evaluator = Evaluator(engine, dealt.task, journal, progress)
        base = base_recipe(config, engine)
        population = draw(
            config.search, Base(config.model.name, config.model.revision, engine.fingerprint), engine.dtype, {}
        )
        recipes = [base, *population]

        def timed(name: str, call: Any) -> Any:
            """Seconds are noted once: a run that goes on finds the answers and takes none."""
            start = time.monotonic()
            value = call()
            if journal.noted(name) is None:
                journal.note(name, time.monotonic() - start)
            return value

        progress.expect(len(recipes) * (config.splits.search + config.splits.select))
        progress.enter("select")
        held_out = graded(evaluator, recipes, dealt.splits.select)
        progress.enter("search")
        rewards = timed("graded seconds", lambda: graded(evaluator, recipes, dealt.splits.search))
        bank = dense.draw(evaluator, base, dealt.splits.search, config.fold.samples, config.engine.temperature)
        progress.enter("log-probabilities")
        table = timed("dense seconds", lambda: dense.logprobs(evaluator, bank, recipes, folder))
        graded_took, dense_took = (journal.noted(f"{name} seconds") / len(recipes) for name in ("graded", "dense"))
        progress.close()
    groups = np.array([config.search.sigmas.index(abs(recipe.terms[0].scale)) for recipe in population])
    target = centred((held_out[1:] - held_out[0]).mean(axis=1), groups)
    effects = {"graded reward": rewards[1:] - rewards[0]}
    effects |= {
        f"log-probability, {kind}": (found := dense.scores(bank, table, kind))[1:] - found[0] for kind in dense.KINDS
    }
    took = {"graded reward": graded_took} | {
        f"log-probability, {kind}": dense_took * len(bank.of(kind).texts) / len(bank.texts) for kind in dense.KINDS
    }
    means = {name: centred(values.mean(axis=1), groups) for name, values in effects.items()}
    rows = []
    for name, values in effects.items():
        reliability = stats.shrink(values, groups).reliability
        rows.append(row(name, values.shape[1], reliability, means[name], target, took[name]))
        if name != "graded reward":
            both = means["graded reward"] / means["graded reward"].std() + means[name] / means[name].std()
            rows.append(row(f"graded + {name[17:]}", values.shape[1], None, both, target, graded_took + took[name]))
    return rows


def graded(evaluator: Evaluator, recipes: Any, examples: Any) -> np.ndarray:
    """(recipes, examples) rewards."""
    return np.array([[row.reward for row in line] for line in evaluator.greedy_many(recipes, examples)])


def centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Less the mean of each group."""
    return values - np.array([values[groups == group].mean() for group in groups])


def row(name: str, examples: int, reliability: float | None, x: np.ndarray, y: np.ndarray, seconds: float) -> Any:
    """Pearson's correlation with a percentile bootstrap interval over candidates."""
    rng = np.random.default_rng(0)
    draws = [np.corrcoef(x[pick], y[pick])[0, 1] for pick in rng.integers(len(x), size=(RESAMPLES, len(x)))]
    return {
        "score": name,
        "examples": examples,
        "reliability": reliability,
        "correlation": float(np.corrcoef(x, y)[0, 1]),
        "interval": [float(value) for value in np.nanquantile(draws, [0.025, 0.975])],
        "seconds": seconds,
    }


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
