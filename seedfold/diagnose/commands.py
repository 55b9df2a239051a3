"""`seedfold diagnose …`: reads folders, asks the diagnostics, prints. Heavy imports wait until a command is called."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedfold.diagnose.saved import Saved


def add(parser: argparse.ArgumentParser) -> None:
    """Give the parser of `seedfold diagnose` its commands."""
    commands = parser.add_subparsers(required=True, metavar="DIAGNOSTIC")

    def command(name: str, call: Any, text: str, several: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text + ".")
        many: dict[str, Any] = {"nargs": "+"} if several else {}
        sub.add_argument("folder", type=Path, metavar="DIR", help="a study's folder, finished or running", **many)
        sub.add_argument("--seed", type=int, default=0, help="of resampling, splits and draws (default 0)")
        sub.add_argument("--json", action="store_true", help="print the numbers as JSON")
        sub.set_defaults(call=call)
        return sub

    sub = command(
        "split-half", _split_half, "say whether what was rewarded reproduces between halves of seeds and of examples"
    )
    sub.add_argument("--most", type=int, default=8, metavar="R", help="greatest rank of the curves (default 8)")
    sub.add_argument(
        "--elite",
        type=float,
        default=0.5,
        metavar="Q",
        help="quantile of the score from which candidates make the covariance (default 0.5)",
    )
    sub.add_argument("--permutations", type=int, default=199, metavar="P", help="of the nulls (default 199)")
    sub.add_argument(
        "--sketch",
        type=int,
        default=0,
        metavar="N",
        help="take weight space by a sketch of about N weights, which loads the model, not by coefficients",
    )

    sub = command("density", _density, "count the seeds above the base by a margin, by sigma", several=True)
    sub.add_argument(
        "--margins", type=float, nargs="+", default=[0.0, 0.02, 0.05], metavar="M", help="rewards (default 0 0.02 0.05)"
    )

    sub = command("transfer", _transfer, "say whether scores on search tell scores on held-out examples, seed by seed")
    _split(sub)
    sub.add_argument("--no-logprobs", action="store_true", help="leave out the selectors by log-probability")
    sub.add_argument(
        "--reference",
        default="",
        metavar="COLUMN",
        help="refer to the texts of a column of the data (default: to right answers that the study has seen)",
    )

    sub.add_argument(
        "--reliability",
        type=_share,
        nargs="+",
        default=[0.5, 0.8, 0.9],
        metavar="R",
        help="tell how many examples would give scores of this reliability (default 0.5 0.8 0.9)",
    )

    sub = command(
        "merges", _merges, "say whether sums of good seeds beat sums of random ones, and whether effects add up"
    )
    _split(sub)
    sub.add_argument(
        "--families",
        nargs="+",
        default=["top", "random", "bottom"],
        metavar="F",
        help="top, random, bottom by search score (the default); oracle-top, oracle-bottom by held-out score, for which "
        "all candidates are asked there",
    )
    sub.add_argument(
        "--operators",
        nargs="*",
        default=["average", "norm", "sum"],
        metavar="O",
        help="weight of each of n parents: average (1/n), norm (1/√n), sum (1); by default all",
    )
    sub.add_argument("--parents", type=int, nargs="*", default=[2, 4], metavar="N", help="2 to 64 (default 2 4)")
    sub.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="W,W",
        help="weights of an n-way merge of its own, from the best parent down; may be repeated; --weights=-1,1 if the "
        "first is negative",
    )
    sub.add_argument(
        "--merges", type=int, default=4, metavar="M", help="disjoint sets of parents of each kind, at most (default 4)"
    )

    _families_parser(commands)


def _share(text: str) -> float:
    """A number between 0 and 1, both left out."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _families_parser(commands: Any) -> None:
    told = "compare noise families and sizes at equal seeds and examples, ranked by what search finds in each"
    sub = commands.add_parser("families", help=told, description=told + ".")
    sub.add_argument("config", type=Path, metavar="CONFIG.toml", help="a study's, with its arms in [[families.arms]]")
    sub.add_argument("--out", type=Path, metavar="DIR", help="keep answers in DIR/families (default runs/NAME)")
    sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="set any field of the config")
    sub.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="ARM",
        help='one more arm: a family, and what differs from [search], as in "gaussian sigmas=0.002,0.004 scale=rms"; its '
        "fields are name, sigmas, norms, scale, rounding, include, exclude, directions",
    )
    sub.add_argument("--only", nargs="+", default=[], metavar="NAME", help="the arms to compare (default all)")
    sub.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="of each arm at each sigma (default families.seeds, or 32)"
    )
    sub.add_argument(
        "--by",
        default="quarter",
        choices=["mean", "best", "quarter", "fold"],
        help="what an arm is worth on held-out examples: the mean seed, the best by search score, the best quarter (the "
        "default), or the linear fold as the effects imply it",
    )
    sub.add_argument("--against", default="", metavar="NAME", help="compare all with this arm alone, for more power")
    sub.add_argument("--fold", action="store_true", help="also make the linear fold of each arm and sigma, and ask it")
    sub.add_argument("--seed", type=int, default=0, help="of resampling (default 0)")
    sub.add_argument("--json", action="store_true", help="print the numbers as JSON")
    _split(sub)
    sub.set_defaults(call=_families)


def _split(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--split",
        default="select",
        choices=["select", "gate", "test"],
        help="the held-out examples (default select, which scores no candidate; test is meant for the end)",
    )


def _print(arguments: argparse.Namespace, numbers: dict[str, Any], text: Sequence[str]) -> None:
    from seedfold.diagnose.saved import plain

    print(json.dumps(plain(numbers), indent=1, ensure_ascii=False) if arguments.json else "\n".join(text))


