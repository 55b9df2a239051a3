"""The result lines a run ends with, and the sentences that keep them honest. Plain text from a record, no more.

A record holds fractions; here accuracies become percent and differences become percentage points, one decimal each.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from seedfold import leakage

WIDTH = 100
"""Columns of the terminal that the lines fit."""

MISSING = "-"


def result_lines(record: dict[str, Any]) -> str:
    """The table of results, then what chance, reliability, equal cost and format say about them."""
    level = level_text(record)
    notes = [
        f"Accuracy: mean reward on {count(record['results'][0]['n'])} test examples, strict reading, with its {level} "
        "interval; then the lenient reading. Difference to "
        f"the base: paired, in points, with its {level} interval and p. Passes: forward passes per answer at use. "
        "Cut off: answers that met the token limit. Answers to find: what the choice cost before the test.",
        *sentences(record),
    ]
    return "\n".join([results_table(record["results"], level), "", *(wrap(note) for note in notes)])


def sentences(record: dict[str, Any]) -> list[str]:
    """What a reader must know to judge the results, a sentence or two per matter that has numbers."""
    texts = (leaks(record), chance(record), reliability(record), against(record), substance(record), *folds(record))
    return [text for text in texts if text]


def leaks(record: dict[str, Any]) -> str:
    """How much of the test split stands elsewhere in other words."""
    found = record.get("leakage")
    return leakage.sentence(found, record["splits"]["test"]) if found else ""


def chance(record: dict[str, Any]) -> str:
    """The winner's lead on search, beside the lead that the best of as many equal candidates would have."""
    search, number = record["search"], len(record["candidates"])
    lead, mean, high = (search.get(name) for name in ("lead", "chance_mean", "chance_high"))
    if lead is None or mean is None or high is None:
        return ""
    who = "the only candidate" if number == 1 else f"the best of {number:,} candidates"
    what = f"leads the base by {100 * lead:.1f}" if lead >= 0 else f"trails the base by {-100 * lead:.1f}"
    asked = search.get("examples")
    where = f"on the {asked:,} search examples that all answered" if record.get("racing") and asked else "on search"
    verdict = (
        "more than chance explains, though part of the lead is still luck"
        if lead > high
        else "no more than chance explains"
    )
    return (
        f"Winner's lead: {where}, {who} {what} points; were all equally good, chance alone would give "
        f"{points(mean)} on average and up to {points(high)} in {level_text(record)} of cases: {verdict}."
    )


def reliability(record: dict[str, Any]) -> str:
    """How much of the spread of the search scores is signal, and what is left of the top candidate's score."""
    search = record["search"]
    share = search.get("reliability")
    if share is None:
        return ""
    text = f"Reliability of search scores: {share:.2f}, the share of their variance that is signal"
    if texts := search.get("texts"):
        text += (
            f"; scores are log-probabilities of {texts:,} answers that the base drew ({search['score']}), for which "
            "candidates decoded nothing on search: how well they tell graded answers is not known from this study"
        )
    top = best(record)
    if top and top.get("shrunk") is not None:
        text += (
            f"; the top candidate scored {percent(top['search'])} and can be expected to score {percent(top['shrunk'])}"
        )
    return text + "."


def against(record: dict[str, Any]) -> str:
    """Vote against self-consistency at equal forward passes per answer."""
    found, vote = comparison(record), of_kind(record, "vote")
    if not found or not vote:
        return ""
    said = {1: "the vote is better", -1: "self-consistency is better", 0: "no detectable difference"}
    told = f"Vote against self-consistency at {passes(vote)} per answer: {difference(found, record)}"
    return f"{told}: {said[sign(found, record)]}."


