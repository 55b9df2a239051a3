"""Before vLLM runs: the checkpoint's tensors, the memory there is, and the environment of its processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from seedfold import config
from seedfold.engines.memory import GIB
from seedfold.engines.text import end_tokens
from seedfold.errors import UserError
from seedfold.weights import Tensor

CPU_CACHE = 2 * GIB
"""Bytes of keys and values on CPUs, where vLLM would otherwise take nearly all the machine's memory."""

RESERVE = 2 * GIB
"""Bytes of a GPU that activations, CUDA graphs and libraries need at least."""

INVARIANT_FROM = (8, 0)
"""Compute capability from which vLLM 0.24 and later have batch-invariant kernels."""


@dataclass(frozen=True)
class Gpu:
    """free, total: bytes. capability: compute capability."""

    name: str
    free: int
    total: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What a checkpoint says before its weights are read. tensors: by name, tied ones once. ends: the end tokens."""

    config: Any
    tokenizer: Any
    ends: set[int]
    tensors: dict[str, Tensor]


def read(model: config.Model, place: str) -> Plan:
    """Look at a checkpoint: its parameters come from an empty transformers model, so they are named as everywhere else.

    Args:
        place: what `models.locate` gives.

    Raises:
        UserError: it cannot be read, or its weights are quantised.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    common: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if not os.path.isdir(place):
        common["revision"] = model.revision or None
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        settings = AutoConfig.from_pretrained(place, **common)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(
                settings, dtype=getattr(torch, model.dtype), trust_remote_code=model.trust_remote_code
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f'"model.name" is "{model.name}", which cannot be loaded ({type(error).__name__}: {reason}); give a hub name, '
            "a checkpoint directory or a .gguf file of a causal language model"
        ) from None
    if getattr(settings, "quantization_config", None):
        raise UserError(f'"model.name" is "{model.name}", whose weights are quantised; give an unquantised checkpoint')
    with contextlib.suppress(OSError):  # it has none
        empty.generation_config = GenerationConfig.from_pretrained(place, **common)
    tensors = {
        name: Tensor(name, tuple(parameter.shape), model.dtype)
        for name, parameter in empty.named_parameters()
        if parameter.is_floating_point()
    }
    return Plan(settings, tokenizer, end_tokens(empty, tokenizer), tensors)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started meanwhile; vLLM sets some of its own, which go again as well."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)


def defaults() -> dict[str, str]:
    """Variables of vLLM's that are set unless the user did; and whom its workers end with (`vllm_worker.py`).

    Its processes are spawned: forked ones cannot use CUDA when this one has asked for GPUs, by `torch.cuda.is_available`
    say, and vLLM does not see that.
    """
    wanted = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    return {key: os.environ.get(key, value) for key, value in wanted.items()} | {"SEEDFOLD_DRIVER": str(os.getpid())}


def visible(device: str, count: int) -> dict[str, str]:
    """Variables that make "cuda:N" and those after it, `count` in all, the GPUs that vLLM sees."""
    _, colon, number = device.partition(":")
    if not colon:
        return {}
    first, seen = int(number), os.environ.get("CUDA_VISIBLE_DEVICES")
    places = seen.split(",") if seen else [str(n) for n in range(first + count)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(places[first : first + count])}


