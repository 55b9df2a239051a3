"""Several finished studies side by side: what differs in their settings, what each found, and, example by example, how far
their methods differ where they were tested on the same examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedfold import stats, study
from seedfold.errors import UserError
from seedfold.evaluate import grade_of
from seedfold.journal import FILE, Journal, Row
from seedfold.recipe import Recipe
from seedfold.report import figures, page, parts
from seedfold.report.lines import (
    count,
    level_text,
    of_kind,
    one_pass,
    p_text,
    percent,
    plain,
    points,
    results_table,
    sign,
    span,
    wrap,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Tested:
    """A finished study with the rewards of each of its methods on test, by example; none where its journal has none."""

    letter: str
    folder: Path
    record: dict[str, Any]
    rewards: dict[str, dict[str, float]]
    digest: str


@dataclass(frozen=True)
class Pair:
    """One method of a study against one of the first study, on the n examples that both were tested on."""

    name: str
    n: int
    first: float
    other: float
    paired: stats.Paired
    holm: float


@dataclass(frozen=True)
class Comparison:
    """why: between which studies there are no pairs, and the reason."""

    studies: list[Tested]
    differing: list[tuple[str, list[Any]]]
    pairs: list[Pair]
    why: list[str]

    def __str__(self) -> str:
        return text(self)


def compare(folders: Sequence[str | Path]) -> Comparison:
    """Read finished studies and compare each with the first.

    Raises:
        UserError: fewer than two folders, or one that is no finished study.
    """
    if len(folders) < 2 or len(folders) > len(LETTERS):
        raise UserError(f'"--compare" has {len(folders)} folder; give two or more, up to {len(LETTERS)}')
    studies = [_read(letter, Path(folder)) for letter, folder in zip(LETTERS, folders, strict=False)]
    first, *others = studies
    reasons = [(other, _apart(first, other)) for other in others]
    why = [f"{first.letter} and {other.letter} cannot be paired: {reason}." for other, reason in reasons if reason]
    raw = [pair for other, reason in reasons if not reason for pair in _pairs(first, other)]
    adjusted = stats.holm([found.p for *_, found in raw])
    pairs = [
        Pair(name, found.n, before, after, found, float(p))
        for (name, before, after, found), p in zip(raw, adjusted, strict=True)
    ]
    return Comparison(studies, differing([one.record["config"] for one in studies]), pairs, why)


def differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """(dotted path, value in each) of settings that differ, names left out; "not set" where one has none."""
    flat = [dict(_flat("", config)) for config in configs]
    paths = dict.fromkeys(path for one in flat for path in one)
    values = [(path, [one.get(path, "not set") for one in flat]) for path in paths]
    told = [(path, found) for path, found in values if any(one != found[0] for one in found)]
    return [(path, found) for path, found in told if path != "name" and not path.startswith("tracking.")]


def _flat(prefix: str, tree: Any) -> list[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        return [(prefix, tree)]
    return [item for key in tree for item in _flat(f"{prefix}.{key}".lstrip("."), tree[key])]


# What each method of a study earned, example by example


def _read(letter: str, folder: Path) -> Tested:
    record = study.load(folder).record
    if not (folder / FILE).exists():
        return Tested(letter, folder, record, {}, "")
    with Journal.read(folder) as journal:
        ids = (journal.noted("splits") or {}).get("test")
        digest = str((journal.noted("material") or {}).get("reward", ""))
        rewards = {line["method"]: _earned(journal, folder, record, line, ids) for line in record["results"] if ids}
    return Tested(letter, folder, record, rewards, digest)


def _earned(
    journal: Journal, folder: Path, record: Mapping[str, Any], line: Mapping[str, Any], ids: Sequence[str]
) -> dict[str, float]:
    """Example -> strict reward of one result line, counted anew from the journal's rows."""
    single = of_kind(dict(record), "single")
    recipes = [Recipe.load(folder / file) for file in line["recipes"]]
    if not recipes and single:
        candidate = Recipe.load(folder / single["recipes"][0])
        recipes = [Recipe(candidate.base, dtype=candidate.dtype)]
    samples = range(1, line["k"] + 1) if line["kind"] == "self-consistency" else range(1)
    voters: list[list[Row]] = [journal.rows(one.key, sample, ids) for one in recipes for sample in samples]
    if any(len(voter) < len(ids) for voter in voters):
        raise UserError(f'"{folder}" lacks answers of its {line["method"]} on test; run its command again')
    grades = [grade_of(row) for row in voters[0]] if len(voters) == 1 else study.vote_of(voters)
    return dict(zip(ids, (grade.strict for grade in grades), strict=True))


