"""Whether fresh processes agree on the first cosines that two of their threads compute (`seedfold/vector_math.py`).

    python benchmarks/vector_math.py [--processes 600] [--settled]

Processes are forked before torch has made a thread. Each computes the cosines and then the exponentials of 7,168 numbers on
two threads, and with --settled calls `settle` before. Printed: in how many something else came out than in most, and how.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from collections import Counter

import numpy as np
import torch

from seedfold.vector_math import settle

ANGLES = torch.arange(7168.0) / 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=600)
    parser.add_argument("--settled", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = Counter(first(arguments.settled) for _ in range(arguments.processes))
    (usual, often), *others = found.most_common()
    print(f"{platform.machine()}, torch {torch.__version__}, {datetime.date.today()}")
    print(f"{arguments.processes - often} of {arguments.processes} processes differ")
    for other, times in others:
        one, two = (np.frombuffer(data, np.float32) for data in (usual, other))
        print(f"{times}: {int((one != two).sum())} of {one.size} values, by up to {np.abs(one - two).max():.2g}")


def first(settled: bool) -> bytes:
    """What a new process computes."""
    ready, written = os.pipe()
    if not os.fork():
        if settled:
            settle()
        torch.set_num_threads(2)
        with os.fdopen(written, "wb") as pipe:
            pipe.write(ANGLES.cos().numpy().tobytes() + ANGLES.neg().exp().numpy().tobytes())
        os._exit(0)
    os.close(written)
    with os.fdopen(ready, "rb") as pipe:
        data = pipe.read()
    os.wait()
    return data


if __name__ == "__main__":
    main()
