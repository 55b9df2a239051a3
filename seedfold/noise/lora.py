"""LoRA noise: that of low rank on the weights of named modules, zero elsewhere. A PEFT adapter can hold it.

"lora-8" is on the projections of attention and of the gated layer; "lora-8:q_proj+v_proj" on those named, in alphabetical
order. A module's name is the last part of the tensor's name before ".weight". (Hu et al., 2021, arXiv:2106.09685.)
"""

from __future__ import annotations

import torch

from seedfold.errors import UserError
from seedfold.noise.low_rank import LowRank, known, rank_of

TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


class Lora(LowRank):
    """The family of one rank and list of modules; see `Family`."""

    def __init__(self, rank: int, targets: tuple[str, ...]) -> None:
        super().__init__(rank)
        self.targets = targets

    def fill(
        self,
        out: torch.Tensor,
        *,
        seed: int,
        tensor: str,
        first: int,
        stride: int,
        scale: float,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """See ``Family.fill``."""
        if self.touches(tensor) and len(known(shape, tensor)) == 2:
            super().fill(out, seed=seed, tensor=tensor, first=first, stride=stride, scale=scale, shape=shape)
        else:
            out.zero_()

    def factors(self, seed: int, tensor: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """See ``LowRank.factors``."""
        if self.touches(tensor) and len(shape) == 2:
            return super().factors(seed, tensor, shape)
        return None

    def touches(self, tensor: str) -> bool:
        """Whether a tensor of this name, if it is a matrix, gets any noise. Families without this method touch all."""
        module, _, kind = tensor.rpartition(".")
        return kind == "weight" and module.rpartition(".")[2] in self.targets


def of(argument: str) -> Lora:
    """The family of a name's argument: "8:q_proj+v_proj" of "lora-8:q_proj+v_proj"."""
    text, colon, listed = argument.partition(":")
    name, targets = f"lora-{argument}", tuple(listed.split("+")) if colon else TARGETS
    rank = rank_of(text, name, "lora-8 or lora-8:q_proj+v_proj")
    if not all(target and "." not in target for target in targets):
        raise UserError(
            f"family is {name!r}, but its modules are no plain names; give some such as lora-8:q_proj+v_proj"
        )
    if list(targets) != sorted(set(targets)):
        right = f"lora-{rank}:{'+'.join(sorted(set(targets)))}"
        raise UserError(f"family is {name!r}, but its modules are not in order, each once; give {right}")
    return Lora(rank, targets)
