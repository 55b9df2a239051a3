"""The main job: search a population, choose on select, and test once. Reads top to bottom.

A study is one folder: the journal, the recipes, the record, the report. The same call on the same folder resumes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seedfold import config as settings
from seedfold import leakage, stats, tracking
from seedfold.engines import opened
from seedfold.errors import UserError
from seedfold.evaluate import Ask, Evaluator, check_room, grade_of
from seedfold.journal import Journal, Row
from seedfold.progress import Progress
from seedfold.recipe import Base, Recipe
from seedfold.search import racing
from seedfold.search.population import draw, sigma_of
from seedfold.search.vote import vote
from seedfold.splits import Splits, deal
from seedfold.tasks.base import Example, Grade

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.dense import Bank
    from seedfold.engines.base import Engine
    from seedfold.folds import Fold


@dataclass(frozen=True)
class Study:
    """A finished study. `record` is what DIR/record.json holds."""

    folder: Path
    record: dict[str, Any]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The result lines: base, best single, vote of K, self-consistency of K, and the folds."""
        return list(self.record["results"])

    def recipe(self, rank: int = 1) -> Recipe:
        """The candidate of this rank by shrunken search score; 1 is the best single model."""
        return Recipe.load(self.folder / rank_path(rank))

    def __str__(self) -> str:
        from seedfold.report.lines import result_lines

        return result_lines(self.record)


@dataclass(frozen=True)
class Scored:
    """A population with its scores on search.

    rows: of each candidate, an answer to each example, None where it was not asked: by racing, or with dense scores, by
    which no candidate is asked anything. dense: (1 + N, examples that tell) log-probabilities, the base's first, and the
    answers that the base drew for them; see `seedfold.dense`.
    """

    population: list[Recipe]
    rows: list[list[Row | None]]
    base: list[Row]
    shrinkage: stats.Shrinkage
    rounds: list[tuple[int, int]]
    dense: np.ndarray | None = None
    bank: Bank | None = None

    @property
    def scores(self) -> np.ndarray:
        """(N, examples) rewards, NaN where racing did not ask, or nats."""
        return _matrix(self.rows) if self.dense is None else self.dense[1:]

    @property
    def base_scores(self) -> np.ndarray:
        """(examples,) the base's."""
        return np.array([row.reward for row in self.base]) if self.dense is None else self.dense[0]

    @property
    def ranking(self) -> list[int]:
        """Candidates by shrunken score, the best first; equal ones by their plain mean, then by number."""
        order = zip(-self.shrinkage.shrunk, -self.shrinkage.mean, range(len(self.population)), strict=True)
        return [number for _, _, number in sorted(order)]


