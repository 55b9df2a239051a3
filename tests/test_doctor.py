"""What the doctor says of GPUs and of the engine to take."""

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
