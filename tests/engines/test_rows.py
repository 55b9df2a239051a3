"""Linear layers in blocks of rows: the same numbers, and every row the same bits in any company."""

import copy

import pytest
import torch

from seedfold.engines import rows


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.nn.Linear(576, 192, bias=True).to(torch.bfloat16).requires_grad_(False)


@pytest.mark.parametrize("shape", [(1,), (32,), (3, 50), (2, 1, 100), (0,)])
def test_it_is_the_layer_s_own_product(layer, shape):
    x = torch.randn(*shape, 576).to(torch.bfloat16)
    out = rows.in_blocks(x, layer.weight, layer.bias)
    assert out.shape == (*shape, 192)
    torch.testing.assert_close(out, layer(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_row_is_the_same_among_any_number_of_others(layer, dtype):
    """On a machine with matrix units this fails without blocks."""
    layer.to(dtype)
    x = torch.randn(300, 576).to(dtype)
    whole = rows.in_blocks(x, layer.weight, layer.bias)
    for first, last in ((0, 1), (0, 16), (5, 53), (100, 228), (31, 33)):
        assert torch.equal(rows.in_blocks(x[first:last], layer.weight, layer.bias), whole[first:last])


@pytest.mark.parametrize(
    ("dtype", "there", "fixed"), [("bfloat16", True, 2), ("bfloat16", False, 0), ("float32", True, 0)]
)
def test_only_where_it_is_needed(monkeypatch, dtype, there, fixed):
    monkeypatch.setattr(rows, "matrix_units", lambda: there)
    monkeypatch.setattr(
        rows, "in_blocks", lambda x, weight, bias: seen.append(weight) or torch.nn.functional.linear(x, weight, bias)
    )
    seen: list[torch.Tensor] = []
    model = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False))
    model = model.to(getattr(torch, dtype))
    names = list(model.state_dict())
    rows.fix(model)
    model(torch.zeros(2, 8, dtype=getattr(torch, dtype)))
    assert len(seen) == fixed
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    seen.clear()
    copied(torch.zeros(2, 8, dtype=getattr(torch, dtype)))
    own = [layer.weight.data_ptr() for layer in copied][:fixed]
    assert [weight.data_ptr() for weight in seen] == own, "a copy multiplies with its own weights"
