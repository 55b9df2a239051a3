"""Engines hold the base weights, make themselves into any recipe, generate and score text."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from seedfold import config
from seedfold.errors import UserError

if TYPE_CHECKING:
    from seedfold.engines.base import Engine


def open_engine(model: config.Model, engine: config.Engine) -> Engine:
    """The engine that the config asks for, with its model loaded.

    One transformers engine lives in this process. Engines of a GPU, and several of any kind, live in processes of their
    own (`seedfold.engines.pool`), of this machine or of a Ray cluster (`seedfold.engines.fleet`): they generate while this
    one grades. Close those when done; `opened` does.

    Raises:
        UserError: the machine or the installation lacks something, or the model cannot be loaded.
    """
    if engine.fleet:
        from seedfold.engines.fleet import Cluster
        from seedfold.engines.pool import Pool

        return Pool(model, engine, places=Cluster(model, engine))
    if engine.name == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UserError(
            '"engine.name" is "vllm", but the package vllm is not installed; run pip install "seedfold[vllm]", or use '
            '"engine.name" transformers'
        )
    if engine.name == "transformers" and engine.count <= 1:
        return open_here(model, engine)
    from seedfold.engines.pool import Pool

    return Pool(model, engine)


def open_here(model: config.Model, engine: config.Engine) -> Engine:
    """One engine in this process, whatever `engine.count` is."""
    if engine.name == "vllm":
        from seedfold.engines.vllm import VllmEngine

        return VllmEngine.open(model, engine)
    if engine.name == "stacked":
        from seedfold.engines.stacked import StackedEngine

        return StackedEngine.open(model, engine)
    from seedfold import models

    if models.sees(model):
        from seedfold.engines.vision import VisionEngine

        return VisionEngine.open(model, engine)
    from seedfold.engines.transformers import TransformersEngine

    return TransformersEngine.open(model, engine)


@contextmanager
def opened(model: config.Model, engine: config.Engine) -> Iterator[Engine]:
    """`open_engine`, closed at the end of a `with` block."""
    made = open_engine(model, engine)
    try:
        yield made
    finally:
        if close := getattr(made, "close", None):
            close()
