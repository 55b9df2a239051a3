"""The weights of a runtime that fuses, shards and pads them in its own way: their base copy, and rebuilding in place."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from seedfold.engines.layout import Piece, probe
from seedfold.errors import UserError
from seedfold.recipe import Recipe
from seedfold.weights import CHUNK, Part, Tensor, Weights


class Held:
    """The live parameters of a model, its base and where the checkpoint's tensors are in them.

    Args:
        model: has `load_weights`, which takes (checkpoint name, tensor) pairs.
        tensors: the checkpoint's.
        host: keep the base in host memory. The live weights are then refilled from it before each rebuild, which starts
            from them in place.

    Raises:
        UserError: a layout that cannot be rebuilt in place, another dtype, or a loader that cannot be run again.
    """

    def __init__(self, model: Any, tensors: dict[str, Tensor], host: bool) -> None:
        self.tensors, self.host = tensors, host
        self.live = _parameters(model)
        self.base = {name: _copy(values, host) for name, values in self.live.items()}
        dtypes = {tensor.dtype for tensor in tensors.values()}
        try:
            self.pieces = self._probe(model, getattr(torch, dtypes.pop()))
        finally:
            self.restore()
            for name, values in self.live.items():
                if not torch.equal(_bits(values.cpu() if host else values), _bits(self.base[name])):
                    raise RuntimeError(f"parameter {name} could not be put back")

    def _probe(self, model: Any, dtype: torch.dtype) -> list[Piece]:
        places = {name: values.data_ptr() for name, values in self.live.items()}
        shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        try:
            with torch.no_grad():
                pieces = probe(self.live, shapes, model.load_weights, dtype)
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"the engine's loader of {type(model).__name__} does not take the tensors that transformers names "
                f"({type(error).__name__}: {reason}); use the transformers engine for this model"
            ) from error
        if places != {name: values.data_ptr() for name, values in _parameters(model).items()}:
            raise UserError(
                f"{type(model).__name__} replaces its parameters as it loads them; use the transformers engine"
            )
        for piece in pieces:
            if self.live[piece.parameter].dtype != dtype:
                raise UserError(
                    f"tensor {piece.segment.tensor} is {self.live[piece.parameter].dtype} in the engine, but {dtype} in "
                    "transformers; use the transformers engine for this model"
                )
        return pieces

    def restore(self) -> None:
        """Make all live parameters the base's."""
        for name, values in self.live.items():
            values.copy_(self.base[name], non_blocking=True)
        if self.host:
            _synchronize()

    def begin(self, fingerprint: str) -> str:
        parts = [Part(p.segment, self._view(p, self.live), self._source(p)) for p in self.pieces]
        self.weights = Weights.of_parts(self.tensors, parts, fingerprint)
        return self.weights.fingerprint

    def become(self, recipe: Recipe | None, rms: dict[str, float]) -> None:
        _synchronize()  # a step for answers that were found to be over may still be under way
        if self.host:
            self.restore()
        self.weights.known_rms.update(rms)
        self.weights.become(recipe)
        _synchronize()  # whatever stream the next step runs on

    def squares(self, names: Collection[str]) -> dict[int, list[float]]:
        """Number of a piece of these tensors -> sums of squares of its base, chunk by chunk."""
        return {
            number: [chunk.double().square_().sum().item() for chunk in self._view(piece, self.base).split(CHUNK)]
            for number, piece in enumerate(self.pieces)
            if piece.segment.tensor in names
        }

    def bytes(self, name: str, live: bool) -> dict[int, bytes]:
        """Number of a piece of this tensor -> its values, as they are now or the base's."""
        owner = self.live if live else self.base
        return {
            number: _bits(self._view(piece, owner).cpu()).numpy().tobytes()
            for number, piece in enumerate(self.pieces)
            if piece.segment.tensor == name
        }

    def padding(self) -> float:
        largest = 0.0
        for name in dict.fromkeys(piece.parameter for piece in self.pieces):
            rest = self.live[name].flatten().abs()
            for piece in self.pieces:
                if piece.parameter == name:
                    self._view(piece, {name: rest}).zero_()
            largest = max(largest, float(rest.max()))
        return largest

    def _source(self, piece: Piece) -> torch.Tensor:
        return self._view(piece, self.live if self.host else self.base)

    def _view(self, piece: Piece, owner: dict[str, torch.Tensor]) -> torch.Tensor:
        return owner[piece.parameter].view(-1)[piece.offset : piece.offset + piece.segment.numel]


def _parameters(model: Any) -> dict[str, torch.Tensor]:
    """Floating-point parameters, each storage once.

    Raises:
        UserError: one is not contiguous.
    """
    found: dict[str, torch.Tensor] = {}
    seen = set()
    for name, parameter in model.named_parameters():
        place = (parameter.data_ptr(), parameter.numel())
        if parameter.is_floating_point() and parameter.numel() and place not in seen:
            if not parameter.is_contiguous():
                raise UserError(f"parameter {name} of the engine is not contiguous, which cannot be rebuilt in place")
            seen.add(place)
            found[name] = parameter.detach()
    return found


def _copy(values: torch.Tensor, host: bool) -> torch.Tensor:
    if not host:
        return values.clone()
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda).copy_(values)


def _bits(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1).view(torch.uint8)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
