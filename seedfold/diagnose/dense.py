"""Log-probabilities of reference answers: a dense score, for one prefill per candidate and no decoding.

What a reference is: a full-reward answer to the example that is in the study's journal, the base's own where it has one,
else the one that most candidates gave. So its wording is the model's, which a score by log-probability needs to be valid.
Where nobody was right it is the task's column of right answers, if that text itself earns the full reward; else there is
none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seedfold.diagnose.answers import evaluator
from seedfold.diagnose.saved import Saved, rewards_of
from seedfold.engines.base import Engine
from seedfold.journal import FILE, Journal, Row
from seedfold.progress import Progress
from seedfold.tasks import validate
from seedfold.tasks.base import Example, Message

Array = NDArray[np.float64]
FOLDER = "transfer/references"


def references(saved: Saved, examples: Sequence[Example]) -> dict[str, str]:
    """Reference texts by example id."""
    given: dict[str, Counter[str]] = {}
    own: dict[str, str] = {}
    best = full(saved)
    if best is None:
        return {}
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
    found = {example: own.get(example) or counts.most_common(1)[0][0] for example, counts in given.items()}
    column = validate.references(saved.dealt.task, saved.config.task.name == "custom")[1]
    for example in examples:
        text = column.get(example.id, "")
        if example.id not in found and text and saved.dealt.task.grade(text, example).strict >= best:
            found[example.id] = text
    return found


def full(saved: Saved) -> float | None:
    """The greatest reward that was ever earned on search; None if all earn the same."""
    seen = np.concatenate([saved.rewards.ravel(), saved.base_rewards])
    high, low = float(np.nanmax(seen)), float(np.nanmin(seen))
    return high if high > low else None


def logprobs(
    saved: Saved, texts: Mapping[str, str], examples: Sequence[Example], progress: Progress
) -> tuple[Array, Array] | None:
    """Natural-log probabilities of whole reference texts, teacher-forced, in the candidates' models and in the base's.

    They are kept in a journal below the study's folder, a recipe at a time; the model is loaded only if some are missing.

    Returns:
        (candidates, examples) and (examples,), NaN where there is no reference; None without any, or where the chat
        template does not show an assistant's text as it is, so that its tokens cannot be told.
    """
    asked = [example for example in examples if example.id in texts]
    if not asked:
        return None
    ids = [example.id for example in examples]
    recipes = [saved.base, *saved.recipes]
    with Journal.open(saved.folder / FOLDER, saved.config.binding()) as journal:
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


def continuation(engine: Engine, messages: Sequence[Message], text: str) -> tuple[int, ...] | None:
    """Token ids of `text` as the assistant's answer, by the chat template alone; None where that does not show it.

    An empty answer tells what the template puts before and behind it.
    """
    prompt = engine.encode(messages)
    empty, whole = (
        engine.encode([*messages, {"role": "assistant", "content": content}]) for content in ("", text.strip())
    )
    behind = empty[len(prompt) :]
    end = len(whole) - len(behind)
    if empty[: len(prompt)] != prompt or whole[: len(prompt)] != prompt or whole[end:] != behind or end <= len(prompt):
        return None
    return whole[len(prompt) : end]
