"""Where weights are in parameters that fuse, shard, pad and replicate them: found by probing, on models made for it."""

import pytest
import torch
from tiny_models import tiny_model

from seedfold.engines.held import Held
from seedfold.engines.layout import partition, probe
from seedfold.errors import UserError
from seedfold.noise import Segment
from seedfold.recipe import Base, Recipe, Term
from seedfold.weights import Tensor, Weights, assemble, fingerprint

VOCABULARY, PADDED = 331, 384
HEADS, KV_HEADS, HEAD = 4, 1, 8
WIDTH, INNER = 32, 300
"""An odd vocabulary, one head of keys and values for both ranks, more than one digit of rows and columns."""

SHAPES = {
    "embed.weight": (VOCABULARY, WIDTH),
    "q.weight": (HEADS * HEAD, WIDTH),
    "k.weight": (KV_HEADS * HEAD, WIDTH),
    "v.weight": (KV_HEADS * HEAD, WIDTH),
    "q.bias": (HEADS * HEAD,),
    "k.bias": (KV_HEADS * HEAD,),
    "v.bias": (KV_HEADS * HEAD,),
    "o.weight": (WIDTH, HEADS * HEAD),
    "gate.weight": (INNER, WIDTH),
    "up.weight": (INNER, WIDTH),
    "down.weight": (WIDTH, INNER),
    "norm.weight": (WIDTH,),
    "experts.weight": (3, 5, WIDTH),
}


class Parallel(torch.nn.Module):
    """One rank of a runtime that fuses q, k, v and gate, up, splits rows or columns, pads and ties."""

    def __init__(self, rank=0, ranks=1, dtype=torch.float32):
        super().__init__()
        self.rank, self.ranks = rank, ranks
        self.q = HEADS * HEAD // ranks
        self.kv = KV_HEADS * HEAD  # both ranks have all of it
        self.inner = INNER // ranks
        shapes = {
            "embed": (PADDED // ranks, WIDTH),
            "qkv": (self.q + 2 * self.kv, WIDTH),
            "qkv_bias": (self.q + 2 * self.kv,),
            "o": (WIDTH, self.q),
            "gate_up": (2 * self.inner, WIDTH),
            "down": (WIDTH, self.inner),
            "norm": (WIDTH,),
            "experts": (15, WIDTH),
            "scale": (1,),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False))
        self.head = self.embed
        self.alias = torch.nn.Parameter(self.norm.data, requires_grad=False)  # another parameter, the same storage

    def load_weights(self, weights):
        for name, value in weights:
            self.load(name, value)

    def load(self, name, value):
        rank = self.rank
        kind, _, what = name.partition(".")
        if kind == "embed":
            size = PADDED // self.ranks
            mine = value[rank * size : min((rank + 1) * size, VOCABULARY)]
            self.embed[: len(mine)].copy_(mine)
            self.embed[len(mine) :].fill_(0)
        elif kind in ("q", "k", "v"):
            target = self.qkv if what == "weight" else self.qkv_bias
            start, size = {"q": (0, self.q), "k": (self.q, self.kv), "v": (self.q + self.kv, self.kv)}[kind]
            first = rank * self.q if kind == "q" else 0
            target[start : start + size].copy_(value[first : first + size])
        elif kind == "o":
            self.o.copy_(value[:, rank * self.q : (rank + 1) * self.q])
        elif kind in ("gate", "up"):
            start = self.inner if kind == "up" else 0
            self.gate_up[start : start + self.inner].copy_(value[rank * self.inner : (rank + 1) * self.inner])
        elif kind == "down":
            self.down.copy_(value[:, rank * self.inner : (rank + 1) * self.inner])
        elif kind == "experts":
            self.experts.copy_(value.view(15, WIDTH))
        else:
            getattr(self, kind).copy_(value)


def tensors(dtype="float32"):
    return {name: Tensor(name, shape, dtype) for name, shape in SHAPES.items()}


def values(dtype=torch.float32):
    torch.manual_seed(1)
    return {name: (0.1 * torch.randn(shape)).to(dtype) for name, shape in SHAPES.items()}


def held(rank, ranks, dtype=torch.float32, host=False):
    model = Parallel(rank, ranks, dtype)
    model.load_weights(values(dtype).items())
    model.scale.fill_(3.0)
    return model, Held(model, tensors(str(dtype).removeprefix("torch.")), host)


def whole(name, owners, live):
    """A tensor put together from all ranks."""
    parts = []
    for owner in owners:
        for number, data in owner.bytes(name, live).items():
            values = torch.frombuffer(bytearray(data), dtype=next(iter(owner.live.values())).dtype)
            parts.append((owner.pieces[number].segment, values))
    numel = torch.Size(SHAPES[name]).numel()
    chosen = [parts[number] for number in partition(name, numel, [segment for segment, _ in parts])]
    return assemble(numel, [segment for segment, _ in chosen], [data for _, data in chosen])