def substance(record: dict[str, Any]) -> str:
    """Each gain, split into answers newly right and answers that were right already and are now well formed."""
    parts = [
        f"{plain(line['method'])} {points(line['difference'])} = {points(line['substance_gain'])} substance "
        f"{points(line['format_gain'])} format"
        for line in record["results"]
        if line.get("format_gain") is not None and line.get("substance_gain") is not None
    ]
    if not parts:
        return ""
    return (
        f"Substance and format, in points: {'; '.join(parts)}. Substance: newly right under the lenient reading; "
        "format: right before and now well formed; both net of losses."
    )


def folds(record: dict[str, Any]) -> list[str]:
    """For each fold what it proposed, what select and the gate said of it, and what it cost."""
    return [_fold(fold) for fold in record.get("folds", [])]


def _fold(fold: dict[str, Any]) -> str:
    name, cost = f"Fold, {plain(fold['method'])}", f"{count(fold['evaluations'])} answers beyond the search"
    tried = [
        attempt
        for attempt in fold["attempts"]
        # but those that met the gate together, and not by themselves
        if attempt["settings"] is not None and (attempt["gate"] or (attempt["select_gain"] or 0) <= 0)
    ]
    if not fold["attempts"]:  # released_corp decides for itself
        return f"{name}: {count(fold['terms'])} terms, committed without a held-out test of this study's; {cost}."
    passed = [attempt for attempt in tried if attempt["committed"]]
    told = (
        f"{name}: {len(passed)} of {len(tried)} proposed updates committed, {cost}. "
        if tried
        else f"{name}: no update."
    )
    best = max(tried, key=lambda attempt: (attempt["committed"], attempt["gate"] is not None), default=None)
    if best is None:
        return told
    parts = [f"{best['settings']['updates']} updates together"] if "updates" in best["settings"] else []
    if best["forecast"] is not None:
        parts.append(f"forecast {points(best['forecast'])} points")
    if best["select_gain"] is not None:
        parts.append(f"{points(best['select_gain'])} on select, where {best['entrants']} raced")
    if gate := best["gate"]:
        parts.append(f"{points(gate['gain'])} on gate ({p_text(gate['p'])}, one-sided, at level {gate['level']:.3f})")
    else:
        parts.append("so it did not come to the gate")
    which = "The first committed" if passed else "The best one"
    return f"{told}{which}: {', '.join(parts)}."


def one_pass(record: dict[str, Any]) -> dict[str, Any] | None:
    """The result line of what to deploy at one forward pass per answer, if anything is detectably better than the base.

    A fold that passed its gate comes before the best single perturbation, of several the one that gained most on gate:
    the test split measures the choice and does not make it.
    """
    gains = {}
    for fold in record.get("folds", []):
        passed = [attempt["gate"]["gain"] for attempt in fold["attempts"] if attempt["committed"] and attempt["gate"]]
        if passed:
            gains[fold_file(fold["method"])] = sum(passed)
    lines = [line for line in record["results"] if line["kind"] == "fold" and line["recipes"][0] in gains]
    lines.sort(key=lambda line: -gains[line["recipes"][0]])
    single = of_kind(record, "single")
    return next((line for line in (*lines, single) if line and sign(line, record) > 0), None)


def fold_file(method: str) -> str:
    """Where the folded recipe of a method is, in the study's folder."""
    return f"recipes/fold-{method.replace('_', '-')}.json"


def verdict(record: dict[str, Any]) -> str:
    """What to deploy and why, in a few plain sentences computed from the test results alone."""
    vote, samples = (of_kind(record, kind) for kind in ("vote", "self-consistency"))
    others = [line for line in record["results"] if line["kind"] != "base" and line.get("difference") is not None]
    if not others:
        return "Nothing was compared with the base, so there is nothing to deploy but the base."
    if not any(sign(line, record) > 0 for line in others):
        return _nothing(record, others)
    parts = []
    if chosen := one_pass(record):
        what = "best single perturbation" if chosen["kind"] == "single" else plain(chosen["method"])
        parts.append(f"At one forward pass per answer, deploy the {what}: {_gain(chosen, record)}.")
    if vote and vote.get("k") != 1:  # a vote of one is the best single
        parts.append(_many(record, vote, samples))
    elif samples and sign(samples, record) > 0:
        parts.append(f"Sampling the base gains as well: {_gain(samples, record)}.")
    if not chosen:
        parts.append("At one forward pass per answer nothing is detectably better than the base.")
    return " ".join(part for part in parts if part)


