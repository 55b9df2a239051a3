"""Rebuilding a model from a seed: the published way against seedfold, in one run.

    python benchmarks/rebuild.py [--model smollm2-135m] [--repeats 5] [--threads 0] [--terms 34]

The published way draws a full torch.randn tensor per parameter in the weights' dtype and adds it, then draws it again to
subtract it: one candidate costs both passes, and the base drifts. seedfold writes the candidate's weights from a resident
base in one pass; the next candidate needs no restoring. A fold's recipe has many terms, in one pass too. Both touch every
floating-point parameter once per direction. Extra memory is the growth of the process's peak over what it holds before,
models and base copy not counted.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable

import torch

from seedfold import config, models
from seedfold.recipe import Base, Recipe, Term
from seedfold.weights import Weights


def published(parameters: list[torch.Tensor], seed: int, sigma: float) -> None:
    """Perturb and restore in place, with one generator seeded anew for every tensor."""
    for sign in (1.0, -1.0):
        for parameter in parameters:
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
            parameter.add_(noise, alpha=sign * sigma)


def reset_peak() -> None:
    """Start the process's peak anew (Linux)."""
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")


def measure(job: Callable[[int], None], repeats: int) -> tuple[float, float, float, int]:
    """(median, fastest, slowest) seconds and the growth of the peak in bytes, after one warm-up."""
    job(0)
    reset_peak()
    before = memory("VmRSS")
    seconds = []
    for seed in range(1, repeats + 1):
        start = time.perf_counter()
        job(seed)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), min(seconds), max(seconds), max(0, memory("VmHWM") - before)


def memory(field: str) -> int:
    """A field of /proc/self/status in bytes: VmRSS, resident now; VmHWM, at its peak."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=models.EMBEDDED)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--terms", type=int, default=34, help="of the recipe with many terms")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model, _ = models.load(config.Model(name=arguments.model))
    weights = Weights(model)
    base = Base(arguments.model, "", weights.fingerprint)
    parameters = [parameter.data for parameter in model.parameters()]

    def ours(family: str, terms: int = 1) -> Callable[[int], None]:
        return lambda seed: weights.become(
            Recipe(base, tuple(Term(family, 1000 * seed + k, 1e-3) for k in range(terms)))
        )

    rows = [
        (f"{name}{f', {terms} terms' * (terms > 1)}", *measure(ours(name, terms), arguments.repeats))
        for name in ("rademacher", "gaussian")
        for terms in (1, arguments.terms)
    ]
    weights.become(None)
    assert weights.checksum() == weights.fingerprint
    rows.append(("published, two randn", *measure(lambda s: published(parameters, s, 1e-3), arguments.repeats)))
    drift = weights.checksum() != weights.fingerprint
    count = sum(parameter.numel() for parameter in parameters)
    print(
        f"{arguments.model}, {count / 1e6:.1f}M weights in bfloat16, {platform.processor() or platform.machine()}, ",
        end="",
    )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {datetime.date.today()}")
    print(f"\n{'':22} {'median s':>9} {'min':>7} {'max':>7} {'extra MiB':>10} {'times faster':>13}")
    for name, median, low, high, extra in rows:
        print(f"{name:22} {median:9.3f} {low:7.3f} {high:7.3f} {extra / 2**20:10.1f} {rows[-1][1] / median:13.1f}")
    print(
        f"\nafter the published way's {arguments.repeats + 1} rounds the base has {'drifted' if drift else 'not drifted'};"
    )
    print("after seedfold's it is the base, bit for bit")


if __name__ == "__main__":
    main()
