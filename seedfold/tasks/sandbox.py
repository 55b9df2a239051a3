"""Run programs that models wrote, and judge them: this side starts the sandboxes and carries data between them.

Each program gets a sandbox of its own (`sandbox_solver`), made by bubblewrap and gone afterwards: no network, no other
processes to be seen or started, an empty read-only root with nothing but the system's libraries and Python's own, a
temporary directory in memory, and limits on CPU time, wall-clock time, memory, file size and output. The tests and the
right answers are in another one (`sandbox_judge`), which sees no more of a program than the values that its functions
returned. So there is no verdict in the program's reach, to forge or to read. docs/tasks/sandbox.md says what remains.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import platform
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedfold.errors import UserError

SOLVER, JUDGE = (Path(__file__).with_name(f"sandbox_{side}.py") for side in ("solver", "judge"))
MAX_RESULTS = 1 << 20
"""Bytes that a program's results may have."""
DISK_BYTES = 8 << 20
"""Size of the temporary directory."""
JUDGE_MEMORY = 1 << 30
REMEDY = "install bubblewrap 0.8 (apt install bubblewrap) where user namespaces are allowed"
STARTS = 3
"""A sandbox that does not start is tried again: it must not cost the model its reward."""


@dataclass(frozen=True)
class Limits:
    """Of one program and all the calls of its functions.

    seconds: CPU time; the program is judged by it, because a busy machine must not change a reward. wall: the backstop
    in seconds, for programs that sleep. memory: MiB of address space.
    """

    seconds: int = 2
    memory: int = 512
    wall: float = 60.0


@dataclass(frozen=True)
class Checks:
    """What is asserted of a program.

    source: code with assertions. names: what the program is to define, where Python has it too (`sum`). setup: code
    that the assertions need, and that the program does not see. after: code that runs after the program, beside it.
    """

    source: str
    names: tuple[str, ...] = ()
    setup: str = ""
    after: str = ""


@dataclass(frozen=True)
class Verdict:
    """passed: all assertions held. outputs: what the calls returned, as text; None when none returned."""

    passed: bool
    outputs: str | None


