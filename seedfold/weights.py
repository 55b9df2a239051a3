"""A model's weights: their names and shapes, the resident base, rebuilding any recipe from it, and looking at the step.

The live parameters are always rebuilt from the base, never changed from what they were, so nothing drifts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from seedfold.errors import UserError
from seedfold.noise import Segment
from seedfold.noise.registry import family
from seedfold.noise.torch import perturbation, rebuild
from seedfold.recipe import Recipe, Term

CHUNK = 2**22
"""Weights handled at once where a float32 or float64 copy is needed: 16 or 32 MiB."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the checkpoint: its name there, its full shape, its dtype ("bfloat16", "float32", "float16")."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def segment(self, start: int = 0, stop: int | None = None) -> Segment:
        """Flat indices [start, stop) of the tensor; by default all of it."""
        length = (self.numel if stop is None else stop) - start
        return Segment(self.name, start, rows=1, row_length=length, row_stride=length, shape=self.shape)


@dataclass(frozen=True)
class Step:
    """What a recipe does to one tensor.

    changed: share of the weights whose value differs from the base's. cosine: between the intended step (float32) and
    the realised one (after rounding to the dtype); nan where one of them is zero. intended, realised: root mean square.
    """

    tensor: str
    weights: int
    changed: float
    cosine: float
    intended: float
    realised: float


@dataclass(frozen=True)
class Part:
    """A piece of a checkpoint tensor where an engine holds it.

    segment: which weights of the tensor. live: the current values, flat and contiguous, a view of the engine's own storage.
    base: their pretrained values, flat; never written to.
    """

    segment: Segment
    live: torch.Tensor
    base: torch.Tensor