def gpus(device: str, count: int) -> list[Gpu]:
    """The GPUs that vLLM would take; empty where it runs on the CPU. No CUDA context is made.

    Raises:
        UserError: this installation of vLLM is for another kind of device than the config's.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        if device.startswith("cuda"):
            raise UserError(f'"model.device" is "{device}", but the installed vllm is for CPUs; use cpu or auto')
        return []
    if not current_platform.is_cuda():
        raise UserError('"engine.name" is "vllm", which finds no CUDA GPU here; use "engine.name" transformers')
    if device == "cpu":
        raise UserError('"model.device" is "cpu", but the installed vllm is for GPUs; use cuda or auto')
    from vllm.third_party import pynvml

    found = []
    pynvml.nvmlInit()
    try:
        for number in range(count):
            handle = pynvml.nvmlDeviceGetHandleByIndex(current_platform.device_id_to_physical_device_id(number))
            memory, able = pynvml.nvmlDeviceGetMemoryInfo(handle), current_platform.get_device_capability(number)
            capability = (able.major, able.minor) if able else (0, 0)
            name = current_platform.get_device_name(number)
            found.append(Gpu(name, int(memory.free), int(memory.total), capability))
    except (IndexError, ValueError, pynvml.NVMLError) as error:
        raise UserError(f'"model.device" is "{device}" with {count} GPUs, which are not all here ({error})') from None
    finally:
        pynvml.nvmlShutdown()
    return found


def invariant(found: list[Gpu], wanted: bool | None) -> bool:
    """Whether to use batch-invariant kernels; None: where there are any."""
    able = bool(found) and all(gpu.capability >= INVARIANT_FROM for gpu in found)
    if wanted and not able:
        raise UserError(
            "batch-invariant kernels are wanted, which vLLM has for GPUs of compute capability 8.0 and above; use "
            '"engine.batch_invariant" false'
        )
    return able if wanted is None else wanted


def share(name: str, weights: int, copy: bool, found: list[Gpu], utilization: float, cache: int | None) -> float:
    """The `gpu_memory_utilization` to give vLLM, so that the base copy has room beside it.

    Args:
        name: of the model, for errors.
        weights: bytes on each device.
        copy: whether the base copy lies on the device too.
        found: the GPUs; none: the CPU.
        utilization: share of each GPU for everything, the copy included.
        cache: bytes of keys and values, if they are given.

    Raises:
        UserError: weights, copy and the rest do not fit.
    """
    import psutil

    host = psutil.virtual_memory().available
    if not found:
        need = weights * 2 + (cache or CPU_CACHE)
        if need > host:
            raise UserError(_refusal(name, weights, need, host, "of memory are free; use a smaller model"))
        return utilization
    if not copy and weights * len(found) > host:
        raise UserError(
            f'"engine.base_copy" is "host", but the {weights * len(found) / GIB:.1f} GiB of "{name}" exceed the '
            f"{host / GIB:.1f} GiB of memory that are free; use device"
        )
    need = weights * (2 if copy else 1) + (cache or 0) + RESERVE
    shares = []
    for gpu in found:
        # vLLM looks at its share even when the cache is given, and only to see whether that much is free.
        room = gpu.free if cache else min(gpu.free, int(utilization * gpu.total))
        if need > room:
            remedy = '"engine.base_copy" host' if copy else "a smaller cache"
            rest = f'are to be had on each GPU; use more of them ("engine.tensor_parallel"), another model, or {remedy}'
            raise UserError(_refusal(name, weights, need, room, rest))
        shares.append(((need if cache else utilization * gpu.total) - (weights if copy else 0)) / gpu.total)
    return min(shares)


def _refusal(name: str, weights: int, need: int, room: int, rest: str) -> str:
    return (
        f'"model.name" is "{name}", whose weights take {weights / GIB:.1f} GiB and with their base copy, keys and values '
        f"at least {need / GIB:.1f} GiB, but {room / GIB:.1f} GiB {rest}"
    )


def start(arguments: dict[str, Any], batch_invariant: bool, name: str) -> Any:
    """A running `vllm.LLMEngine`.

    Raises:
        UserError: vLLM refuses. What its processes say about it goes to standard error.
    """
    variables = {"VLLM_BATCH_INVARIANT": str(int(batch_invariant))}  # read as vLLM is imported
    if batch_invariant and not arguments["enforce_eager"]:
        # torch's compiler times candidates for a reduction and keeps the fastest, so that two processes may add in
        # different orders. This makes it choose without a clock; combined kernels it cannot choose so, and refuses.
        variables["TORCHINDUCTOR_DETERMINISTIC"] = os.environ.get("TORCHINDUCTOR_DETERMINISTIC", "1")
        combined = {"combo_kernels": False, "benchmark_combo_kernel": False}
        given = arguments.get("compilation_config", {})
        arguments = arguments | {"compilation_config": {**given, "inductor_compile_config": combined}}
    with environment(variables):
        from vllm import EngineArgs, LLMEngine
        from vllm.usage.usage_lib import UsageContext

        try:
            return LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=UsageContext.LLM_CLASS)
        except (ValueError, RuntimeError, OSError, NotImplementedError, AssertionError) as error:
            reason = " ".join(str(error).split())[:500]
            raise UserError(
                f'vLLM cannot serve "model.name" "{name}" here ({type(error).__name__}: {reason})'
            ) from error
