"""The sandbox: what must pass, what must be contained, and that nothing is left behind."""

import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hostile import ANSWER, ATTACKS, FOOL_A_PLAIN_HARNESS, FORGERIES, FRAME, WITHOUT

from seedfold.errors import UserError
from seedfold.tasks import sandbox
from seedfold.tasks.sandbox import Checks, Limits, Sandbox, Verdict, open_sandbox

LEAD = random.randrange(300, 900)
SECRET = LEAD * 100_000 + random.randrange(100_000)
LIMITS = Limits(seconds=1, memory=256, wall=6.0)
MISTAKES = ("NameError", "SyntaxError", "IndentationError", "TypeError", "UnboundLocalError")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox whose programs can be told from all others on this machine, by the name of their script."""
    script = tmp_path_factory.mktemp("script") / f"solver_{os.getpid()}_{SECRET}.py"
    shutil.copy(sandbox.SOLVER, script)
    original, sandbox.SOLVER = sandbox.SOLVER, script
    try:
        yield open_sandbox("mbpp", LIMITS, allow_unsafe_execution=False)
    except UserError as error:
        pytest.skip(str(error))
    finally:
        sandbox.SOLVER = original


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What attacks reach for: a file, a folder, listening sockets, a variable, this process."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_text("secret")
    os.environ["SEEDFOLD_CANARY"] = "1"
    tcp, unix, abstract = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    name = f"seedfold{os.getpid()}"
    with tcp, unix, abstract:
        for server, address in ((tcp, ("127.0.0.1", 0)), (unix, str(folder / "socket")), (abstract, f"\0{name}")):
            server.bind(address)
            server.listen(50)
        yield {
            "SECRET_FILE": str(folder / "secret"),
            "CANARY_DIR": str(folder),
            "PARENT": str(os.getpid()),
            "PORT": str(tcp.getsockname()[1]),
            "ABSTRACT": name,
        }
    del os.environ["SEEDFOLD_CANARY"]


def attack(name: str, outside: dict[str, str], temporary: str = "/tmp") -> str:
    text = FRAME.format(body=textwrap.indent(ATTACKS[name], "    ")).replace("ANSWER", str(ANSWER))
    text = text.replace("'/tmp/", f"'{temporary}/")
    for word, value in outside.items():
        text = text.replace(word, value)
    return text


def running() -> list[str]:
    """Command lines of this module's programs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:  # it ended just now
            continue
    return [line for line in found if f"solver_{os.getpid()}_{SECRET}" in line]


def left_behind() -> list[str]:
    """The same, but what is being killed gets a moment."""
    for _ in range(40):
        if not running():
            return []
        time.sleep(0.05)
    return running()


