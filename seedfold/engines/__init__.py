"""Engines hold the base weights, make themselves into any recipe, generate and score text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seedfold import config

if TYPE_CHECKING:
    from seedfold.engines.base import Engine


def open_engine(model: config.Model, engine: config.Engine) -> Engine:
    """The engine that the config asks for, with its model loaded."""
    from seedfold.engines.transformers import TransformersEngine

    return TransformersEngine.open(model, engine)