def _title(saved: Saved, what: str) -> str:
    missing = f" of {saved.drawn}" if len(saved.recipes) < saved.drawn else ""
    return (
        f"{what} of {saved.folder}: {len(saved.recipes)}{missing} candidates, {len(saved.asked)} search examples that all "
        "answered"
    )


def _split_half(arguments: argparse.Namespace) -> None:
    from seedfold.diagnose import studies, text
    from seedfold.diagnose.saved import load

    saved = load(arguments.folder)
    count, title = len(saved.independent), _title(saved, "split-half")
    if count < len(saved.recipes):
        title += f"; each of {count} antithetic pairs is one candidate"
    a = arguments
    told = studies.halves(saved, a.most, a.elite, a.permutations, a.sketch, a.seed)
    numbers = {"candidates": count, "examples": len(saved.asked), **dataclasses.asdict(told)}
    _print(arguments, numbers, [title, "", text.split_half(told, "sketch" if a.sketch else "coefficients")])


def _density(arguments: argparse.Namespace) -> None:
    from seedfold.diagnose import density, text
    from seedfold.diagnose.saved import common, load

    studies = [load(folder) for folder in arguments.folder]
    stats, seed = studies[0].config.stats, arguments.seed
    lines, tables = [], []
    for saved in studies:
        sizes = saved.sigmas
        many = (sizes[:, None] == sizes).sum(axis=1) > 1  # a size of one candidate has no spread
        effects = saved.complete.effects[many]
        found = density.density(effects, sizes[many], arguments.margins, stats.level, stats.resamples, seed)
        tables.append({"folder": str(saved.folder), "density": [dataclasses.asdict(item) for item in found]})
        lines += [_title(saved, "density"), "", text.density(found), ""]
    numbers: dict[str, Any] = {"studies": tables, "discordance": None}
    if len(studies) > 1:
        rewards = common(studies)
        told = density.discordance(rewards, stats.level, min(stats.resamples, 2000), seed)
        numbers["discordance"] = {"seeds": len(rewards[0]), **dataclasses.asdict(told)}
        lines += [text.discordance(told, len(studies), len(rewards[0])), ""]
    _print(arguments, numbers, [*lines, text.LUCK])


def _transfer(arguments: argparse.Namespace) -> None:
    from seedfold.diagnose import studies, text
    from seedfold.diagnose.saved import load
    from seedfold.progress import Progress
    from seedfold.search.population import seed_of

    saved = load(arguments.folder)
    a = arguments
    found = studies.transferred(saved, a.split, not a.no_logprobs, a.reference, a.seed, Progress())
    told = found.told
    needed = {"search": told.search_reliability, "held": told.held_reliability}
    numbers = {
        "split": arguments.split,
        **dataclasses.asdict(told),
        "examples_needed": {
            name: {str(target): trust.needed(target) for target in a.reliability} for name, trust in needed.items()
        },
        "references": found.references,
        "log_probability_reliability": found.dense_reliability and dataclasses.asdict(found.dense_reliability),
        "selectors": [dataclasses.asdict(item) for item in found.selectors],
        "candidates": [
            {"key": recipe.key, "seed": seed_of(recipe), "scale": scale, "held": held}
            for recipe, scale, held in zip(saved.recipes, saved.scales, found.held.mean(axis=1), strict=True)
        ],
    }
    level = saved.config.stats.level
    lines = [_title(saved, "transfer"), "", text.transfer(told, arguments.split, level, a.reliability)]
    lines += ["", text.selectors(found, arguments.split, len(saved.asked))]
    _print(arguments, numbers, lines)


def _merges(arguments: argparse.Namespace) -> None:
    from seedfold.diagnose import studies, text
    from seedfold.diagnose.merges import read_weights
    from seedfold.diagnose.saved import load
    from seedfold.progress import Progress
    from seedfold.search.population import seed_of

    saved, a = load(arguments.folder), arguments
    weights = [read_weights(item) for item in a.weights]
    told = studies.merged(saved, a.split, a.families, a.operators, a.parents, weights, a.merges, a.seed, Progress())
    ids = [example.id for example in saved.examples(a.split)]
    numbers = {
        "split": a.split,
        "examples": len(ids),
        "cells": [dataclasses.asdict(cell) for cell in told.cells],
        "merges": [
            {
                **dataclasses.asdict(result),
                "parents": [seed_of(saved.recipes[i]) for i in result.merge.parents],
                "fixed": [ids[i] for i in result.fixed],
                "broken": [ids[i] for i in result.broken],
            }
            for result in told.results
        ],
    }
    level = saved.config.stats.level
    _print(arguments, numbers, [_title(saved, "merges"), "", text.merges(told, a.split, len(ids), level)])


def _families(arguments: argparse.Namespace) -> None:
    from seedfold import config
    from seedfold.diagnose import arms, families_text, trial
    from seedfold.errors import UserError
    from seedfold.progress import Progress

    a = arguments
    chosen = config.load(a.config, a.set)
    listed, seeds = arms.read(chosen, a.arm, a.only)
    seeds = a.seeds or seeds
    if seeds < arms.LEAST:
        raise UserError(f'"--seeds" is {seeds}; use at least {arms.LEAST}')
    folder = a.out or Path("runs") / chosen.name
    found = trial.run(chosen, folder, listed, seeds, a.split, a.by, a.against, a.fold, a.seed, Progress())
    numbers = families_text.numbers(found)
    numbers |= {"model": chosen.model.name, "task": chosen.task.name, "level": chosen.stats.level}
    _print(a, numbers, [families_text.families(found, chosen)])
