"""A standard: a study's config and a table [speedrun] that pins what a config leaves open.

The config says model, task, N, tokens. The table pins what these names stand for on a machine: the model by the fingerprint
of its weights, the slices and the held-out text by hashes of their content. Another model or other data is refused; other
hardware, other versions and settings changed on the command line are run, and written into the record as deviations.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedfold import config
from seedfold.errors import UserError
from seedfold.settings import at_least, setting
from seedfold.text.settings import Text

if TYPE_CHECKING:
    from seedfold.splits import Dealt

HARDWARE = re.compile(r"cpu|([1-9]\d*) x (\S.*)")
TABLE = "speedrun"


def hardware_class(value: str) -> str | None:
    return None if HARDWARE.fullmatch(value) else 'use cpu, or a count and a part of the GPUs\' name such as "1 x H100"'


@dataclass(frozen=True)
class Speedrun:
    """The table [speedrun]."""

    hardware: str = setting(
        "cpu",
        "what the standard is for: cpu, or the GPUs that a run sees, by count and a part of their name: 1 x H100",
        hardware_class,
    )
    versions: dict[str, Any] = setting(
        {}, 'versions of packages that the standard is for, by how they begin: torch = "2.11"; others are noted'
    )
    repetitions: int = setting(3, "how many times everything is run, each time in a fresh folder", at_least(1))
    fingerprint: str = setting("", "of the base's weights; another model is refused; empty: any, and noted")
    slices: str = setting("", "hash of the examples in each split; others are refused; empty: any, and noted")
    text: Text = field(default_factory=Text)


@dataclass(frozen=True)
class Standard:
    """study: the study's config. changed: settings that were changed on the command line. path: the file's name."""

    study: config.Config
    speedrun: Speedrun
    path: str = ""
    changed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as `from_dict` reads them."""
        return {**self.study.to_dict(), TABLE: json.loads(json.dumps(dataclasses.asdict(self.speedrun)))}

    @property
    def hash(self) -> str:
        """16 hex digits of BLAKE2b over all settings, those of the speedrun included."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def more(self) -> str:
        """What a speedrun costs beyond its study, for a plan."""
        times, folds = self.speedrun.repetitions, len(self.study.fold.methods)
        return (
            f"speedrun: all of that {times} time{'s' * (times > 1)}, each with an engine launched anew, and held-out text "
            f"scored by up to {1 + max(self.study.search.votes) + folds} models"
        )


def is_standard(path: str | Path) -> bool:
    """Whether a TOML file has the table [speedrun]."""
    return TABLE in config.read(path)


def load(path: str | Path, settings: Sequence[str] = ()) -> Standard:
    """Read a standard's TOML file and apply ``a.b=value`` settings.

    Raises:
        UserError: the file has no table [speedrun], or a setting is unknown or bad.
    """
    if not is_standard(path):
        raise UserError(
            f'"{path}" has no table [speedrun], so it is a study and no standard; give a standard such as '
            "benchmarks/speedrun/smoke.toml, or use seedfold run"
        )
    tree = config.read(path, settings)
    return dataclasses.replace(from_dict(tree), path=Path(path).name, changed=tuple(settings))


def from_dict(tree: Mapping[str, Any]) -> Standard:
    """Build a standard from nested mappings, such as a record's."""
    rest = {name: value for name, value in tree.items() if name != TABLE}
    table = config.build(Speedrun, tree[TABLE], TABLE)
    study = config.from_dict(rest)
    if study.search.score != "reward":
        raise UserError(
            f'"search.score" is {study.search.score}, but a speedrun counts the graded answers of its search; use reward, '
            "or seedfold run"
        )
    return Standard(study, table)


def slices(dealt: Dealt) -> str:
    """32 hex digits of BLAKE2b over the splits: each example's id, which is a digest of its content, and its prompt."""
    parts = {
        name: [(example.id, dealt.task.messages(example)) for example in examples]
        for name, examples in vars(dealt.splits).items()
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check(name: str, wanted: str, found: str, what: str) -> None:
    """Refuse what is not what the standard pins; an empty `wanted` pins nothing."""
    if wanted and wanted != found:
        raise UserError(
            f'"speedrun.{name}" is {wanted}, but {what} {found}; put back what the standard means, or write this one into '
            "a standard of your own"
        )
