"""Where the time of a seed goes on a GPU: one decode step of the stacked engine, its parts, and the floors beside them.

    python benchmarks/step_time.py [--model DIR] [--copies 1,2,4,8] [--slots 128] [--context 230] [--json FILE]
    python benchmarks/step_time.py --sweep [--shape qwen2.5-7b] [--copies 2]

Without --model: random weights of the shape of Qwen2.5-0.5B, which is all that speed depends on. Floors: the bytes a step
must move over the copy bandwidth measured here, and its operations over the rate of a large matrix product measured here.
`--sweep` times only the matrix products, in tiles of other sizes, and says whether their bits are those of the first tile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from switch import SHAPES

TILES = [
    (columns, depth, warps, stages)
    for columns in (64, 128, 256)
    for depth in (64, 128)
    for warps in (4, 8)
    for stages in (3, 4, 6)
]
SHARED = 227 * 2**10
"""Bytes of shared memory that one program may have on Hopper."""


class Tokens:
    """No text: answers are token numbers."""

    eos_token_id = None

    def decode(self, tokens: list[int], **_: Any) -> str:
        return " ".join(map(str, tokens))


def milliseconds(job: Callable[[], Any], repeats: int = 10, inner: int = 5) -> float:
    """Median time of a call, by events around `inner` calls, after a warm-up."""
    for _ in range(3):
        job()
    times = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(inner):
            job()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / inner)
    return statistics.median(times)


def graphed(job: Callable[[], Any]) -> Callable[[], None]:
    """The job as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        job()
        job()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        job()
    return graph.replay


def ceilings() -> tuple[float, float]:
    """(bytes per second of a device copy, read and written; operations per second of a large bfloat16 product)."""
    source = torch.empty(2**30, dtype=torch.int16, device="cuda").random_()
    target = torch.empty_like(source)
    copy = 2 * source.numel() * 2 / milliseconds(lambda: target.copy_(source)) * 1e3
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return copy, 2 * 8192**3 / milliseconds(lambda: a @ b) * 1e3