LEGITIMATE = {
    "recursion": ("def f(n): return n if n < 2 else f(n - 1) + f(n - 2)", "assert f(15) == 610"),
    "big numbers": ("def f(n): return 3 ** n", "assert f(5000) == 3 ** 5000\nassert f(100_000) == 3 ** 100_000"),
    "class": (
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x); return self\n"
        "def f(xs):\n    s = Stack()\n    for x in xs: s.push(x)\n    return s.items[::-1]",
        "assert f([1, 2]) == [2, 1]",
    ),
    "dataclass": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "def f(x: int): return P(x).x",
        "assert f(2) == 2",
    ),
    "imports": (
        "import math, re, heapq, string, datetime, decimal\nfrom collections import Counter, deque, defaultdict\n"
        "from itertools import permutations\nfrom typing import List\n"
        "def f(s: str) -> List[int]: return [math.gcd(12, 18), len(re.findall('a', s)), len(list(permutations(s)))]",
        "assert f('aba') == [6, 2, 6]",
    ),
    "printing": ("print('x' * 100_000)\ndef f(x):\n    print(x)\n    return x", "assert f(1) == 1"),
    "main guard": ("def f(x): return x\nif __name__ == '__main__': f(input())", "assert f(1) == 1"),
    "counter": ("from collections import Counter\ndef f(s): return Counter(s)", "assert f('aab') == {'a': 2, 'b': 1}"),
    "named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(x): return P(x, x)",
        "assert f(1) == (1, 1)",
    ),
    "generator": ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]"),
    "set": ("def f(xs): return {frozenset(x) for x in xs}", "assert f([[1, 2], [2, 1]]) == {frozenset({1, 2})}"),
    "nested": (
        "def f(x): return {'a': [(x, None, True, 1.5, b'z', 2j)], (1, 2): {x}}",
        "assert f(1) == {'a': [(1, None, True, 1.5, b'z', 2j)], (1, 2): {1}}",
    ),
    "fractions": (
        "from fractions import Fraction\nfrom decimal import Decimal\ndef f(x): return Fraction(x, 2), Decimal(x)",
        "assert f(1) == (0.5, 1)",
    ),
    "text": ("def f(s): return s[::-1]", "assert f('ñ\\n\"\\\\\\ud800😀') == '😀\\ud800\\\\\"\\nñ'"),
    "infinity": ("def f(x): return [float('inf'), -0.0]", "assert f(1) == [float('inf'), 0]"),
    "error": ("def f(x): raise ValueError('no')", "try:\n    f(1)\nexcept ValueError:\n    ok = True\nassert ok"),
    "keywords": ("def f(a, *, b): return a - b", "assert f(3, b=1) == 2"),
    "own name": ("def sum(a, b): return a * b", "assert sum(2, 4) == 8"),
    "type as argument": (
        "def f(xs, t): return [x for x in xs if isinstance(x, t)]",
        "assert f([1, 'a'], str) == ['a']",
    ),
    "own objects": (
        "class P:\n    def __init__(s, x): s.x = x\ndef f(ps): return ps[1].x",
        "assert f([P(1), P(2)]) == 2",
    ),
    "changed argument": ("def f(xs):\n    xs.sort()\n    return xs[0]", "xs = [2, 1]\nassert f(xs) == 1"),
    "temporary file": (
        "import tempfile\ndef f(x):\n    with tempfile.TemporaryFile('w+') as t:\n        t.write(x)\n        t.seek(0)\n"
        "        return t.read()",
        "assert f('x') == 'x'",
    ),
    "asyncio": ("import asyncio\nasync def g(x): return x\ndef f(x): return asyncio.run(g(x))", "assert f(1) == 1"),
    "random": ("import random\ndef f(x): return random.random() < 2 and os.urandom(2) != 1\nimport os", "assert f(1)"),
    "recursion limit": (
        "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)",
        "assert f(3000) == 3000",
    ),
    "a short sleep": (
        "import time\ndef f(x): time.sleep(2.5); return x",
        "assert f(1) == 1",
    ),  # longer than its CPU time
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_what_is_right_passes(name: str, box: Sandbox) -> None:
    program, tests = LEGITIMATE[name]
    assert box.judge(program, Checks(tests, names=("sum",) if name == "own name" else ())).passed


def judged(box: Sandbox, programs: dict[str, str], answer: int) -> dict[str, Verdict]:
    """All at once, four at a time: those that sleep do not hold the others up."""
    checks = Checks(f"assert f(3) == {answer}")
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(programs, pool.map(lambda text: box.judge(text, checks), programs.values()), strict=True))


@pytest.fixture(scope="module")
def attacked(box: Sandbox, outside: dict[str, str]) -> dict[str, Verdict]:
    return judged(box, {name: attack(name, outside) for name in ATTACKS}, ANSWER)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_contained(name: str, attacked: dict[str, Verdict]) -> None:
    verdict = attacked[name]
    assert not verdict.passed
    assert verdict.outputs or name == "i386 calls"  # which kill: elsewhere, the attack itself was stopped
    assert not any(mistake in str(verdict.outputs) for mistake in MISTAKES), verdict


def test_attacks_leave_nothing(attacked: dict[str, Verdict], outside: dict[str, str]) -> None:
    assert sorted(os.listdir(outside["CANARY_DIR"])) == ["secret", "socket"]
    assert not [path for path in ("~", "/", "/home", "/tmp") if Path(path, "seedfold-hostile").expanduser().exists()]
    assert left_behind() == []


@pytest.mark.parametrize("name", WITHOUT)
def test_attacks_succeed_without_it(name: str, outside: dict[str, str], tmp_path: Path) -> None:
    text = attack(name, outside, str(tmp_path))
    done = subprocess.run([sys.executable, "-c", f"{text}\nprint(f(3))"], capture_output=True, text=True)
    Path(outside["CANARY_DIR"], "written").unlink(missing_ok=True)
    assert done.stdout.split() == [str(ANSWER)], done.stderr


@pytest.fixture(scope="module")
def forged(box: Sandbox) -> dict[str, Verdict]:
    return judged(box, {name: text.replace("LEAD", str(LEAD)) for name, text in FORGERIES.items()}, SECRET)


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_fail(name: str, forged: dict[str, Verdict]) -> None:
    assert not forged[name].passed


