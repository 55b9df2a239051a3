"""The speedrun, from launch to record: the ordinary study, then held-out text, again and again in fresh folders.

A process that ends early leaves its record, and the same command goes on: repetitions that are done stay, the one that was
interrupted is resumed as a study is, and its times do not count.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from seedfold import study
from seedfold.engines import opened
from seedfold.errors import UserError
from seedfold.journal import FILE, Journal
from seedfold.recipe import Recipe
from seedfold.report.record import TIMES
from seedfold.speedrun import machine
from seedfold.speedrun.clock import Clock
from seedfold.speedrun.record import FORMAT, Line, Record, finished, of_kind, read, summary
from seedfold.speedrun.standard import Standard, check, slices
from seedfold.splits import deal
from seedfold.text import bits, documents, tokens

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.engines.base import Engine

RECORDS = Path("benchmarks/records")
FOLDERS = Path("runs/speedrun")
"""Where the studies are: FOLDERS / name of the record's folder / name of the record / number of the repetition."""

COPIED = (
    *("method", "kind", "k", "n", "accuracy", "interval", "lenient", "truncated"),
    *("difference", "ci95", "p", "fixed", "broken", "evaluations", "tokens"),
)
"""What a record takes of a study's result lines."""

MEMBER = ("family", "seed", "scale", "search", "shrunk", "select")
"""And of the candidates that may vote."""


def run(
    standard: Standard,
    out: Path | None = None,
    model: str = "",
    commit: str = "",
    records: Path = RECORDS,
    quiet: bool = False,
) -> Path:
    """Run a standard, or go on with it, and give the path of its record.

    Args:
        out: the record; by default RECORDS/NAME.DATE.COMMIT.jsonl, or the unfinished one of this standard and commit.
        model: where the model is, if not where the standard says; the fingerprint tells whether it is the same.
        commit: of the code, where it lies outside of a checkout and git cannot tell; the record says that it was stated.
        records: the folder of the default.
        quiet: show no progress.

    Raises:
        UserError: anything that is the user's to mend. What was measured is in the record.
    """
    chosen = standard.study
    if model:
        chosen = dataclasses.replace(chosen, model=dataclasses.replace(chosen.model, name=model))
    load = machine.load()  # before this run adds to it
    sliced = slices(deal(chosen))
    check("slices", standard.speedrun.slices, sliced, "the examples dealt here hash to")
    text = documents.load(standard.speedrun.text)
    read_from_git, uncommitted = machine.commit()
    revision = read_from_git or commit
    where = {
        "hash": standard.hash,
        "commit": revision,
        "hardware": machine.hardware(chosen.model.device),
        "versions": machine.versions(),
    }
    record, begun = _open(standard.study.name, where, out, records)
    if begun:
        record.add("resumed")
    else:
        record.add(
            "standard",
            format=FORMAT,
            name=standard.study.name,
            path=standard.path,
            **where,
            changed=list(standard.changed),
            stated=bool(revision and not read_from_git),
            uncommitted=uncommitted,
            load=load,
            slices=sliced,
            text={"digest": text.digest, "bytes": text.bytes, "documents": len(text.texts)},
            config=standard.to_dict(),
        )
    done = {line["repetition"] for line in of_kind(read(record.path), "repetition")}
    for number in range(1, standard.speedrun.repetitions + 1):
        if number not in done:
            _repetition(number, standard, chosen, text, record, quiet)
    record.add("summary", **summary(read(record.path)))
    return record.path


def _open(name: str, where: Line, out: Path | None, records: Path) -> tuple[Record, list[Line]]:
    """The record to write to, and the lines that it has. where: what an unfinished one must have been begun with."""
    path = out or _default(name, where, records)
    if path.exists() and path.stat().st_size:
        lines = read(path)
        other = [field for field, value in where.items() if lines[0][field] != value]
        if finished(lines) or other:
            state = "is finished" if finished(lines) else f"was begun with other settings, code or machine ({other[0]})"
            raise UserError(f'record "{path}" {state}; choose another --out, or remove it and its studies to run again')
        return Record(path), lines
    if (folder := _folder(path)).exists():
        raise UserError(
            f'folder "{folder}" is left from a run whose record "{path}" is not there; remove it or choose another --out'
        )
    return Record(path), []


def _folder(record: Path) -> Path:
    return FOLDERS / record.absolute().parent.name / record.stem


def _default(name: str, where: Line, records: Path) -> Path:
    """NAME.DATE.COMMIT.jsonl: one that is begun, or a new one; with a number where the day has one already."""
    tail = where["commit"] or f"v{where['versions']['seedfold']}"
    for path in sorted(records.glob(f"{name}.*.{tail}*.jsonl")):
        lines = read(path)
        if not finished(lines) and all(lines[0][field] == value for field, value in where.items()):
            return path
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    stem, number = f"{name}.{today}.{tail}", 1
    while (path := records / f"{stem}{f'.{number}' if number > 1 else ''}.jsonl").exists():
        number += 1
    return path


# One repetition


