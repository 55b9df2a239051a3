import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedfold.engines.base import ALIGN
from seedfold.engines.cache import BufferedLayer, aligned, shared_prefix

prompts_with_a_start = st.tuples(
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=5),
).map(lambda pair: [(*pair[0], *tail) for tail in pair[1]])


@given(prompts_with_a_start)
def test_the_shared_prefix_is_the_longest_aligned_one_that_leaves_a_token(prompts):
    prefix = shared_prefix(prompts)
    assert len(prefix) % ALIGN == 0
    assert all(prompt[: len(prefix)] == prefix and len(prompt) > len(prefix) for prompt in prompts)
    longer = len(prefix) + ALIGN
    assert any(len(prompt) <= longer for prompt in prompts) or len({prompt[:longer] for prompt in prompts}) > 1


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 16), (16, 16), (17, 32)])
def test_counts_are_aligned_upwards(count, expected):
    assert aligned(count) == expected


def states(rows, slots, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, 2, slots, 4, generator=generator).unbind()


def test_slots_come_back_in_order_and_the_room_behind_them_is_zero():
    layer, parts = BufferedLayer(), [states(3, slots, slots) for slots in (16, 64, 1, 1)]
    for part in parts:
        keys, values = layer.update(*part)
    assert layer.get_seq_length() == 82
    assert keys.shape == values.shape == (3, 2, 96, 4)
    for found, number in ((keys, 0), (values, 1)):
        assert torch.equal(found[:, :, :82], torch.cat([part[number] for part in parts], 2))
        assert not found[:, :, 82:].any()


def test_rows_can_be_dropped_reordered_and_repeated():
    layer, (keys, values) = BufferedLayer(), states(3, 20)
    layer.update(keys, values)
    rows = torch.tensor([2, 0, 2, 2])
    layer.take(rows)
    assert torch.equal(layer.keys[:, :, :20], keys[rows])
    assert torch.equal(layer.values[:, :, :20], values[rows])
    more = states(4, 1, seed=1)
    assert torch.equal(layer.update(*more)[0][:, :, 20:21], more[0])


def test_a_loaded_prefix_stands_in_every_row_and_is_never_written_to():
    layer, (keys, values) = BufferedLayer(), states(1, 16)
    before = keys.clone()
    layer.load(keys, values, 3)
    layer.update(*states(3, 1))
    assert all(torch.equal(layer.keys[row, :, :16], keys[0]) for row in range(3))
    layer.keys.zero_()
    assert torch.equal(keys, before)
