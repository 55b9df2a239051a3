"""Switching a whole model to another seed on a GPU: seedfold's fused kernel, what others do, and a plain copy.

    python benchmarks/switch.py --shapes qwen2.5-0.5b [--rounds 9] [--many 300] [--sweep] [--json FILE]
    python benchmarks/switch.py --model smollm2-135m     (or a checkpoint directory)
    python benchmarks/switch.py --model DIR --vllm [--random qwen2.5-7b]      inside a running vLLM engine

    copy, one tensor         device-to-device copy of as many bytes, the ceiling: every weight is read and written once
    copy, per tensor         the same, tensor by tensor
    seedfold …               base to live weights of one random term, as `Weights.become` does it
    published                two passes of torch.randn per tensor, seeded, in the dtype of the weights: one adds, one
                             subtracts. Both are one switch; the base drifts
    hash, per tensor         a 32-bit hash of position and seed for every weight, its sign added: one launch per tensor
    hash, one tensor         the same on one flat tensor, without the cost of launches
    … of N terms             the same with N terms summed in float32: what a folded model costs
    engine, as it switches   inside vLLM: all that its worker does for a switch

Inside vLLM the parameters are vLLM's, fused and padded, and so are the tensors of the rows that work tensor by tensor.
A round is several switches to different seeds between two synchronisations; times are per switch. `ms` is wall clock,
launches and other work of the host included, median over the rounds; `GPU ms` is by CUDA events; `host ms` is how long
the host is busy. GB/s counts two bytes per byte of weights, over the wall clock, for every row. Before anything is
timed, a sample of the rebuilt weights is compared with the CPU reference, bit for bit. Without a GPU, Triton's
interpreter runs the kernels (`--shapes tiny`): that shows that the benchmark works, and its times mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported

import triton
import triton.language as tl

from seedfold import config, models
from seedfold.noise import Segment
from seedfold.noise.torch import rebuild
from seedfold.noise.triton import COMPILED, Rebuilder, Tile

Part = tuple[Segment, torch.Tensor, torch.Tensor]
Job = Callable[[int], None]

SIGMA = 1e-3
TILES: list[Tile] = [(32, 4), (64, 4), (64, 8), (128, 8), (128, 4)]
"""For --sweep."""

SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen2.5-7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 67,
        "tie_word_embeddings": True,
    },
}
"""Fields of `transformers.Qwen2Config`, from the published configs."""


def measure(
    parts: Sequence[Part],
    *,
    rounds: int = 9,
    many: int = 300,
    flat_bytes: int = 2**30,
    sweep: bool = False,
    tensors: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
    engine: Job | None = None,
) -> list[dict[str, Any]]:
    """All rows, on weights that an engine holds. The live weights are the base's afterwards.

    Args:
        parts: (segment, base, live) as for `Rebuilder`, all of one device; no base may be its live tensor.
        rounds: of which the median is taken; at most three of what takes 0.3 s or more.
        many: terms of the long recipe.
        flat_bytes: the rows "one tensor" need two buffers of at most this size; if the weights are more, their times
            are scaled up.
        sweep: also the fused kernel with other tiles.
        tensors: (base, live) for the rows that work tensor by tensor; none: those of the parts.
        engine: how an engine switches to a seed.

    Returns:
        One dict per row: name, ms (median), low, high (ms), gpu_ms (None without CUDA), host_ms, gbps, switches (per
        round); `checked` (weights compared with the reference) where that applies.

    Raises:
        AssertionError: the kernel and the reference differ.
    """
    clock = _Clock(parts, rounds)
    rows = []
    pairs = list(tensors) or [(base, live) for _, base, live in parts]
    bases, lives = zip(*pairs, strict=True)
    first = parts[0][1]
    flat = torch.empty(min(clock.bytes, flat_bytes) // first.element_size(), dtype=first.dtype, device=first.device)
    flat.normal_()
    other = torch.empty_like(flat)
    more = clock.bytes / flat.nbytes
    rows.append(clock.time("copy, one tensor", lambda _: other.copy_(flat), more))
    rows.append(clock.time("copy, per tensor", lambda _: [x.copy_(y) for x, y in zip(lives, bases, strict=True)]))

    kinds = [("Rademacher", "rademacher", "nearest", 1), ("Gaussian", "gaussian", "nearest", 1)]
    kinds += [("Rademacher, dither", "rademacher", "dither", 1), (f"{many} terms", "rademacher", "nearest", many)]
    for tile in [None, *(TILES if sweep else [])]:
        rebuilder = Rebuilder(parts, tile=tile)
        label = f" [{tile[0]}, {tile[1]}]" if tile else ""
        for name, family, rounding, count in kinds:
            checked = _check(parts, rebuilder, _terms(family, 0, count), rounding)
            job = _switch(rebuilder, family, rounding, count)
            rows.append(clock.time(f"seedfold, {name}{label}", job) | {"checked": checked})

    if engine:
        rows.append(clock.time("engine, as it switches", engine))
    rows.append(clock.time("published, two passes of randn", lambda seed: _published(lives, seed)))
    for x, y in zip(lives, bases, strict=True):
        x.copy_(y)
    for count, label in ((1, ""), (many, f", {many} terms")):
        rows.append(clock.time(f"hash, per tensor{label}", lambda seed, n=count: _hash_each(pairs, seed, n)))
        rows.append(clock.time(f"hash, one tensor{label}", lambda seed, n=count: _hash(flat, other, seed, n), more))
    for x, y in zip(lives, bases, strict=True):
        x.copy_(y)
    return rows


class _Clock:
    """Times switches of the given weights."""

    def __init__(self, parts: Sequence[Part], rounds: int) -> None:
        self.bytes = sum(base.nbytes for _, base, _ in parts)
        self.device = parts[0][2].device
        self.rounds = rounds
        self.seed = 1

    def time(self, name: str, job: Job | Callable[[int], object], scale: float = 1.0) -> dict[str, Any]:
        """A row: `job` with a new seed each time. `scale` is what the times are multiplied by."""
        cuda = self.device.type == "cuda"
        for _ in range(2 if cuda else 1):  # compiles and fills caches; the last one tells how long it takes
            expected = self._round(job, 1)[0]
        # Rounds of 20 ms: long enough for the clock, and short enough for queues that hold a thousand launches.
        switches = max(1, min(20, int(20 / max(expected, 1e-3)))) if cuda else 1
        rounds = self.rounds if expected < 300 else min(self.rounds, 3)
        samples = [[part * scale for part in self._round(job, switches)] for _ in range(rounds)]
        wall, gpu, host = (statistics.median(column) for column in zip(*samples, strict=True))
        walls = [sample[0] for sample in samples]
        return {
            "name": name,
            "ms": wall,
            "low": min(walls),
            "high": max(walls),
            "gpu_ms": gpu if cuda else None,
            "host_ms": host,
            "gbps": 2 * self.bytes / wall / 1e6,
            "switches": switches,
        }

    def _round(self, job: Callable[[int], object], switches: int) -> tuple[float, float, float]:
        """(wall, GPU, host) milliseconds per switch."""
        cuda = self.device.type == "cuda"
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if cuda else []
        if cuda:
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        if cuda:
            events[0].record()
        for _ in range(switches):
            self.seed += 1
            job(self.seed)
        if cuda:
            events[1].record()
        launched = time.perf_counter()
        if cuda:
            torch.cuda.synchronize(self.device)
        stop = time.perf_counter()
        gpu = events[0].elapsed_time(events[1]) if cuda else 0.0
        return (stop - start) * 1e3 / switches, gpu / switches, (launched - start) * 1e3 / switches


def _terms(family: str, seed: int, count: int) -> list[tuple[str, int, float]]:
    return [(family, seed * 1_000_003 + k, SIGMA / (1 + k)) for k in range(count)]


def _switch(rebuilder: Rebuilder, family: str, rounding: str, count: int) -> Job:
    return lambda seed: rebuilder.rebuild(_terms(family, seed, count), rounding=rounding, dither_seed=seed)


def _check(parts: Sequence[Part], rebuilder: Rebuilder, terms: Sequence[tuple[str, int, float]], rounding: str) -> int:
    """Rebuild, and compare the beginning, middle and end of up to 24 parts with the CPU; the weights compared."""
    for _, _, live in parts:
        live.fill_(77.0)
    rebuilder.rebuild(terms, rounding=rounding, dither_seed=5)
    compared = 0
    for segment, base, live in parts[:: max(1, len(parts) // 23)]:
        for place in (0.0, 0.5, 1.0):
            window, begin = _window(segment, place, 2048)
            end = begin + window.numel
            old, new = (tensor.view(-1)[begin:end].cpu() for tensor in (base, live))
            expected = rebuild(old, torch.empty_like(old), window, terms, rounding=rounding, dither_seed=5)
            assert torch.equal(new.view(torch.uint8), expected.view(torch.uint8)), f"{window} differs"
            compared += window.numel
    return compared


def _window(segment: Segment, place: float, size: int) -> tuple[Segment, int]:
    """About `size` weights of a segment, and where in its buffer they begin; `place` 0 is its beginning, 1 its end."""
    if segment.rows == 1:
        length = min(size, segment.row_length)
        begin = int(place * (segment.row_length - length))
        return Segment(segment.tensor, segment.start + begin, 1, length, 0), begin
    rows = min(segment.rows, max(1, size // max(1, segment.row_length)))
    row = int(place * (segment.rows - rows))
    start = segment.start + row * segment.row_stride
    window = Segment(segment.tensor, start, rows, segment.row_length, segment.row_stride)
    return window, row * segment.row_length


def _published(lives: Sequence[torch.Tensor], seed: int) -> None:
    """Perturb and restore in place, with a generator seeded anew for every tensor."""
    for sign in (1.0, -1.0):
        for live in lives:
            generator = torch.Generator(device=live.device).manual_seed(seed)
            noise = torch.randn(live.shape, dtype=live.dtype, device=live.device, generator=generator)
            live.add_(noise, alpha=sign * SIGMA)


def _hash_each(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], seed: int, count: int) -> None:
    for base, live in pairs:
        _hash(base, live, seed, count)


def _hash(base: torch.Tensor, live: torch.Tensor, seed: int, count: int) -> None:
    block = 2048
    _hashed_signs[(triton.cdiv(base.numel(), block),)](base, live, seed, count, base.numel(), SIGMA, BLOCK=block)


@triton.jit(do_not_specialize=["seed", "count"])
def _hashed_signs(base, live, seed, count, numel, scale, BLOCK: tl.constexpr):
    """live = base + the sum of `count` signs, each from a hash of position and seed (Wellons' lowbias32)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    old = tl.load(base + at, at < numel, 0.0)
    total = tl.zeros([BLOCK], tl.float32)
    position = at.to(tl.uint32)
    for k in range(count):
        h = position ^ ((seed + k).to(tl.uint32) * 0x9E3779B9)
        h = (h ^ (h >> 16)) * 0x7FEB352D
        h = (h ^ (h >> 15)) * 0x846CA68B
        h = h ^ (h >> 16)
        total += tl.where((h & 1) == 1, -scale, scale)
    tl.store(live + at, (old.to(tl.float32) + total).to(live.dtype.element_ty), at < numel)


def parts_of_model(name: str, device: torch.device) -> list[Part]:
    """The parameters of a model that `seedfold.models.load` knows."""
    model, _ = models.load(config.Model(name=name))
    return _parts((tensor_name, value.detach().to(device)) for tensor_name, value in model.named_parameters())


def parts_of_shapes(name: str, device: torch.device) -> list[Part]:
    """Random bfloat16 weights in the shapes of a published model; nothing is loaded."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPES[name]))
    shapes = ((tensor_name, value.shape) for tensor_name, value in model.named_parameters())
    return _parts(
        (tensor_name, torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0.0, 0.02))
        for tensor_name, shape in shapes
    )


def _parts(named: Any) -> list[Part]:
    parts = []
    for name, value in named:
        if value.is_floating_point():
            base = value.contiguous().view(-1)
            parts.append((Segment.whole(name, base.numel()), base, base.clone()))
    return parts


def machine(device: torch.device) -> str:
    """Hardware, versions and date, on a line."""
    cuda = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if cuda else f"{platform.machine()}, Triton's interpreter"
    versions = f"torch {torch.__version__}, triton {triton.__version__}, Python {platform.python_version()}"
    return f"{hardware}, {versions}, {datetime.date.today()}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text; the last column is the time over that of the first row."""
    lines = [f"{'':38} {'ms':>9} {'low':>9} {'high':>9} {'GPU ms':>9} {'host ms':>9} {'GB/s':>8} {'copies':>8}"]
    for row in rows:
        gpu = f"{row['gpu_ms']:9.3f}" if row["gpu_ms"] is not None else f"{'':9}"
        lines.append(
            f"{row['name']:38} {row['ms']:9.3f} {row['low']:9.3f} {row['high']:9.3f} {gpu} {row['host_ms']:9.3f} "
            f"{row['gbps']:8.1f} {row['ms'] / rows[0]['ms']:8.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help=f"a checkpoint directory or {models.EMBEDDED}")
    parser.add_argument("--vllm", action="store_true", help="inside a vLLM engine that has opened --model")
    parser.add_argument("--random", default="", help="of --vllm: a shape of --shapes, random weights")
    parser.add_argument("--shapes", choices=list(SHAPES), default="qwen2.5-0.5b", help="random weights of these shapes")
    parser.add_argument("--rounds", type=int, default=9, help="the median is over these")
    parser.add_argument("--many", type=int, default=300, help="terms of the long recipe")
    parser.add_argument("--sweep", action="store_true", help="the fused kernel with several tiles")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    arguments = parser.parse_args()
    if arguments.vllm:
        inside_vllm(arguments)
        return
    device = torch.device("cuda" if COMPILED else "cpu")
    name = arguments.model or arguments.shapes
    parts = parts_of_model(name, device) if arguments.model else parts_of_shapes(name, device)
    count, size = sum(base.numel() for _, base, _ in parts), sum(base.nbytes for _, base, _ in parts)
    what = f"{name}, {count / 1e6:.1f}M weights in {len(parts)} tensors, {size / 1e6:.0f} MB"
    print(f"{what}\n{machine(device)}\n", flush=True)
    rows = measure(parts, rounds=arguments.rounds, many=arguments.many, sweep=arguments.sweep)
    tell(rows, what, machine(device), arguments.json)


def tell(rows: Sequence[dict[str, Any]], what: str, where: str, file: str | None) -> None:
    """Print the rows, and write them."""
    print(table(rows))
    checked = sum(row.get("checked", 0) for row in rows)
    print(f"\n{checked} rebuilt weights were compared with the CPU reference: equal, bit for bit")
    if file:
        with open(file, "w") as out:
            json.dump({"weights": what, "machine": where, "rows": rows}, out, indent=1)


def inside_vllm(arguments: argparse.Namespace) -> None:
    """All rows, in the worker of a vLLM engine with CUDA graphs. Its cache is small, for the copy needs room."""
    from seeds_per_second import shaped, timed

    from seedfold.engines.vllm import VllmEngine

    model = shaped(Path(arguments.model), arguments.random) if arguments.random else arguments.model
    timed()
    engine = VllmEngine(
        config.Model(name=str(model)),
        load_format="dummy" if arguments.random else "auto",
        kv_cache_memory_bytes=2**30,
        max_num_seqs=16,
        max_model_len=512,
    )
    rows, what, where = engine.vllm.collective_rpc(
        "seedfold_switches", args=(arguments.rounds, arguments.many, arguments.sweep)
    )[0]
    what = f"{arguments.random or arguments.model} inside vLLM, {what}"
    print(f"{what}\n{where}\n", flush=True)
    tell(rows, what, where, arguments.json)
    engine.close()


if __name__ == "__main__":
    main()
