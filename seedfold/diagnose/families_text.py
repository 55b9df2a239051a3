"""What `seedfold diagnose families` prints. Rewards become points (hundredths), one decimal each."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from seedfold.config import Config
from seedfold.diagnose.families import POWER, Row
from seedfold.diagnose.text import chance, number, points, span, table, wrap
from seedfold.diagnose.trial import Trial

NAMES = {
    "mean": "the mean effect of a seed",
    "best": "the seed with the best search score",
    "quarter": "the mean of the best quarter of the seeds by search score",
    "fold": "a linear fold of one seed's size, as the effects imply it",
}


def families(trial: Trial, chosen: Config) -> str:
    """The whole output: sizes and effects, what search finds, the ranking, the comparisons, the verdict."""
    told, level = trial.told, chosen.stats.level
    many = f"{level:.0%}".replace("%", " %")
    sizes = len(told.rows) // len(told.places)
    search, held = trial.examples
    lines = [
        wrap(
            f"families: {chosen.model.name} on {chosen.task.name}; arms: {len(told.places)}, of {sizes} "
            f"sigma{'s' * (sizes > 1)} and {told.seeds} seeds each; {search} search and {held} {trial.split} examples, "
            f"{trial.answers:,} answers. Base: {trial.base[0]:.1%} on search, {trial.base[1]:.1%} on {trial.split}. Points "
            f"over the base on {trial.split}, {many} intervals; *: the sigma that search chose."
        ),
        "",
        _effects(trial),
        "",
        _found(trial),
        "",
        f"ranked by {NAMES[told.by]}",
        table(
            ["", "sigma", "gain", "interval", "p", "ranks left open"],
            [
                [
                    place.arm,
                    f"{place.sigma:g}",
                    points(place.gain.value),
                    span(place.gain.lo, place.gain.hi),
                    chance(place.gain.p),
                    str(place.lowest) if place.lowest == place.highest else f"{place.lowest} to {place.highest}",
                ]
                for place in told.places
            ],
        ),
    ]
    if told.pairs:
        lines += ["", _pairs(trial), "", wrap(verdict(trial, level))]
    return "\n".join([*lines, "", NOTE])


NOTE = (
    "step: norm of the change as a share of the base's norm, after rounding (before, where they differ by a tenth); of\n"
    "weights: share of the weights in tensors that it touches. sd: of the true effects, luck taken out. above base: share\n"
    "of seeds; without luck: of their true effects. best, quarter, fold: gains of what search chose; promised: by search."
)


def verdict(trial: Trial, level: float) -> str:
    """One or two sentences: what differs, or that no difference was found and how large one would have been."""
    told, alpha = trial.told, f"{1 - level:.2g}"
    found = told.found(level)
    many = len(told.pairs)
    count = f"{many} comparison{'s' * (many > 1)}"
    would = ""
    if not math.isnan(told.detectable):
        would = (
            f" A difference of about {100 * told.detectable:.1f} points would be found with a chance of {POWER:.0%} for "
            "the median pair."
        )
    if not found:
        return f"No difference between the arms was found at level {alpha} (Holm, {count}).{would}"
    which = "; ".join(f"{pair.one} above {pair.other} by {points(pair.difference.value)}" for pair in found)
    return f"Differences at level {alpha} (Holm, {count}): {which}.{would}"


def numbers(trial: Trial) -> dict[str, Any]:
    """Everything, in plain types."""
    told = trial.told
    rows = []
    for row in told.rows:
        key = row.arm, row.sigma
        rows.append(
            {
                **dataclasses.asdict(row),
                "size": dataclasses.asdict(trial.sizes[key]),
                "forecast": trial.forecasts[key],
                "fold": dataclasses.asdict(trial.folds[key]) if key in trial.folds else None,
            }
        )
    return {
        "by": told.by,
        "split": trial.split,
        "seeds": told.seeds,
        "base": {"search": trial.base[0], "held": trial.base[1]},
        "examples": {"search": trial.examples[0], "held": trial.examples[1]},
        "answers": trial.answers,
        "rows": rows,
        "places": [dataclasses.asdict(place) for place in told.places],
        "pairs": [dataclasses.asdict(pair) for pair in told.pairs],
        "detectable": told.detectable,
        "fold_pairs": [dataclasses.asdict(pair) for pair in trial.fold_pairs],
    }


def _name(trial: Trial, row: Row) -> list[str]:
    chosen = any((place.arm, place.sigma) == (row.arm, row.sigma) for place in trial.told.places)
    return [row.arm, ("*" if chosen else "") + f"{row.sigma:g}"]


def _effects(trial: Trial) -> str:
    rows = []
    for row in trial.told.rows:
        size = trial.sizes[row.arm, row.sigma]
        intended = f" ({size.intended:.2%})" if abs(size.realised - size.intended) > 0.1 * size.intended else ""
        r = row.reliability
        rows.append(
            [
                *_name(trial, row),
                f"{size.realised:.2%}{intended}",
                f"{size.touched:.0%}",
                points(row.mean.value),
                span(row.mean.lo, row.mean.hi),
                f"{100 * row.sd:.1f}",
                f"[{100 * row.sd_lo:.1f}, {100 * row.sd_hi:.1f}]",
                number(r.value),
                f"[{r.lo:+.2f}, {r.hi:+.2f}]",
            ]
        )
    head = ["", "sigma", "step", "of weights", "mean effect", "interval", "sd", "interval", "reliability", "interval"]
    return table(head, rows)


def _found(trial: Trial) -> str:
    rows = []
    for row in trial.told.rows:
        realised = trial.folds.get((row.arm, row.sigma))
        rows.append(
            [
                *_name(trial, row),
                f"{row.above.share:.0%}",
                f"{row.above.true_share:.0%}",
                points(row.best.difference),
                span(row.best.lo, row.best.hi),
                points(row.gains["quarter"]),
                points(row.promises["quarter"]),
                points(row.gains["fold"]),
                points(trial.forecasts[row.arm, row.sigma]),
                *([] if realised is None else [points(realised.difference), span(realised.lo, realised.hi)]),
            ]
        )
    head = ["", "sigma", "above base", "without luck", "best", "interval", "quarter", "promised", "fold", "promised"]
    return table([*head, *(["folded", "interval"] if trial.folds else [])], rows)


def _pairs(trial: Trial) -> str:
    folds = {(pair.one, pair.other): pair for pair in trial.fold_pairs}
    rows = []
    for pair in trial.told.pairs:
        d = pair.difference
        row = [f"{pair.one} less {pair.other}", points(d.value), span(d.lo, d.hi), chance(d.p), chance(pair.p_holm)]
        if folds:
            made = folds[pair.one, pair.other]
            m = made.difference
            row += [points(m.difference), span(m.lo, m.hi), chance(made.p_holm)]
        rows.append(row)
    head = ["", "difference", "interval", "p", "p (Holm)"]
    return table([*head, *(["of folds", "interval", "p (Holm)"] if folds else [])], rows)