def _nothing(record: dict[str, Any], others: list[dict[str, Any]]) -> str:
    top = max(others, key=lambda line: line["difference"])
    text = (
        f"Nothing detectably better than the base was found, so keep the base. The most favourable result, "
        f"{plain(top['method'])}, differs from it by {difference(top, record)} on {count(top['n'])} test examples."
    )
    worse = [plain(line["method"]) for line in others if sign(line, record) < 0]
    if worse:
        text += f" Detectably worse: {', '.join(worse)}."
    if top.get("ci95") and sign(top, record) == 0:
        half = (top["ci95"][1] - top["ci95"][0]) / 2
        text += f" With so many examples, a gain below about {100 * half:.1f} points cannot be told from luck."
    return text


def _many(record: dict[str, Any], vote: dict[str, Any], samples: dict[str, Any] | None) -> str:
    """The choice at K passes: the vote, or the base sampled as often."""
    found = comparison(record)
    cost = passes(vote)
    voted, sampled = sign(vote, record) > 0, samples is not None and sign(samples, record) > 0
    edge = difference(found, record) if found else "not measured"
    if voted and found and sign(found, record) > 0:
        return (
            f"At {cost} per answer, deploy the {plain(vote['method'])}: {_gain(vote, record)}. It beats "
            f"self-consistency of the base at equal cost by {edge}."
        )
    if sampled and samples:
        how = "is detectably worse" if found and sign(found, record) < 0 else "is not detectably better"
        return (
            f"At {cost} per answer, {plain(samples['method'])} is the simpler choice: {_gain(samples, record)}, "
            f"with the base's own weights. The {plain(vote['method'])} {how} than that: {edge}."
        )
    if voted:
        return (
            f"At {cost} per answer, the {plain(vote['method'])} beats the base: {_gain(vote, record)}. "
            f"Its difference to self-consistency at equal cost is {edge}: not enough to show that perturbing helps."
        )
    return f"At {cost} per answer nothing is detectably better than the base."


def _gain(line: dict[str, Any], record: dict[str, Any]) -> str:
    text = f"{difference(line, record)} over the base"
    if line.get("format_gain") is not None and line.get("substance_gain") is not None:
        text += f", {points(line['substance_gain'])} of it in substance and {points(line['format_gain'])} in format"
    return text


# Reading a record


