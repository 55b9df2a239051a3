"""Are the answers of the same weights the same: in another batch, in another order, in another process?

    python benchmarks/repeatability.py --model DIR --out one.json [--set engine.name=vllm] [--recipes 4]
    python benchmarks/repeatability.py --model DIR --set engine.name=vllm --vllm enable_prefix_caching=false
    python benchmarks/repeatability.py --compare one.json two.json …

The first answers GSM8K prompts greedily with the base and a few candidates, four times in one process: all at once, all at
once again, in the reverse order, and in groups of 37; it says how many answers differ from the first time, and keeps
digests. The second does so with arguments of vLLM's own changed (JSON), to find what answers depend on. The third
compares the first time of several processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GROUP = 37


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint directory")
    parser.add_argument("--data", type=Path, default=HERE / "gsm8k" / "data.jsonl")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="settings, as of seedfold run"
    )
    parser.add_argument(
        "--vllm", action="append", default=[], metavar="ARGUMENT=JSON", help="of vllm.EngineArgs, over the engine's own"
    )
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--recipes", type=int, default=4, help="the base and candidates")
    parser.add_argument("--sigma", type=float, default=1e-3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--compare", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    if arguments.compare:
        compare(arguments.compare)
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Answer four times in this process."""
    from seedfold import config, tasks
    from seedfold.engines import open_here
    from seedfold.engines.base import Decoding, Job, Prompt
    from seedfold.recipe import Base, Recipe, Term

    settings = config.load(None, [f"model.name={arguments.model}", *arguments.set])
    task = tasks.load(config.Task(name="gsm8k", path=str(arguments.data)), arguments.prompts)
    if arguments.vllm:
        override({name: json.loads(value) for name, _, value in (item.partition("=") for item in arguments.vllm)})
    start = time.monotonic()
    engine = open_here(settings.model, settings.engine)
    print(f"opened in {time.monotonic() - start:.0f} s", flush=True)
    prompts = [Prompt(engine.encode(task.messages(e)), e.id) for e in task.examples[: arguments.prompts]]
    base, decoding = Base(engine.name, engine.revision, engine.fingerprint), Decoding(arguments.max_tokens)

    def answers(order: Sequence[int], size: int) -> list[list[str]]:
        """Digests, by recipe and prompt."""
        found = []
        for seed in range(arguments.recipes):
            recipe = Recipe(base, (Term("rademacher", seed, arguments.sigma),) if seed else (), dtype=engine.dtype)
            digests = [""] * len(prompts)
            for at in range(0, len(order), size):
                group = order[at : at + size]
                for _, batch in engine.run([Job(recipe, [prompts[i] for i in group], decoding)]):
                    for answer in batch:
                        digests[group[answer.index]] = hashlib.blake2b(answer.text.encode(), digest_size=8).hexdigest()
            found.append(digests)
        return found

    whole = list(range(len(prompts)))
    first = answers(whole, len(whole))
    result: dict[str, Any] = {"engine": engine.describe(), "first": first}
    for name, order, size in (
        ("again", whole, len(whole)),
        ("reversed", whole[::-1], len(whole)),
        (f"groups of {GROUP}", whole, GROUP),
    ):
        result[name] = different(first, answers(order, size))
        print(f"{name}: {result[name]} of {sum(map(len, first))} answers differ from the first time", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(result))
    if hasattr(engine, "close"):
        engine.close()


def override(changes: dict[str, Any]) -> None:
    """Start vLLM with other arguments than the engine's."""
    from seedfold.engines import vllm

    start = vllm.start

    def changed(arguments: dict[str, Any], batch_invariant: bool, name: str) -> Any:
        return start(arguments | changes, batch_invariant, name)

    vllm.start = changed


def different(one: list[list[str]], other: list[list[str]]) -> int:
    """How many answers differ."""
    return sum(a != b for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def compare(files: list[Path]) -> None:
    """The first time of several processes, pair by pair."""
    results = {file.stem: json.loads(file.read_text())["first"] for file in files}
    names = list(results)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            count = sum(map(len, results[one]))
            print(f"{one} and {other}: {different(results[one], results[other])} of {count} answers differ")


if __name__ == "__main__":
    main()
