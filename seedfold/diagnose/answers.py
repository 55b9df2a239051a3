"""The answers that a diagnostic still lacks, asked of the study's own engine.

The study's journal is only read. What is answered anew goes into a journal of its own, in a folder below the study's,
bound to the study's config: the same command goes on where it was stopped, and asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedfold.diagnose.saved import Saved, rewards_of
from seedfold.engines import opened
from seedfold.evaluate import Evaluator
from seedfold.journal import FILE, Journal
from seedfold.progress import Progress
from seedfold.recipe import Recipe
from seedfold.study import same_material
from seedfold.tasks.base import Example

Array = NDArray[np.float64]


def answer(
    saved: Saved, name: str, recipes: Sequence[Recipe], examples: Sequence[Example], progress: Progress
) -> Array:
    """(recipes, examples) rewards of greedy answers, from the study's engine where no journal has them.

    They are kept in the journal of the folder `name` below the study's. What the study or another diagnostic answered
    before is taken from there. The model is loaded only if an answer is missing.
    """
    different = list({recipe.key: recipe for recipe in recipes}.values())
    ids = [example.id for example in examples]
    with Journal.open(saved.folder / name, saved.config.binding()) as journal:
        for source in (saved.folder, saved.folder / "transfer", saved.folder / "merges"):
            if source != journal.folder and (source / FILE).exists():
                _copy(source, journal, different, ids)
        if np.isnan(rewards_of(journal, different, ids)).any():
            with evaluator(saved, journal, progress) as asked:
                progress.expect(progress.done + len(different) * len(ids))
                progress.enter(name)
                asked.greedy_many(different, examples)
                progress.close()
        return rewards_of(journal, recipes, ids)


def _copy(source: Path, journal: Journal, recipes: Sequence[Recipe], ids: Sequence[str]) -> None:
    with Journal.read(source) as known:
        if known.config != journal.config:  # of a study that this folder held before
            return
        for recipe in recipes:
            rows = known.rows(recipe.key, 0, ids)
            if rows and len(journal.done(recipe.key, ids)) < len(ids):
                journal.add_recipe(recipe.key, known.recipe_text(recipe.key))
                journal.record(rows)


@contextmanager
def evaluator(saved: Saved, journal: Journal, progress: Progress) -> Iterator[Evaluator]:
    """The study's engine and task on another journal; refused if model, prompts or reward are not the study's."""
    progress.say(f"loading {saved.config.model.name}")
    with opened(saved.config.model, saved.config.engine) as engine:
        found = Evaluator(engine, saved.dealt.task, journal, progress, saved.limit)
        with Journal.read(saved.folder) as study:
            same_material(study, engine, found, saved.dealt.splits)
        yield found


def sketched(saved: Saved, recipes: Sequence[Recipe], samples: int) -> Array:
    """(recipes, recipes) inner products of the steps in weight space, from about `samples` weights of the model."""
    from seedfold.models import load
    from seedfold.weights import Weights, sketch

    model, _ = load(saved.config.model)
    weights = Weights(model)
    steps = np.stack([sketch(recipe, weights, samples).numpy() for recipe in recipes]).astype(np.float64)
    return np.asarray(steps @ steps.T)
