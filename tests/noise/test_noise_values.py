import hashlib
import random
import subprocess
import sys

import pytest
import torch
from noise_oracle import block_words, noise

from seedfold.errors import UserError
from seedfold.noise import Segment, counter, families, gaussian, register, tensor_key, values
from seedfold.noise.torch import perturbation

FAMILIES = ("rademacher", "gaussian")


@pytest.mark.parametrize(
    ("ctr", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(ctr, key, expected):
    words = tuple(torch.tensor([int(w, 16)] * 3) for w in ctr.split())
    k0, k1 = (int(w, 16) for w in key.split())
    drawn = counter.philox(words, (k0, k1))
    assert [[x & 0xFFFFFFFF for x in w.tolist()] for w in drawn] == [[int(w, 16)] * 3 for w in expected.split()]


def test_words_of_a_grid_are_signed_views_of_the_unsigned_words():
    grid = counter.words(2**63 + 5, tensor_key("w"), 2**32 - 2, 7, rows=2, columns=3, device=torch.device("cpu"))
    blocks = [2**32 - 2 + 7 * r + c for r in range(2) for c in range(3)]
    assert [[w % 2**32 for w in row] for row in grid.tolist()] == [block_words(2**63 + 5, "w", b) for b in blocks]


def test_tensor_key_is_a_prefix_of_blake2b():
    name = "modèle.layers.3.self_attn.q_proj.weight"
    assert tensor_key(name) == int.from_bytes(hashlib.blake2b(name.encode()).digest()[:8], "little")
    assert tensor_key("model.embed_tokens.weight") == 0x00B5B7CEC255D1B2


@pytest.mark.parametrize("family", FAMILIES)
def test_values_equal_the_scalar_oracle(family):
    rng = random.Random(1)
    places = [0, 1, 127, 128, 2**32 - 3, 2**32 + 1, 2**35 - 2, 2**39 - 1, 2**40 + 77, 2**62 + 5, 2**64 - 9]
    places += [rng.randrange(2 ** rng.randrange(1, 60)) for _ in range(60)]
    seeds = [0, 1, 2**32 - 1, 2**32, 2**64 - 1] + [rng.randrange(2**64) for _ in range(len(places))]
    for start, seed in zip(places, seeds, strict=False):
        name = f"model.layers.{rng.randrange(99)}.weight"
        stop = start + rng.randrange(1, 9)
        expected = [noise(family, seed, name, i) for i in range(start, stop)]
        assert values(family, seed, name, start, stop).tolist() == expected, (family, seed, name, start)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_range_of_many_tiles_equals_the_oracle_and_its_own_parts(family):
    start, length = 2**40 - 1_000_003, 2_500_000  # crosses tiles and a carry
    whole = values(family, 9, "w", start, start + length)
    for k in random.Random(2).sample(range(length), 300):
        assert whole[k].item() == noise(family, 9, "w", start + k)
    for a, b in [(0, 1), (5, 900_001), (1_048_575, 1_048_900), (length - 129, length)]:
        assert torch.equal(values(family, 9, "w", start + a, start + b), whole[a:b])


def test_known_answers_of_the_documentation():
    name, start = "model.embed_tokens.weight", 2**40
    assert values("rademacher", 42, name, start, start + 8).tolist() == [1, -1, 1, -1, -1, -1, -1, -1]
    drawn = values("gaussian", 42, name, start, start + 4).tolist()
    assert drawn == pytest.approx([-1.17026877, -1.00805950, 0.23360646, 0.81296211], abs=1e-8)


def test_empty_range():
    assert values("rademacher", 0, "w", 5, 5).shape == (0,)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stride", [640, 1000, 577, 576])
def test_column_shards_equal_slices_of_the_whole(family, stride):
    rows = 150
    whole = values(family, 3, "w", 0, rows * stride).view(rows, stride)
    for left, right in [(0, stride), (0, 64), (129, 131), (stride // 2, stride), (3, stride - 1)]:
        shard = Segment("w", start=left, rows=rows, row_length=right - left, row_stride=stride)
        drawn = perturbation(shard, [(family, 3, 1.0)]).view(rows, right - left)
        assert torch.equal(drawn, whole[:, left:right])


def test_gaussian_table_is_the_published_one_and_antisymmetric():
    table = gaussian.table(torch.device("cpu"))
    digest = hashlib.sha256(table.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "8babbcaf96568f10165a1eab530c0e5c92d04de96761b6dbb3dadfa94baba37f"
    assert torch.equal(table, -table.flip(0))
    assert abs((table.double() ** 2).mean().item() - 1) < 1e-7
    assert torch.all(table[1:] > table[:-1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("uniform", 0, "w", 0, 1), "family is 'uniform'; give one of rademacher, gaussian, low-rank-RANK, lora-RANK"),
        (("gaussian", -1, "w", 0, 1), "seed is -1"),
        (("gaussian", 2**64, "w", 0, 1), "seed is 18446744073709551616"),
        (("gaussian", 1.5, "w", 0, 1), "seed is 1.5"),
        (("gaussian", 0, "", 0, 1), "tensor is ''"),
        (("gaussian", 0, "w", 2, 1), "start, stop is 2, 1"),
        (("gaussian", 0, "w", -1, 1), "start, stop is -1, 1"),
        (("gaussian", 0, "w", 0, 2**64 + 1), "start, stop is 0, "),
    ],
)
def test_bad_arguments_are_the_users_to_mend(arguments, said):
    with pytest.raises(UserError) as error:
        values(*arguments)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("bad", [{"rows": -1}, {"row_stride": 3}, {"start": 2**64 - 3}, {"tensor": ""}])
def test_bad_segments_are_refused(bad):
    with pytest.raises(UserError):
        Segment(**{"tensor": "w", "start": 0, "rows": 2, "row_length": 4, "row_stride": 8, **bad})


def test_a_family_is_one_module_and_one_registration(monkeypatch):
    from seedfold.noise import registry

    monkeypatch.setattr(registry, "_MODULES", dict(registry._MODULES))
    register("signs", "seedfold.noise.rademacher")
    assert families()[-1] == "signs"
    assert torch.equal(values("signs", 1, "w", 0, 300), values("rademacher", 1, "w", 0, 300))
    register("low-rank-signs", "seedfold.noise.rademacher")  # begins as a kind of families does
    assert torch.equal(values("low-rank-signs", 1, "w", 0, 300), values("rademacher", 1, "w", 0, 300))
    register("thin", "seedfold.noise.low_rank", "WIDTH")
    assert families()[-1] == "thin-WIDTH"
    assert torch.equal(values("thin-3", 1, "w", 0, 30, shape=(5, 6)), values("low-rank-3", 1, "w", 0, 30, shape=(5, 6)))
    with pytest.raises(UserError, match="taken"):
        register("low-rank", "seedfold.noise.low_rank")
    with pytest.raises(UserError, match="taken"):
        register("signs", "elsewhere")


def test_importing_loads_neither_torch_nor_numpy():
    code = "import sys, seedfold.noise; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


PEAK = """
import resource, sys, torch
from seedfold.noise import Segment, values
from seedfold.noise.torch import rebuild
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
n, family = 20_000_000, sys.argv[1]
base = torch.ones(n, dtype=torch.bfloat16)
rebuild(base[:9], base[:9], Segment.whole("w", 9), [(family, 1, 0.1)], rounding="dither")
before = peak()
rebuild(base, base, Segment.whole("w", n), [(family, 1, 0.1), ("rademacher", 2, 0.1)], rounding=sys.argv[2])
rebuilt = peak()
values(family, 1, "w", 2**41, 2**41 + n)
print(rebuilt - before, peak() - before - n * 4 / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize(("family", "rounding"), [("rademacher", "nearest"), ("gaussian", "dither")])
def test_memory_beyond_the_result_is_a_few_mebibytes(family, rounding):
    run = subprocess.run([sys.executable, "-c", PEAK, family, rounding], capture_output=True, text=True, check=True)
    rebuild_extra, values_extra = map(float, run.stdout.split())
    assert rebuild_extra < 24
    assert values_extra < 24