class Weights:
    """The parameters of a model and a copy of their pretrained values, the base.

    Args:
        model: any `torch.nn.Module` whose parameter names are those of its checkpoint. Tied parameters count once,
            under the first of their names. Only floating-point parameters take part; the others are left alone.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        live: dict[str, torch.Tensor] = {}
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point():
                if not parameter.is_contiguous():
                    parameter.data = parameter.data.contiguous()
                live[name] = parameter.detach().view(-1)
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        tensors = {
            name: Tensor(name, shapes[name], str(values.dtype).removeprefix("torch.")) for name, values in live.items()
        }
        parts = [Part(tensors[name].segment(), values, values.clone()) for name, values in live.items()]
        self._hold(tensors, parts)

    @classmethod
    def of_parts(cls, tensors: Mapping[str, Tensor], parts: Sequence[Part], fingerprint: str = "") -> Weights:
        """The weights of an engine that fuses, splits or pads tensors.

        Args:
            tensors: checkpoint name -> tensor, all of the model's.
            parts: the pieces that are held here; a tensor may have several, or none.
            fingerprint: of the whole model, for an engine that holds only some of it; else it is computed.
        """
        weights = cls.__new__(cls)
        weights._hold(dict(tensors), list(parts), fingerprint)
        return weights

    def _hold(self, tensors: dict[str, Tensor], parts: list[Part], known: str = "") -> None:
        self.tensors = tensors
        self._parts: dict[str, list[Part]] = {name: [] for name in tensors}
        for part in parts:
            self._parts[part.segment.tensor].append(part)
        self.known_rms: dict[str, float] = {}
        """Tensor -> root mean square of the base, as far as it was asked for. Who knows it for tensors that are not whole
        here, or for several at once, may fill this."""
        self._changed: set[str] = set()
        self._kernels: dict[tuple[str, ...], Any] = {}
        self.fingerprint = known or fingerprint((tensor, self.base(name)) for name, tensor in tensors.items())

    def parts(self, name: str) -> list[Part]:
        """The pieces of a tensor that are held here."""
        return self._parts[name]

    def base(self, name: str) -> torch.Tensor:
        """The pretrained values of a whole tensor, flat; not to be written to."""
        return self._whole(name, [part.base for part in self._parts[name]])

    def live(self, name: str) -> torch.Tensor:
        """The current values of a whole tensor, flat; a view of them where the tensor is held in one piece."""
        return self._whole(name, [part.live for part in self._parts[name]])

    def _whole(self, name: str, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        tensor, segments = self.tensors[name], [part.segment for part in self._parts[name]]
        if len(pieces) == 1 and segments[0].numel == tensor.numel:
            return pieces[0]
        if sum(segment.numel for segment in segments) < tensor.numel:
            raise ValueError(f"only a part of {name} is held here")
        return assemble(tensor.numel, segments, pieces)

    def become(self, recipe: Recipe | None) -> None:
        """Rebuild the live weights of the recipe from the base; None is the base.

        Raises:
            UserError: a recipe of another base (both fingerprints are named), of another dtype, or whose patterns match
                no tensor.
        """
        steps = {} if recipe is None else self.steps(recipe)
        for name in self._changed - steps.keys():
            for part in self._parts[name]:
                part.live.copy_(part.base)
        self._changed = set(steps)  # before writing: a rebuild cut short leaves nothing that looks like the base
        if recipe is None or not steps:
            return
        held = [part for name in steps for part in self._parts[name]]
        if held and held[0].live.is_cuda and self._fused(tuple(steps), held, recipe):
            return
        for part in held:
            rebuild(
                part.base,
                part.live,
                part.segment,
                steps[part.segment.tensor],
                rounding=recipe.rounding,
                dither_seed=recipe.dither_seed,
            )

    def _fused(self, names: tuple[str, ...], held: Sequence[Part], recipe: Recipe) -> bool:
        """Rebuild by the fused kernel, if it knows the recipe's families."""
        from seedfold.noise import triton

        if not triton.knows(recipe.terms):
            return False
        if names not in self._kernels:
            self._kernels = {names: triton.Rebuilder([(part.segment, part.base, part.live) for part in held])}
        factors = {name: self.rms(name) for name in names} if recipe.scale == "rms" else None
        self._kernels[names].rebuild(recipe.terms, factors, rounding=recipe.rounding, dither_seed=recipe.dither_seed)
        return True

    def steps(self, recipe: Recipe) -> dict[str, list[Term]]:
        """Tensor name -> terms with absolute scales, for the tensors that the recipe perturbs."""
        if recipe.base.fingerprint != self.fingerprint:
            raise UserError(
                f"the recipe is on base {recipe.base.fingerprint} ({recipe.base.name}, {recipe.dtype}), but the loaded "
                f"model is {self.fingerprint}; load the recipe's base in its dtype"
            )
        if not recipe.terms:
            return {}
        names = selected(self.tensors, recipe.include, recipe.exclude)
        for kind in {term.family for term in recipe.terms}:
            touches = getattr(family(kind), "touches", None)
            if touches and not any(map(touches, names)):
                raise UserError(
                    f'noise family "{kind}" is for modules that the perturbed tensors of this model are not of '
                    f"({names[0]}, …): every candidate would be the base; name others, as in lora-8:q_proj+v_proj"
                )
        if recipe.scale == "absolute":
            return {name: list(recipe.terms) for name in names}
        return {name: [Term(f, s, scale * self.rms(name)) for f, s, scale in recipe.terms] for name in names}

    def rms(self, name: str) -> float:
        """Root mean square of a tensor of the base, summed in float64."""
        if name not in self.known_rms:
            squares = math.fsum(chunk.double().square_().sum().item() for chunk in self.base(name).split(CHUNK))
            self.known_rms[name] = math.sqrt(squares / max(1, self.tensors[name].numel))
        return self.known_rms[name]

    def checksum(self) -> str:
        """Fingerprint of the live weights: equal to `fingerprint` exactly when they are the base's."""
        return fingerprint((tensor, self.live(name)) for name, tensor in self.tensors.items())

    def inspect(self, recipe: Recipe) -> list[Step]:
        """What the recipe does to each tensor it perturbs, compared with what it intends. The live weights stay."""
        report = []
        for name, terms in self.steps(recipe).items():
            changed, dot, intended_squares, realised_squares = 0, 0.0, 0.0, 0.0
            tensor, base = self.tensors[name], self.base(name)
            for start in range(0, tensor.numel, CHUNK):
                part = base[start : start + CHUNK]
                segment = tensor.segment(start, start + part.numel())
                new = torch.empty_like(part)
                rebuild(part, new, segment, terms, rounding=recipe.rounding, dither_seed=recipe.dither_seed)
                changed += int((new != part).sum())
                realised = new.double() - part.double()
                intended = perturbation(segment, terms, device=part.device).double()
                dot += float(realised @ intended)
                intended_squares += float(intended @ intended)
                realised_squares += float(realised @ realised)
            norms = math.sqrt(intended_squares) * math.sqrt(realised_squares)
            count = max(1, tensor.numel)
            report.append(
                Step(
                    tensor=name,
                    weights=tensor.numel,
                    changed=changed / count,
                    cosine=dot / norms if norms else math.nan,
                    intended=math.sqrt(intended_squares / count),
                    realised=math.sqrt(realised_squares / count),
                )
            )
        return report


