"""What is done with a finished model: measure it, look at it, write it out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seedfold import config as settings
from seedfold.engines import open_engine, opened
from seedfold.errors import UserError
from seedfold.evaluate import Evaluator
from seedfold.export import check_free
from seedfold.progress import Progress
from seedfold.recipe import Recipe
from seedfold.splits import deal
from seedfold.study import base_recipe, interval, vote_of

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.weights import Step


def evaluate(
    config: Config, recipes: Sequence[Path], part: str, answers: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Greedy answers of a model to one split of a task, graded.

    Args:
        config: names model, task and splits; the splits are those of a study with the same config.
        recipes: none: the model as it is; one: that recipe's model; several: their vote, the best first.
        part: "search", "select", "gate" or "test".
        answers: where to write every completion with its grade, as JSON lines.
        progress: where to show how far it is.

    Returns:
        model, fingerprint, recipes, task, split, n, accuracy (mean strict reward), interval, strict, lenient, truncated.
    """
    progress = progress or Progress(quiet=True)
    chosen = [Recipe.load(path) for path in recipes]
    dealt = deal(config)
    task, examples = dealt.task, getattr(dealt.splits, part)
    if not examples:
        raise UserError(f'"splits.{part}" is 0; give it examples or choose another --split')
    limit = _learned(recipes) if config.task.limit == "learned" else 0
    model = config.model if not chosen else dataclasses.replace(config.model, dtype=chosen[0].dtype)
    progress.say(f"loading {model.name}")
    with opened(model, config.engine) as engine:
        evaluator = Evaluator(engine, task, None, progress, limit)
        progress.expect(len(examples) * max(1, len(chosen)))
        progress.enter(part)
        voters = evaluator.greedy_many(chosen or [base_recipe(config, engine)], examples)
        fingerprint = engine.fingerprint
    progress.close()
    grades = vote_of(voters)
    if answers is not None:
        _write_answers(answers, [dataclasses.asdict(row) for rows in voters for row in rows])
    strict = float(np.mean([grade.strict for grade in grades]))
    return {
        "model": config.model.name,
        "fingerprint": fingerprint,
        "recipes": [str(path) for path in recipes],
        "task": config.task.name,
        "split": part,
        "n": len(grades),
        "accuracy": strict,
        "interval": interval(grades, config),
        "strict": strict,
        "lenient": float(np.mean([grade.lenient for grade in grades])),
        "truncated": sum(row.finish == "length" for rows in voters for row in rows),
    }


def export(path: Path, folder: Path, model: str = "") -> Path:
    """Write the model of a recipe file as a checkpoint; `model` says where the base is, if not where the recipe says."""
    check_free(folder)
    recipe = Recipe.load(path)
    engine = open_engine(_base(recipe, model), settings.Engine())
    engine.export(recipe, folder, card(recipe, path))
    return folder


def inspect(path: Path, model: str = "") -> tuple[list[Step], Recipe]:
    """What the recipe does to each tensor."""
    from seedfold import models
    from seedfold.engines.vision import weights_of
    from seedfold.weights import Weights

    recipe = Recipe.load(path)
    base = _base(recipe, model)
    if models.sees(base):
        return weights_of(models.load_vision(base)[0], base.name).inspect(recipe), recipe
    return Weights(models.load(base)[0]).inspect(recipe), recipe


def card(recipe: Recipe, path: Path) -> str:
    """The model card: what the model is, what was measured when the study's record is at hand, how to rebuild it."""
    measured = _measured(path)
    source = ", ".join(f"{name}: {value}" for name, value in recipe.source.items()) or "not stated"
    terms = "\n".join(f"    {json.dumps(list(term))}" for term in recipe.terms[:20])
    more = f"\n    … and {len(recipe.terms) - 20} more" if len(recipe.terms) > 20 else ""
    return f"""---
base_model: {json.dumps(recipe.base.name)}
library_name: transformers
tags: [seedfold]
---

# {recipe.base.name}, post-trained without gradients

Seeded perturbations were added to the weights of {recipe.base.name} and chosen by their reward, with
[seedfold](https://pypi.org/project/seedfold/). The licence is that of the base model.

Source: {source}.

## Measured

{measured}

## Recipe

Base fingerprint {recipe.base.fingerprint}, dtype {recipe.dtype}, rounding {recipe.rounding}, scale {recipe.scale},
tensors include {list(recipe.include)} exclude {list(recipe.exclude)}; terms [family, seed, scale]:

{terms}{more}
"""


def _learned(recipes: Sequence[Path]) -> int:
    """The token limit that the recipes' study learned, from its record."""
    from seedfold import study

    for path in recipes:
        folder = path.parent.parent
        if (folder / "record.json").is_file() and (limit := study.load(folder).record.get("token_limit")):
            return int(limit["used"])
    raise UserError(
        '"task.limit" is "learned", but what was learned is in the record of a study and no recipe of one was given; use '
        '"task.limit" fixed with "task.max_tokens"'
    )


def _measured(path: Path) -> str:
    """The study's result lines, when the recipe lies in a study's folder."""
    from seedfold import study

    record = path.parent.parent / "record.json"
    if not record.is_file():
        return "Nothing: the recipe was exported without its study's record."
    finished = study.load(record.parent)
    name = f"recipes/{path.name}"
    single = name == "recipes/rank-01.json"
    which = "best single" if single else "a member of the vote; it was not measured on the test split by itself"
    return f"This model is: {which}.\n\n```\n{finished}\n```"


def _base(recipe: Recipe, model: str) -> settings.Model:
    return settings.Model(name=model or recipe.base.name, revision=recipe.base.revision, dtype=recipe.dtype)


def _write_answers(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise UserError(f'--answers "{path}" cannot be written ({error}); give another path') from None
