"""What a record says of where it was made: commit, hardware, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import seedfold
from seedfold.engines import memory
from seedfold.speedrun.standard import HARDWARE

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "triton", "vllm", "ray")


def commit() -> tuple[str, bool]:
    """(commit of this package's checkout, whether tracked files differ from it); ("", False) outside a checkout."""
    package = Path(seedfold.__file__).parent
    # A package in an environment inside of somebody's repository is not a part of it.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return "", False
    return _git(package, "rev-parse", "--short=12", "HEAD") or "", bool(
        _git(package, "status", "--porcelain", "--untracked-files=no", ":/")
    )


def hardware(device: str) -> dict[str, Any]:
    """cpu (its name), cores (usable), memory_gib, gpus (names, of those that `model.device` allows)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return {
        "cpu": _cpu(),
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30) if known else None,
        "gpus": [gpu.name for gpu in memory.gpus(device)],
    }


def load() -> float:
    """Processes at work in the last minute, on average; 0 where the system does not say."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def versions() -> dict[str, str]:
    """Of Python, of this package and of those that it computes with; what is not installed is left out."""
    found = {"python": platform.python_version(), "seedfold": seedfold.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def of_class(wanted: str, gpus: list[str]) -> bool:
    """Whether these GPUs are those of a hardware class such as "cpu" or "1 x H100"."""
    match = HARDWARE.fullmatch(wanted)
    if match is None or match[1] is None:
        return not gpus
    return len(gpus) == int(match[1]) and all(match[2].casefold() in name.casefold() for name in gpus)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