def test_forgeries_leave_nothing(forged: dict[str, Verdict]) -> None:
    assert left_behind() == []


@pytest.mark.parametrize("name", FOOL_A_PLAIN_HARNESS)
def test_forgeries_fool_a_plain_harness(name: str) -> None:
    program = FORGERIES[name].replace("LEAD", str(LEAD))
    harness = f"program = {program!r}\nexpected = {SECRET}\nexec(program)\nassert f(3) == expected"
    assert subprocess.run([sys.executable, "-c", harness], capture_output=True).returncode == 0


def test_a_value_cannot_hang_the_judge(box: Sandbox) -> None:
    start = time.monotonic()
    assert not box.judge("def f(x): return 10 ** 30_000", Checks("assert abs(f(1) ** f(1)) < 1")).passed
    assert time.monotonic() - start < LIMITS.wall + 5
    assert box.judge("def f(x): return 1", Checks("assert f(1) == 1")).passed


def test_each_program_starts_afresh(box: Sandbox) -> None:
    tests = Checks("assert f() == []")
    program = (
        "import os\ndef f():\n    found = os.listdir('/tmp')\n    open('/tmp/x', 'w').write('x')\n    return found"
    )
    assert [box.judge(program, tests).passed for _ in range(2)] == [True, True]


def test_same_program_same_outputs(box: Sandbox) -> None:
    program = "import random\ndef f(x): return [random.random(), list({'a', 'b', 'c', 'd', 'e'})]"
    verdicts = {box.judge(program, Checks("assert f(1) is None")) for _ in range(4)}
    assert len(verdicts) == 1
    assert verdicts.pop().outputs


def test_outputs_pool_equal_values_and_do_not_depend_on_what_is_right(box: Sandbox) -> None:
    programs = ("def f(x): return {3, x * 2.0}", "def f(x): return {x + x, 3}", "def f(x): return {3, 2 * x + 1}")
    wrong, right = (Checks(f"assert f(1) == {v}\nassert f(5) == {{3, 10}}") for v in ("7", "{2, 3}"))
    outputs = [box.judge(program, right) for program in programs]
    assert outputs == [Verdict(True, "set{2, 3}; set{10, 3}")] * 2 + [Verdict(False, "set{3}; set{11, 3}")]
    assert [box.judge(program, wrong).outputs for program in programs] == [verdict.outputs for verdict in outputs]
    raises = box.judge("def f(x): return x if x == 1 else 1 / 0", right)
    assert raises == Verdict(False, "1; raised ZeroDivisionError")
    assert box.judge("def f(x): return x if x == 1 else __import__('os')._exit(0)", right).outputs == "1"
    assert box.judge("def g(x): return x", right).outputs is None


def test_long_outputs_become_a_digest(box: Sandbox) -> None:
    outputs = box.judge("def f(x): return list(range(1000))", Checks("assert f(1)")).outputs
    assert outputs is not None
    assert outputs.startswith("blake2b:")
    assert len(outputs) < 50


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("assert f(", "SyntaxError"),
        ("f(1)", "assert nothing"),
        ("assert 1 == 1", "assert nothing"),
        ("import nonsense\nassert f(1)", "ModuleNotFoundError"),
        ("for x in f(1):\n    assert x", "TypeError"),
        ("assert f(object())\nf(object())", "an argument of type object"),
        ("while True: pass", "exceed the limits"),
    ],
)
def test_tests_that_cannot_be_run_are_said(tests: str, reason: str, box: Sandbox) -> None:
    with pytest.raises(ValueError, match=reason):
        box.prepare(Checks(tests))


def test_many_at_once(box: Sandbox) -> None:
    tests = Checks("assert f(3) == 9")
    programs = [
        "def f(x): return x * x",
        "def f(x): return x",
        "import os; os._exit(0)",
        "def f(x): return x ** 2",
    ] * 10
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda program: box.judge(program, tests).passed, programs))
    assert verdicts == [True, False, False, True] * 10
    assert left_behind() == []


