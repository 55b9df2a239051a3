"""What it costs that a row's bits do not depend on the rows beside it, on a CPU with matrix units (AMX).

    python benchmarks/rows.py [--model smollm2-135m]
    ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python benchmarks/rows.py       the same without matrix units

First single products in bfloat16, of the model's shapes: the numbers of rows among which the first 16 are other bits than
alone. Then answers per second of the transformers engine, and whether it is exact: products as they come, and in blocks
of 32 (what `seedfold.engines.rows` does) and 64 rows. 192 prompts of 59 tokens, 12 tokens each, batches of 64, the best of
two.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time

import torch
from torch.nn.functional import linear

from seedfold import config
from seedfold.engines import rows
from seedfold.engines.base import Decoding, Prompt
from seedfold.engines.transformers import TransformersEngine

ROWS = (32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 272, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, matrix units: {rows.matrix_units()}, "
        f"torch {torch.__version__}, {datetime.date.today()}"
    )
    for block in (0, 32, 64):
        rows.BLOCK = block or 32
        engine = opened(arguments.model, block)
        if not block:
            products(engine.model)
        print(f"{f'{block} rows at a time' if block else 'as they come':18} {told(engine)}", flush=True)


def opened(model: str, block: int) -> TransformersEngine:
    """The engine, in blocks or, for 0, with its layers as they are."""
    engine = TransformersEngine.open(config.Model(name=model, device="cpu"), config.Engine(batch=64))
    for layer in engine.model.modules():
        if not block and type(layer) is torch.nn.Linear:
            layer.__dict__.pop("forward", None)
    return engine


@torch.inference_mode()
def products(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    for shape, layer in {tuple(layer.weight.shape): layer for layer in layers}.items():
        x = torch.randn(max(ROWS), shape[1], generator=generator).to(layer.weight.dtype)
        alone = linear(x[:16], layer.weight)
        differ = [count for count in ROWS if not torch.equal(linear(x[:count], layer.weight)[:16], alone)]
        print(f"{shape[0]:>7} x {shape[1]:<6} other bits among {', '.join(map(str, differ)) or 'no number of'} rows")


def told(engine: TransformersEngine) -> str:
    generator = torch.Generator().manual_seed(0)
    tails = torch.randint(1000, (192, 20), generator=generator).tolist()
    prompts = [Prompt((*range(1, 40), *tail), str(i)) for i, tail in enumerate(tails)]
    times = []
    for _ in range(3):
        begun = time.monotonic()
        answered = sum(len(batch) for batch in engine.generate(prompts, Decoding(12)))
        times.append(time.monotonic() - begun)
    return f"{answered / min(times[1:]):6.1f} answers/s, exact: {engine.exact}"


if __name__ == "__main__":
    main()