class Reference(torch.nn.Module):
    """The checkpoint itself, under its own names."""

    def __init__(self, dtype):
        super().__init__()
        for name, value in values(dtype).items():
            kind, _, what = name.partition(".")
            if not hasattr(self, kind):
                self.add_module(kind, torch.nn.Module())
            getattr(self, kind).register_parameter(what, torch.nn.Parameter(value, requires_grad=False))


RECIPES = {
    "one term": {"terms": (Term("rademacher", 7, 0.02),)},
    "several": {"terms": (Term("rademacher", 7, 0.02), Term("gaussian", 8, -0.01), Term("rademacher", 9, 0.5))},
    "dither": {"terms": (Term("rademacher", 7, 0.003),), "rounding": "dither"},
    "rms": {"terms": (Term("rademacher", 7, 0.3),), "scale": "rms"},
    "some": {"terms": (Term("rademacher", 7, 0.3),), "include": ("*k.*", "down*", "embed*")},
}


@pytest.mark.parametrize("host", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_runtime_that_splits_and_fuses_becomes_the_same_weights(ranks, dtype, host):
    reference = Weights(Reference(dtype))
    pairs = [held(rank, ranks, dtype, host) for rank in range(ranks)]
    owners = [owner for _, owner in pairs]
    known = fingerprint((tensor, whole(name, owners, True)) for name, tensor in owners[0].tensors.items())
    assert known == reference.fingerprint
    for owner in owners:
        assert owner.begin(known if ranks > 1 else "") == known
    rms = {name: reference.rms(name) for name in SHAPES}
    for name, fields in RECIPES.items():
        recipe = Recipe(Base("m", "", known), dtype=str(dtype).removeprefix("torch."), **fields)
        reference.become(recipe)
        for owner in owners:
            owner.become(recipe, rms if recipe.scale == "rms" else {})
        for tensor in SHAPES:
            assert torch.equal(whole(tensor, owners, True), reference.live(tensor)), (name, tensor)
        assert all(owner.padding() == 0 for owner in owners)
        assert all(float(model.scale) == 3.0 for model, _ in pairs)  # in no checkpoint: left alone
    for owner in owners:
        owner.become(None, {})
    reference.become(None)
    for tensor in SHAPES:
        assert torch.equal(whole(tensor, owners, True), reference.base(tensor))
        assert torch.equal(whole(tensor, owners, False), reference.base(tensor))


def test_probing_puts_everything_back():
    model = Parallel()
    model.load_weights(values().items())
    model.embed[VOCABULARY:].fill_(float("nan"))  # whatever lies in the padding
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    Held(model, tensors(), False)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.view(torch.int32), before[name].view(torch.int32)), name


def test_squares_of_all_ranks_add_up_to_those_of_the_whole():
    reference = Weights(Reference(torch.float32))
    owner = held(0, 1)[1]
    owner.begin("")
    ((_, chunks),) = owner.squares({"gate.weight"}).items()
    assert (sum(chunks) / (INNER * WIDTH)) ** 0.5 == reference.rms("gate.weight")


