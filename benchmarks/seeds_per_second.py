"""Seeds per second: the published loop, one engine with fused switching, and ours, on the same prompts and limits.

    python benchmarks/seeds_per_second.py --model DIR [--arms published,one,several,stacked] [--seeds 32] [--json FILE]

Every arm answers the same prompts (GSM8K, greedy, the same token limit) with the same recipes and grades every answer; the
clock runs from the first switch to the last grade, after one warm-up recipe. Each arm runs in a process of its own.

published   vLLM without CUDA graphs; two passes of torch.randn over the weights per seed, add and subtract; a barrier
one         vLLM with CUDA graphs, one engine, weights rebuilt by the fused kernel; a barrier per seed
several     the same, `--engines` engines on the GPU, grading beside them
stacked     the stacked engine: `--copies` recipes in one pass, grading beside it
kernel      the same with our own matrix products alone, which the engine keeps for steps with idle copies
reference   the transformers engine, one recipe at a time, for the accuracy
reference-2 the same with another batch size: how much the accuracy of the same weights moves by arithmetic alone

`--random qwen2.5-7b` takes random weights of that shape, with the tokenizer of `--model`: answers then run to the limit,
and their accuracy means nothing. For the arms published, one, stacked and kernel.

"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.arm:
        print(json.dumps(run_arm(arguments)))
        return
    results = []
    for arm in arguments.arms.split(","):
        start = time.monotonic()
        with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
            command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm, "--result", file.name]
            done = subprocess.run(command, stdout=subprocess.DEVNULL if not arguments.verbose else None, check=False)
            text = file.read()
        if done.returncode or not text:
            print(f"{arm}: failed with exit code {done.returncode}", flush=True)
            continue
        results.append(json.loads(text))
        print(line(results[-1]), f"  ({time.monotonic() - start:.0f} s in all)", flush=True)
        if "switches" in results[-1]:
            from switch import tell

            rows, what, where = results[-1]["switches"]
            tell(rows, what, where, None)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
    show(results)


def run_arm(arguments: argparse.Namespace) -> dict[str, Any]:
    """Answer and grade with one arm; its figures."""
    from seedfold import config, tasks
    from seedfold.engines.base import Decoding, Job, Prompt, in_turn
    from seedfold.recipe import Base, Recipe, Term

    task = tasks.load(config.Task(name="gsm8k", path=str(arguments.data)), arguments.prompts)
    examples = task.examples[: arguments.prompts]
    engine = open_arm(arguments)
    started = time.monotonic()
    prompts = [Prompt(engine.encode(task.messages(example)), example.id) for example in examples]
    decoding = Decoding(arguments.max_tokens)
    base = Base(engine.name, engine.revision, engine.fingerprint)

    def jobs(seeds: range) -> list[Job]:
        terms = [(Term("rademacher", seed, arguments.sigma),) if seed else () for seed in seeds]  # seed 0: the base
        return [Job(Recipe(base, term, dtype=engine.dtype), prompts, decoding) for term in terms]

    step = in_turn if arguments.arm in ("one", "reference", "reference-2") else lambda engine, jobs: engine.run(jobs)
    for _ in step(engine, jobs(range(10_000, 10_000 + arguments.warm_up))):
        pass
    started = time.monotonic()
    rewards = [[0.0] * len(prompts) for _ in range(arguments.seeds)]
    tokens = truncated = count = 0
    grading = 0.0
    for number, answers in step(engine, jobs(range(arguments.seeds))):
        before = time.monotonic()
        grades = task.grade_many([a.text for a in answers], [examples[a.index] for a in answers])
        grading += time.monotonic() - before
        for answer, grade in zip(answers, grades, strict=True):
            rewards[number][answer.index] = grade.lenient
            tokens += answer.tokens
            truncated += answer.finish == "length"
            count += 1
    seconds = time.monotonic() - started
    result = {
        "arm": arguments.arm,
        "date": datetime.date.today().isoformat(),
        "seconds": seconds,
        "seeds": arguments.seeds,
        "seeds_per_second": arguments.seeds / seconds,
        "answers": count,
        "tokens": tokens,
        "truncated": truncated,
        "grading_seconds": grading,
        "accuracy": [sum(row) / len(row) for row in rewards],
        "engine": {} if isinstance(engine, Published) else engine.describe(),
        "switch_ms": switch(engine, [job.recipe for job in jobs(range(1, 22))]) if arguments.arm == "one" else None,
        "settings": {k: str(v) for k, v in vars(arguments).items()},
    }
    if arguments.switch and arguments.arm == "one":
        result["switches"] = engine.vllm.collective_rpc("seedfold_switches", args=(9, 300, False))[0]
    arguments.result.write_text(json.dumps(result))
    if hasattr(engine, "close"):
        engine.close()
    return result


def switch(engine: Any, recipes: list[Any]) -> float:
    """Median milliseconds of a switch as the caller sees it: request, rebuild in the engine's process, empty cache."""
    times = []
    for recipe in recipes:
        start = time.perf_counter()
        engine.become(recipe)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def open_arm(arguments: argparse.Namespace) -> Any:
    """The arm's engine."""
    from seedfold import config
    from seedfold.engines import open_engine

    if arguments.random:
        arguments.model = shaped(arguments.model, arguments.random)
    model = config.Model(name=str(arguments.model), device=arguments.device)
    invariant = not arguments.no_batch_invariant
    settings = config.Engine(batch=arguments.prompts, memory=arguments.memory, batch_invariant=invariant)
    arm = arguments.arm
    if arguments.switch and arm == "one":
        timed()
    if arm == "published":
        return Published(arguments)
    if arm == "kernel":
        from seedfold.engines import stacked_kernels
        from seedfold.engines.stacked import StackedEngine

        stacked_kernels.vendor_agrees = lambda x, weight: False
        if not arguments.random:
            return StackedEngine.open(model, replace(settings, name="stacked", copies=arguments.copies))
    if arguments.random:
        return open_random(arguments, model)
    if arm == "one":
        from seedfold.engines.vllm import VllmEngine

        return VllmEngine.open(model, replace(settings, name="vllm"))
    if arm == "several":
        return open_engine(model, replace(settings, name="vllm", count=arguments.engines))
    if arm == "stacked":
        return open_engine(model, replace(settings, name="stacked", copies=arguments.copies))
    from seedfold.engines.transformers import TransformersEngine

    return TransformersEngine.open(model, replace(settings, batch=128 if arm == "reference" else 48))


