"""Engines as actors of a Ray cluster: several on a GPU, one on each, one on several, or on CPUs; on any number of nodes.

Ray says where there is room, starts the actors there, and ends them with this process, however that ends. What is said to
an engine goes over a socket of its own from the actor to this process, in the messages of every pool (`pool.Pool`): prompts
and recipes one way, answers the other. Weights never travel.

An engine on several GPUs (`engine.tensor_parallel`) is one actor that holds them, so no placement group is needed.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from seedfold import config
from seedfold.engines import memory, pool_child
from seedfold.engines.fleet_join import join
from seedfold.engines.pool_worker import Worker
from seedfold.errors import UserError

LOOK = 2.0
"""Seconds between two looks at which nodes the cluster has."""

LAST = 5.0
"""Seconds that Ray is given to learn of an end, and the socket's other side to say who it is."""

KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))
"""Half a minute after a machine has gone without a word, its sockets say so, on either side."""


@dataclass(frozen=True)
class Node:
    """What a node of the cluster offers. memory: bytes."""

    address: str
    cpus: float
    gpus: float
    memory: float
    id: str = ""


class Cluster:
    """The places of a Ray cluster; see `pool_worker.Places`.

    Args:
        model, engine: as for `open_engine`; `engine.fleet` says which cluster.

    Raises:
        UserError: there is no such cluster, or it has no room for any engine.
    """

    def __init__(self, model: config.Model, engine: config.Engine) -> None:
        if model.device.startswith("cuda:"):
            raise UserError(
                f'"model.device" is "{model.device}", but in a fleet Ray says which GPU is whose; use auto, cuda or cpu'
            )
        if engine.name == "stacked" and engine.per_gpu > 1 and not engine.copies:
            raise UserError(
                f'"engine.per_gpu" is {engine.per_gpu}, but a stacked engine takes a whole GPU unless "engine.copies" says '
                'how much; set that, or use "engine.per_gpu" 1'
            )
        self.address, self._leave = engine.fleet, join(engine.fleet)
        self._looked = 0.0
        self._nodes: list[Node] = []
        try:
            self.gpu = model.device == "cuda" or (model.device == "auto" and any(node.gpus for node in self.nodes()))
            self.model = replace(model, device="cuda" if self.gpu else "cpu")
            self.settings, self.share = engine, engine.per_gpu if self.gpu else 0
            threads = engine.threads or (0 if self.gpu else self._threads(engine.count))
            self.engine = replace(engine, count=1, fleet="", threads=threads)
            self.needs = self._needs(threads)
            if not self.fit():
                raise UserError(self._no_room())
        except BaseException:
            self.close()
            raise

    def nodes(self) -> list[Node]:
        """Those that live, looked up every few seconds."""
        if time.monotonic() - self._looked > LOOK:
            import ray

            self._nodes = [
                Node(
                    node["NodeManagerAddress"],
                    has.get("CPU", 0),
                    has.get("GPU", 0),
                    has.get("memory", 0),
                    node["NodeID"],
                )
                for node in ray.nodes()
                if node["Alive"] and (has := node["Resources"])
            ]
            self._looked = time.monotonic()
        return self._nodes

    def fit(self) -> int:
        """Engines that the nodes have room for, if nobody else uses them."""
        return sum(self._fit(node) for node in self.nodes())

    def _fit(self, node: Node) -> int:
        has = {"num_cpus": node.cpus, "num_gpus": node.gpus, "memory": node.memory}
        if self.needs["num_gpus"] and self.needs["num_gpus"] < 1:
            return int(node.gpus) * self.settings.per_gpu  # shares of one GPU, never of two
        return int(min(has[name] // need for name, need in self.needs.items() if need))

    def _needs(self, threads: int) -> dict[str, float]:
        """What Ray sets aside for an engine. GPUs are counted alone: they are what is scarce where there are any."""
        if not self.gpu:
            sizes = None
            with suppress(UserError):  # it may lie where the engines are, and not here
                sizes = memory.checkpoint(self.model)
            held = 2 * sizes.weights + memory.GIB // 2 if sizes else 0
            return {"num_cpus": max(1, threads), "num_gpus": 0, "memory": held}
        parts, shared = self.settings.tensor_parallel, self.settings.per_gpu
        if parts > 1 and shared > 1:
            raise UserError(
                f'"engine.per_gpu" is {shared} and "engine.tensor_parallel" {parts}; an engine on several GPUs shares none'
            )
        return {"num_cpus": 0, "num_gpus": parts / shared, "memory": 0}

    def _threads(self, count: int) -> int:
        """Of an engine on CPUs: one, which wastes least; where fewer engines are asked for than there are CPUs, more."""
        cpus = [int(node.cpus) for node in self.nodes()]
        return max(1, min(max(cpus, default=1), sum(cpus) // count)) if count else 1

    def _no_room(self) -> str:
        has = (
            f"{sum(node.cpus for node in self.nodes()):.0f} CPUs and {sum(node.gpus for node in self.nodes()):.0f} GPUs"
        )
        needs = ", ".join(
            f"{need / memory.GIB:.1f} GiB of memory" if name == "memory" else f"{need:g} {name[4:].upper()}"
            for name, need in self.needs.items()
            if need
        )
        return (
            f'"engine.fleet" is "{self.address}", a cluster of {len(self.nodes())} nodes with {has} in all, but none has '
            f"the {needs} that one engine needs; start Ray with more on a node, or use a smaller model"
        )

    def gpus(self) -> list[memory.Gpu]:
        """The GPUs of all nodes, as each tells of its own."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask: Any = ray.remote(memory.gpus)
        there = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in self.nodes() if node.gpus]
        asked = [ask.options(num_cpus=0, scheduling_strategy=strategy).remote("cuda") for strategy in there]
        return [gpu for gpus in ray.get(asked) for gpu in gpus]

    # What a pool asks

    def wanted(self) -> int:
        return self.settings.count or self.fit()

    def start(self, number: int) -> Worker:
        return Actor(number, self.needs)

    def waiting(self) -> str:
        return f'room in the Ray cluster "{self.address}"'

    def close(self) -> None:
        self._leave()


class Seat:
    """The actor: a process on some node in which an engine sits."""

    def serve(self, host: str, port: int, token: bytes, path: Sequence[str]) -> None:
        """Be an engine for whoever listens there."""
        sys.path += [place for place in path if place not in sys.path]
        try:
            there = socket.create_connection((host, port), timeout=30)
        except OSError as error:
            raise RuntimeError(f"{socket.gethostname()} cannot reach the study at {host}:{port}: {error}") from None
        there.settimeout(None)
        keep_alive(there)
        there.sendall(token)
        pool_child.serve(Connection(there.detach()))


class Actor(Worker):
    """An engine in an actor, as the pool sees it.

    Args:
        needs: num_cpus, num_gpus, memory in bytes.
    """

    def __init__(self, number: int, needs: dict[str, float]) -> None:
        import ray

        super().__init__(number, f"engine {number + 1} of the fleet")
        self._over = threading.Event()
        self._token = secrets.token_bytes(32)
        self._server = socket.create_server((ray.util.get_node_ip_address(), 0))
        self._server.settimeout(0.2)
        host, port = self._server.getsockname()[:2]
        options = {**needs, "memory": needs["memory"] or None, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        seat: Any = ray.remote(Seat)
        self._seat = seat.options(**options).remote()
        self._serving = self._seat.serve.remote(host, port, self._token, list(sys.path))

    def open(self) -> None:
        with self._server:
            while True:
                try:
                    there, _ = self._server.accept()
                except TimeoutError:
                    if self._over.is_set() or self.gone():
                        raise EOFError from None
                    continue
                if self._genuine(there):
                    keep_alive(there)
                    self.connection = Connection(there.detach())
                    return
                there.close()

    def _genuine(self, there: socket.socket) -> bool:
        """Whether this is the actor: messages are unpickled, so nobody else may send any."""
        said = b""
        there.settimeout(LAST)
        with suppress(OSError):
            while len(said) < len(self._token) and (more := there.recv(len(self._token) - len(said))):
                said += more
        there.settimeout(None)
        return hmac.compare_digest(said, self._token)

    def came(self, facts: dict[str, Any]) -> None:
        self.name = f"engine {self.number + 1} on {facts['place']}"

    def gone(self) -> bool:
        return self._learned(0.0)

    def _learned(self, seconds: float) -> bool:
        """Whether Ray knows that the actor has ended, or learns it in time."""
        import ray

        try:
            return bool(ray.wait([self._serving], timeout=seconds, fetch_local=False)[0])
        except Exception:  # Ray itself has ended
            return True

    def ended(self) -> str:
        import ray

        if not self._learned(LAST):
            return "is out of reach"
        try:
            ray.get(self._serving, timeout=LAST)
        except Exception as error:
            return reason(error)
        return "ended"

    def account(self) -> str:
        return super().account() if self.verdict or self.words else self.ended()

    def kill(self) -> None:
        import ray

        self._over.set()
        with suppress(Exception):  # it has ended, or Ray has
            ray.kill(self._seat, no_restart=True)


def reason(error: Exception) -> str:
    """What Ray says of an actor's end, in a few words."""
    text = " ".join(str(error).split())
    for marks, words in (
        (("is temporarily unavailable",), "went out of reach, as when a node is lost"),
        (("node has died", "node was terminated", "node died", "node is dead"), "was lost with its node"),
        (
            ("memory pressure", "running low on memory", "memory usage threshold"),
            "was ended because its node ran out of memory",
        ),
        (("connection error code 2",), "was killed"),
    ):
        if any(mark in text for mark in marks):
            return words
    return f"ended ({type(error).__name__}: {text[-300:]})"


def keep_alive(there: socket.socket) -> None:
    """Have the socket of a machine that is gone end, and small messages leave at once."""
    there.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            there.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