def of_kind(record: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The first result line of this kind: base, single, vote, self-consistency or fold."""
    return next((line for line in record["results"] if line["kind"] == kind), None)


def comparison(record: dict[str, Any]) -> dict[str, Any] | None:
    """The paired comparison of the vote with self-consistency, if it was made."""
    found = (record.get("comparison") or {}).get("vote against self-consistency")
    return found if found and found.get("difference") is not None else None


def best(record: dict[str, Any]) -> dict[str, Any] | None:
    """The candidate of rank 1."""
    return min(record["candidates"], key=lambda candidate: candidate.get("rank") or math.inf, default=None)


def sign(line: dict[str, Any], record: dict[str, Any]) -> int:
    """1 or -1 if the interval of the difference lies on that side of 0 and its test says so too, else 0.

    The bootstrap interval is a little short with few examples, where the exact test is the more cautious: both are asked.
    """
    p = line.get("p")
    if not line.get("ci95") or (p is not None and p >= 1 - level(record)):
        return 0
    low, high = line["ci95"]
    return (low > 0) - (high < 0)


def cut_share(line: dict[str, Any]) -> float | None:
    """Share of all answers behind a result line that met the token limit."""
    answers = line.get("answers") or line["n"] * line["passes"]
    return line["truncated"] / answers if line.get("truncated") is not None and answers else None


# Numbers as text


def percent(value: float | None) -> str:
    """0.4142 → '41.4 %'."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """0.0271 → '+2.7'. The sign survives rounding: '+0.0' is above nothing, and nothing is '0.0'."""
    if value is None:
        return MISSING
    return f"{100 * value:+.1f}" if abs(value) > 1e-9 else "0.0"


def p_text(value: float | None) -> str:
    """'p=0.031', or 'p<0.001'."""
    if value is None:
        return MISSING
    return "p<0.001" if value < 0.001 else f"p={value:.3f}"


def count(value: float | None) -> str:
    """12345 → '12,345'."""
    return MISSING if value is None else f"{value:,.0f}"


def span(values: Sequence[float] | None, one: Callable[[float], str] = points) -> str:
    """'[-1.2, +6.6]', by `one` per end; nothing if there is no interval."""
    return "" if not values else f"[{one(values[0])}, {one(values[1])}]"


def difference(line: dict[str, Any], record: dict[str, Any]) -> str:
    """'+2.7 points (95 % interval -1.2 to +6.6, p=0.190)'."""
    inner = []
    if line.get("ci95"):
        inner.append(f"{level_text(record)} interval {points(line['ci95'][0])} to {points(line['ci95'][1])}")
    if line.get("p") is not None:
        inner.append(p_text(line["p"]))
    return f"{points(line['difference'])} points" + (f" ({', '.join(inner)})" if inner else "")


def level_text(record: dict[str, Any]) -> str:
    """The level of the intervals, '95 %' unless the config says otherwise."""
    return f"{100 * level(record):g} %"


def level(record: dict[str, Any]) -> float:
    return float(record.get("config", {}).get("stats", {}).get("level", 0.95))


def plain(text: Any) -> str:
    """Text on one line without control characters, which could move the cursor or break a table."""
    return "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())


def minus(text: str) -> str:
    """A true minus sign before numbers, where type is set and a hyphen would be hard to see."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def _short(value: float | None) -> str:
    """12345 → '12,345', 12345678 → '12.3M'."""
    return count(value) if value is None or value < 1e6 else f"{value / 1e6:.1f}M"


def passes(line: dict[str, Any]) -> str:
    return "1 forward pass" if line["passes"] == 1 else f"{line['passes']:,} forward passes"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def results_table(results: list[dict[str, Any]], level: str) -> str:
    """Result lines as columns that fit `WIDTH`; `level` is that of their intervals, in words."""
    head = [
        ("", "method"),
        ("accuracy %", f"strict [{level}]"),
        ("", "lenient"),
        ("difference", f"[{level}]"),
        ("", "p"),
        ("", "passes"),
        ("cut", "off %"),
        ("answers", "to find"),
    ]
    rows = [
        (
            plain(line["method"]),
            f"{_number(line['accuracy'])} {span(line.get('interval'), _number)}".strip(),
            _number(line["lenient"]),
            "" if line["difference"] is None else f"{points(line['difference'])} {span(line.get('ci95'))}".strip(),
            "" if line["p"] is None else p_text(line["p"]),
            str(line["passes"]),
            _number(cut_share(line)),
            _short(line.get("evaluations")),
        )
        for line in results
    ]
    cells = [tuple(column[0] for column in head), tuple(column[1] for column in head), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    # Long numbers first take the air between the columns, then the end of the method's name.
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - gap * (len(widths) - 1))
    left = {0, 1, 3}
    lines = []
    for row in cells:
        name = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 3] + "..."
        shown = [
            text.ljust(width) if i in left else text.rjust(width)
            for i, (text, width) in enumerate(zip((name, *row[1:]), widths, strict=True))
        ]
        lines.append((" " * gap).join(shown).rstrip())
    return "\n".join(lines)


def wrap(text: str) -> str:
    """A paragraph in lines that fit `WIDTH`."""
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
