"""The generator's words by one Triton launch, bit for bit what torch makes: in Triton's interpreter, and on a GPU.

See `test_noise_triton.py` for which of the two runs where.
"""

import subprocess
import sys

import pytest
import torch

from seedfold.noise import counter

pytest.importorskip("triton", reason="needs Triton, if only its interpreter")

from seedfold.noise import triton as fused
from seedfold.noise import triton_words

CPU = torch.device("cpu")

# Zero, one, all ones, either half alone with its sign bit, and a number of four different words.
KEYS = [
    (0, 0),
    (1, 2**64 - 1),
    (2**64 - 1, 1),
    (2**31, 2**63),
    (2**63, 2**31),
    (0x299F31D0_A4093822, 0x03707344_13198A2E),
]


def assert_torchs(device, *told):
    drawn, expected = triton_words.words(*told, torch.device(device)), counter.words_by_torch(*told, CPU)
    assert drawn.device.type == device
    assert (drawn.dtype, drawn.shape, drawn.is_contiguous()) == (expected.dtype, expected.shape, True)
    assert torch.equal(drawn.cpu(), expected), told


@pytest.mark.parametrize(("seed", "key"), KEYS)
def test_any_seed_and_key(device, seed, key):
    assert_torchs(device, seed, key, 2**32 - 2, 2**33 + 5, 3, 5)


@pytest.mark.parametrize("first", [0, 1, 2**31 - 1, 2**32 - 2, 2**56, 2**57 - 1])
@pytest.mark.parametrize("stride", [0, 1, 7, 2**31, 2**32 - 1, 2**40 + 3, 2**57])
def test_any_place(device, first, stride):
    assert_torchs(device, *KEYS[-1], first, stride, 4, 9)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 1), (1, 255), (1, 256), (1, 257), (1, 1000), (255, 1), (300, 1), (2, 128), (5, 103), (103, 5), (3, 256)],
)
def test_any_extent(device, rows, columns):
    assert_torchs(device, *KEYS[-1], 2**32 - 2, 1000, rows, columns)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 5), (5, 0)])
def test_no_words(device, rows, columns):
    assert_torchs(device, 1, 2, 3, 4, rows, columns)


# Who is asked for words


def test_a_gpu_is_given_the_kernels_words(monkeypatch):
    told = (1, 2, 3, 4, 5, 6, torch.device("cuda"))
    monkeypatch.setattr(triton_words, "words", lambda *given: ("Triton's", given))
    monkeypatch.setattr(counter, "words_by_torch", lambda *given: ("torch's", given))
    monkeypatch.setattr(counter, "_kernel", lambda: triton_words)
    assert counter.words(*told) == ("Triton's", told)
    monkeypatch.setattr(counter, "_kernel", lambda: None)
    assert counter.words(*told) == ("torch's", told)


def test_an_interpreted_kernel_is_not_used():
    assert counter._kernel() is (triton_words if fused.COMPILED else None)


@pytest.mark.parametrize("missing", ["triton", "seedfold.noise.triton_words"])
def test_without_triton_there_is_no_kernel(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from seedfold.noise import counter; print(counter._kernel())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "None\n"


def test_the_kernel_loads_when_a_gpu_first_asks():
    code = """
import os, sys
os.environ.pop("TRITON_INTERPRET", None)
from seedfold.noise import counter, gaussian, rademacher, torch
print([name for name in sys.modules if name.startswith("seedfold.noise.triton")])
print(counter._kernel().__name__)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\nseedfold.noise.triton_words\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_words_on_a_gpu_are_those_on_a_cpu():
    for told in ((*KEYS[-1], 2**32 - 2, 1000, 103, 50), (*KEYS[2], 2**56, 0, 1, 100_003)):
        assert torch.equal(counter.words(*told, torch.device("cuda")).cpu(), counter.words(*told, CPU))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_more_than_32_bits_of_words_on_a_gpu():
    if not fused.COMPILED:
        pytest.skip("too many words for the interpreter")
    columns, rows = 2**20 + 3, 2**9  # 2.1G words, 8.6 GB
    drawn = triton_words.words(*KEYS[-1], 2**56, 2**33, rows, columns, torch.device("cuda")).view(rows, columns, 4)
    for row in (0, 1, 255, 256, rows - 1):
        expected = counter.words_by_torch(*KEYS[-1], 2**56 + row * 2**33, 0, 1, columns, CPU)
        assert torch.equal(drawn[row].cpu(), expected), row
