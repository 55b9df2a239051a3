"""What a study will cost, before anything is spent."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from seedfold import folds, tasks
from seedfold.engines import memory as gpu_memory
from seedfold.engines import opened
from seedfold.engines.base import Decoding, Job
from seedfold.engines.pool import Pool
from seedfold.errors import UserError
from seedfold.evaluate import Evaluator
from seedfold.progress import Progress, duration
from seedfold.recipe import Base
from seedfold.search import racing
from seedfold.search.population import draw
from seedfold.splits import Splits, deal
from seedfold.study import base_recipe, planned, rounds_of

if TYPE_CHECKING:
    from seedfold import config as settings
    from seedfold.config import Config
    from seedfold.engines.base import Engine

PROBE = 32
"""Answers of the base that the probe generates where one engine runs on the CPU."""

SECONDS = 10.0
"""How long the probe of other engines runs, warming up aside."""

PROMPT = 512
"""Tokens of the longest prompt, as supposed before there is a tokenizer to count them."""


def plan(config: Config, probe: bool = True, gpus: list[gpu_memory.Gpu] | None = None) -> str:
    """Answers by phase; with the probe also tokens, time and memory, measured on a few answers of the base.

    Args:
        gpus: GPUs to plan for that need not be here, see `imagined`; by default those of this machine.
    """
    dealt = deal(config)
    task, splits = dealt.task, dealt.splits
    largest, sizes = max(config.search.votes), config.splits
    scoring = racing.evaluations(rounds_of(config)) if config.search.racing else config.search.candidates * sizes.search
    phases = [
        ("search: candidates", scoring),
        ("search: base", sizes.search),
        (f"select: {largest} members, {largest} samples, base", (2 * largest + 1) * sizes.select),
        *((f"fold: {name}, at most", count) for name, count in folds.planned(config).items()),
        (
            f"test: up to {largest} members, {largest} samples, base" + ", folds" * bool(config.fold.methods),
            (2 * largest + 1 + len(config.fold.methods)) * sizes.test,
        ),
    ]
    lines = [f"study {config.name}: {config.model.name} on {config.task.name}", ""]
    lines += [f"{count:>10,}  {name}" for name, count in phases]
    lines += [f"{planned(config):>10,}  answers in all, at most {task.max_tokens} tokens each", ""]
    if config.search.racing:
        full = config.search.candidates * sizes.search
        lines.append(f"racing saves {1 - scoring / full:.0%} of the search's answers")
    found = gpus or ([] if config.engine.fleet else gpu_memory.gpus(config.model.device))
    shape = shaped(config.model)
    if config.engine.fleet and not gpus:
        fits, told = fleet(config, PROMPT + task.max_tokens)
    else:
        fits, told = budget(config, found, PROMPT + task.max_tokens) if found else (True, [])
    lines += told
    if shape and not found:
        lines.append(
            f"memory: {shape.weights / 2**30:.1f} GiB of weights; --gpus COUNTxGIB says whether GPUs hold them"
        )
    if not fits:
        lines.append("time: not measured, since nothing was loaded")
    elif gpus or shape:
        lines.append(f"time: not measured, since {'those GPUs' if gpus else 'the weights'} are not here")
    elif probe:
        lines += _measured(config, task, splits, bool(found))
    else:
        lines.append("time and memory: leave out --no-probe to measure them")
    return "\n".join(lines)


def imagined(text: str) -> list[gpu_memory.Gpu]:
    """GPUs that are not here, by count and GiB of each: 8x80.

    Raises:
        UserError: the text is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*(?:\.\d+)?)", text)
    if match is None:
        raise UserError(f'--gpus is "{text}", which is no count and size; write COUNTxGIB such as 8x80')
    size = int(float(match[2]) * 2**30)
    return [gpu_memory.Gpu(number, "planned", size, size, "") for number in range(int(match[1]))]


def shaped(model: settings.Model) -> gpu_memory.Checkpoint | None:
    """Sizes of a model of which only config.json is here; None of any other. The layers are made, without their weights."""
    place = Path(model.name).expanduser()
    if not (place / "config.json").is_file() or any(place.glob("*.safetensors")) or any(place.glob("*.bin")):
        return None
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        shape = AutoConfig.from_pretrained(place)
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(shape)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f'"model.name" is "{model.name}", whose config.json describes no causal language model ({reason}); give a '
            "checkpoint directory, or one with the config.json of a model that transformers knows"
        ) from None
    text = shape.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    width = gpu_memory.BYTES[model.dtype]
    weights = sum(parameter.numel() for parameter in made.parameters())
    return gpu_memory.Checkpoint(weights * width, 2 * text.num_hidden_layers * heads * size * width)


def fleet(config: Config, tokens: int) -> tuple[bool, list[str]]:
    """What the cluster offers, and whether the engines fit its GPUs; see `budget`.

    Raises:
        UserError: there is no such cluster, or no node of it has room for an engine.
    """
    from seedfold.engines.fleet import Cluster

    cluster = Cluster(config.model, config.engine)
    try:
        nodes, room, wanted = cluster.nodes(), cluster.fit(), cluster.wanted()
        lines = [
            f"fleet {config.engine.fleet}: {len(nodes)} node{'s' * (len(nodes) > 1)} with {sum(n.cpus for n in nodes):.0f} "
            f"CPUs and {sum(n.gpus for n in nodes):.0f} GPUs, room for {room} engine{'s' * (room > 1)}, {wanted} wanted"
        ]
        if wanted > room:
            lines.append(f"{wanted - room} of them wait until nodes join")
        if not cluster.gpu:
            return True, lines
        fits, told = budget(config, cluster.gpus(), tokens, config.engine.per_gpu)
        return fits, lines + told
    finally:
        cluster.close()


