"""What the base and each one-pass method answered on test, side by side: from the journal and bounded, for the script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedfold.errors import UserError
from seedfold.journal import Journal, Row
from seedfold.recipe import Recipe
from seedfold.report import parts
from seedfold.report.lines import count, one_pass

if TYPE_CHECKING:
    from seedfold.splits import Dealt

EXAMPLES = 400
"""On the page, at most."""
LETTERS = 2000
"""Of one text, at most."""
BUDGET = 1_500_000
"""Letters of all texts together, at most."""


def collect(folder: Path, record: Mapping[str, Any], dealt: Dealt | None = None) -> dict[str, Any] | None:
    """The answers of a finished study, in plain JSON types; None where no journal says which examples are test.

    Args:
        folder: the study's, with its journal and its recipes.
        dealt: its task and splits; None: they are loaded again, and where that cannot be done there are no questions.

    Returns:
        names: of the methods, the base first. chosen: the place among them of what to deploy, else 1. binary: whether every
        reward is 0 or 1. total: how many examples test has. examples: each with `question` and `right` (texts, empty where
        not known) and `answers`, one per method: [completion, answer or None, reward, lenient reward, whether it was cut
        off]. Those that some method answers better or worse than the base come first. Texts that are too long end with how
        many letters were left out.
    """
    try:
        with Journal.read(folder) as journal:
            ids = (journal.noted("splits") or {}).get("test")
            methods = _methods(journal, record, folder, ids) if ids else {}
    except UserError:  # none there, or damaged: the record tells the rest
        return None
    if len(methods) < 2:
        return None
    base = next(iter(methods.values()))
    changed = {one for one in base for rows in methods.values() if rows[one].reward != base[one].reward}
    questions, right = _questions(record, dealt)
    examples: list[dict[str, Any]] = []
    room = BUDGET
    for one in sorted(base, key=lambda one: one not in changed)[:EXAMPLES]:
        example = {
            "question": _cut(questions.get(one, "")),
            "right": _cut(right.get(one, "")),
            "answers": [_told(rows[one]) for rows in methods.values()],
        }
        room -= sum(map(len, (example["question"], example["right"], *(answer[0] for answer in example["answers"]))))
        if room < 0:
            break
        examples.append(example)
    binary = all(row.reward in (0, 1) for rows in methods.values() for row in rows.values())
    deploy = (one_pass(dict(record)) or {"method": ""})["method"]
    chosen = next((place for place, name in enumerate(methods) if deploy and deploy in name.split(", ")), 1)
    return {"names": list(methods), "chosen": chosen, "binary": binary, "total": len(base), "examples": examples}


def section(found: Mapping[str, Any] | None) -> str:
    """The answers as a part of the page, to be filled by the script."""
    if not found or not found["examples"]:
        return ""
    shown, total = len(found["examples"]), found["total"]
    which = f"All {count(total)} test examples."
    if shown < total:
        which = (
            f"{count(shown)} of {count(total)} test examples: first those that a method answered better or worse than "
            "the base, then others while there is room."
        )
    return (
        '<section class="answers">\n<h2>Answers side by side</h2>\n'
        f'<p class="small quiet">{parts.text(which)} Words that only one of the two wrote are marked.</p>\n'
        "<noscript><p>This part needs JavaScript; the same answers are in the study's journal, and "
        "<code>seedfold report DIR --parquet FILE</code> writes them as a table.</p></noscript>\n"
        f'<div id="answers-view"></div>\n{parts.data("answers", found)}\n</section>'
    )


def _methods(journal: Journal, record: Mapping[str, Any], folder: Path, ids: list[str]) -> dict[str, dict[str, Row]]:
    """Method -> example -> its greedy answer: the base, the best single, and the folds that are not the base.

    Methods that are the same model stand together under both names. One that did not answer all of test is left out.
    """
    names: dict[str, str] = {}
    for line in record["results"]:
        if line["kind"] not in ("single", "fold") or not line["recipes"]:
            continue
        try:
            recipe = Recipe.load(folder / line["recipes"][0])
        except UserError:  # moved or lost: the others can still be shown
            continue
        names.setdefault(Recipe(recipe.base, dtype=recipe.dtype).key, "base")
        if recipe.terms:
            names[recipe.key] = f"{names[recipe.key]}, {line['method']}" if recipe.key in names else line["method"]
    found = {name: {row.example: row for row in journal.rows(key, 0, ids)} for key, name in names.items()}
    return {name: rows for name, rows in found.items() if len(rows) == len(ids)}


def _questions(record: Mapping[str, Any], dealt: Dealt | None) -> tuple[dict[str, str], dict[str, str]]:
    """Questions and right answers by example id, as far as the data is there and has them."""
    from seedfold import config, splits
    from seedfold.tasks import validate

    chosen = config.from_dict(record["config"])
    if dealt is None:
        try:
            dealt = splits.deal(chosen)
        except UserError:
            return {}, {}
    asked = {one.id: _question(dealt.task.messages(one)[-1]["content"]) for one in dealt.splits.test}
    return asked, validate.references(dealt.task, chosen.task.name == "custom")[1]


def _question(content: Any) -> str:
    """The last message without its pictures."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)


def _told(row: Row) -> list[Any]:
    return [
        _cut(row.completion),
        row.answer if row.answer is None else _cut(row.answer),
        row.reward,
        row.lenient,
        row.finish == "length",
    ]


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[:LETTERS]} … ({count(len(text) - LETTERS)} letters left out)"
