"""What `check-task` shows: the prompts as the model will see them, and what is wrong with the data or the reward.

It needs the tokenizer of the model, or its processor where it sees, and not its weights.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from seedfold import leakage, models, tasks
from seedfold.engines.base import pictures
from seedfold.engines.text import encode_chat
from seedfold.errors import UserError
from seedfold.splits import Dealt, deal, needed
from seedfold.study import planned
from seedfold.tasks import validate

if TYPE_CHECKING:
    from seedfold.config import Config
    from seedfold.tasks.base import Task

WIDTH = 100
SHOWN = 3
"""Near-duplicates that are shown side by side."""
PICTURES = 256
"""Prompts with pictures whose tokens are counted: each picture has to be prepared for it."""


@dataclass
class Report:
    """What was found. `facts` and the rest are plain JSON types; `good` is whether nothing has to be mended."""

    title: str
    prompts: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {"good": self.good, **vars(self)}

    def take(self, found: validate.Findings) -> None:
        self.facts |= found.facts
        self.problems += found.problems
        self.notes += found.notes

    def __str__(self) -> str:
        lines = [self.title, ""]
        for number, prompt in enumerate(self.prompts, 1):
            lines += [f"prompt {number}, as the model sees it", textwrap.indent(prompt, "  | ", lambda _: True), ""]
        lines += _facts(self.facts)
        for name, texts in (("problems", self.problems), ("notes", self.notes)):
            if texts:
                lines += ["", name, *(_item(text) for text in texts)]
        return "\n".join([*lines, "", "nothing to mend" if self.good else f"to mend: {len(self.problems)}"])


def check(config: Config, prompts: int = 3, reference: str = "") -> Report:
    """Look a task over before a study is run.

    Args:
        prompts: how many to show.
        reference: the column of right answers; empty: the first of `validate.REFERENCES` that there is.

    Raises:
        UserError: the task or the model's tokenizer cannot be loaded.
    """
    report = Report(f"task {config.task.name}, model {config.model.name}")
    dealt: Dealt | None = None
    try:
        dealt = deal(config)
        task = dealt.task
    except UserError as error:
        task = tasks.load(config.task, 1)  # where more is wrong than the number, it says so
        report.problems.append(str(error))
    have, wanted = len(task.examples), needed(config.splits)
    report.facts["examples"] = {"have": have, "needed": wanted, **vars(config.splits)}
    own = bool(config.task.reward)
    column, right = validate.references(task, own, reference)
    _tokens(report, config, task, right if own else {}, prompts)
    report.take(validate.data(task, own, column, right))
    if config.task.options.get("judge_url"):
        report.notes.append("rewards come from a judge, which was not asked")
    else:
        report.take(validate.rewards(task, own, column, right))
        _slow(report, config)
    if dealt is not None:
        _leaks(report, config, dealt)
    return report


def _tokens(report: Report, config: Config, task: Task, right: dict[str, str], prompts: int) -> None:
    """Lengths of prompts and of right answers, against what the model and the answer's limit have room for."""
    encode, tokenizer, positions = _reader(config)
    chats = {example.id: task.messages(example) for example in task.examples}
    if any(pictures(chat)[0] for chat in chats.values()) and len(chats) > PICTURES:
        report.notes.append(f"tokens were counted of the first {PICTURES:,} prompts with pictures, of {len(chats):,}")
        chats = dict(list(chats.items())[:PICTURES])
    coded = {key: encode(chat) for key, chat in chats.items()}
    shown = list(coded.values())[: max(0, prompts)]
    report.prompts = [_shown(str(tokenizer.decode(tokens, skip_special_tokens=False))) for tokens in shown]
    lengths = [len(tokens) for tokens in coded.values()]
    long = [key for key, tokens in coded.items() if positions and len(tokens) + task.max_tokens > positions]
    report.facts["prompt tokens"] = {"min": min(lengths), "median": median(lengths), "max": max(lengths)}
    report.facts |= {"answer limit": task.max_tokens, "positions": positions, "too long": len(long)}
    if long:
        report.problems.append(
            f"prompts that need more than the model's {positions:,} positions with an answer of {task.max_tokens:,} "
            f"tokens: {len(long):,}; the first is that of {_place(task, long[0])} with {len(coded[long[0]]):,} tokens; "
            'lower "task.max_tokens" or drop them'
        )
    if not right:
        return
    answers = {key: len(tokenizer(text, add_special_tokens=False)["input_ids"]) for key, text in right.items()}
    cut = [key for key, length in answers.items() if length >= task.max_tokens]  # one more token ends the answer
    if cut:
        report.problems.append(
            f'references that do not fit "task.max_tokens", which is {task.max_tokens}: {len(cut):,} of {len(right):,}; '
            f"the longest has {max(answers.values()):,} tokens and needs one more to end"
        )
    stopped = [key for key, text in right.items() if any(stop in text.strip() for stop in task.stop)]
    if stopped:
        report.problems.append(
            f'references with a string of "task.stop" in them, where the answer would be cut off: {len(stopped):,} of '
            f"{len(right):,}; the first is that of {_place(task, stopped[0])}"
        )


