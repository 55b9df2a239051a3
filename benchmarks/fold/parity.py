"""How much of a perturbation's effect turns its sign with it: what a sum of signed steps can use, and what it cannot.

    python benchmarks/fold/parity.py CONFIG.toml --out DIR [--set FIELD=VALUE …] [--json FILE]

Every candidate of the config is answered twice on search, as drawn and with the opposite sign. With e₊ and e₋ their
effects, the odd part (e₊ − e₋) / 2 adds up in a sum of signed steps; the even part (e₊ + e₋) / 2, curvature, does not,
though it comes again on other examples. v and e are their variances over candidates of one size, n the variance that chance
adds to one candidate's mean, all by a two-way analysis of variance. From them:

odd share   v / (v + e): what comes of the linear fold's forecast, which takes all that is reliable for odd
pairs       √((v + e + n) / (2v + n)): gain of a fold of N / 2 antithetic pairs over one of N independent seeds

Then the linear fold itself, of the candidates as drawn and of the pairs, both ways along its direction, on select and
gate: the odd and the even part of its effect and the whole, the gain, paired, with 95 % intervals, beside what is forecast
of each (slope, curvature, forecast). A step of 1 is the size of the median candidate.

Intervals of the first table are percentiles of a bootstrap over candidates. DIR keeps the answers: the same command goes
on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seedfold import config as settings
from seedfold.engines import opened
from seedfold.evaluate import Evaluator
from seedfold.fold import linear
from seedfold.fold.base import Population
from seedfold.journal import Journal
from seedfold.progress import Progress
from seedfold.recipe import Base, Recipe
from seedfold.search.population import draw
from seedfold.splits import deal
from seedfold.study import base_recipe

RESAMPLES = 2000
STEPS = (0.25, 0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = settings.load(arguments.config, arguments.set)
    pairs, examples = config.search.candidates, config.splits.search
    config = replace(config, search=replace(config.search, candidates=2 * pairs, antithetic=True))
    effects, folds = measure(config, arguments.out)
    rows = []
    print(f"{pairs} candidates, {examples} examples; standard deviations in points of a mean over the examples")
    print(f"{'sigma':>8} {'seeds':>6} {'mean':>6} {'odd':>6} {'even':>6} {'chance':>7} {'odd share':>24} {'pairs':>22}")
    for sigma in config.search.sigmas:
        place = [i for i in range(pairs) if config.search.sigmas[i % len(config.search.sigmas)] == sigma]
        rows.append({"sigma": sigma, "seeds": len(place)} | row(effects[place, 0], effects[place, 1]))
        sd = {name: 100 * rows[-1][name] ** 0.5 for name in ("odd", "even", "chance")}
        print(
            f"{sigma:>8} {len(place):>6} {100 * rows[-1]['mean']:>+6.1f} {sd['odd']:>6.2f} {sd['even']:>6.2f} "
            f"{sd['chance']:>7.2f} {told(rows[-1]['odd share']):>24} {told(rows[-1]['pairs']):>22}"
        )
    print(
        f"\n{'fold of':8} {'step':>5} {'slope':>6} {'odd':>21} {'curvature':>10} {'even':>21} {'forecast':>9} {'gain':>21}"
    )
    for line in folds:
        print(
            f"{line['fold']:8} {line['step']:>5} {100 * line['slope']:>+6.1f} {points(line['odd']):>21} "
            f"{100 * line['curvature']:>+10.1f} {points(line['even']):>21} "
            f"{100 * line['forecast']:>+9.1f} {points(line['gain']):>21}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"candidates": rows, "folds": folds}, indent=1))


def measure(config: settings.Config, folder: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """(pairs, 2, examples) effects, those of the candidates as drawn first; and a line for each fold and step."""
    dealt, progress = deal(config), Progress()
    with Journal.open(folder, config.binding()) as journal, opened(config.model, config.engine) as engine:
        evaluator = Evaluator(engine, dealt.task, journal, progress)
        named = Base(config.model.name, config.model.revision, engine.fingerprint)
        recipes = [base_recipe(config, engine), *draw(config.search, named, engine.dtype, {})]
        held_out = [*dealt.splits.select, *dealt.splits.gate]
        progress.expect(len(recipes) * config.splits.search + (1 + 4 * len(STEPS)) * len(held_out))
        progress.enter("search")
        rewards = graded(evaluator, recipes, dealt.splits.search)
        whole = Population(tuple(recipe.terms for recipe in recipes[1:]), rewards[1:], rewards[0])
        drawn = Population(whole.terms[::2], rewards[1::2], rewards[0])
        progress.enter("folds")
        folds = [
            line
            for name, population in (("as drawn", drawn), ("pairs", whole))
            for line in along(name, population, evaluator, recipes[:2], held_out)
        ]
        progress.close()
    return (rewards[1:] - rewards[0]).reshape(-1, 2, rewards.shape[1]), folds


def along(
    name: str, population: Population, evaluator: Evaluator, known: list[Recipe], held_out: list[Any]
) -> list[dict[str, Any]]:
    """The population's linear fold at each step and its opposite. known: the base, and a candidate for its settings."""
    base, candidate = known
    sizes = [step * population.size for step in STEPS]
    both = [population.combine(sign * population.slopes, size) for size in sizes for sign in (1, -1)]
    rewards = graded(evaluator, [base, *(replace(candidate, terms=terms, source={}) for terms in both)], held_out)
    effects = (rewards[1:] - rewards[0]).reshape(len(STEPS), 2, -1)
    forecasts = [linear.forecast(population, size) for size in sizes]
    return [
        {"fold": name, "step": step, "slope": said.slope, "curvature": said.curvature, "forecast": said.gain}
        | {"odd": interval((plus - minus) / 2), "even": interval((plus + minus) / 2), "gain": interval(plus)}
        for step, said, (plus, minus) in zip(STEPS, forecasts, effects, strict=True)
    ]


