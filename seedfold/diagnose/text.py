"""What the diagnostics print. Rewards become points (hundredths), one decimal each."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from seedfold.diagnose.density import Density, Discordance
from seedfold.diagnose.merges import Estimate, Merges
from seedfold.diagnose.selectors import REFERENCE
from seedfold.diagnose.split_half import Reproduction, SplitHalf
from seedfold.diagnose.studies import Transferred
from seedfold.diagnose.transfer import TARGETS, Best, Correlation, Reliability, Transfer

WIDTH = 110


def points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"


def span(lo: float, hi: float) -> str:
    return "[-]" if math.isnan(lo) or math.isnan(hi) else f"[{100 * lo:+.1f}, {100 * hi:+.1f}]"


def number(value: float, places: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:+.{places}f}"


def chance(p: float) -> str:
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first flush left, the others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    shown = [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    for row, line in zip(shown, lines, strict=True):
        row[0] = line[0].ljust(widths[0])
    return "\n".join("  ".join(row).rstrip() for row in shown)


def wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH)


# Split halves


def split_half(told: SplitHalf, weights: str) -> str:
    rows = [
        ("behaviour, halves of seeds", told.direction_population),
        ("scores, halves of examples", told.direction_examples),
        (f"{weights}, halves of seeds", told.weights_population),
        (f"{weights}, halves of examples", told.weights_examples),
    ]
    shown = [[name, *_cells(one)] for name, one in rows if one is not None]
    curve = [
        [str(r), *_cells(one), *_cells(other)]
        for r, (one, other) in enumerate(zip(told.curve_population, told.curve_examples, strict=False), 1)
    ]
    kept = f"; {told.share:.0%} of their energy reproduces between halves of the examples" if told.rank else ""
    return "\n".join(
        [
            "rewarded direction: cosine of the two halves, mean and 95 % quantile of permuted scores",
            table(["", "cosine", "chance", "95 %", "p"], shown),
            "",
            "low-rank covariance: overlap of the leading r directions",
            table(["r", "seeds", "chance", "95 %", "p", "examples", "chance", "95 %", "p"], curve),
            "",
            wrap(f"Directions of covariance that reproduce between halves of the seeds: {told.rank}{kept}."),
        ]
    )


def _cells(one: Reproduction) -> list[str]:
    return [number(one.observed), number(one.null), number(one.null_high), chance(one.p)]


# Density


def density(found: Sequence[Density]) -> str:
    return table(
        ["sigma", "margin", "seeds", "share", "interval", "without luck", "interval"],
        [
            [
                f"{d.sigma:g}",
                points(d.margin),
                str(d.candidates),
                f"{d.share:.1%}",
                _shares(d.lo, d.hi),
                f"{d.true_share:.1%}",
                _shares(d.true_lo, d.true_hi),
            ]
            for d in found
        ],
    )


LUCK = (
    "Share: of observed scores, in which luck alone puts half of the equals above 0. Without luck: of the true\n"
    "scores that the observed ones leave possible."
)


def _shares(lo: float, hi: float) -> str:
    return f"[{lo:.1%}, {hi:.1%}]"


def discordance(found: Discordance, tasks: int, seeds: int) -> str:
    corrected = (
        "cannot be told, for the scores of a task are not reliable"
        if math.isnan(found.corrected)
        else f"{found.corrected:.2f}"
    )
    return wrap(
        f"Discordance of {tasks} tasks over {seeds} common seeds (0: the same seeds are good at all, 1: specialists): "
        f"{found.observed:.2f} [{found.lo:.2f}, {found.hi:.2f}]; with luck taken out {corrected}."
    )


# Transfer


def transfer(told: Transfer, split: str, level: float, targets: Sequence[float] = TARGETS) -> str:
    """`targets`: reliabilities for which the number of examples is told."""
    many = f"{level:.0%}".replace("%", " %")
    lines = [
        f"Do scores on search ({told.search_examples} examples) tell scores on {split} ({told.held_examples})? "
        f"{told.candidates} candidates, {many} intervals.",
        "",
        table(
            ["correlation", "Spearman", "interval", "p", "Pearson", "interval", "p"],
            [["all candidates", *_correlation(told.everyone)], ["within a size", *_correlation(told.within)]],
        ),
        wrap(f"Luck leaves a Pearson of at most about {told.ceiling:.2f} within a size, were transfer perfect."),
        "",
        table(
            ["reliability", "examples", "value", "interval", *(f"examples for {target:g}" for target in targets)],
            [
                ["search", *_reliability(told.search_reliability, targets)],
                [split, *_reliability(told.held_reliability, targets)],
            ],
        ),
        "",
        table(
            [f"lead over the base on {split}", "seed no.", "points", "interval", "p", "on search", "shrunk"],
            [_best("best by search score", told.chosen), _best(f"oracle: best on {split}", told.oracle)],
        ),
        wrap(
            f"Of {told.candidates} equal candidates the best would lead by {points(told.chance_mean)} by chance, and in "
            f"{(1 - level):.0%} of cases by more than {points(told.chance_high)}: the oracle is "
            f"{'beyond' if told.oracle.held.difference > told.chance_high else 'within'} chance."
        ),
        "",
        f"share of candidates above the base on {split}",
        density(told.above),
    ]
    return "\n".join(lines)


def selectors(found: Transferred, split: str, search: int) -> str:
    """The table of selectors, then what the log-probabilities rest on; `search`: examples there."""
    rows = []
    for s in found.selectors:
        row = [s.name, number(s.correlation), f"[{s.lo:+.2f}, {s.hi:+.2f}]"]
        row += ["", "", ""] if s.name == REFERENCE else [number(s.more), f"[{s.more_lo:+.2f}, {s.more_hi:+.2f}]"]
        row += [] if s.name == REFERENCE else [chance(s.p_holm)]
        rows.append([*row, points(s.gain.difference), span(s.gain.lo, s.gain.hi)])
    lines = [
        f"selectors, search and {split} taking turns: rank correlation with the other slice, and the gain of the pick",
        table(["", "correlation", "interval", "less raw mean", "interval", "p (Holm)", "gain", "interval"], rows),
    ]
    if found.references is None:
        lines.append(
            "No log-probabilities: not asked for, or there is no answer to refer to, or its tokens cannot be told."
        )
    else:
        there, total = found.references
        trust = f", reliability on search {found.dense_reliability.value:.2f}" if found.dense_reliability else ""
        lines.append(
            wrap(
                f"Log-probabilities of reference answers to {there} of {search} search examples, {total} in all{trust}."
            )
        )
    return "\n".join(lines)


def _correlation(c: Correlation) -> list[str]:
    return [
        number(c.spearman),
        f"[{number(c.spearman_lo)}, {number(c.spearman_hi)}]",
        chance(c.spearman_p),
        number(c.pearson),
        f"[{number(c.pearson_lo)}, {number(c.pearson_hi)}]",
        chance(c.pearson_p),
    ]


def _reliability(r: Reliability, targets: Sequence[float]) -> list[str]:
    needed = []
    for target in targets:
        middle, few, many = (f"{math.ceil(x):,}" if math.isfinite(x) else "∞" for x in r.needed(target))
        needed.append(f"{middle} [{few}, {many}]")
    return [str(r.examples), number(r.value), f"[{r.lo:+.2f}, {r.hi:+.2f}]", *needed]


def _best(name: str, best: Best) -> list[str]:
    lead = best.held
    return [
        name,
        str(best.number),
        points(lead.difference),
        span(lead.lo, lead.hi),
        chance(lead.p),
        points(best.search),
        points(best.expected),
    ]


# Merges


def merges(told: Merges, split: str, examples: int, level: float) -> str:
    many = f"{level:.0%}".replace("%", " %")
    rows, extra = [], []
    for c in told.cells:
        name = [("*" if c.family.startswith("oracle") else "") + c.family, c.operator, str(c.parents)]
        rows.append(
            [
                *name,
                str(c.merges),
                *_estimate(c.gain),
                f"{c.fixed:.1f}/{c.broken:.1f}",
                f"{c.above_base}/{c.above_mean}/{c.above_best}",
            ]
        )
        over = [*_estimate(c.enrichment), chance(c.enrichment_p_holm)] if c.enrichment else ["", "", ""]
        extra.append([*name, points(c.predicted), *_estimate(c.excess), chance(c.excess_p_holm), *over])
    kept, fixable = sum(r.kept for r in told.results), sum(r.fixable for r in told.results)
    fixed = sum(len(r.fixed) for r in told.results)
    oracle = ""
    if any(c.family.startswith("oracle") for c in told.cells):
        oracle = f" *: chosen by the scores on {split} themselves, which nobody could have known."
    sure = [r for r in told.results if r.p_holm <= 1 - level]
    return "\n".join(
        [
            f"{len(told.results)} merges on {split} ({examples} examples); gains over the base in points, {many} intervals",
            "",
            table(
                ["family", "operator", "parents", "merges", "gain", "interval", "fixed/broken", "above base/mean/best"],
                rows,
            ),
            "",
            table(
                [
                    "family",
                    "operator",
                    "parents",
                    "sum of effects",
                    "excess",
                    "interval",
                    "p (Holm)",
                    "over random",
                    "interval",
                    "p (Holm)",
                ],
                extra,
            ),
            "",
            wrap(
                "fixed/broken: examples per merge. above: merges above the base, their parents' mean, their best parent. "
                "Sum of effects: the gain if effects were additive; excess: the gain less that. Over random: the gain "
                f"less that of the random family's merges.{oracle}"
            ),
            wrap(
                f"Merges fixed {kept:,} of the {fixable:,} examples that a parent of theirs fixed, and {fixed - kept:,} "
                f"that none did. {len(sure)} of {len(told.results)} merges differ from the base at level "
                f"{1 - level:.2g} (Holm)."
            ),
        ]
    )


def _estimate(e: Estimate) -> list[str]:
    return [points(e.value), span(e.lo, e.hi)]
