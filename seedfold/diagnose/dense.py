"""Log-probabilities of reference answers: a dense score, for one prefill per candidate and no decoding.

A reference is a full-reward answer to the example that is in the study's journal, the base's own where it has one, else the
one that most candidates gave: so its wording is the model's. Examples that nobody got right have none. Or it is the text of
a column of the data, when asked for: another wording can tell the opposite (docs/diagnose.md has a case).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seedfold.dense import continuation
from seedfold.diagnose.answers import evaluator
from seedfold.diagnose.saved import Saved, rewards_of
from seedfold.journal import FILE, Journal, Row
from seedfold.progress import Progress
from seedfold.tasks import validate
from seedfold.tasks.base import Example

Array = NDArray[np.float64]


def references(saved: Saved, examples: Sequence[Example], column: str = "") -> dict[str, str]:
    """Reference texts by example id; `column`: those of the data, which a column without texts refuses."""
    if column:
        texts = validate.references(saved.dealt.task, saved.config.task.name == "custom", column)[1]
        return {example.id: texts[example.id] for example in examples if example.id in texts}
    best = full(saved)
    if best is None:
        return {}
    given: dict[str, Counter[str]] = {}
    own: dict[str, str] = {}
    ids = [example.id for example in examples]
    for folder in (saved.folder, saved.folder / "transfer"):
        if not (folder / FILE).exists():
            continue
        with Journal.read(folder) as journal:
            for recipe in (saved.base, *saved.recipes):
                for row in journal.rows(recipe.key, 0, ids):
                    if row.reward >= best and row.completion.strip():
                        if recipe is saved.base:
                            own[row.example] = row.completion
                        given.setdefault(row.example, Counter())[row.completion] += 1
    return {example: own.get(example) or counts.most_common(1)[0][0] for example, counts in given.items()}


def folder_of(column: str = "") -> str:
    """Where log-probabilities are kept, below the study's folder."""
    return f"transfer/references-{column.replace('/', '_')}" if column else "transfer/references"


def full(saved: Saved) -> float | None:
    """The greatest reward that was ever earned on search; None if all earn the same."""
    seen = np.concatenate([saved.rewards.ravel(), saved.base_rewards])
    high, low = float(np.nanmax(seen)), float(np.nanmin(seen))
    return high if high > low else None


def logprobs(
    saved: Saved, texts: Mapping[str, str], examples: Sequence[Example], progress: Progress, column: str = ""
) -> tuple[Array, Array] | None:
    """Natural-log probabilities of whole reference texts, teacher-forced, in the candidates' models and in the base's.

    They are kept in a journal below the study's folder, a recipe at a time; the model is loaded only if some are missing.
    `column`: where the texts come from, as in `references`.

    Returns:
        (candidates, examples) and (examples,), NaN where there is no reference; None without any, or where the chat
        template does not show an assistant's text as it is, so that its tokens cannot be told.
    """
    asked = [example for example in examples if example.id in texts]
    if not asked:
        return None
    ids = [example.id for example in examples]
    recipes = [saved.base, *saved.recipes]
    with Journal.open(saved.folder / folder_of(column), saved.config.binding()) as journal:
        # Once asked, a reference stays: log-probabilities of one text are not those of another, and a study that goes on
        # might find a more common one.
        texts = {**texts, **journal.noted("references", {})}
        journal.note("references", texts)
        missing = [r for r in recipes if len(journal.done(r.key, [e.id for e in asked])) < len(asked)]
        if missing:
            with evaluator(saved, journal, progress) as found:
                prompts = [found.prompt(example) for example in asked]
                tails = []
                for example in asked:
                    tail = continuation(found.engine, saved.dealt.task.messages(example), texts[example.id])
                    if tail is None:
                        return None
                    tails.append(tail)
                progress.expect(progress.done + len(missing) * len(asked))
                progress.enter("log-probabilities")
                for recipe in missing:
                    found.engine.become(recipe)
                    values = [sum(tokens) for tokens in found.engine.logprobs(prompts, tails)]
                    journal.add_recipe(recipe.key, recipe.to_json())
                    journal.record(
                        [
                            Row(recipe.key, e.id, 0, v, v, None, texts[e.id], len(prompt.tokens), len(tail), "stop")
                            for e, v, prompt, tail in zip(asked, values, prompts, tails, strict=True)
                        ]
                    )
                    progress.add(len(asked))
                progress.close()
        table = rewards_of(journal, recipes, ids)
    return table[1:], table[0]
