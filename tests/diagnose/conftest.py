"""A finished study of a tiny model, which the tests of folders and commands share and do not change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import small_study, write_tiny

import seedfold


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    return small_study(tmp_path_factory.mktemp("task"), tiny_model, candidates=16)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> seedfold.Study:
    return seedfold.run(settings, tmp_path_factory.mktemp("study") / "out")


@pytest.fixture
def folder(done: seedfold.Study, tmp_path: Path) -> Path:
    """A copy of the study's folder, to be added to."""
    return Path(shutil.copytree(done.folder, tmp_path / "out"))
