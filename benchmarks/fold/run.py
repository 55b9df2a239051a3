"""Studies of folds, one after the other: pairs of model and task, ablations, study seeds.

    python benchmarks/fold/run.py [PATTERN …] [--seeds 0 1 2] [--minutes 60] [--out runs/fold] [--list] [--set FIELD=VALUE]

A PATTERN picks studies of `studies.toml` by name (`ablation/*`, `*/n128`; by default all). A study of seed S lies in
OUT/NAME/S, is resumed where it was stopped, and left out where it is finished. The first seed of every study comes
first, so that what time allows is even. When the minutes are over, the study that runs is stopped; the same command
goes on. The table of what is finished:

    python benchmarks/fold/table.py runs/fold/pairs/smollm2-arithmetic/*/record.json
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("runs/fold"))
    parser.add_argument("--list", action="store_true", help="name the studies and run none")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of every study")
    arguments = parser.parse_args()
    known = studies((HERE / "studies.toml").read_text(encoding="utf-8"))
    chosen = {name: known[name] for name in known if any(fnmatch.fnmatch(name, p) for p in arguments.patterns)}
    if not chosen:
        sys.exit(f"no study is called {' or '.join(arguments.patterns)}; there are: {', '.join(known)}")
    end = time.monotonic() + 60 * arguments.minutes
    for seed in arguments.seeds:
        for name, (config, settings) in chosen.items():
            folder = arguments.out / name / str(seed)
            if arguments.list:
                print(name, seed, config, *settings)
            elif (folder / "record.json").exists():
                print(f"{name} {seed}: finished before", flush=True)
            elif (left := end - time.monotonic()) > 5:
                own = [f"search.seed={seed}", f"splits.seed={seed}", f"name={json.dumps(name)}"]
                print(f"{name} {seed}: {study(config, [*settings, *own, *arguments.set], folder, left)}", flush=True)


def studies(text: str) -> dict[str, tuple[Path, list[str]]]:
    """Name -> config, and what is set beside it. GROUP.studies.NAME in the file is called GROUP/NAME."""
    return {
        f"{group}/{name}": (HERE / table["config"], [f"{field}={value(own[field])}" for field in own])
        for group, table in tomllib.loads(text).items()
        for name, own in table["studies"].items()
    }


def value(plain: Any) -> str:
    return plain if isinstance(plain, str) else json.dumps(plain)


def study(config: Path, settings: list[str], folder: Path, seconds: float) -> str:
    """Run or resume one study for so many seconds at most; how that ended, in a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "seedfold", "run", str(config), "--out", str(folder)]
    for setting in settings:
        command += ["--set", setting]
    begun = time.monotonic()
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            return "stopped, for the time is over"
    took = f"{time.monotonic() - begun:.0f} s"
    return f"finished in {took}" if code == 0 else f"failed after {took}, see {folder / 'log.txt'}"


if __name__ == "__main__":
    main()
