"""What a process computes first is what it computes ever after."""

import subprocess
import sys

from checkpoints import write_tiny

from seedfold import config, models, vector_math

TRIALS = 150

FIRST = """
import os, sys
import torch
from seedfold.vector_math import settle

torch.set_num_threads(1)  # so that no thread is there yet when the process forks
angles = torch.arange(7168.0) / 7
found = set()
for _ in range(int(sys.argv[1])):
    ready, written = os.pipe()
    if not os.fork():
        settle()
        torch.set_num_threads(2)
        os.write(written, str(hash((angles.cos().numpy().tobytes(), angles.neg().exp().numpy().tobytes()))).encode())
        os._exit(0)
    os.close(written)
    found.add(os.read(ready, 64))
    os.close(ready)
    os.wait()
print(len(found))
"""


def test_fresh_processes_agree_on_their_first_cosines() -> None:
    # Without `settle` one in a hundred and more differs, on CPUs of Intel's.
    done = subprocess.run([sys.executable, "-c", FIRST, str(TRIALS)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1"], done.stdout


def test_a_model_is_loaded_by_a_settled_process(tmp_path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(models, "settle", lambda: calls.append("settled"))
    models.load(config.Model(name=str(write_tiny(tmp_path / "model")), dtype="float32"))
    assert calls == ["settled"]


def test_every_function_is_torch_s_own() -> None:
    vector_math.settle.cache_clear()
    vector_math.settle()
    assert len(set(vector_math.FUNCTIONS)) == len(vector_math.FUNCTIONS)