def run(
    config: Config | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Study:
    """Run the study of a config, or resume it, and write its folder.

    Args:
        config: a `Config`, nested mappings of the same shape, or the path of a TOML file.
        out: the study's folder; by default runs/NAME.
        progress: where to show how far it is; by default nowhere.
        engine: one that is open already, as the config has it; it stays open. By default one is opened and closed.

    Raises:
        UserError: anything that is the user's to mend, in one sentence. What was evaluated is kept.
    """
    if isinstance(config, Mapping):
        config = settings.from_dict(config)
    elif not isinstance(config, settings.Config):
        config = settings.load(config)
    folder = Path(out) if out is not None else Path("runs") / config.name
    progress = progress or Progress(quiet=True)
    dealt = deal(config)
    task, splits = dealt.task, dealt.splits
    leaked = leakage.summary(dealt.leakage(), dealt.repeated)
    _warn(leaked, config, progress)
    with Journal.open(folder, config.binding()) as journal, _clock(journal) as seconds:
        if engine is None:
            progress.say(f"loading {config.model.name}")
        using = opened(config.model, config.engine) if engine is None else nullcontext(engine)
        tracked = tracking.opened(config, folder, journal, progress)
        with using as engine, _watched(engine, folder, progress) as keep, tracked as track:
            evaluator = Evaluator(engine, task, journal, progress)
            check_room(evaluator, (*splits.search, *splits.select, *splits.gate, *splits.test))
            same_material(journal, engine, evaluator, splits)
            # Who looks at the folder later, or from another process, needs the splits and may not have the data. It is not
            # same_material that notes them: diagnostics call it on a study's journal that they only read.
            journal.note("splits", {name: [example.id for example in part] for name, part in vars(splits).items()})
            progress.expect(planned(config))
            scored = search(evaluator, config, splits.search)
            track.searched(scored)
            members = _members(scored, config, folder)
            votes, selected = select(evaluator, config, splits.select, scored.base[0].recipe, members)
            track.selected(votes)
            chosen = max(votes, key=lambda line: (line["vote"], -line["k"]))["k"]
            folded = fold(evaluator, config, splits, scored, folder)
            final = test(evaluator, config, splits.test, members[:chosen], folded)
            progress.close()

            from seedfold.report.record import build, write

            record = build(config, engine, journal, splits, scored, selected, votes, chosen, final, folded)
            record["token_limit"] = token_limit(scored.base, task.max_tokens, config.task.limit)
            record["leakage"] = leaked
            record["seconds"] = seconds()
            keep()
            write(record, folder, dealt)
            track.finished(record)
    return Study(folder, record)


def load(folder: str | Path) -> Study:
    """A finished study, from its folder."""
    path = Path(folder) / "record.json"
    try:
        return Study(Path(folder), json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f'"{folder}" has no record.json; give the folder of a finished study') from None
    except (OSError, ValueError) as error:
        raise UserError(f'"{path}" cannot be read ({error}); run the study again to write it anew') from None


# Search


def search(evaluator: Evaluator, config: Config, examples: Sequence[Example]) -> Scored:
    """Score the population on the search split, all of it or by racing."""
    base = Base(config.model.name, config.model.revision, evaluator.engine.fingerprint)
    source = {"study": config.name, "method": "randopt"}
    population = draw(config.search, base, evaluator.engine.dtype, source)
    evaluator.progress.enter("base on search")
    base_rows = evaluator.greedy(base_recipe(config, evaluator.engine), examples)
    limit = token_limit(base_rows, evaluator.task.max_tokens, config.task.limit)
    evaluator.limit = limit["used"]
    if evaluator.journal is not None:
        evaluator.journal.note("token_limit", limit)
    rows: list[list[Row | None]] = [[None] * len(examples) for _ in population]
    if config.search.score != "reward":
        from seedfold import dense

        bank, table = dense.score(
            evaluator, config, config.search.score, examples, base_recipe(config, evaluator.engine), population
        )
        return Scored(population, rows, base_rows, _shrink(config, population, table[1:]), [], table, bank)
    rounds = rounds_of(config)
    going = list(range(len(population)))
    start = 0
    for number, (count, stop) in enumerate(rounds):
        if number:
            going = sorted(_score(config, population, rows, base_rows).ranking[:count])
        evaluator.progress.enter(f"search, round {number + 1} of {len(rounds)}" if len(rounds) > 1 else "search")
        answered = evaluator.greedy_many([population[candidate] for candidate in going], examples[start:stop])
        for candidate, block in zip(going, answered, strict=True):
            rows[candidate][start:stop] = block
        start = stop
    return _score(config, population, rows, base_rows, rounds)


def token_limit(base: Sequence[Row], configured: int, rule: str) -> dict[str, Any]:
    """The token limit of all answers but the base's own on search, which it is learned from.

    Args:
        base: the base's rows on search, answered under the configured limit.
        configured: tokens.
        rule: "fixed": the configured limit; "learned": a quarter more than the longest answer of the base that ended by
            itself, rounded up to a multiple of 16, and at most what is configured. None ended: what is configured.

    Returns:
        configured, used, base_longest (None where no answer ended), in tokens.
    """
    longest = max((row.tokens for row in base if row.finish == "stop"), default=None)
    used = configured
    if rule == "learned" and longest is not None:
        used = min(configured, -(-longest * 5 // 64) * 16)
    return {"configured": configured, "used": used, "base_longest": longest}


def _score(
    config: Config,
    population: list[Recipe],
    rows: list[list[Row | None]],
    base: list[Row],
    rounds: list[tuple[int, int]] | None = None,
) -> Scored:
    rewards = _matrix(rows)
    shrinkage = _shrink(config, population, rewards[:, ~np.isnan(rewards).all(axis=0)])
    return Scored(population, rows, base, shrinkage, rounds or [])


def _shrink(config: Config, population: Sequence[Recipe], scores: np.ndarray) -> stats.Shrinkage:
    return stats.shrink(
        scores, [config.search.sigmas.index(sigma_of(each, config.search.sigmas)) for each in population]
    )


def _matrix(rows: Sequence[Sequence[Row | None]]) -> np.ndarray:
    """Rewards, (candidates, examples), NaN where a candidate was not asked."""
    return np.array([[np.nan if row is None else row.reward for row in line] for line in rows])


def rounds_of(config: Config) -> list[tuple[int, int]]:
    """(candidates, examples answered) round by round; one round without racing."""
    count, examples = config.search.candidates, config.splits.search
    if not config.search.racing:
        return [(count, examples)]
    return racing.schedule(count, examples, config.search.block, config.search.keep, max(config.search.votes))


def base_recipe(config: Config, engine: Engine) -> Recipe:
    """The base, as a recipe without terms."""
    return Recipe(Base(config.model.name, config.model.revision, engine.fingerprint), dtype=engine.dtype)


def _members(scored: Scored, config: Config, folder: Path) -> list[Recipe]:
    """The candidates that may vote, the best first; their recipes are written to the folder."""
    members = [scored.population[number] for number in scored.ranking[: max(config.search.votes)]]
    for rank, recipe in enumerate(members, 1):
        recipe.save(folder / rank_path(rank))
    return members


def rank_path(rank: int) -> str:
    """Where the candidate of this rank is, in the study's folder."""
    return f"recipes/rank-{rank:02d}.json"


# Select


def select(
    evaluator: Evaluator, config: Config, examples: Sequence[Example], base: str, members: Sequence[Recipe]
) -> tuple[list[dict[str, Any]], dict[str, list[Row]]]:
    """Votes of each size K beside self-consistency of the base with K samples; and the rows of base and members."""
    largest = max(config.search.votes)
    evaluator.progress.enter("select")
    recipe = base_recipe(config, evaluator.engine)
    asks = [*map(Ask, members), Ask(recipe), _samples(recipe, largest, config)]
    *greedy, samples = evaluator.answer(asks, examples)
    rows = {key: _first(line) for key, line in zip([*(member.key for member in members), base], greedy, strict=True)}
    lines = []
    for k in sorted(set(config.search.votes)):
        voted = vote_of([rows[recipe.key] for recipe in members[:k]])
        consistent = vote_of([[row[j] for row in samples] for j in range(k)])
        lines.append(
            {
                "k": k,
                "split": "select",
                "vote": mean(voted),
                "vote_ci95": interval(voted, config),
                "self_consistency": mean(consistent),
                "self_consistency_ci95": interval(consistent, config),
            }
        )
    return lines, rows


# Fold


def fold(evaluator: Evaluator, config: Config, splits: Splits, scored: Scored, folder: Path) -> list[Fold]:
    """Fold the population by the methods of the config; their recipes are written to the folder."""
    if not config.fold.methods:
        return []
    from seedfold import folds
    from seedfold.fold.base import Population
    from seedfold.report.lines import fold_file

    population = Population(tuple(recipe.terms for recipe in scored.population), scored.scores, scored.base_scores)
    base_model = base_recipe(config, evaluator.engine)
    done = folds.run(evaluator, config, splits, population, scored.population, base_model)
    for each in done:
        each.recipe.save(folder / fold_file(each.method))
    return done


# Test


@dataclass(frozen=True)
class Outcome:
    """A method's answers to the test split: one grade per example, all rows behind it, and the recipes used.

    files: where the recipes are, in the study's folder; the base has none.
    """

    method: str
    kind: str
    k: int
    grades: list[Grade]
    rows: list[Row]
    recipes: list[Recipe]
    files: tuple[str, ...] = ()


def test(
    evaluator: Evaluator,
    config: Config,
    examples: Sequence[Example],
    members: Sequence[Recipe],
    folded: Sequence[Fold],
) -> list[Outcome]:
    """Everything that is reported, answered once on the test split."""
    k = len(members)
    evaluator.progress.enter("test")
    recipe = base_recipe(config, evaluator.engine)
    # A fold that ended at the base, or where another did, is not asked again.
    different = list(dict.fromkeys(each.recipe for each in folded if each.recipe not in (recipe, *members)))
    asks = [Ask(recipe), *map(Ask, members), *map(Ask, different), _samples(recipe, k, config)]
    *greedy, sampled = evaluator.answer(asks, examples)
    answers = {ask.recipe: _first(line) for ask, line in zip(asks, greedy, strict=False)}
    base, rows = answers[recipe], [answers[member] for member in members]
    samples = [[row[j] for row in sampled] for j in range(k)]
    ranked = tuple(rank_path(rank) for rank in range(1, k + 1))
    return [
        Outcome("base", "base", 1, [grade_of(row) for row in base], base, [recipe]),
        Outcome("best single", "single", 1, [grade_of(row) for row in rows[0]], rows[0], [members[0]], ranked[:1]),
        Outcome(
            f"vote of {k}", "vote", k, vote_of(rows), [row for line in rows for row in line], list(members), ranked
        ),
        Outcome(
            f"self-consistency of {k}",
            "self-consistency",
            k,
            vote_of(samples),
            [row for line in samples for row in line],
            [recipe],
        ),
        *(_folded(each, answers[each.recipe]) for each in folded),
    ]


def _folded(fold: Fold, rows: list[Row]) -> Outcome:
    from seedfold.report.lines import fold_file

    name = f"{fold.method} fold" + ("" if fold.committed else " (base)")
    return Outcome(name, "fold", 1, [grade_of(row) for row in rows], rows, [fold.recipe], (fold_file(fold.method),))


def _samples(recipe: Recipe, count: int, config: Config) -> Ask:
    """Samples 1 … count of the base, for self-consistency."""
    return Ask(recipe, tuple(range(1, count + 1)), config.engine.temperature, config.engine.top_p)


def _first(line: Sequence[Sequence[Row]]) -> list[Row]:
    return [rows[0] for rows in line]


def vote_of(voters: Sequence[Sequence[Row]]) -> list[Grade]:
    """The vote on each example; `voters` hold one row per example, the best voter first."""
    return [vote([grade_of(row) for row in answers]) for answers in zip(*voters, strict=True)]


def mean(grades: Sequence[Grade]) -> float:
    return float(np.mean([grade.strict for grade in grades]))


def interval(grades: Sequence[Grade], config: Config) -> list[float]:
    """Interval of the mean strict reward: Wilson's for right-or-wrong rewards, else bootstrap."""
    rewards = [grade.strict for grade in grades]
    if set(rewards) <= {0.0, 1.0}:
        return list(stats.wilson(round(sum(rewards)), len(rewards), config.stats.level))
    return list(stats.bootstrap_mean(rewards, config.stats.level, config.stats.resamples, config.stats.seed))


def planned(config: Config) -> int:
    """How many answers the study asks for, at most: the size of the vote on test is not known before."""
    n, s, largest = config.search.candidates, config.splits, max(config.search.votes)
    scoring = racing.evaluations(rounds_of(config)) if config.search.racing else n * s.search
    if config.search.score != "reward":
        scoring = config.fold.samples * s.search
    folding = 0
    if config.fold.methods:
        from seedfold import folds

        parts = folds.planned(config)
        if config.search.score != "reward":
            parts.pop(folds.DRAWN, 0)  # the search has drawn them
        folding = sum(parts.values()) + len(config.fold.methods) * s.test
    return scoring + s.search + (2 * largest + 1) * (s.select + s.test) + folding


def _warn(leaked: Mapping[str, Any], config: Config, progress: Progress) -> None:
    """What is said of the data before anything is spent."""
    if repeated := leaked["repeated_prompts"]:
        progress.say(f"left out {repeated:,} examples whose prompt another one has: one question, one split")
    if text := leakage.sentence(leaked, config.splits.test):
        progress.say(f"{text} seedfold check-task shows them")


# What a folder is bound to, besides its config


def same_material(journal: Journal, engine: Engine, evaluator: Evaluator, splits: Splits) -> None:
    """Refuse to go on with another model, other data or another reward than the journal was made with."""
    prompts = [
        (name, [(example.id, evaluator.prompt(example).tokens) for example in getattr(splits, name)])
        for name in ("search", "select", "gate", "test")
    ]
    material = {
        "model": engine.fingerprint,
        "examples and prompts": hashlib.blake2b(repr(prompts).encode(), digest_size=16).hexdigest(),
        "reward": evaluator.task.digest,
    }
    if copies := engine.sizes().get("copies"):  # of a stacked engine: as many as fit the GPU, unless the config says
        material["number of stacked copies"] = str(copies)
    known = journal.noted("material") if journal.count() else None
    if known is None:
        journal.note("material", material)
        known = material
    for name, value in material.items():
        if known.get(name) != value:
            raise UserError(
                f'the {name} changed since folder "{journal.folder}" was begun (then {known.get(name)}, now {value}); '
                "put back what was there, or start in a new folder"
            )


@contextmanager
def _watched(engine: Engine, folder: Path, progress: Progress) -> Iterator[Callable[[], None]]:
    """Show how fast each engine of a pool is, and keep in the folder how busy they were: when asked, and at any end."""
    if not hasattr(engine, "utilisation"):
        yield lambda: None
        return
    from seedfold.engines.pool_load import Told

    told = Told(folder / "engines.json")
    progress.engines = engine.rates  # type: ignore[attr-defined]
    try:
        yield (keep := lambda: told.write(engine.utilisation(), engine.names()))  # type: ignore[attr-defined]
    finally:
        keep()


@contextmanager
def _clock(journal: Journal) -> Iterator[Callable[[], float]]:
    """Add the time spent to the journal's, however this ends; gives the seconds of all runs together."""
    start, before = time.monotonic(), journal.noted("seconds", 0.0)

    def seconds() -> float:
        return float(before + time.monotonic() - start)

    try:
        yield seconds
    finally:
        journal.note("seconds", seconds())
