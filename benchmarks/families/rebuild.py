"""How fast a model becomes a candidate of each noise family, as every engine but vLLM's does it (`Weights.become`).

    python benchmarks/families/rebuild.py [--model smollm2-135m] [--families NAME …] [--rounds 5] [--device cuda]

rademacher and gaussian, and subspaces over them, have the fused kernel on a GPU; low-rank and lora are rebuilt by the
reference there too. Before a family is timed, its weights are compared with those of the reference on the CPU, bit for bit,
in three tensors. Times are milliseconds a switch, the median of the rounds, each with a seed of its own.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time

import torch

from seedfold import config, models
from seedfold.noise import subspace
from seedfold.noise.torch import rebuild
from seedfold.recipe import Base, Recipe, Term
from seedfold.weights import Weights

FAMILIES = (
    "rademacher",
    "gaussian",
    "low-rank-1",
    "low-rank-8",
    "low-rank-64",
    "lora-8",
    "subspace of 16 rademacher",
    "rademacher, rms",
    "rademacher, dither",
)


def recipe(family: str, seed: int, base: Base, dtype: str) -> Recipe:
    """A candidate of one family."""
    name, _, way = family.partition(", ")
    terms = [(name, seed, 1e-3)]
    if name.startswith("subspace of "):
        count, kind = name.removeprefix("subspace of ").split()
        terms = subspace.expand([[(kind, number, 1.0)] for number in range(int(count))], seed, 1e-3)
    scale = "rms" if way == "rms" else "absolute"
    rounding = "dither" if way == "dither" else "nearest"
    return Recipe(base, tuple(Term(*term) for term in terms), dtype=dtype, scale=scale, rounding=rounding)


def check(weights: Weights, made: Recipe) -> None:
    """The live weights are those of the reference on the CPU."""
    weights.become(made)
    named = weights.steps(made)
    for name in list(named)[:: max(1, len(named) // 2)]:
        base = weights.base(name).cpu()
        expected = torch.empty_like(base)
        rebuild(
            base,
            expected,
            weights.tensors[name].segment(),
            named[name],
            rounding=made.rounding,
            dither_seed=made.dither_seed,
        )
        if not torch.equal(weights.live(name).cpu(), expected):
            raise AssertionError(f"{name} of {made.terms[0].family} differs from the reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    gpu = arguments.device.startswith("cuda")
    model = models.load(config.Model(name=arguments.model))[0].to(arguments.device)
    weights = Weights(model)
    machine = torch.cuda.get_device_name(arguments.device) if gpu else f"{platform.machine()} CPU"
    count = sum(tensor.numel for tensor in weights.tensors.values())
    today = datetime.date.today().isoformat()
    print(f"{arguments.model}, {count / 1e6:.1f}M weights; {machine}; torch {torch.__version__}, {today}")
    base, dtype = Base(arguments.model, "", weights.fingerprint), str(model.dtype).removeprefix("torch.")
    print(f"{'family':28} {'ms a switch':>12}")
    for family in arguments.families:
        check(weights, recipe(family, 0, base, dtype))
        times = []
        for seed in range(1, 1 + arguments.rounds):
            made = recipe(family, seed, base, dtype)
            if gpu:
                torch.cuda.synchronize()
            start = time.perf_counter()
            weights.become(made)
            if gpu:
                torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - start))
        print(f"{family:28} {statistics.median(times):>12.1f}", flush=True)


if __name__ == "__main__":
    main()
