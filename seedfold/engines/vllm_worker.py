"""What runs inside vLLM's workers: the base copy, the layout of the live weights, and rebuilding them in place.

vLLM imports this module in every worker before it makes the model (`worker_extension_cls`) and calls the methods below by
`collective_rpc`. Arguments and results are plain data: lists, strings, numbers, bytes.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence
from typing import Any

import torch

from seedfold.engines.held import Held
from seedfold.engines.rows import in_blocks
from seedfold.errors import UserError
from seedfold.noise import Segment
from seedfold.recipe import Recipe
from seedfold.vector_math import settle
from seedfold.weights import Tensor

DRIVER = "SEEDFOLD_DRIVER"
"""The variable that holds the id of the process whose engine this is."""

QUERIES = 65
"""FlashAttention 3 takes its small tile where queries times heads per key are at most 64."""


def keep_plain_weights() -> None:
    """On CPUs vLLM packs linear weights into a form of its own as it loads them, and drops the originals.

    What is packed cannot be rebuilt in place. vLLM's own fallback for layers that it does not pack is a plain linear map;
    here all layers take one, in blocks of rows: a step has as many rows as happen to be there, and the vendor's product
    of another number of rows adds up in another order. GPUs hold plain weights anyway.
    """
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    pack = utils.dispatch_cpu_unquantized_gemm

    def dispatch(layer: Any, remove_weight: bool) -> None:
        if layer.weight.ndim == 2:
            layer.cpu_linear = in_blocks
        else:
            pack(layer, remove_weight)

    utils.dispatch_cpu_unquantized_gemm = dispatch


def decode_like_prefill() -> None:
    """FlashAttention 3 takes other tiles for a step of few queries a request than for one with a prompt in it.

    So an answer would depend, by a bit, on when the others' prompts came. Told of more queries, it takes the same tiles.
    """
    from vllm import envs
    from vllm.platforms import current_platform

    if not envs.VLLM_BATCH_INVARIANT or not current_platform.is_cuda():
        return
    from vllm.v1.attention.backends import flash_attn

    attend = getattr(flash_attn, "flash_attn_varlen_func", None)
    if attend is None:  # another backend is used
        return

    def steady(*arguments: Any, max_seqlen_q: int, **more: Any) -> Any:
        return attend(*arguments, max_seqlen_q=max(QUERIES, max_seqlen_q), **more)

    flash_attn.flash_attn_varlen_func = steady


def end_with(driver: int) -> None:
    """End this process when process `driver` has ended, even if by a signal that it could not handle.

    vLLM's processes would go on for ever, and keep their GPU.
    """
    if not hasattr(os, "pidfd_open"):  # Linux
        return

    def watch() -> None:
        try:
            handle = os.pidfd_open(driver)
        except ProcessLookupError:
            os._exit(1)
        select.select([handle], [], [])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Extension:
    """Methods that vLLM adds to its worker class. Their names must not meet any of its own."""

    _seedfold: Held

    def seedfold_attach(self, plan: Sequence[Sequence[Any]], dtype: str, host: bool) -> tuple[str, list[Any]]:
        """Copy the base, find the tensors of the checkpoint in the live parameters, and put everything back.

        Args:
            plan: (name, shape) of every tensor of the checkpoint.
            dtype: that all of them must have here.
            host: keep the base in pinned host memory.

        Returns:
            An error, empty if there is none; and where the pieces are: (tensor, start, rows, row_length, row_stride).
        """
        model = self.get_model()  # type: ignore[attr-defined]
        tensors = {name: Tensor(name, tuple(shape), dtype) for name, shape in plan}
        try:
            self._seedfold = Held(model, tensors, host)
        except (UserError, torch.OutOfMemoryError) as error:  # an exception would arrive as text in vLLM's own
            return " ".join(str(error).split())[:500], []
        return "", [_plain(piece.segment) for piece in self._seedfold.pieces]

    def seedfold_begin(self, fingerprint: str) -> str:
        """Be ready for recipes. `fingerprint`: of the whole base; empty: computed from what is held here, and returned."""
        return self._seedfold.begin(fingerprint)

    def seedfold_become(self, recipe: str | None, rms: dict[str, float]) -> None:
        """Rebuild the live weights. `rms`: of whole tensors, where the recipe's scales are relative to them."""
        self._seedfold.become(None if recipe is None else Recipe.from_json(recipe), rms)

    def seedfold_squares(self, names: Sequence[str]) -> dict[int, list[float]]:
        """See `Held.squares`."""
        return self._seedfold.squares(set(names))

    def seedfold_checksum(self) -> str:
        """Fingerprint of the live weights, where all are held here."""
        return self._seedfold.weights.checksum()

    def seedfold_bytes(self, name: str, live: bool) -> dict[int, bytes]:
        """See `Held.bytes`."""
        return self._seedfold.bytes(name, live)

    def seedfold_padding(self) -> float:
        """Largest absolute value of what is in parameters that hold tensors, but belongs to none."""
        return self._seedfold.padding()


def _plain(segment: Segment) -> list[Any]:
    return [segment.tensor, segment.start, segment.rows, segment.row_length, segment.row_stride]


settle()
keep_plain_weights()
decode_like_prefill()
if DRIVER in os.environ:
    end_with(int(os.environ[DRIVER]))