# Pairs


def _apart(first: Tested, other: Tested) -> str:
    """Why two studies cannot be paired, or nothing."""
    for one in (first, other):
        if not one.rewards:
            return (
                f"the journal of {one.letter} does not say which examples it tested; run its command once more, which asks "
                "for no answer again"
            )
    models = [one.record["model"]["fingerprint"] for one in (first, other)]
    if models[0] != models[1]:
        return f"their base models differ ({models[0]}, {models[1]})"
    tasks = [one.record["config"]["task"]["name"] for one in (first, other)]
    if tasks[0] != tasks[1]:
        return f"their tasks differ ({tasks[0]}, {tasks[1]})"
    if first.digest != other.digest:
        return "their reward functions differ"
    if not _common(first, other):
        return 'they tested no example in common; give both the same data and the same "splits.seed"'
    return ""


def _common(first: Tested, other: Tested) -> list[str]:
    there = next(iter(other.rewards.values()))
    return [one for one in next(iter(first.rewards.values())) if one in there]


def _pairs(first: Tested, other: Tested) -> list[tuple[str, float, float, stats.Paired]]:
    """(name, reward in the first, reward in the other, difference): methods of the same kind, and what each deploys."""
    chosen = first.record["config"]["stats"]
    ids = _common(first, other)
    kinds = {_kind(line): line["method"] for line in first.record["results"]}
    both = [
        (_kind(line), kinds[_kind(line)], line["method"]) for line in other.record["results"] if _kind(line) in kinds
    ]
    deployed = [(one_pass(one.record) or {"method": "base"})["method"] for one in (first, other)]
    if not any(deployed == [mine, theirs] for _, mine, theirs in both):
        both.append(("what to deploy", *deployed))
    found: dict[tuple[tuple[float, ...], ...], str] = {}
    for kind, mine, theirs in both:
        before, after = (tuple(one.rewards[method][i] for i in ids) for one, method in ((first, mine), (other, theirs)))
        if kind == "base" and before == after:  # as it should be, and no finding
            continue
        name = f"{theirs} ({other.letter}) - {mine} ({first.letter})"
        if mine == theirs:
            name = f"{mine} ({other.letter} - {first.letter})"
        if kind == "what to deploy":
            name = f"{kind}: {name}"
        found.setdefault((before, after), name)  # methods that are the same model in both are compared once
    return [
        (
            name,
            sum(before) / len(ids),
            sum(after) / len(ids),
            stats.paired(after, before, chosen["level"], chosen["resamples"], chosen["seed"]),
        )
        for (before, after), name in found.items()
    ]


def _kind(line: Mapping[str, Any]) -> str:
    """What makes two result lines of two studies the same method: sizes of votes and ends of folds may differ."""
    return str(line["method"]).partition(" fold")[0] + " fold" if line["kind"] == "fold" else str(line["kind"])


# Told


def _lines(found: Comparison) -> list[dict[str, Any]]:
    return [
        {**line, "method": f"{one.letter}: {line['method']}"} for one in found.studies for line in one.record["results"]
    ]