def products(copies: int, slots: int, shapes: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Each matrix product of a step three ways: batched by the library, one by one by it, and by our kernel."""
    from seedfold.engines import stacked_kernels as fused
    from seedfold.engines import stacked_ops as plain

    rows = []
    for name, (width, depth) in shapes.items():
        weight = torch.randn(copies, width, depth, device="cuda", dtype=torch.bfloat16)
        x = torch.randn(copies * slots, depth, device="cuda", dtype=torch.bfloat16)
        split = x.view(copies, slots, depth)

        def one_by_one(split: torch.Tensor = split, weight: torch.Tensor = weight) -> None:
            for part, matrix in zip(split, weight, strict=True):
                torch.nn.functional.linear(part, matrix)

        def batched(x: torch.Tensor = x, weight: torch.Tensor = weight) -> None:
            plain.product(x, weight)

        def ours(x: torch.Tensor = x, weight: torch.Tensor = weight) -> None:
            fused.own_product(x, weight)

        moved = weight.nbytes + x.nbytes + copies * slots * width * 2
        line = {"product": name, "width": width, "depth": depth, "bytes": moved}
        for way, job in (("batched", batched), ("one by one", one_by_one), ("kernel", ours)):
            line[way] = milliseconds(graphed(job))
        rows.append(line)
        best = min(("batched", "one by one", "kernel"), key=lambda way, line=line: line[way])
        print(
            f"  {name:8} ({width:6} x {depth:4})  batched {line['batched']:7.3f}  one by one {line['one by one']:7.3f}  "
            f"kernel {line['kernel']:7.3f} ms   best {best}, {moved / line[best] / 1e6:,.0f} GB/s",
            flush=True,
        )
        del weight, x, split
    return rows


def sweep(copies: int, slots: int, shapes: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Each matrix product in every tile that fits, and batched by the library; the fastest first."""
    from seedfold.engines import stacked_kernels as fused
    from seedfold.engines import stacked_ops as plain

    rows = []
    for name, (width, depth) in shapes.items():
        weight = torch.randn(copies, width, depth, device="cuda", dtype=torch.bfloat16)
        x = torch.randn(copies * slots, depth, device="cuda", dtype=torch.bfloat16)
        first = fused.own_product(x, weight)
        moved = weight.nbytes + x.nbytes + first.nbytes
        took = {"library": milliseconds(graphed(lambda x=x, weight=weight: plain.product(x, weight)))}
        differ = []
        for numbers in TILES:
            tile = fused.Tile(*numbers)
            if depth % tile.depth or tile.room(min(128, slots)) > SHARED:
                continue
            label = " ".join(map(str, tile))
            took[label] = milliseconds(
                graphed(lambda x=x, weight=weight, tile=tile: fused.own_product(x, weight, None, tile))
            )
            if not torch.equal(fused.own_product(x, weight, None, tile), first):
                differ.append(label)
        best = sorted(took, key=took.__getitem__)
        rows.append({"product": name, "width": width, "depth": depth, "bytes": moved, "ms": took, "differ": differ})
        now = " ".join(map(str, fused.Tile()))
        print(f"  {name:8} ({width:6} x {depth:5})", end="")
        for label in dict.fromkeys([*best[:5], now, "library"]):
            print(f"   {label} {took[label]:.3f} ms {moved / took[label] / 1e6:,.0f} GB/s", end="")
        print(f"   other bits: {', '.join(differ) or 'none'}", flush=True)
        del weight, x, first
    return rows


def shapes_of(model: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(width, depth) of the matrix products of a step, from the fields of a config."""
    hidden, inner = model["hidden_size"], model["intermediate_size"]
    heads, keys = model["num_attention_heads"], model["num_key_value_heads"]
    return {
        "qkv": (hidden // heads * (heads + 2 * keys), hidden),
        "out": (hidden, hidden),
        "gate_up": (2 * inner, hidden),
        "down": (hidden, inner),
        "head": (model["vocab_size"], hidden),
    }


def engine_of(model: Path | None, shape: str, copies: int, slots: int) -> Any:
    from transformers import AutoModelForCausalLM, Qwen2Config

    from seedfold.engines.stacked import StackedEngine

    if model is not None:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    else:
        torch.manual_seed(0)
        with torch.device("cuda"):
            loaded = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPES[shape]), dtype=torch.bfloat16)
    return StackedEngine(loaded.eval(), Tokens(), "model", copies=copies, slots=slots)


@torch.inference_mode()
def steps(engine: Any, context: int, floor: tuple[float, float]) -> dict[str, Any]:
    """A decode step of the engine with every slot in use, a prefill of every slot, a rebuild; and their floors."""
    from seedfold.engines.base import Decoding, Prompt
    from seedfold.recipe import Base, Recipe, Term

    slots = engine.copies * engine.slots
    state = engine._room(context + 200, 400)
    prompts = [Prompt(tuple(range(1, context)), str(i)) for i in range(engine.slots)]
    for copy in range(engine.copies):
        first = copy * engine.slots
        state.seat([*range(first, first + engine.slots)], prompts, [0] * engine.slots, Decoding(400))
    state._forward()
    step = milliseconds(state._forward, repeats=8, inner=5)
    state.whole = False  # our kernel's products, which leave idle copies out
    ours = milliseconds(state._forward, repeats=8, inner=5)
    state.active[engine.slots :].zero_()
    one_busy = milliseconds(state._forward, repeats=8, inner=5)
    state.active.fill_(1)
    state.whole = True
    recipes = [
        Recipe(Base("", "", engine.fingerprint), (Term("rademacher", seed, 1e-3),), dtype=engine.dtype)
        for seed in (1, 2)
    ]
    flip = iter(range(10**6))
    rebuild = milliseconds(lambda: engine.model.weights[0].become(recipes[next(flip) % 2]))
    ids = torch.randint(1000, (32, 128), device="cuda")
    where = torch.arange(32, device="cuda", dtype=torch.int32)
    prefill = milliseconds(lambda: engine.model.prefill(0, ids, state.cache, where, 0), repeats=5, inner=2)
    sizes = engine.sizes()
    read = engine.copies * sizes["weights"] + slots * context * sizes["cache_bytes_per_token"]
    operations = 2 * sizes["weights"] / 2 * slots
    copy_rate, product_rate = floor
    line = {
        "copies": engine.copies,
        "slots": engine.slots,
        "context": context,
        "step_ms": step,
        "step_own_products_ms": ours,
        "step_one_copy_busy_ms": one_busy,
        "bytes_floor_ms": read / copy_rate * 1e3,
        "operations_floor_ms": operations / product_rate * 1e3,
        "rebuild_ms": rebuild,
        "prefill_128x128_ms": 4 * prefill,
    }
    print(
        f"  {engine.copies} copies x {engine.slots} slots at {context} tokens: step {step:6.3f} ms "
        f"(bytes {line['bytes_floor_ms']:.3f}, operations {line['operations_floor_ms']:.3f}); "
        f"{step / engine.copies:6.3f} ms per copy; by our products {ours:.3f}, with one copy busy {one_busy:.3f} ms; "
        f"rebuild {rebuild:.3f} ms; prefill of 128 x 128 {4 * prefill:.1f} ms",
        flush=True,
    )
    return line


@torch.inference_mode()
def breakdown(engine: Any) -> list[tuple[str, float, int]]:
    """(kernel, milliseconds, launches) of one step, the largest first."""
    from torch.profiler import ProfilerActivity, profile

    state = engine._state
    state._step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        state._step()
        torch.cuda.synchronize()
    rows = [(event.key, event.self_device_time_total / 1e3, event.count) for event in seen.key_averages()]
    rows = sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])
    for name, spent, count in rows[:14]:
        print(f"  {spent:7.3f} ms  {count:4}  {name[:90]}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--shape", default="qwen2.5-0.5b", choices=SHAPES)
    parser.add_argument("--sweep", action="store_true", help="time only the matrix products, in tiles of other sizes")
    parser.add_argument("--copies", default="1,2,4,8")
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--context", type=int, default=230, help="tokens that each slot holds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    floor = ceilings()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {datetime.date.today()}")
    print(f"device copy {floor[0] / 1e9:,.0f} GB/s, large product {floor[1] / 1e12:,.0f} TFLOP/s")
    counts = [int(count) for count in arguments.copies.split(",")]
    shapes = shapes_of(SHAPES[arguments.shape])
    print(f"matrix products of {counts[-1]} copies, {arguments.slots} rows each, in graphs:")
    record: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "copy": floor[0], "product": floor[1]}
    with torch.inference_mode():
        record["products"] = (sweep if arguments.sweep else products)(counts[-1], arguments.slots, shapes)
    if not arguments.sweep:
        whole(arguments, counts, floor, record)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


def whole(arguments: argparse.Namespace, counts: list[int], floor: tuple[float, float], record: dict[str, Any]) -> None:
    """Whole steps of the engine, into the record."""
    record["steps"] = []
    for copies in counts:
        engine = engine_of(arguments.model, arguments.shape, copies, arguments.slots)
        record["steps"].append(steps(engine, arguments.context, floor))
        if copies == counts[-1]:
            print("kernels of one step:")
            record["kernels"] = breakdown(engine)
        del engine
        torch.cuda.empty_cache()
    print(
        "one set of weights for the same answers: what low-rank noise, which shares the base's products, cannot beat:"
    )
    engine = engine_of(arguments.model, arguments.shape, 1, counts[-1] * arguments.slots)
    record["shared"] = steps(engine, arguments.context, floor)
    record["shared_kernels"] = breakdown(engine)


if __name__ == "__main__":
    main()