def _repetition(
    number: int, standard: Standard, chosen: Config, text: documents.Documents, record: Record, quiet: bool
) -> None:
    """Launch, study, held-out text; every phase is a line as it ends, and so is what came of it, or of its failure."""
    folder = _folder(record.path) / str(number)
    seen = before = _tokens(folder)
    phases: list[Line] = []

    def ended(line: Line) -> None:
        nonlocal seen
        after = _tokens(folder)
        line = {"repetition": number, **line, "tokens": after - seen}
        seen = after
        phases.append(line)
        record.add("phase", **line)

    clock = Clock(ended, quiet)
    clock.say(f"repetition {number} of {standard.speedrun.repetitions}: loading {chosen.model.name}")
    clock.enter("launch")
    try:
        with opened(chosen.model, chosen.engine) as engine:
            check("fingerprint", standard.speedrun.fingerprint, engine.fingerprint, "the model's weights have")
            windows = _windows(engine, chosen, standard, text)
            clock.enter("data")
            finished = study.run(chosen, folder, clock, engine)
            clock.enter("text")
            measured = _text(engine, finished, windows, clock, chosen)
            clock.stop()
    except BaseException as error:  # whatever ends it, a key pressed included, is a line of the record
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        record.add("failure", repetition=number, phase=clock.phase, seconds=clock.running(), error=reason)
        raise
    record.add(
        "repetition",
        repetition=number,
        resumed=before > 0,
        seconds=sum(line["seconds"] for line in phases),
        **_rates(phases, chosen.search.candidates),
        **_outcome(finished),
        text=measured,
    )


def _windows(engine: Engine, chosen: Config, standard: Standard, text: documents.Documents) -> tokens.Windows:
    """Cut the text for this model. vLLM generates a token behind what it scores, so one position is left."""
    settings = standard.speedrun.text
    if engine.positions and settings.window >= engine.positions:
        raise UserError(
            f'"speedrun.text.window" is {settings.window}, but model "{engine.name}" has {engine.positions} positions; '
            f"use at most {engine.positions - 1}"
        )
    return tokens.windows(text, settings, tokens.load_tokenizer(chosen.model))


def _tokens(folder: Path) -> int:
    """Tokens generated so far, by the journal in the folder."""
    if not (folder / FILE).is_file():
        return 0
    with Journal.read(folder) as journal:
        return journal.totals()[1]


def _rates(phases: list[Line], seeds: int) -> dict[str, float]:
    """Of the search alone: every candidate on its examples, switches and grading included."""
    search = [line for line in phases if line["phase"].startswith("search")]
    seconds = sum(line["seconds"] for line in search)
    return {
        "seeds_per_second": seeds / seconds,
        "tokens_per_second": sum(line["tokens"] for line in search) / seconds,
        "prompts_per_second": sum(line["answers"] for line in search) / seconds,
    }


def _outcome(finished: study.Study) -> Line:
    """What a repetition found. digest: of all that the study's record says, its times left out."""
    told = finished.record
    same = {name: value for name, value in told.items() if name not in TIMES}
    ranked = sorted((each for each in told["candidates"] if each["recipe"]), key=lambda each: each["rank"])
    members = [{name: each[name] for name in MEMBER} for each in ranked]
    return {
        "digest": hashlib.blake2b(json.dumps(same, sort_keys=True).encode(), digest_size=16).hexdigest(),
        "fingerprint": told["model"]["fingerprint"],
        "engine": told["machine"],
        "token_limit": told["token_limit"],
        "evaluations": told["evaluations"],
        "tokens": told["tokens"],
        "chosen_k": told["chosen_k"],
        "votes": told["votes"],
        "best": members[0],
        "members": members,
        "search": told["search"],
        "results": [{name: line[name] for name in COPIED} for line in told["results"]],
        "folds": [{name: fold[name] for name in ("method", "committed", "terms", "size")} for fold in told["folds"]],
    }


def _text(engine: Engine, finished: study.Study, windows: tokens.Windows, clock: Clock, chosen: Config) -> Line:
    """Bits per byte of the base, the best single model, the vote (mean probability) and the folds, on the same bytes."""
    base = study.base_recipe(chosen, engine)
    scores = {base: bits.logprobs(engine, base, windows)}
    results = []
    for line in finished.results:
        if line["kind"] == "self-consistency":  # the base, as a model of text
            continue
        recipes = [Recipe.load(finished.folder / path) for path in line["recipes"]] or [base]
        for recipe in recipes:
            if recipe not in scores:
                scores[recipe] = bits.logprobs(engine, recipe, windows)
        found = bits.bits(
            bits.mixture([scores[recipe] for recipe in recipes]),
            windows,
            None if line["kind"] == "base" else scores[base],
            chosen.stats.level,
            chosen.stats.resamples,
            chosen.stats.seed,
        )
        told = {"bits_per_byte": found.value, "difference": found.difference, "interval": found.interval}
        results.append({**{name: line[name] for name in ("method", "kind", "k")}, **told})
        clock.say(f"held-out text, {line['method']}: {found.value or float('nan'):.5f} bits per byte")
    clock.note(scored_tokens=windows.tokens * len(scores), models=len(scores))
    return {
        "documents": windows.documents,
        "tokens": windows.tokens,
        "bytes": windows.bytes,
        "windows": len(windows.windows),
        "start": windows.start,
        "results": results,
    }