def _verdicts(found: Comparison) -> list[str]:
    """What the pairs say, in sentences."""
    told = list(found.why)
    if not found.pairs:
        return told
    level = found.studies[0].record["config"]["stats"]["level"]
    sure = [pair for pair in found.pairs if pair.holm <= 1 - level]
    for pair in sure:
        told.append(f"{pair.name}: {points(pair.paired.difference)} points {_interval(pair)}, detectably different.")
    if not sure:
        told.append("No method of one study is detectably different from the same method of the first.")
    sizes = " and ".join(dict.fromkeys(count(pair.n) for pair in found.pairs))
    told.append(
        f"Differences are paired on the {sizes} test examples in common; p after Holm's correction for "
        f"{len(found.pairs)} comparisons."
    )
    return told


def _interval(pair: Pair) -> str:
    return f"{span([pair.paired.lo, pair.paired.hi])}, {p_text(pair.holm)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def text(found: Comparison) -> str:
    """For a terminal."""
    lines = [f"{one.letter}  {one.folder}  ({plain(one.record['name'])})" for one in found.studies]
    lines += ["", "Settings that differ" if found.differing else "Their settings are the same."]
    wide = max((len(path) for path, _ in found.differing), default=0)
    for path, values in found.differing:
        told = "  ".join(f"{one.letter} {_shown(value)}" for one, value in zip(found.studies, values, strict=True))
        lines.append(f"  {path.ljust(wide)}  {plain(told)}")
    lines += ["", results_table(_lines(found), level_text(found.studies[0].record)), ""]
    if found.pairs:
        wide = max(len(pair.name) for pair in found.pairs)
        for pair in found.pairs:
            worth = f"{percent(pair.first)} -> {percent(pair.other)}"
            lines.append(f"{plain(pair.name).ljust(wide)}  {worth}  {points(pair.paired.difference)} {_interval(pair)}")
        lines.append("")
    return "\n".join([*lines, *map(wrap, _verdicts(found))])


def write(found: Comparison, path: Path) -> None:
    """Write the page, whole or not at all."""
    first = found.studies[0].record
    settings = [
        [parts.code(path), *(parts.text(_shown(value)) for value in values)] for path, values in found.differing
    ]
    head = ["difference", "n", found.studies[0].letter, "other", "points", "fixed / broken", "p", "p, Holm"]
    pairs = [
        [
            parts.text(pair.name),
            count(pair.n),
            percent(pair.first),
            percent(pair.other),
            parts.minus(points(pair.paired.difference)) + parts.small(span([pair.paired.lo, pair.paired.hi])),
            f"{pair.paired.fixed} / {pair.paired.broken}",
            p_text(pair.paired.p).removeprefix("p="),
            p_text(pair.holm).removeprefix("p="),
        ]
        for pair in found.pairs
    ]
    drawn = [
        {
            "method": pair.name,
            "kind": "fold" if sign({"ci95": [pair.paired.lo, pair.paired.hi]}, {}) >= 0 else "worse",
            "passes": 1,
            "difference": pair.paired.difference,
            "ci95": [pair.paired.lo, pair.paired.hi],
        }
        for pair in found.pairs
    ]
    merged = {**first, "results": _lines(found)}
    body = [
        "<h1>Studies compared</h1>",
        parts.facts((one.letter, f"{one.folder} ({one.record['name']})") for one in found.studies),
        '<div class="verdict">' + "".join(f"<p>{parts.prose(one)}</p>" for one in _verdicts(found)) + "</div>",
        "<h2>Differences on the same examples</h2>\n" + parts.table("Differences", head, pairs) if pairs else "",
        parts.figure(
            figures.gains({**first, "results": drawn}, "difference to the first study on test, points"),
            "How far they differ",
            "An interval that holds the dashed line does not tell the two apart.",
        )
        if pairs
        else "",
        "<h2>Results</h2>\n" + page.results(merged),
        parts.figure(figures.gains(merged), *page.GAINS),
        "<h2>Settings that differ</h2>\n"
        + parts.table("Settings", ["setting", *(one.letter for one in found.studies)], settings)
        if settings
        else "<p>Their settings are the same.</p>",
    ]
    parts.write(parts.document("studies compared", body), path)