def budget(
    config: Config, found: list[gpu_memory.Gpu], tokens: int, together: int | None = None
) -> tuple[bool, list[str]]:
    """Whether the engines fit the GPUs, as far as is known before they are loaded, and lines that say so.

    Args:
        tokens: of a prompt and its answer, at most.
        together: engines on a GPU; by default as `engine.count` are dealt over the GPUs found.
    """
    engine, sizes = config.engine, gpu_memory.checkpoint(config.model) or shaped(config.model)
    if together is None and engine.tensor_parallel > len(found):
        return False, [f"does NOT fit: engine.tensor_parallel is {engine.tensor_parallel}, GPUs here: {len(found)}"]
    if sizes is None:
        return True, ["GPU memory: the checkpoint is not on this machine yet, so its size is not known"]
    parts = gpu_memory.need(engine, sizes, tokens)
    crowd = "engine.count" if together is None else "engine.per_gpu"
    together, free = together or gpu_memory.crowded(config.model, engine, len(found)), min(gpu.free for gpu in found)
    whole = together * sum(parts.values())
    shown = ", ".join(f"{name} {value / 2**30:.1f}" for name, value in parts.items())
    each = f"{sum(parts.values()) / 2**30:.1f} GiB"
    over = f"a GPU, {each} each" if engine.tensor_parallel == 1 else f"{engine.tensor_parallel} GPUs, {each} on each"
    lines = [
        f"GPU memory: {together} engine{'s' * (together > 1)} on {over} ({shown}): {whole / 2**30:.1f} GiB at least, of "
        f"{free / 2**30:.1f} GiB free"
    ]
    if whole > free:
        lower = [
            *([crowd] if together > 1 else []),
            *(["engine.copies"] if engine.copies > 1 else []),
            "engine.memory" if engine.name == "vllm" else "engine.batch",
        ]
        lines.append(f"does NOT fit: lower {' or '.join(lower)}, or take a smaller model or a larger GPU")
    elif engine.name == "vllm" and not engine.memory:
        share = int(gpu_memory.SHARE * min(gpu.total for gpu in found)) // together
        room = share - sum(parts.values()) + parts["keys and values"]
        rows = max(1, room * engine.tensor_parallel // (sizes.cache_bytes_per_token * tokens))
        lines.append(f"keys and values: room for about {rows:,} answers of {tokens:,} tokens at once, prompts included")
    return whole <= free, lines


def _measured(config: Config, task: tasks.Task, splits: Splits, gpu: bool) -> list[str]:
    with opened(config.model, config.engine) as engine:
        evaluator = Evaluator(engine, task, None, Progress(quiet=True))
        if gpu or isinstance(engine, Pool):
            return _timed(config, evaluator, splits)
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


def _timed(config: Config, evaluator: Evaluator, splits: Splits) -> list[str]:
    """Let the engines work on the first candidates for about ten seconds, overlap and switches included."""
    engine, task = evaluator.engine, evaluator.task
    population = draw(
        config.search, Base(config.model.name, config.model.revision, engine.fingerprint), engine.dtype, {}
    )
    prompts = [evaluator.prompt(example) for example in splits.search]
    decoding = Decoding(task.max_tokens, task.stop)
    expected = engine.expected() if isinstance(engine, Pool) else 1
    for _ in engine.run([Job(recipe, prompts[:4], decoding) for recipe in population[: 2 * expected]]):
        pass  # warm up: kernels are compiled and graphs captured
    answers, last = [], 0.0
    start = time.monotonic()
    run = engine.run([Job(recipe, prompts, decoding) for recipe in population])
    for _, batch in run:
        answers += batch
        last = time.monotonic() - start
        if last > SECONDS:
            break
    del run  # which stops the engines
    engines = engine.at_work() if isinstance(engine, Pool) else 1
    rate, total = len(answers) / last, planned(config)
    tokens = sum(answer.tokens for answer in answers) / len(answers)
    return [
        f"probe: {len(answers):,} answers of candidates in {last:.0f} s by {engines} engine{'s' * (engines > 1)}: "
        f"{rate:.1f}/s, {rate / len(prompts):.2f} candidates of {len(prompts)} examples a second, {tokens:.0f} tokens each "
        f"on average, {sum(answer.finish == 'length' for answer in answers)} cut off",
        f"time: about {duration(total / rate * engines / expected)}"
        f"{f' with all {expected} engines' if expected > engines else ''}; tokens: about {total * tokens:,.0f}",
        memory(engine, config, max(answer.prompt_tokens for answer in answers), task.max_tokens, expected),
    ]


def memory(engine: Engine, config: Config, prompt: int, answer: int, engines: int = 1) -> str:
    """Weights, their resident base, and keys and values of a full batch at full length; of all engines."""
    sizes, copies = engine.sizes(), engine.sizes().get("copies", 1)
    cache = sizes["cache_bytes_per_token"] * (prompt + answer) * sizes.get("slots", config.engine.at_once) * copies
    if config.engine.memory:
        cache = int(config.engine.memory * 2**30)
    parts = {"weights": copies * sizes["weights"], "base copy": sizes["weights"], "keys and values, at most": cache}
    whole = engines * sum(parts.values())
    shown = ", ".join(f"{name} {value / 2**20:,.0f} MiB" for name, value in parts.items())
    return f"memory: about {whole / 2**30:.1f} GiB ({f'{engines} engines, each ' if engines > 1 else ''}{shown})"