def assemble(numel: int, segments: Sequence[Segment], pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """A whole tensor, flat, from its pieces."""
    whole = torch.empty(numel, dtype=pieces[0].dtype, device=pieces[0].device)
    for segment, piece in zip(segments, pieces, strict=True):
        segment.view(whole).copy_(piece.view(segment.rows, segment.row_length))
    return whole


def selected(tensors: Mapping[str, Tensor], include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """Names that match a pattern of include and none of exclude, in the model's order."""
    names = [
        name
        for name in tensors
        if any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]
    if not names:
        some = ", ".join(list(tensors)[:3])
        raise UserError(
            f"patterns include={list(include)} exclude={list(exclude)} leave no tensor to perturb; "
            f"tensors here are named like {some}"
        )
    return names


def fingerprint(tensors: Iterable[tuple[Tensor, torch.Tensor]]) -> str:
    """32 hex digits that stand for weights: a BLAKE2b digest over names, shapes, dtypes and bytes, in order of names."""
    whole = hashlib.blake2b(digest_size=16)
    for tensor, values in sorted(tensors, key=lambda pair: pair[0].name):
        whole.update(f"{tensor.name}\0{tensor.shape}\0{tensor.dtype}\0".encode())
        part = hashlib.blake2b(digest_size=32)
        for chunk in values.detach().view(-1).split(CHUNK):
            part.update(chunk.cpu().view(torch.uint8).numpy())
        whole.update(part.digest())
    return whole.hexdigest()


def sketch(recipe: Recipe, weights: Weights, samples: int = 2**20) -> torch.Tensor:
    """The recipe's intended step at evenly spread runs of 128 weights, scaled so that inner products estimate the whole.

    Args:
        recipe: on the base of `weights`.
        weights: gives the tensors and, for "rms" scales, their root mean squares.
        samples: about how many weights to look at; all of them when the model has no more.

    Returns:
        float32 tensor. For two recipes over the same tensors, `sketch(a) @ sketch(b)` estimates the inner product of
        their full steps, with a relative error of about 1 / sqrt(samples) of the product of their norms.
    """
    steps = weights.steps(recipe)
    total = sum(weights.tensors[name].numel for name in steps)
    share = min(1.0, samples / max(1, total))
    parts = []
    for name, terms in steps.items():
        tensor = weights.tensors[name]
        part = [perturbation(tensor.segment(*run), terms) for run in _runs(tensor.numel, share)]
        if part:
            seen = torch.cat(part)
            # Tensor by tensor: of a small one a larger share is seen, and its weights are often of another size.
            parts.append(seen * math.sqrt(tensor.numel / max(1, seen.numel())))
    return torch.cat(parts) if parts else torch.zeros(0)


def _runs(numel: int, share: float, run: int = 128) -> Iterator[tuple[int, int]]:
    if share >= 1.0:
        yield 0, numel
        return
    count = max(1, min(round(numel * share / run), numel // run))
    for k in range(count):
        start = k * (numel // count) // run * run
        yield start, min(numel, start + run)
