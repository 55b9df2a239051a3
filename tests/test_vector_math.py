"""What a process computes first is what it computes ever after."""

import re
import subprocess
import sys
from pathlib import Path

from checkpoints import write_tiny

from seedfold import config, models, vector_math

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "vector_math.py"
PROCESSES = "150"


def test_fresh_processes_agree_on_their_first_cosines() -> None:
    # Without --settled one in a hundred differs, on CPUs of Intel's: nearly always some of so many.
    command = [sys.executable, str(BENCHMARK), "--processes", PROCESSES, "--settled"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert re.search(rf"^0 of {PROCESSES} processes differ$", done.stdout, re.MULTILINE), done.stdout


def test_a_model_is_loaded_by_a_settled_process(tmp_path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(models, "settle", lambda: calls.append("settled"))
    models.load(config.Model(name=str(write_tiny(tmp_path / "model")), dtype="float32"))
    assert calls == ["settled"]


def test_every_function_is_one_of_torch() -> None:
    vector_math.settle.cache_clear()
    vector_math.settle()  # AttributeError where one is not
    assert len(set(vector_math.FUNCTIONS)) == len(vector_math.FUNCTIONS)
