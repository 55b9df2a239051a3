"""Settings of the fold: documented, checked, and light enough to be read with a config."""

import dataclasses
import subprocess
import sys

import pytest

from seedfold import UserError, config
from seedfold.fold import settings

KINDS = [
    settings.Gate,
    settings.Race,
    settings.Linear,
    settings.Corp,
    settings.Local,
    settings.Evolution,
    settings.ReleasedCorp,
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_documented_and_its_default_passes_its_check(kind: type) -> None:
    default = kind()
    for field in dataclasses.fields(kind):
        assert field.metadata["doc"]
        check = field.metadata["check"]
        assert check is None or check(getattr(default, field.name)) is None, field.name


@pytest.mark.parametrize("kind", KINDS)
def test_it_builds_from_a_table_as_config_does(kind: type) -> None:
    assert config._build(kind, {}, "fold") == kind()
    with pytest.raises(UserError, match="unknown setting"):
        config._build(kind, {"nothing_like_it": 1}, "fold")


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        (settings.Gate, {"level": 0.5}, r'"fold.level" is 0.5; use a number above 0 and below 0.5'),
        (settings.Corp, {"quantiles": [1.0]}, "at least 0 and below 1"),
        (settings.Corp, {"weights": ["both"]}, "use one of signed, positive"),
        (settings.Linear, {"steps": []}, "at least one value"),
        (settings.Local, {"sigma_down": 1.5}, "at most 1"),
        (settings.Local, {"sigma_up": 0.5}, "at least 1"),
    ],
)
def test_bad_values_are_named(kind: type, table: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config._build(kind, table, "fold")


def test_reading_them_loads_no_numpy() -> None:
    source = "import sys, seedfold.fold.settings; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
