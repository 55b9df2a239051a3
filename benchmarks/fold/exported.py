"""Whether a fold's export is the model that the study tested, asked of transformers alone.

    seedfold export STUDY/recipes/fold-linear.json DIR
    python benchmarks/fold/exported.py STUDY DIR [--recipe fold-linear] [--prompts 50]

The exported checkpoint, and the base with the recipe's weights written into it, answer the study's first test prompts by
transformers' own `generate`, greedily and one at a time: those answers must be the same. How many are also those of the
study's journal is told beside it, for the fold and for the base: the study's engine computes attention in another order,
which in bfloat16 decides near ties. (`seedfold eval --model DIR` computes as the study does, and gives its answers.)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from seedfold import config, models, study
from seedfold.journal import Journal
from seedfold.recipe import Recipe
from seedfold.splits import deal
from seedfold.tasks.base import Example, Task
from seedfold.weights import Weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--recipe", default="fold-linear")
    parser.add_argument("--prompts", type=int, default=50)
    arguments = parser.parse_args()
    record = study.load(arguments.study).record
    limit = record["token_limit"]["used"]
    chosen = config.from_dict(record["config"])
    recipe = Recipe.load(arguments.study / "recipes" / f"{arguments.recipe}.json")
    dealt = deal(chosen)
    examples = dealt.splits.test[: arguments.prompts]
    tested = {
        name: completions(arguments.study, key, examples)
        for name, key in (("base", replace(recipe, terms=()).key), (arguments.recipe, recipe.key))
    }

    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype="auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.checkpoint)
    exported = [answer(model, tokenizer, dealt.task, example, limit) for example in examples]
    model, tokenizer = models.load(chosen.model)
    plain = [answer(model, tokenizer, dealt.task, example, limit) for example in examples]
    Weights(model).become(recipe)
    rebuilt = [answer(model, tokenizer, dealt.task, example, limit) for example in examples]

    print(f"{same(exported, rebuilt)} of {len(examples)} answers of the export are those of the rebuilt recipe")
    print(
        f"{same(exported, tested[arguments.recipe])} are those of the study; of the base's, {same(plain, tested['base'])}"
    )
    print(f"{same(exported, plain)} are those of the base")
    sys.exit(exported != rebuilt)


def completions(folder: Path, recipe: str, examples: Sequence[Example]) -> list[str]:
    """What a recipe answered in the study."""
    with Journal.read(folder) as journal:
        rows = {row.example: row.completion for row in journal.rows(recipe, 0, [example.id for example in examples])}
    return [rows.get(example.id, "") for example in examples]


def answer(model: Any, tokenizer: Any, task: Task, example: Example, limit: int) -> str:
    """A greedy answer by `generate`, cut at the task's stop strings."""
    prompt = tokenizer.apply_chat_template(
        task.messages(example), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = model.generate(**prompt, do_sample=False, max_new_tokens=limit)
    text = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(text[: min((text.find(stop) for stop in task.stop if stop in text), default=len(text))])


def same(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
