"""Engines that the tests share: SmolLM2 for real text, and tiny random models for speed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():  # set before anything imports Triton: kernels then run in its interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")

from tiny_models import IdTokenizer, tiny_model

from seedfold import config
from seedfold.engines import open_engine
from seedfold.engines.transformers import TransformersEngine
from seedfold.recipe import Base, Recipe, Term

torch.set_num_threads(1)  # tiny models gain nothing from a second core, and lose much when it is busy


def tiny_engine(kind: str, dtype: torch.dtype = torch.float32, batch: int = 64, **changes: Any) -> TransformersEngine:
    return TransformersEngine(tiny_model(kind, dtype, **changes), IdTokenizer(), kind, batch=batch)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TransformersEngine]:
    """tiny(kind, dtype=torch.float32, batch=64, **config): a new engine on a tiny random model."""
    return tiny_engine


@pytest.fixture(scope="session")
def smol() -> TransformersEngine:
    """SmolLM2-135M-Instruct in bfloat16. Every test finds it as its base."""
    engine = open_engine(config.Model(), config.Engine())
    assert isinstance(engine, TransformersEngine)
    return engine


@pytest.fixture(autouse=True)
def _smol_starts_as_its_base(request: pytest.FixtureRequest) -> None:
    if "smol" in request.fixturenames:
        request.getfixturevalue("smol").become(None)


@pytest.fixture(scope="session")
def recipe_on() -> Callable[..., Recipe]:
    """recipe_on(engine or weights, *terms, **fields): a recipe on that base; a term is (seed, scale) or a whole one."""

    def make(owner: Any, *terms: tuple[Any, ...], **fields: Any) -> Recipe:
        whole = tuple(Term(*term) if len(term) == 3 else Term("rademacher", *term) for term in terms)
        dtype = getattr(owner, "dtype", "float32")
        return Recipe(Base("model", "", owner.fingerprint), whole, **{"dtype": dtype, **fields})

    return make
