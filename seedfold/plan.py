"""What a study will cost, before anything is spent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from seedfold import tasks
from seedfold.engines import open_engine
from seedfold.evaluate import Evaluator
from seedfold.progress import Progress, duration
from seedfold.search import racing
from seedfold.splits import Splits, needed, split
from seedfold.study import base_recipe, planned, rounds_of

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.engines.base import Engine

PROBE = 32
"""Answers that the probe generates."""


def plan(config: Config, probe: bool = True) -> str:
    """Answers by phase; with the probe also tokens, time and memory, measured on a few answers of the base."""
    task = tasks.load(config.task, needed(config.splits))
    splits = split(task.examples, config.splits, f'task "{config.task.name}"')
    largest, sizes = max(config.search.votes), config.splits
    scoring = racing.evaluations(rounds_of(config)) if config.search.racing else config.search.candidates * sizes.search
    phases = [
        ("search: candidates", scoring),
        ("search: base", sizes.search),
        (f"select: {largest} members, {largest} samples, base", (2 * largest + 1) * sizes.select),
        (f"test: up to {largest} members, {largest} samples, base", (2 * largest + 1) * sizes.test),
    ]
    lines = [f"study {config.name}: {config.model.name} on {config.task.name}", ""]
    lines += [f"{count:>10,}  {name}" for name, count in phases]
    lines += [f"{planned(config):>10,}  answers in all, at most {task.max_tokens} tokens each", ""]
    if config.search.racing:
        full = config.search.candidates * sizes.search
        lines.append(f"racing saves {1 - scoring / full:.0%} of the search's answers")
    if probe:
        lines += _measured(config, task, splits)
    else:
        lines.append("time and memory: leave out --no-probe to measure them")
    return "\n".join(lines)


def _measured(config: Config, task: tasks.Task, splits: Splits) -> list[str]:
    engine = open_engine(config.model, config.engine)
    evaluator = Evaluator(engine, task, None, Progress(quiet=True))
    examples = (splits.search + splits.select + splits.test)[:PROBE]
    recipe = base_recipe(config, engine)
    evaluator.greedy(recipe, examples[:2])  # warm up
    start = time.monotonic()
    rows = evaluator.greedy(recipe, examples)
    rate = len(rows) / (time.monotonic() - start)
    tokens = sum(row.tokens for row in rows) / len(rows)
    total = planned(config)
    return [
        f"probe: {len(rows)} answers of the base at {rate:.1f}/s, {tokens:.0f} tokens each on average, "
        f"{sum(row.finish == 'length' for row in rows)} cut off",
        f"time: about {duration(total / rate)}; tokens: about {total * tokens:,.0f}",
        memory(engine, config, max(row.prompt_tokens for row in rows), task.max_tokens),
    ]


def memory(engine: Engine, config: Config, prompt: int, answer: int) -> str:
    """Weights, their resident base, and keys and values of a full batch at full length."""
    sizes = engine.sizes()
    cache = sizes["cache_bytes_per_token"] * (prompt + answer) * config.engine.batch
    parts = {"weights": sizes["weights"], "base copy": sizes["weights"], "keys and values, at most": cache}
    whole = sum(parts.values())
    shown = ", ".join(f"{name} {value / 2**20:,.0f} MiB" for name, value in parts.items())
    return f"memory: about {whole / 2**30:.1f} GiB ({shown})"