def _place(task: Task, key: str) -> str:
    return validate.place(task, next(example for example in task.examples if example.id == key))


def _reader(config: Config) -> tuple[Callable[[Sequence[Mapping[str, Any]]], tuple[int, ...]], Any, int | None]:
    """What makes tokens of a chat, as the engine would; the tokenizer; and the positions that the model has."""
    name = config.model.name
    if not models.sees(config.model):
        tokenizer, positions = _tokenizer(config)
        return lambda chat: encode_chat(tokenizer, chat, name), tokenizer, positions
    from seedfold.engines.vision import prepare

    processor = models.load_processor(config.model)

    def encode(chat: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        images, text = pictures(chat)
        return tuple(prepare(processor, text or json.dumps(list(chat)), images, name)["input_ids"][0].tolist())

    return encode, processor.tokenizer, _tokenizer(config)[1]


def _shown(prompt: str) -> str:
    """A prompt with runs of one special token, as pictures have them by the hundred, written once."""
    return re.sub(r"(<[^<>\s]+>)\1{3,}", lambda run: f"{run[1]} × {len(run[0]) // len(run[1])}", prompt)


def _tokenizer(config: Config) -> tuple[Any, int | None]:
    """The tokenizer, and the positions that the model has."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    place = models.locate(config.model.name)
    common: dict[str, Any] = {"trust_remote_code": config.model.trust_remote_code}
    if not os.path.isdir(place):
        common["revision"] = config.model.revision or None
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        shape = AutoConfig.from_pretrained(place, **common)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f'"model.name" is "{config.model.name}", whose tokenizer cannot be loaded ({type(error).__name__}: {reason}); '
            f"give a hub name, a checkpoint directory, a .gguf file or {models.EMBEDDED}"
        ) from None
    return tokenizer, getattr(shape.get_text_config(), "max_position_embeddings", None)


def _slow(report: Report, config: Config) -> None:
    each = report.facts["milliseconds"]
    if each > validate.SLOW:
        text = (
            f"a call to the reward takes {each:,.0f} ms: {planned(config) * each / 60_000:,.1f} minutes for the study's "
            f"{planned(config):,} answers"
        )
        (report.problems if each > 1000 else report.notes).append(text)


def _leaks(report: Report, config: Config, dealt: Dealt) -> None:
    """Near-duplicates. Those of generated tasks are alike by design, and nothing to mend."""
    pairs = dealt.leakage()
    found = leakage.summary(pairs, dealt.repeated)
    report.facts["leakage"] = found
    if not pairs:
        return
    texts = {e.id: dealt.task.messages(e)[-1]["content"] for part in vars(dealt.splits).values() for e in part}
    counts = ", ".join(f"{name} {count:,}" for name, count in found["near_duplicates"].items())
    shown = "".join(
        f"\n  {pair.similarity:.2f} {pair.split}: {_line(texts[pair.example], texts[pair.other])}"
        f"\n       {pair.other_split}: {_line(texts[pair.other], texts[pair.example])}"
        for pair in pairs[:SHOWN]
    )
    text = leakage.sentence(found, config.splits.test) or "Near-duplicates across splits, none of them in test."
    said = report.problems if found["test"] and config.task.path else report.notes
    said.append(f"{text} ({counts}){shown}")


def _line(text: str, other: str) -> str:
    """The text on one line, from a little before the first difference."""
    one, two = " ".join(str(text).split()), " ".join(str(other).split())
    place = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    start = max(0, min(place - 30, len(one) - 80))
    return ("…" if start else "") + one[start : start + 80] + ("…" if start + 80 < len(one) else "")


# As text


def _facts(facts: dict[str, Any]) -> list[str]:
    examples = facts["examples"]
    sizes = ", ".join(f"{name} {examples[name]:,}" for name in ("search", "select", "gate", "test"))
    lines = [("examples", f"{examples['have']:,}; the splits take {examples['needed']:,} ({sizes})")]
    if tokens := facts.get("prompt tokens"):
        room = f" of {facts['positions']:,} positions" if facts["positions"] else ""
        full = f"; {facts['too long']:,} do not fit" if facts["too long"] else ""
        lengths = f"min {tokens['min']:,}, median {tokens['median']:,g}, max {tokens['max']:,}"
        lines.append(("tokens", f"prompt {lengths}; answer up to {facts['answer limit']:,}{room}{full}"))
    if found := facts.get("references"):
        lenient = f", lenient {found['lenient']:.3f}" if found["lenient"] != found["strict"] else ""
        lines.append(
            (
                "right answers",
                f"column {found['column']}, {found['n']:,} graded: mean reward {found['strict']:.3f}{lenient}",
            )
        )
    for name in ("another example's reference", "empty answer"):
        if facts.get(name) is not None:
            lines.append((name, f"mean reward {facts[name]:.3f}"))
    if facts.get("balance"):
        lines.append(("references", ", ".join(f"{answer} {count:,}" for answer, count in facts["balance"].items())))
    if "milliseconds" in facts:
        lines.append(("a call", f"{facts['milliseconds']:.2g} ms"))
    return [f"{name:28} {text}" for name, text in lines]


def _item(text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join(
        [textwrap.fill(first, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False), *rest]
    )