def graded(evaluator: Evaluator, recipes: list[Recipe], examples: list[Any]) -> np.ndarray:
    """(recipes, examples) rewards."""
    return np.array([[row.reward for row in line] for line in evaluator.greedy_many(recipes, examples)])


def interval(values: np.ndarray) -> list[float]:
    """Mean and its 95 % interval, by the normal approximation: hundreds of examples."""
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return [mean, mean - half, mean + half]


def row(plus: np.ndarray, minus: np.ndarray) -> dict[str, Any]:
    """What candidates of one size say; plus, minus: (candidates, examples)."""
    odd, even = (plus - minus) / 2, (plus + minus) / 2
    drawn = np.random.default_rng(0).integers(len(plus), size=(RESAMPLES, len(plus)))
    again = [shares(*variances(odd[pick], even[pick])) for pick in drawn]
    low, high = np.nanquantile(again, [0.025, 0.975], axis=0)
    found = variances(odd, even)
    v, e, n = found
    return {"mean": float(even.mean()), "odd": v, "even": e, "chance": n} | {
        name: [value, float(low[i]), float(high[i])]
        for i, (name, value) in enumerate(zip(("odd share", "pairs"), shares(*found), strict=True))
    }


def variances(odd: np.ndarray, even: np.ndarray) -> tuple[float, float, float]:
    """(v, e, n). The mean of a pair has half the chance of one candidate's mean."""
    (v, of_odd), (e, of_even) = spread(odd), spread(even)
    return v, e, of_odd + of_even


def spread(values: np.ndarray) -> tuple[float, float]:
    """(variance of the rows' true means, variance that chance adds to each): rows and columns have effects of their own."""
    count, examples = values.shape
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    noise = float((left**2).sum() / ((count - 1) * (examples - 1)) / examples)
    return max(0.0, float(values.mean(axis=1).var(ddof=1)) - noise), noise


def shares(v: float, e: float, n: float) -> tuple[float, float]:
    """(odd share, gain of pairs); not a number where nothing comes again."""
    if v + e == 0:
        return float("nan"), float("nan")
    return v / (v + e), ((v + e + n) / (2 * v + n)) ** 0.5


def points(values: list[float]) -> str:
    mean, low, high = (100 * value for value in values)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def told(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