class Sandbox:
    """Judges programs; `open_sandbox` makes one. Safe to use from several threads, each with a program of its own."""

    def __init__(self, limits: Limits, bwrap: str | None) -> None:
        """bwrap: path of bubblewrap; None: no isolation, only limits."""
        self.limits, self._bwrap = limits, bwrap
        self._calls: dict[Checks, bytes] = {}
        self._idle: list[subprocess.Popen[bytes]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_idle": []}  # a copy in another process starts its own judges

    def prepare(self, tests: Checks) -> None:
        """See that the tests can be judged. Raises ValueError with the reason where they cannot."""
        if tests not in self._calls:
            reply = self._ask(tests, None) or {"error": "they exceed the limits on time or memory"}
            if "error" in reply:
                raise ValueError(str(reply["error"]))
            self._calls[tests] = bytes.fromhex(reply["calls"])

    def judge(self, program: str, tests: Checks) -> Verdict:
        """Run a program against tests. Raises ValueError as `prepare` does, and UserError where no sandbox starts."""
        self.prepare(tests)
        results = self.run(program, tests.after, self._calls[tests])
        reply = self._ask(tests, results.decode("ascii", "replace")) if results else None
        return Verdict(False, None) if reply is None else Verdict(reply["passed"] is True, reply["outputs"])

    def run(self, program: str, after: str, calls: bytes) -> bytes:
        """The lines in which the solver says what each call returned; fewer than calls where the program ended."""
        seconds, memory = self.limits.seconds, self.limits.memory << 20
        question = marshal.dumps((program, after, seconds, memory, calls))
        reason = ""
        for attempt in range(STARTS):
            time.sleep(0.2 * attempt)
            with tempfile.TemporaryDirectory(prefix="seedfold-") if self._bwrap is None else _nowhere() as folder:
                process = self._start(SOLVER, (), folder)
                try:
                    output = _exchange(process, question, time.monotonic() + self.limits.wall, MAX_RESULTS)
                    ready, _, results = output.partition(b"\n")
                    if ready == b"ready":
                        return results
                finally:
                    reason = _end(process) or "it says nothing"
        raise UserError(f"the sandbox for code does not start ({reason}); see docs/tasks/sandbox.md for what it needs")

    def _ask(self, tests: Checks, results: str | None) -> dict[str, Any] | None:
        """A judge's reply; None where it exceeded its limits."""
        question = {"setup": tests.setup, "tests": tests.source, "names": tests.names, "results": results}
        try:
            judge = self._idle.pop()
        except IndexError:
            judge = self._judge()
        if judge.poll() is not None:  # it died while it waited, which is no program's doing
            judge = self._judge()
        deadline = time.monotonic() + self.limits.wall
        reply = _exchange(judge, json.dumps(question).encode("ascii") + b"\n", deadline, line=True)
        if not reply.endswith(b"\n"):
            _end(judge)
            return None
        self._idle.append(judge)
        return dict(json.loads(reply))

    def _judge(self) -> subprocess.Popen[bytes]:
        reason = ""
        for attempt in range(STARTS):
            time.sleep(0.2 * attempt)
            process = self._start(JUDGE, (self.limits.seconds, JUDGE_MEMORY), os.sep)
            weakref.finalize(self, _end, process)
            if _exchange(process, b"", time.monotonic() + self.limits.wall, line=True) == b"ready\n":
                return process
            reason = _end(process) or "it says nothing"
        raise UserError(f"the sandbox for tests does not start ({reason}); see docs/tasks/sandbox.md for what it needs")

    def _start(self, script: Path, arguments: Sequence[int], folder: str) -> subprocess.Popen[bytes]:
        """A Python that runs the script, with the number of an open /dev/null before its other arguments."""
        fixed = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}  # the same program must earn the same, run after run
        with open(os.devnull, "r+b", buffering=0) as null, contextlib.ExitStack() as stack:
            fds = [null.fileno()]
            place = str(script) if self._bwrap is None else f"/seedfold/{script.name}"
            command = [_python(), "-S", "-s", "-P", "-B", place, *map(str, (fds[0], *arguments))]
            if self._bwrap is not None:
                fds.append(stack.enter_context(_filter()).fileno())
                jail = [*_jail(fixed, mortal=script is SOLVER), "--ro-bind", str(script), place]
                command = [self._bwrap, *jail, "--remount-ro", "/", "--seccomp", str(fds[1]), "--", *command]
            return subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                env=fixed,
                cwd=folder,
                process_group=0,
            )


def open_sandbox(task: str, limits: Limits, allow_unsafe_execution: bool) -> Sandbox:
    """A sandbox that was tried. Raises UserError where bubblewrap cannot be used, unless that is allowed."""
    found = isolated(limits)
    if isinstance(found, Sandbox):
        return found
    if not allow_unsafe_execution:
        raise UserError(
            f'task "{task}" runs code that models write and needs bubblewrap, which cannot be used here: {found}; '
            f'{REMEDY}, or, where nothing can be harmed, set "task.allow_unsafe_execution" to true'
        )
    return _tried(Sandbox(limits, None))


