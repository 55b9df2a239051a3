"""What this machine can do, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path

from seedfold import __version__
from seedfold.engines import memory
from seedfold.errors import UserError
from seedfold.export import free_bytes
from seedfold.models import EMBEDDED, cache
from seedfold.tasks import sandbox

EXTRAS = {
    "gguf": ("gguf", "accelerate"),
    "parquet": ("pyarrow",),
    "images": ("PIL",),
    "tasks": ("reasoning_gym", "datasets", "math_verify", "latex2sympy2_extended"),
    "vllm": ("vllm",),
    "fleet": ("ray",),
    "adapter": ("peft",),
}
"""Extra of the package -> the modules it brings."""


def doctor(probe: bool = True) -> str:
    """A report in plain lines. `probe` loads the embedded model and checks that rows do not depend on their batch."""
    lines = [f"seedfold {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines += _hardware()
    for name in ("torch", "transformers", "numpy", "scipy", "safetensors"):
        lines.append(f"{name:14} {_version(name) or 'MISSING: pip install seedfold'}")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        lines.append(f"extra {extra:8} " + (_lacks(extra, missing) if missing else "yes"))
    lines.append(f"code tasks     {_code()}")
    lines.append(f"cache          {cache()}, {free_bytes(cache()) / 2**30:.0f} GiB free on its disk")
    lines.append(f"this folder    {free_bytes(Path.cwd()) / 2**30:.0f} GiB free on its disk")
    if probe:
        lines += _probe()
    return "\n".join(lines)


def _hardware() -> list[str]:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [f"CPU            {usable} usable cores, {torch.get_num_threads()} threads, {_features()}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        lines.append(f"memory         {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    found = memory.gpus()
    lines += [
        f"GPU {gpu.number}          {gpu.name}, {gpu.free / 2**30:.0f} of {gpu.total / 2**30:.0f} GiB free, compute "
        f"capability {gpu.capability}"
        for gpu in found
    ]
    if not torch.cuda.is_available():
        lines.append(
            "GPU            none that torch sees; everything runs on the CPU"
            + (": install a build of torch for CUDA" if found else "")
        )
    elif not found:  # no nvidia-smi to ask
        lines += [
            f"GPU {number}          {torch.cuda.get_device_name(number)}" for number in range(torch.cuda.device_count())
        ]
    return lines + _engines(torch.cuda.is_available())


def _engines(gpu: bool) -> list[str]:
    """Which engines can run, and which to take."""
    vllm, triton = (importlib.util.find_spec(name) is not None for name in ("vllm", "triton"))
    lines = []
    if gpu:
        lines.append(f"GPU software   triton {'yes' if triton else 'NO'}, vllm {'yes' if vllm else 'no'}")
    if gpu and vllm:
        best = 'engine = "vllm", with engine.count above 1 for models that leave the GPU idle'
    elif gpu and triton:
        best = (
            'engine = "stacked" for small models of the families it knows, else "transformers"; vllm is not installed'
        )
    else:
        best = 'engine = "transformers"'
    return [*lines, f"recommended    {best}"]


def _lacks(extra: str, missing: list[str]) -> str:
    return f'no: pip install "seedfold[{extra}]" ({", ".join(missing)} missing)'


def _code() -> str:
    """Whether mbpp and humaneval can run what models write: a small program is tried."""
    found = sandbox.isolated(sandbox.Limits())
    if isinstance(found, sandbox.Sandbox):
        return "yes: bubblewrap works"
    return f"no: {found}; {sandbox.REMEDY}; docs/tasks/sandbox.md has other systems"


def _features() -> str:
    """Whether bfloat16 is fast here; the kernel says so on Linux."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    fast = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    if fast:
        return f"bfloat16 in hardware ({', '.join(fast)})"
    return "no bfloat16 in hardware: model.dtype=float32 may be faster"


def _probe() -> list[str]:
    from seedfold import config
    from seedfold.engines import open_engine

    try:
        engine = open_engine(config.Model(), config.Engine())
    except UserError as error:
        return [f"{EMBEDDED}   no: {error}"]
    exact = engine.describe()["exact"]
    return [
        f"{EMBEDDED}   yes",
        "exactness      " + ("yes" if exact else "NO")
        + ": the same prompt gets the same logits whatever stands beside it in the batch"
        + ("" if exact else " does not hold here; batches are fixed by the study, so that reruns still agree"),
    ]  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
