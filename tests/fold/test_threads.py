"""Scores and steps are the same for any number of threads, on which linear algebra's last bits depend."""

import os
import subprocess
import sys

SCRIPT = """
import numpy as np
from seedfold import stats
from seedfold.fold import corp, linear
from seedfold.fold.base import Population
from seedfold.fold.settings import Corp, Linear
from seedfold.recipe import Term

for n, m in ((34, 192), (64, 300), (200, 128)):
    rng = np.random.default_rng(n)
    truth = rng.normal(0, 0.05, n)[:, None] + rng.normal(0.3, 0.2, m)
    rewards, base = (rng.random((n, m)) < truth).astype(float), (rng.random(m) < 0.3).astype(float)
    sizes = [(0.004, 0.008)[i % 2] for i in range(n)]
    raced = rewards.copy()
    raced[n // 2 :, m // 2 :] = np.nan
    for scores in (stats.shrink(rewards, sizes), stats.shrink(raced, sizes)):
        print(scores.shrunk.tolist(), scores.mean.tolist(), scores.se.tolist(), scores.reliability)
    population = Population(tuple((Term("rademacher", i, size),) for i, size in enumerate(sizes)), rewards, base)
    proposals = linear.proposals(population, Linear()) + corp.proposals(population, Corp())
    print([[list(term) for term in proposal.terms] for proposal in proposals])
"""


def test_the_number_of_threads_changes_nothing() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"OPENBLAS_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for count in ("1", "2")
    ]
    assert told[0] == told[1]
    assert told[0].count("\n") == 9