def timed() -> None:
    """Give the workers of engines opened from here on a clock (`switch_worker.py`)."""
    from seedfold.engines import vllm

    vllm.EXTENSION = "switch_worker.Timed"
    importable()


def importable() -> None:
    """Have vLLM's own processes find the worker extensions beside this file."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(HERE))


def shaped(model: Path, shape: str) -> Path:
    """A checkpoint directory without weights: the config of a shape of `switch.py`, the tokenizer of `model`."""
    from switch import SHAPES
    from transformers import AutoTokenizer, Qwen2Config

    folder = Path(tempfile.mkdtemp(prefix="shape-"))
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    settings = Qwen2Config(**SHAPES[shape], architectures=["Qwen2ForCausalLM"], dtype="bfloat16")
    settings.save_pretrained(folder)
    return folder


def open_random(arguments: argparse.Namespace, model: Any) -> Any:
    """The arms one, stacked and kernel on random weights."""
    if arguments.arm == "one":
        from seedfold.engines.vllm import VllmEngine

        cache = int(arguments.memory * 2**30) or None
        return VllmEngine(
            model,
            load_format="dummy",
            kv_cache_memory_bytes=cache,
            max_num_seqs=arguments.prompts,
            max_model_len=2048,
            batch_invariant=None if not arguments.no_batch_invariant else False,
        )
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from seedfold.engines.stacked import StackedEngine

    device = "cuda" if arguments.device == "auto" else arguments.device
    torch.manual_seed(0)
    with torch.device(device):
        loaded = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model.name), dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(model.name)
    loaded.eval().requires_grad_(False)
    return StackedEngine(loaded, tokenizer, "random", "", arguments.copies, arguments.prompts, device)


class Published:
    """The published loop: every seed is two passes of torch.randn over the weights, add and subtract, in eager vLLM."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from transformers import AutoTokenizer
        from vllm import LLM

        self.name, self.revision, self.fingerprint, self.dtype = str(arguments.model), "", "", "bfloat16"
        self.tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        importable()
        self.llm = LLM(
            str(arguments.model),
            enforce_eager=True,
            load_format="dummy" if arguments.random else "auto",
            dtype="bfloat16",
            max_model_len=2048,
            worker_extension_cls="published_worker.Perturb",
        )

    def encode(self, messages: Any) -> tuple[int, ...]:
        from seedfold.engines.text import encode_chat

        return encode_chat(self.tokenizer, messages, self.name)

    def run(self, jobs: Any) -> Iterator[tuple[int, list[Any]]]:
        from vllm import SamplingParams

        from seedfold.engines.base import Answer

        for number, job in enumerate(jobs):
            terms = [(term.seed, term.scale) for term in job.recipe.terms]
            for seed, scale in terms:
                self.llm.collective_rpc("perturb", args=(seed, scale))
            self.llm.reset_prefix_cache()
            outputs = self.llm.generate(
                [{"prompt_token_ids": list(prompt.tokens)} for prompt in job.prompts],
                SamplingParams(temperature=0.0, max_tokens=job.decoding.max_tokens),
                use_tqdm=False,
            )
            for seed, scale in terms:
                self.llm.collective_rpc("perturb", args=(seed, -scale))
            yield (
                number,
                [
                    Answer(
                        index=i,
                        sample=0,
                        text=output.outputs[0].text,
                        prompt_tokens=len(job.prompts[i].tokens),
                        tokens=len(output.outputs[0].token_ids),
                        finish=str(output.outputs[0].finish_reason),
                    )
                    for i, output in enumerate(outputs)
                ],
            )


