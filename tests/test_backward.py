"""The backward pass that is derived, against torch's autograd."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import budget
from budget.fold.count import flops
from budget.fold.memory import memory
from budget.ir import Model, block, link, op, walk
from budget.plan.backward import backward
from budget.plan.fuse import fuse
from budget.plan.recompute import recompute

torch = pytest.importorskip("torch")
from oracles.flops import count_flops  # noqa: E402
from oracles.plan import saved  # noqa: E402
from torch import nn  # noqa: E402


def model(nodes, outputs=(), **sizes):
    linked, ends = link(nodes, sizes)
    return Model("test", "test", linked, {}, outputs or ends)


@given(widths=st.lists(st.integers(1, 9), min_size=2, max_size=5), batch=st.integers(1, 5))
def test_the_network_s_input_needs_no_gradient(widths, batch):
    layers = list(pairwise(widths))
    nodes = [
        op(f"l{i}", ("b c" if i else "!x: b c") + ", *c f, +*f -> b f", c=c, f=f)
        for i, (c, f) in enumerate(layers)
    ]
    net = nn.Sequential(*(nn.Linear(c, f, device="meta") for c, f in layers))
    expected = count_flops(net, torch.empty(batch, widths[0], device="meta"))
    assert flops(backward(model(nodes, b=batch)))[:2] == expected


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_recurrence_s_first_state_needs_none_either(steps):
    body = (op("hh", "h: b n, *n m -> u: b m"), op("act", "u: b n -> h:", "tanh"))
    nodes = (op("start", "!h0: b n -> h:", "copy"), block("steps", body, steps, shared=True))
    trained = backward(model(nodes, b=2, n=3, m=3))
    forward, back = flops(trained)[:2]
    assert forward == steps * 2 * 2 * 3 * 3
    assert back == forward + (steps - 1) * 2 * 2 * 3 * 3
    assert sum(times for o, times in walk(trained.nodes) if o.kind == "tanh") == 2 * steps


class Block(nn.Module):
    """A transformer's layer in plain torch, b s d -> b s d."""

    def __init__(self, d, h, f):
        super().__init__()
        self.h, self.norm1, self.norm2 = h, nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, f), nn.Linear(f, d)

    def forward(self, x):
        b, s, d = x.shape
        n = self.norm1(x)
        q, k, v = (m(n).view(b, s, self.h, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = (torch.matmul(q, k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).reshape(b, s, d)
        x = x + self.o(y)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


LAYER = (
    op("norm1", "x:, *d, +*d -> n:", "layer_norm"),
    op("q", "n: b s d, *d h r k, +*h r k -> q: b s h r k"),
    op("k", "n: b s d, *d h k, +*h k -> k: b s h k"),
    op("v", "n: b s d, *d h k, +*h k -> v: b s h k"),
    op("scores", "q:, k: b t h k -> w: b h r s t")._replace(group="attention"),
    op("softmax", "w: -> p:", "softmax")._replace(group="attention"),
    op("mix", "p:, v: b t h k -> o: b h r s k")._replace(group="attention"),
    op("merge", "o: -> y: b s h r k", "copy")._replace(group="attention"),
    op("o", "y:, *h r k d, +*d -> a: b s d"),
    op("residual1", "x:, a: -> x:", "add"),
    op("norm2", "x:, *d, +*d -> n:", "layer_norm"),
    op("up", "n: b s d, *d f, +*f -> u: b s f"),
    op("act", "u: -> g:", "gelu"),
    op("down", "g:, *f d, +*d -> m: b s d"),
    op("residual2", "x:, m: -> x:", "add"),
)
SIZES = dict(b=2, s=10, t=10, d=24, h=3, r=1, k=8, f=40)


def layers(n):
    return model((op("in", "!raw: b s c, *c d -> x: b s d", c=5), block("layers", LAYER, n)), **SIZES)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_saved_activations_are_what_autograd_saves(n):
    net = nn.Sequential(nn.Linear(5, 24, bias=False), *(Block(24, 3, 40) for _ in range(n)))
    raw = torch.randn(2, 10, 5)
    kept, out = saved(net, raw)
    ours = memory(backward(layers(n)), "float32")
    assert ours.activations - out.untyped_storage().nbytes() == kept
    assert flops(backward(layers(n)))[:2] == count_flops(net.to("meta"), raw.to("meta"))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_fused_attention_keeps_its_scores_on_the_chip_and_computes_them_again(n):
    eager, fused = backward(layers(n)), recompute(backward(fuse(layers(n), {"attention"})), "none")
    scores = 2 * SIZES["b"] * SIZES["h"] * SIZES["s"] * SIZES["t"] * SIZES["k"]
    assert flops(fused).forward == flops(eager).forward
    assert flops(fused).backward == flops(eager).backward + n * scores
    square = SIZES["b"] * SIZES["h"] * SIZES["s"] * SIZES["t"] * 4
    saved = memory(eager, "float32").activations - memory(fused, "float32").activations
    row = SIZES["b"] * SIZES["h"] * SIZES["s"] * 4
    assert saved == n * (square - row), (
        "a number for each row instead of the probabilities; neither keeps the scores"
    )
    for o, _ in walk(fused.nodes):
        for t in (*o.ins, *o.outs):
            assert t.on_chip or sorted(t.dims)[-2:] != ["s", "t"] or "h" not in t.dims


def test_full_recomputation_keeps_a_layer_s_input_only():
    n = 5
    plain, again = backward(layers(n)), recompute(backward(layers(n)), "full")
    per_layer = SIZES["b"] * SIZES["s"] * SIZES["d"] * 4
    assert memory(again, "float32").activations == (n + 1) * per_layer
    extra = flops(again).backward - flops(plain).backward
    down = 2 * SIZES["b"] * SIZES["s"] * SIZES["f"] * SIZES["d"]
    layer = flops(backward(layers(2))).forward - flops(backward(layers(1))).forward
    assert extra == n * (layer - down), "the last product leads to nothing that is read again"
    assert memory(again, "float32").peak < memory(plain, "float32").peak


def test_gradients_are_added_up_by_autograd_s_engine_and_not_by_the_host():
    """DenseNet's layers read all before them: each block's features have as many gradients to add."""
    found = budget.estimate("densenet121", batch=2, device="a100", stack="torch-eager").times.kernels
    sums = [k.work for k in found if k.work.own == "accumulate"]
    added = sum(n * (n - 1) // 2 + n for n in (6, 12, 24, 16))
    assert sum(w.launches * w.times for w in sums) == added
    assert not any(w.calls for w in sums)
