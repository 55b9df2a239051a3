import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from seedfold.engines.attention import Masks, attend


class Plain:
    """A config with only these fields."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def get_text_config(self):
        return self


def seen(mask):
    return (mask[:, 0] == 0).int().tolist()


def causal(n, slots, dtype=torch.float32):
    return Masks(Plain(), dtype)(torch.arange(slots - n, slots)[None], torch.arange(slots)[None])


@pytest.mark.parametrize("n", [1, 16, 48])
@pytest.mark.parametrize(("heads", "key_heads"), [(6, 6), (6, 2), (7, 1)])
def test_it_is_scaled_dot_product_attention(heads, key_heads, n):
    torch.manual_seed(0)
    query = torch.randn(3, heads, n, 8)
    key, value = torch.randn(2, 3, key_heads, 64, 8)
    mask = causal(n, 64).expand(3, -1, -1, -1)
    output, weights = attend(torch.nn.Identity(), query, key, value, mask, scaling=0.3)
    group = heads // key_heads
    wide = [states.repeat_interleave(group, 1) for states in (key, value)]
    expected = scaled_dot_product_attention(query, *wide, attn_mask=mask, scale=0.3).transpose(1, 2)
    assert weights is None
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(6, 2, 16), (7, 1, 64), (2, 2, 80)])
def test_a_block_of_queries_is_the_same_to_the_bit_whatever_follows_it(heads, key_heads, size, dtype):
    torch.manual_seed(0)
    query = torch.randn(2, heads, 608, size).to(dtype)
    key, value = torch.randn(2, 2, key_heads, 608, size).to(dtype)
    module = torch.nn.Identity()
    whole, _ = attend(module, query, key, value, causal(608, 608, dtype))
    for start, end in ((0, 16), (0, 208), (208, 528), (528, 608), (592, 608)):
        mask = causal(end - start, end, dtype)
        part, _ = attend(module, query[:, :, start:end], key[:, :, :end], value[:, :, :end], mask)
        assert torch.equal(part, whole[:, start:end]), (start, end)


def test_a_row_is_the_same_to_the_bit_at_any_place_of_any_batch():
    torch.manual_seed(0)
    query, key, value = torch.randn(48, 3, 1, 24), torch.randn(48, 1, 400, 24), torch.randn(48, 1, 400, 24)
    mask = causal(1, 400).expand(48, -1, -1, -1)
    whole, _ = attend(torch.nn.Identity(), query, key, value, mask)
    order = torch.randperm(48)
    for rows in (order, order[:16], order[16:]):
        part, _ = attend(torch.nn.Identity(), query[rows], key[rows], value[rows], mask[: len(rows)])
        assert torch.equal(part, whole[rows])


def test_queries_see_filled_slots_up_to_their_own_position():
    slots = torch.tensor([[0, 1, 2, -1, 3]])
    assert seen(Masks(Plain(), torch.float32)(torch.tensor([[2, 3]]), slots)) == [[[1, 1, 1, 0, 0], [1, 1, 1, 0, 1]]]


def test_a_window_counts_positions_not_slots():
    masks = Masks(Plain(sliding_window=2), torch.float32)
    slots = torch.tensor([[0, 1, 2, -1, -1, 3]])
    assert seen(masks(torch.tensor([[3]]), slots)) == [[[0, 0, 1, 0, 0, 1]]]


def test_mixed_layers_get_a_mask_of_each_kind():
    masks = Masks(Plain(sliding_window=1, layer_types=["sliding_attention", "full_attention"]), torch.float32)
    made = masks(torch.tensor([[1]]), torch.tensor([[0, 1]]))
    assert {kind: seen(mask) for kind, mask in made.items()} == {
        "full_attention": [[[1, 1]]],
        "sliding_attention": [[[0, 1]]],
    }


def test_a_window_that_is_switched_off_hides_nothing():
    masks = Masks(Plain(sliding_window=1, use_sliding_window=False), torch.float32)
    assert seen(masks(torch.tensor([[1]]), torch.tensor([[0, 1]]))) == [[[1, 1]]]


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3"])
def test_a_model_called_without_our_masks_answers_as_ever(tiny, kind):
    engine = tiny(kind)
    ids = torch.arange(40).view(2, 20)
    padding = torch.ones_like(ids)
    padding[0, :7] = 0
    for mask in (None, padding):
        with torch.inference_mode():
            engine.model.set_attn_implementation("seedfold_sdpa")
            ours = engine.model(ids, attention_mask=mask).logits
            engine.model.set_attn_implementation("sdpa")
            theirs = engine.model(ids, attention_mask=mask).logits
        torch.testing.assert_close(ours[:, 7:], theirs[:, 7:], atol=1e-4, rtol=1e-4)