def test_overhead(box: Sandbox) -> None:
    """Alone on the machine a run takes about 25 ms; the best of many, because others run too."""
    tests = Checks("assert f(3) == 9")
    times = []
    for _ in range(20):
        start = time.perf_counter()
        box.judge("def f(x): return x * x", tests)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_a_program_is_gone_when_the_study_is_killed(box: Sandbox, tmp_path: Path) -> None:
    code = (
        f"from seedfold.tasks import sandbox\nfrom pathlib import Path\nsandbox.SOLVER = Path({str(sandbox.SOLVER)!r})\n"
        "box = sandbox.open_sandbox('mbpp', sandbox.Limits(wall=600), False)\n"
        "print('ready', flush=True)\n"
        "box.judge('import time\\ndef f(x): time.sleep(500)', sandbox.Checks('assert f(1)'))"
    )
    study = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert study.stdout is not None
    study.stdout.readline()
    time.sleep(0.5)
    was_running = running()
    study.kill()
    study.wait()
    study.stdout.close()
    assert was_running
    assert left_behind() == []


ROOT = str(Path(sandbox.__file__).parents[2])


def test_it_refuses_without_isolation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        UserError, match=r'"bwrap" is not on the PATH; install .* "task.allow_unsafe_execution" to true'
    ):
        open_sandbox("mbpp", LIMITS, False)
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    with pytest.raises(UserError, match=r'task "humaneval" .* No permissions to create new namespace\); install'):
        open_sandbox("humaneval", LIMITS, False)
    assert open_sandbox("humaneval", LIMITS, True).judge("def f(): return 1", Checks("assert f() == 1")).passed


@pytest.mark.parametrize(
    "name", ["exit", "endless loop", "sleep", "crash", "endless output", "equal to all", "huge text", "gc"]
)
def test_without_isolation_limits_and_the_verdict_hold(name: str) -> None:
    box = Sandbox(Limits(seconds=1, memory=256, wall=2.5), None)
    program = FORGERIES[name].replace("LEAD", str(LEAD))
    assert not box.judge(program, Checks(f"assert f(3) == {SECRET}")).passed
    assert box.judge("def f(x): return x", Checks("assert f(3) == 3")).passed


def test_a_busy_sandbox_is_no_wrong_answer(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sandbox itself fails, the program is run again, and at last the study stops."""
    starts: list[Any] = []
    real = Sandbox._start

    def sometimes(self: Sandbox, script: Path, arguments: Any, folder: str) -> Any:
        starts.append(script)
        missing = len(starts) < 3
        return real(self, Path("/nonexistent") if missing else script, arguments, folder)

    tests = Checks("assert f() == 1")
    box.prepare(tests)
    monkeypatch.setattr(Sandbox, "_start", sometimes)
    assert box.judge("def f(): return 1", tests).passed
    assert len(starts) == 3
    monkeypatch.setattr(Sandbox, "_start", lambda self, script, *rest: real(self, Path("/nonexistent"), *rest))
    with pytest.raises(UserError, match="does not start"):
        box.judge("def f(): return 1", tests)


def test_a_judge_that_died_is_replaced(box: Sandbox) -> None:
    checks = Checks("assert f() == 1")
    for _ in range(2):
        assert box.judge("def f(): return 1", checks).passed
        for judge in box._idle:
            judge.kill()
            judge.wait()


def test_threads_share_it_and_copies_start_their_own(box: Sandbox) -> None:
    import pickle

    tests = Checks("assert f() == 1")
    copy = pickle.loads(pickle.dumps(box))
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(copy.judge("def f(): return 1", tests).passed))
    thread.start()
    thread.join()
    assert found == [True]  # the thread that started the judge is gone, the judge is not
    assert copy.judge("def f(): return 1", tests).passed


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_refuses_what_it_lists_and_nothing_else(machine: str, column: int) -> None:
    """Run by a small interpreter of its own, so that it is checked for both architectures."""
    code = list(struct.iter_unpack("<HBBI", sandbox.seccomp(machine)))
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000

    def run(architecture: int, number: int) -> int:
        place, loaded = 0, 0
        while True:
            kind, true, false, value = code[place]
            place += 1
            if kind == 0x06:
                return value
            if kind == 0x20:
                loaded = {0: number, 4: architecture}[value]
            else:
                place += true if (loaded == value if kind == 0x15 else loaded >= value) else false

    own, other = (sandbox.ARCHITECTURES[name] for name in (machine, {"x86_64": "aarch64"}.get(machine, "x86_64")))
    refused = {pair[column] for pair in sandbox.REFUSED.values()} - {None}
    assert {number for number in range(1000) if run(own, number) == refuse} == refused
    assert {run(own, number) for number in range(1000)} == {allow, refuse}
    assert run(own, 0x40000000) == run(own, 0x40000039) == refuse
    assert {run(other, number) for number in range(1000)} == {kill}
