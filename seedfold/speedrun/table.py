"""Records for people: lines for a terminal, and the page RECORDS.md of a folder of records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedfold.errors import UserError
from seedfold.speedrun.record import RATES, Line, finished, of_kind, read

PAGE = "RECORDS.md"
HEAD = """# Speedrun records

Made by `seedfold speedrun --records {folder}` from the files in that folder, never by hand. `docs/speedrun.md`
says what a standard is and how to read this. Square brackets are 95 % intervals: of rates, Student's over the repetitions;
of accuracies and bits per byte, over the examples and documents of the first repetition, differences paired with the base.
"""


def told(lines: Sequence[Line]) -> str:
    """A finished record in plain lines."""
    first, end = lines[0], lines[-1]
    rows = [["", "accuracy", "gain", "bits/byte", "more than base"], *_methods(end)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [
            f"speedrun {first['name']}, {_commit(first)}, settings {first['hash']}, {_hardware(first)}",
            "",
            *(f"{name:20} {seconds:>9.2f} s" for name, seconds in end["phases"].items()),
            f"{'a repetition':20} {_rate(end['seconds'], 1)} s",
            "",
            *(f"{name.replace('_per_', '/').replace('second', 's'):20} {_rate(end[name])}" for name in RATES),
            "",
            *table,
            "",
            f"text: {_text(end)}",
            *_notes(end),
        ]
    )


def write(folder: Path) -> Path:
    """Write RECORDS.md beside a folder of records, from all of them.

    Raises:
        UserError: there is no such folder, or a file in it is no record.
    """
    if not folder.is_dir():
        raise UserError(f'--records "{folder}" is no folder; give the one that the records are in')
    path = folder.parent / PAGE
    path.write_text(page({file.name: read(file) for file in sorted(folder.glob("*.jsonl"))}, folder), encoding="utf-8")
    return path


def page(records: dict[str, list[Line]], folder: Path) -> str:
    """RECORDS.md of records by their file's name, standard by standard, the newest record first."""
    parts = [HEAD.format(folder=f"{folder.absolute().parent.name}/{folder.name}")]
    for name in sorted({lines[0]["name"] for lines in records.values()}):
        chosen = {file: lines for file, lines in records.items() if lines[0]["name"] == name}
        newest = sorted(chosen, key=lambda file: str(records[file][0]["at"]), reverse=True)
        parts.append(f"## {name}\n\n{_standard(records[newest[0]][0])}\n")
        parts += [_entry(file, records[file], folder) for file in newest]
    if not records:
        parts.append("None yet.\n")
    return "\n".join(parts)


def _standard(first: Line) -> str:
    config, text = first["config"], first["text"]
    splits, pinned = config["splits"], config["speedrun"]
    return (
        f"{config['model']['name']} in {config['model']['dtype']} on {config['task']['name']}; "
        f"N = {config['search']['candidates']}, {config['search']['family']} noise; {splits['search']} examples search, "
        f"{splits['select']} select, {splits['gate']} gate, {splits['test']} test; engine {config['engine']['name']}; "
        f"for {pinned['hardware']}. Held-out text: {pinned['text']['name']}, {text['documents']} documents, "
        f"{text['bytes']:,} bytes, windows of {pinned['text']['window']} tokens, {pinned['text']['overlap']} of them again."
    )


def _entry(file: str, lines: list[Line], folder: Path) -> str:
    first = lines[0]
    versions = ", ".join(f"{name} {value}" for name, value in first["versions"].items())
    head = (
        f"### {first['at'][:10]}, {_commit(first)}\n\n[{file}]({folder.name}/{file}), settings `{first['hash']}`, "
        f"slices `{first['slices']}`, text `{first['text']['digest']}`\n\n{_hardware(first)}; {versions}\n"
    )
    if not finished(lines):
        failures = of_kind(lines, "failure")
        why = (
            f"failed in phase {failures[-1]['phase']} ({failures[-1]['error']})" if failures else "ended without a word"
        )
        done = len(of_kind(lines, "repetition"))
        return f"{head}\n**Not finished**: {done} repetitions done, then {why}.\n"
    end = lines[-1]
    fingerprint = of_kind(lines, "repetition")[0]["fingerprint"]
    speed = _table(
        [
            ["repetitions", "a repetition, s", "seeds/s", "tokens/s", "prompts/s"],
            [
                f"{end['timed']} of {end['repetitions']} timed",
                _rate(end["seconds"], 1),
                *(_rate(end[r]) for r in RATES),
            ],
        ]
    )
    found = _table([["", "accuracy", "gain", "bits per byte", "more than the base"], *_methods(end)])
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in end["phases"].items())
    notes = "".join(f"- {note}\n" for note in [f"seconds by phase: {phases}", f"text: {_text(end)}", *_notes(end)])
    return f"{head}\nmodel `{fingerprint}`\n\n{speed}\n{found}\n{notes}"


def _methods(end: Line) -> list[list[str]]:
    """A row for each method: accuracy, gain, bits per byte, more than the base."""
    bits = {line["method"]: line for line in end["text"]["results"]}
    rows = []
    for line in end["results"]:
        text: dict[str, Any] = bits.get(line["method"], {})
        value, more = text.get("bits_per_byte"), text.get("difference")
        rows.append(
            [
                line["method"],
                f"{line['accuracy']:.1%}" + _between(line["interval"], "{:.1%}"),
                "" if line["difference"] is None else f"{100 * line['difference']:+.1f}" + _points(line["ci95"]),
                "" if value is None else f"{value:.5f}",
                "" if more is None else f"{more:+.5f}" + _between(text["interval"], "{:+.5f}"),
            ]
        )
    return rows


def _notes(end: Line) -> list[str]:
    repeats = end["repeats"]
    notes = []
    if repeats:
        differ = ", ".join(repeats["differ"]) or "scores of candidates"
        notes.append(
            "repetitions: " + ("equal in every number" if repeats["equal"] else f"NOT equal, they differ in {differ}")
        )
    notes.append(f"K = {end['chosen_k']} of the vote was chosen on select")
    notes.append("deviations from the standard: " + ("; ".join(end["deviations"]) or "none"))
    return notes


def _text(end: Line) -> str:
    text = end["text"]
    return (
        f"{text['bytes']:,} bytes scored as {text['tokens']:,} tokens of {text['documents']} documents, in "
        f"{text['windows']} windows"
    )


def _hardware(first: Line) -> str:
    told, gpus = first["hardware"], first["hardware"]["gpus"]
    kinds = ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))
    memory = f", {told['memory_gib']} GiB" if told["memory_gib"] else ""
    return f"{kinds + ', ' if kinds else ''}{told['cores']} cores of {told['cpu']}{memory}"


def _commit(first: Line) -> str:
    return (f"commit {first['commit']}" if first["commit"] else "no commit") + " with changes" * first["uncommitted"]


def _rate(spread: dict[str, Any], digits: int = 3) -> str:
    """Mean and interval; the interval only where there were repetitions."""
    if spread["mean"] is None:
        return "not timed"
    form = "{:.1f}" if digits == 1 else "{:,.3g}" if abs(spread["mean"]) < 100 else "{:,.0f}"
    return form.format(spread["mean"]) + _between(spread["interval"], form)


def _between(interval: Sequence[float] | None, form: str) -> str:
    return "" if interval is None else f" [{form.format(interval[0])}, {form.format(interval[1])}]"


def _points(interval: Sequence[float] | None) -> str:
    return _between(None if interval is None else [100 * value for value in interval], "{:+.1f}")


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *body])
