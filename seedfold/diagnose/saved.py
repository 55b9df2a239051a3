"""A study's folder, finished or running, read as a scored population. All diagnostics come this way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedfold import config as settings
from seedfold.config import Config
from seedfold.errors import UserError
from seedfold.fold.base import Population, scaled
from seedfold.journal import Journal
from seedfold.recipe import Recipe
from seedfold.search.population import draw, sigma_of
from seedfold.splits import Dealt, deal
from seedfold.study import rounds_of
from seedfold.tasks.base import Example

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Saved:
    """A study as its folder tells it.

    Attributes:
        config: with the settings that bind no folder (engines at once, say) from the record, where there is one.
        dealt: the task and its splits.
        base: the recipe without terms.
        recipes: the candidates that have answered the first round's examples, in the order they were drawn.
        drawn: how many candidates the study has in all.
        rewards: (candidates, search examples) float64, NaN where not asked.
        base_rewards: (search examples,) float64.
        limit: tokens of an answer; 0: as many as the task says.
    """

    folder: Path
    config: Config
    dealt: Dealt
    base: Recipe
    recipes: list[Recipe]
    drawn: int
    rewards: Array
    base_rewards: Array
    limit: int

    @property
    def asked(self) -> NDArray[np.intp]:
        """Places of the search examples that all candidates answered."""
        return np.flatnonzero(~np.isnan(self.rewards).any(axis=0))

    @property
    def sigmas(self) -> Array:
        """(candidates,) sizes."""
        return np.array([sigma_of(recipe, self.config.search.sigmas) for recipe in self.recipes])

    @property
    def scales(self) -> list[float]:
        """The same with the sign of the minus of antithetic pairs; a subspace's steps of several terms have none."""
        one = [recipe.terms[0].scale if len(recipe.terms) == 1 else 0.0 for recipe in self.recipes]
        return [scale or sigma for scale, sigma in zip(one, self.sigmas.tolist(), strict=True)]

    @property
    def population(self) -> Population:
        """All of it, NaN where racing did not ask."""
        return Population(tuple(recipe.terms for recipe in self.recipes), self.rewards, self.base_rewards)

    @property
    def complete(self) -> Population:
        """The same on the examples that all candidates answered."""
        steps = tuple(recipe.terms for recipe in self.recipes)
        return Population(steps, self.rewards[:, self.asked], self.base_rewards[self.asked])

    @property
    def independent(self) -> Population:
        """`complete`, with each antithetic pair as one candidate: half the difference of its two effects."""
        whole = self.complete
        if not self.config.search.antithetic:
            return whole
        place = {recipe.terms: number for number, recipe in enumerate(self.recipes)}
        pairs = [
            (plus, minus)
            for step, plus in place.items()
            if step[0].scale > 0 and (minus := place.get(scaled(step, -1))) is not None
        ]
        one, other = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        effects = (whole.effects[one] - whole.effects[other]) / 2
        return Population(tuple(whole.terms[i] for i in one), whole.base + effects, whole.base)

    def examples(self, split: str) -> Sequence[Example]:
        """Those of a split; a split without any is refused."""
        found: Sequence[Example] = getattr(self.dealt.splits, split)
        if not found:
            raise UserError(f'"--split" is {split}, which has no examples in "{self.folder}"; use select or test')
        return found


def load(folder: str | Path, least: int = 4) -> Saved:
    """Read a study's folder.

    Raises:
        UserError: no study there, its data have changed, or fewer than `least` candidates answered the first round.
    """
    folder = Path(folder)
    with Journal.read(folder) as journal:
        chosen = _config(folder, journal)
        dealt = deal(chosen)
        ids = [example.id for example in dealt.splits.search]
        base = base_of(journal)
        drawn = draw(chosen.search, base.base, base.dtype) if base else []
        base_rewards = rewards_of(journal, [base], ids)[0] if base else np.full(len(ids), np.nan)
        if base is None or np.isnan(base_rewards).any():
            answered = int((~np.isnan(base_rewards)).sum())
            why = (
                "its data are not those it was made with"
                if journal.count() and not answered
                else "wait until it has gone on"
            )
            raise UserError(f'"{folder}" has {answered} of the base\'s {len(ids)} answers on search; {why}')
        rewards = rewards_of(journal, drawn, ids)
        limit = journal.noted("token_limit", {}).get("used", 0)
    first = rounds_of(chosen)[0][1]
    there = np.flatnonzero(~np.isnan(rewards[:, :first]).any(axis=1))
    if len(there) < least:
        raise UserError(
            f'"{folder}" has {len(there)} candidates that answered the first {first} search examples, but this takes at '
            f"least {least}; wait until the study has gone on, or run one with more candidates"
        )
    kept = rewards[there]
    # A candidate in the middle of a later round of racing: what all have is the first round.
    return Saved(folder, chosen, dealt, base, [drawn[i] for i in there], len(drawn), kept, base_rewards, limit)


def _config(folder: Path, journal: Journal) -> Config:
    """The journal's config; where the record holds the same, the record's, which has the settings that do not bind."""
    bound = journal.config
    try:
        told = settings.from_dict(json.loads((folder / "record.json").read_text(encoding="utf-8"))["config"])
        if told.binding() == bound:
            return told
    except (OSError, ValueError, KeyError, UserError):
        pass
    return settings.from_dict(bound)


def base_of(journal: Journal) -> Recipe | None:
    """The recipe without terms, as the journal has it."""
    recipes = (Recipe.from_json(journal.recipe_text(key)) for key in journal.recipes())
    return next((recipe for recipe in recipes if not recipe.terms), None)


def rewards_of(journal: Journal, recipes: Sequence[Recipe], ids: Sequence[str]) -> Array:
    """(recipes, examples) rewards of greedy answers, NaN where there is none."""
    place = {example: number for number, example in enumerate(ids)}
    found = np.full((len(recipes), len(ids)), np.nan)
    for number, recipe in enumerate(recipes):
        for row in journal.rows(recipe.key, 0, ids):
            found[number, place[row.example]] = row.reward
    return found


def common(studies: Sequence[Saved]) -> list[Array]:
    """For each study the (seeds, examples) rewards of the seeds that all of them scored, in the same order.

    Raises:
        UserError: fewer than 3 seeds in common.
    """
    places = [{recipe.terms: number for number, recipe in enumerate(saved.recipes)} for saved in studies]
    shared = [terms for terms in places[0] if all(terms in place for place in places)]
    if len(shared) < 3:
        raise UserError(
            f"{len(shared)} seeds were scored in all of {', '.join(str(saved.folder) for saved in studies)}, but "
            'discordance takes 3; give studies with the same "search.seed", sigmas and family'
        )
    return [
        saved.complete.rewards[[place[terms] for terms in shared]] for saved, place in zip(studies, places, strict=True)
    ]


def plain(value: Any) -> Any:
    """Numbers, texts, lists and mappings as JSON can say them; numbers that are not finite become None.

    To twelve digits: what is behind them are last bits of linear algebra, which depend on the machine.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.12g}") if np.isfinite(value) else None
    return value
