"""What the doctor says of GPUs and of the engine to take."""

import shutil
from pathlib import Path

import pytest

from seedfold import doctor
from seedfold.engines import memory
from seedfold.engines.memory import GIB, Gpu


@pytest.mark.parametrize(
    ("gpu", "installed", "best"),
    [
        (False, {"vllm", "triton"}, "transformers"),
        (True, {"vllm", "triton"}, "vllm"),
        (True, {"triton"}, "stacked"),
        (True, set(), "transformers"),
    ],
)
def test_the_engine_to_take(gpu: bool, installed: set[str], best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    lines = doctor._engines(gpu)
    assert lines[-1].startswith(f'recommended    engine = "{best}"')
    if gpu:
        assert lines[0].endswith(
            f"triton {'yes' if 'triton' in installed else 'NO'}, vllm {'yes' if 'vllm' in installed else 'no'}"
        )


def test_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "gpus", lambda: [Gpu(0, "Some GPU", 70 * GIB, 80 * GIB, "9.0")])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    told = doctor.doctor(probe=False)
    assert "GPU 0          Some GPU, 70 of 80 GiB free, compute capability 9.0" in told
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "install a build of torch for CUDA" in doctor.doctor(probe=False)


def test_whether_code_tasks_can_run_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = next(line for line in doctor.doctor(probe=False).splitlines() if line.startswith("code tasks"))
    if shutil.which("bwrap"):
        assert line.startswith(("code tasks     yes: bubblewrap works", "code tasks     no: the sandbox for"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor._code() == (
        'no: "bwrap" is not on the PATH; install bubblewrap 0.8 (apt install bubblewrap) where user namespaces are '
        "allowed; docs/tasks/sandbox.md has other systems"
    )
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    assert "No permissions to create new namespace" in doctor._code()


def test_an_extra_is_there_when_all_its_modules_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "math_verify" else name)
    lines = doctor.doctor(probe=False).splitlines()
    assert 'extra tasks    no: pip install "seedfold[tasks]" (math_verify missing)' in lines
    assert "extra images   yes" in lines
