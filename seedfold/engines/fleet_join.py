"""How this process joins a Ray cluster, or starts one of its own, and leaves it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seedfold.errors import UserError

STORE = 128 * 2**20
"""Bytes of Ray's object store where it is started here: nothing is kept in it."""

KEEPER = """
import os, sys
sys.stdin.read()
for pid in map(int, sys.argv[1:]):
    if os.path.exists(f"/proc/{pid}"):
        os.kill(pid, 9)
"""


def join(address: str) -> Callable[[], None]:
    """Connect this process to a cluster, or start one ("local"); what to call in the end.

    Raises:
        UserError: Ray is not installed, or there is nothing at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            f'"engine.fleet" is "{address}", but the package ray is not installed; run pip install "seedfold[fleet]", or '
            "leave it out"
        ) from None
    if ray.is_initialized():
        return lambda: None
    if "://" in address:
        raise UserError(
            f'"engine.fleet" is "{address}", but Ray clients are not nodes of the cluster, which engines must reach; run '
            "seedfold on a node of it, and give its HOST:PORT or auto"
        )
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    # Ray prints an actor's end, which the pool tells in a line, as a paragraph on standard output, where results belong.
    ray._private.worker._worker_logs_enabled = False
    if address == "local":
        os.environ.setdefault("RAY_worker_niceness", "0")  # else whatever else runs here comes before the engines
        before = started(os.getpid())
        ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **quiet)
        keeper = keep(started(os.getpid()) - before)

        def leave() -> None:
            keeper.kill()
            keeper.wait()
            ray.shutdown()

        return leave
    try:
        found = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
        if found != "auto":  # where nobody answers, Ray would ask for ever
            host, _, port = found.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=found, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f'"engine.fleet" is "{address}", where no Ray cluster answers ({reason}); start one with ray start --head, '
            "give its HOST:PORT, or use local"
        ) from None
    return ray.shutdown


def keep(pids: set[int]) -> subprocess.Popen[bytes]:
    """A process that ends those of the Ray started here when this one is killed.

    Most end by themselves, but two of Ray's helpers would stay for a minute.
    """
    command = [sys.executable, "-c", KEEPER, *map(str, pids)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def started(pid: int) -> set[int]:
    """Processes that a process started, and those that they started, as far as /proc tells."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | started(child)
    return found