def test_segments_are_few():
    pieces = held(1, 2)[1].pieces
    assert len(pieces) == len(SHAPES)
    segments = {piece.segment.tensor: piece.segment for piece in pieces}
    assert segments["down.weight"] == Segment("down.weight", 150, WIDTH, 150, INNER, (WIDTH, INNER))
    assert segments["gate.weight"] == Segment("gate.weight", 150 * WIDTH, 1, 150 * WIDTH, 150 * WIDTH, (INNER, WIDTH))
    assert segments["embed.weight"].numel == (VOCABULARY - PADDED // 2) * WIDTH


def test_many_tensors_need_two_digits():
    plan = {f"layer.{i}": (3, 2) for i in range(700)}
    live = {"all": torch.empty(2100, 2)}

    def load(weights):
        for name, value in weights:
            number = int(name.split(".")[1])
            live["all"][3 * number : 3 * number + 3] = value

    pieces = probe(live, plan, load, torch.bfloat16)
    assert [(piece.segment.tensor, piece.offset) for piece in pieces] == [(f"layer.{i}", 6 * i) for i in range(700)]


def test_rows_in_another_order_are_several_pieces():
    order = torch.tensor([4, 5, 0, 1, 2, 3])
    live = {"w": torch.empty(6, 4)}
    pieces = probe(live, {"t": (6, 4)}, lambda weights: [live["w"].copy_(v[order]) for _, v in weights], torch.float32)
    assert [(piece.offset, piece.segment.start, piece.segment.numel) for piece in pieces] == [(0, 16, 8), (8, 0, 16)]


LOADERS = {
    "transposed": lambda w, v: w.copy_(v.t()),
    "columns in another order": lambda w, v: w.copy_(v.flip(1)),
    "interleaved by column": lambda w, v: w.copy_(v.view(8, 4, 2).transpose(1, 2).reshape(8, 8)),
    "padded columns": lambda w, v: w[:, :6].copy_(v[:, :6]),
    "two rows swapped in one column": lambda w, v: w.copy_(v).select(1, 4)[2:4].copy_(v[2:4, 4].flip(0)),
    "two columns swapped in one row": lambda w, v: w.copy_(v).select(0, 4)[2:4].copy_(v[4, 2:4].flip(0)),
    "scaled": lambda w, v: w.copy_(v * 1.5),
}


def found(plan, load):
    """Probe one parameter of 8 by 8, and check that every tensor is wholly in it."""
    live = {"model.w": torch.empty(8, 8)}
    pieces = probe(
        live, plan, lambda weights: [load(live["model.w"], name, value) for name, value in weights], torch.float16
    )
    for name, shape in plan.items():
        numel = torch.Size(shape).numel()
        partition(name, numel, [piece.segment for piece in pieces if piece.segment.tensor == name])
    return pieces


@pytest.mark.parametrize("kind", LOADERS)
def test_a_layout_that_cannot_be_rebuilt_is_refused(kind):
    with pytest.raises(UserError, match=r"the\.tensor"):
        found({"the.tensor": (8, 8)}, lambda w, name, value: LOADERS[kind](w, value))


def _shift(w, name, value):
    w.copy_(value + 1)


def _half(w, name, value):
    w[:4].copy_(value[:4])


def _nothing(w, name, value):
    pass


def _last(w, name, value):
    w.copy_(value)  # the second tensor overwrites the first


@pytest.mark.parametrize("load", [_shift, _half, _nothing, _last])
def test_a_tensor_that_is_not_wholly_there_is_refused(load):
    with pytest.raises(UserError, match="use the transformers engine"):
        found({"a": (8, 8), "b": (8, 8)}, load)


def test_pieces_that_overlap_in_part_are_refused():
    assert partition("t", 10, [Segment("t", 0, 1, 6, 6), Segment("t", 6, 1, 4, 4), Segment("t", 0, 1, 6, 6)]) == [0, 1]
    with pytest.raises(UserError, match="overlap"):
        partition("t", 10, [Segment("t", 0, 1, 6, 6), Segment("t", 4, 1, 6, 6)])
    with pytest.raises(UserError, match="4 of the 10 weights of tensor t"):
        partition("t", 10, [Segment("t", 0, 1, 6, 6)])


class Odd(torch.nn.Module):
    """One tensor, loaded in a way of its own."""

    def __init__(self, load, dtype=torch.float32):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(8, 8).to(dtype), requires_grad=False)
        self.load = load

    def load_weights(self, weights):
        for _, value in weights:
            self.load(self, value)


def _replace(self, value):
    self.w = torch.nn.Parameter(value.contiguous(), requires_grad=False)


def _fail(self, value):
    raise KeyError("t")


@pytest.mark.parametrize(
    ("load", "dtype", "why"),
    [
        (_replace, torch.float32, "replaces its parameters"),
        (_fail, torch.float32, "does not take the tensors"),
        (lambda self, value: self.w.copy_(value), torch.bfloat16, "tensor t is torch.bfloat16"),
    ],
)
def test_a_loader_that_cannot_be_probed_is_refused_and_the_weights_stay(load, dtype, why):
    model = Odd(load, dtype)
    kept, before = model.w, model.w.clone()
    with pytest.raises(UserError, match=why):
        Held(model, {"t": Tensor("t", (8, 8), "float32")}, False)
    assert torch.equal(kept, before)


def test_parameters_that_are_not_contiguous_are_refused():
    model = Odd(None)
    model.w = torch.nn.Parameter(torch.randn(8, 8).t(), requires_grad=False)
    with pytest.raises(UserError, match="not contiguous"):
        Held(model, {"t": Tensor("t", (8, 8), "float32")}, False)


def test_a_transformers_model_holds_every_tensor_whole():
    class Loads(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def named_parameters(self, *args, **kwargs):
            return self.model.named_parameters(*args, **kwargs)

        def load_weights(self, weights):
            own = dict(self.model.named_parameters())
            for name, value in weights:
                own[name].copy_(value)

    model = tiny_model("qwen2", torch.bfloat16)
    reference = Weights(tiny_model("qwen2", torch.bfloat16))
    owner = Held(Loads(model), reference.tensors, False)
    assert owner.begin("") == reference.fingerprint
    assert all(piece.segment.numel == reference.tensors[piece.segment.tensor].numel for piece in owner.pieces)