def line(result: dict[str, Any]) -> str:
    """An arm in one line."""
    accuracy = result["accuracy"]
    return (
        f"{result['arm']:12} {result['seeds_per_second']:6.2f} seeds/s  {1000 / result['seeds_per_second']:7.0f} ms/seed  "
        f"{result['tokens'] / result['seconds']:9,.0f} tokens/s  {result['answers']:6,} answers  "
        f"cut off {result['truncated'] / result['answers']:5.1%}  accuracy {100 * sum(accuracy) / len(accuracy):5.1f}  "
        f"base {100 * accuracy[0]:5.1f}" + (f"  switch {result['switch_ms']:.2f} ms" if result["switch_ms"] else "")
    )


def show(results: list[dict[str, Any]]) -> None:
    """All arms, and how far they agree on the accuracy of the same recipes."""
    print()
    for result in results:
        print(line(result))
    print("\nmean and largest difference of accuracies, recipe by recipe, in points:")
    for i, one in enumerate(results):
        for other in results[i + 1 :]:
            gaps = [100 * (a - b) for a, b in zip(one["accuracy"], other["accuracy"], strict=False)]
            mean, largest = sum(gaps) / len(gaps), max(map(abs, gaps))
            print(f"  {one['arm']:12} - {other['arm']:12} {mean:+5.1f}  {largest:4.1f}  ({len(gaps)} recipes)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint directory")
    parser.add_argument("--random", default="", help="a shape of switch.py: random weights, for speed alone")
    parser.add_argument("--data", type=Path, default=HERE / "gsm8k" / "data.jsonl")
    parser.add_argument("--arms", default="published,one,several,stacked")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--warm-up", type=int, default=1, help="recipes before the clock starts")
    parser.add_argument("--sigma", type=float, default=1e-3)
    parser.add_argument("--engines", type=int, default=4, help="engines of the arm several")
    parser.add_argument(
        "--copies", type=int, default=0, help="copies of the arm stacked; 0: as many as fit, at most 16"
    )
    parser.add_argument(
        "--memory", type=float, default=0.0, help="GiB of keys and values of a vLLM engine; 0: automatic"
    )
    parser.add_argument("--no-batch-invariant", action="store_true", help="vLLM's own kernels in the arms of vLLM")
    parser.add_argument("--switch", action="store_true", help="arm one: then time switches in the worker (switch.py)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--verbose", action="store_true", help="show what the arms print")
    parser.add_argument("--arm", default="", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