def isolated(limits: Limits) -> Sandbox | str:
    """A sandbox made by bubblewrap that was tried, or why there is none."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return '"bwrap" is not on the PATH'
    if platform.machine() not in ARCHITECTURES:
        return f"there is no filter of system calls for {platform.machine()}"
    try:
        return _tried(Sandbox(limits, bwrap))
    except UserError as error:
        return str(error).partition("; see ")[0]


def _tried(sandbox: Sandbox) -> Sandbox:
    if not sandbox.judge("def half(x): return x / 2", Checks("assert half(3) == 1.5")).passed:
        raise UserError("the sandbox for code gives wrong results; see docs/tasks/sandbox.md for what it needs")
    return sandbox


def cores() -> int:
    """Programs to run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _python() -> str:
    """The interpreter itself, not a link to it in a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _jail(environment: dict[str, str], mortal: bool) -> list[str]:
    """bubblewrap's arguments. mortal: it ends with the thread that started it; a judge serves many threads, and ends
    when its input does."""
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", "/etc/ld.so.cache"]
    libraries += [f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64"]
    jail = ["--unshare-all", "--cap-drop", "ALL", "--new-session", "--hostname", "sandbox", "--clearenv"]
    jail += ["--die-with-parent"] if mortal else []
    for name, value in environment.items():
        jail += ["--setenv", name, value]
    jail += ["--size", str(DISK_BYTES), "--tmpfs", "/tmp"]
    for path in dict.fromkeys(libraries):
        jail += ["--ro-bind-try", path, path]
    return [*jail, "--ro-bind", _python(), _python(), "--chdir", "/tmp"]


def _exchange(
    process: subprocess.Popen[bytes], data: bytes, deadline: float, most: int = sys.maxsize, line: bool = False
) -> bytes:
    """Write data to a process and read what it writes, to its end or to `most` bytes, or the deadline.

    line: only to the first line's end, and leave its input open.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    source, target, output = process.stdout.fileno(), process.stdin.fileno(), bytearray()
    os.set_blocking(target, False)
    with selectors.DefaultSelector() as ready:
        ready.register(source, selectors.EVENT_READ)
        ready.register(target, selectors.EVENT_WRITE)
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in ready.select(left):
                if key.fd == target:
                    with contextlib.suppress(BrokenPipeError):
                        data = data[os.write(target, data) :] if data else data
                        if data:
                            continue
                    ready.unregister(target)
                    if not line:
                        process.stdin.close()
                    continue
                chunk = os.read(source, 1 << 16)
                output += chunk
                if not chunk or len(output) > most or (line and chunk.endswith(b"\n")):
                    return bytes(output[:most])
    return bytes(output)


def _end(process: subprocess.Popen[bytes]) -> str:
    """Kill a process and all that it started, wait until they are gone; return the first line of its errors.

    With bubblewrap its death ends the whole namespace, and the pipe's end says when that has happened.
    """
    if process.returncode is not None:
        return ""  # done before
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    error = b""
    for stream in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            if stream is process.stderr and stream is not None:
                os.set_blocking(stream.fileno(), False)
                error = os.read(stream.fileno(), 1000)
            elif stream is process.stdout and stream is not None:
                _exhaust(stream.fileno(), time.monotonic() + 5)
        if stream is not None:
            stream.close()
    process.wait()
    return error.decode("utf-8", "replace").strip().partition("\n")[0]


def _exhaust(source: int, deadline: float) -> None:
    """Read to the end, which comes when the last process that holds the pipe is gone."""
    with selectors.DefaultSelector() as ready:
        ready.register(source, selectors.EVENT_READ)
        while ready.select(max(0, deadline - time.monotonic())):
            if not os.read(source, 1 << 16):
                return


@contextlib.contextmanager
def _nowhere() -> Any:
    """bubblewrap changes into the sandbox's own directory."""
    yield os.sep


# Audit number of the architecture, and numbers of the system calls that are refused. A program needs no process beside
# itself and no network; the others are ways around the isolation, or would be if the kernel had a hole there.
REFUSED = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435), "socket": (41, 198),
    "connect": (42, 203), "bind": (49, 200), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438), "kcmp": (312, 272), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "personality": (135, 92),
}  # fmt: skip
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def seccomp(machine: str) -> bytes:
    """The filter as classic BPF: refused calls fail with EPERM, another architecture's calls kill."""
    numbers = [pair[list(ARCHITECTURES).index(machine)] for pair in REFUSED.values()]
    refused = [number for number in numbers if number is not None]
    load, equal, at_least, back = 0x20, 0x15, 0x35, 0x06
    code = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, ARCHITECTURES[machine]),
        (back, 0, 0, 0x80000000),  # kill the process
        (load, 0, 0, 0),  # the call's number
        (at_least, len(refused) + 1, 0, 0x40000000),  # the x32 variants of x86-64
        *((equal, len(refused) - place, 0, number) for place, number in enumerate(refused)),
        (back, 0, 0, 0x7FFF0000),  # allow
        (back, 0, 0, 0x00050000 | 1),  # EPERM
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in code)


def _filter() -> Any:
    """A file to read the filter from; a pipe, so that each bubblewrap reads its own from the start."""
    source, target = os.pipe()
    os.write(target, seccomp(platform.machine()))
    os.close(target)
    return open(source, "rb", buffering=0)
