import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "numpy", "numba", "scipy", "vllm", "ray", "datasets", "safetensors"}


def loaded_by(statement):
    """(names of top-level modules loaded, seconds) of a statement in a fresh process."""
    source = f"import sys, time; t = time.perf_counter(); {statement}; t = time.perf_counter() - t\n"
    source += "import json; print(json.dumps([sorted({name.split('.')[0] for name in sys.modules}), t]))"
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    names, seconds = json.loads(done.stdout)
    return set(names), seconds


@pytest.mark.parametrize(
    "module", ["seedfold", "seedfold.config", "seedfold.recipe", "seedfold.noise", "seedfold.journal"]
)
def test_heavy_libraries_load_when_they_are_first_needed(module):
    names, _ = loaded_by(f"import {module}")
    assert not names & HEAVY


def test_the_package_imports_in_under_half_a_second():
    best = min(loaded_by("import seedfold")[1] for _ in range(3))
    assert best < 0.5


def test_what_the_package_offers_is_there():
    import seedfold

    start = time.perf_counter()
    for name in seedfold.__all__:
        assert getattr(seedfold, name) is not None
    assert time.perf_counter() - start < 60
    with pytest.raises(AttributeError, match="nothing_like_it"):
        seedfold.nothing_like_it  # noqa: B018


def test_test_modules_can_be_collected_together() -> None:
    """pytest imports them by their bare names: two of one name, or a conftest imported by name, are found by chance."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    names = Counter(path.name for path in files if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
    by_name = re.compile(r"^(from|import) conftest\b", re.M)
    assert [path.name for path in files if by_name.search(path.read_text(encoding="utf-8"))] == []
