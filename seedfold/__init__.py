"""seedfold: gradient-free post-training of language models.

Sample seeded perturbations of a pretrained model's weights, score each by your reward, let the best vote, and know from
held-out examples what it gained. Heavy libraries load when they are first needed: this import takes milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seedfold import noise
from seedfold.errors import UserError

if TYPE_CHECKING:
    from seedfold.config import Config as Config
    from seedfold.recipe import Recipe as Recipe
    from seedfold.study import Study as Study
    from seedfold.study import run as run

__version__ = "0.1.0"
__all__ = ["Config", "Recipe", "Study", "UserError", "__version__", "noise", "run"]

_LAZY = {"Config": "config", "Recipe": "recipe", "Study": "study", "run": "study"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"seedfold.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'seedfold' has no attribute {name!r}")
