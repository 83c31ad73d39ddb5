"""Optimizers' states and temporaries, against torch's own."""

from math import ceil

import numpy as np
import pytest

from budget import estimate
from budget.errors import InputError
from budget.fold.count import flops
from budget.fold.memory import memory
from budget.ir import Model, block, link, op
from budget.plan.backward import backward
from budget.plan.optimizer import ALIASES, BITSANDBYTES, CHOICES, REFUSED, optimizer

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.distributed._tools.mem_tracker import MemTracker  # noqa: E402

LAYERS, D, F, V, B, S = 3, 48, 80, 100, 2, 7
BODY = (
    op("norm", "x:, *d, +*d -> n:", "layer_norm"),
    op("up", "n: b s d, *d f, +*f -> u: b s f"),
    op("act", "u: -> g:", "gelu"),
    op("down", "g:, *f d, +*d -> m: b s d"),
    op("add", "x:, m: -> x:", "add"),
)


def program(name, layers=LAYERS, **settings):
    nodes = (
        op("embed", "!ids/int64: b s, *~v d -> x: b s d", "gather", "embed"),
        block("layers", BODY, layers),
        op("head", "x: b s d, *v d -> logits: b s v", tag="head"),
        op("loss", "logits: -> loss: 1", "reduce"),
    )
    linked, ends = link(nodes, dict(b=B, s=S, d=D, f=F, v=V))
    return optimizer(backward(Model("t", "t", linked, {}, ends)), name, **settings)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(D), nn.Linear(D, F), nn.Linear(F, D)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.head = nn.Linear(D, V, bias=False)

    def forward(self, ids):
        return self.head(self.layers(self.embed(ids))).sum()


def hidden(net):
    return [p for name, p in net.named_parameters() if p.ndim == 2 and not name.startswith(("embed", "head"))]


def others(net):
    return [
        p
        for name, p in net.named_parameters()
        if not (p.ndim == 2 and not name.startswith(("embed", "head")))
    ]


TORCH = {
    "sgd": lambda n: [torch.optim.SGD(n.parameters(), 0.1, foreach=True)],
    "momentum": lambda n: [torch.optim.SGD(n.parameters(), 0.1, momentum=0.9, foreach=True)],
    "adam": lambda n: [torch.optim.Adam(n.parameters(), foreach=True)],
    "adamw": lambda n: [torch.optim.AdamW(n.parameters(), foreach=True)],
    "adamw_loop": lambda n: [torch.optim.AdamW(n.parameters(), foreach=False)],
    "adamw_fused": lambda n: [torch.optim.AdamW(n.parameters(), fused=True)],
    "rmsprop": lambda n: [torch.optim.RMSprop(n.parameters(), foreach=True)],
    "adagrad": lambda n: [torch.optim.Adagrad(n.parameters(), foreach=True)],
    "adafactor": lambda n: [torch.optim.Adafactor(n.parameters())],
    "muon": lambda n: [torch.optim.AdamW(others(n), foreach=True), torch.optim.Muon(hidden(n))],
}


@pytest.mark.parametrize("name", TORCH)
def test_the_state_is_torch_s_to_the_byte(name):
    net = Net()
    steps = TORCH[name](net)
    net(torch.zeros(B, S, dtype=torch.int64)).backward()
    for step in steps:
        step.step()
    kept = [
        (key, t)
        for o in steps
        for state in o.state.values()
        for key, t in state.items()
        if isinstance(t, torch.Tensor)
    ]
    on_device = [t for key, t in kept if key != "step" or name == "adamw_fused"]
    assert memory(program(name), "float32").optimizer == sum(t.numel() * t.element_size() for t in on_device)


def largest_in_step(name, dtype, master=False):
    """Bytes that MemTracker finds beyond weights, gradients and states, at most, during a step.

    master: the step updates a float32 copy of the weights, from float32 copies of all gradients.
    """
    torch.set_default_dtype(dtype)
    with FakeTensorMode():
        net = Net()
        torch.set_default_dtype(torch.float32)
        updated = Net() if master else net
        steps = TORCH[name](updated)
        for p in (*net.parameters(), *updated.parameters()):
            p.grad = torch.zeros_like(p)
        for step in steps:
            step.step()
        worst = 0
        for step in steps:
            tracker = MemTracker()
            tracker.track_external(net, *steps, *(p.grad for p in net.parameters()))
            if master:
                tracker.track_external(updated)
                updated.zero_grad()
            before = tracker.get_tracker_snapshot("current")[torch.device("cpu")]["Total"]
            with tracker:
                for p, q in zip(net.parameters(), updated.parameters(), strict=True):
                    q.grad = p.grad.float() if master else q.grad
                step.step()
            after = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
            worst = max(worst, after["Total"] - before)
    return worst


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [n for n in TORCH if n not in ("adafactor", "adamw_fused")])
def test_temporaries_are_torch_s(name, dtype):
    curve = memory(program(name), dtype).curve
    ours = max((m.live["temporaries"] for m in curve if m.phase == "optimizer"), default=0)
    assert ours == pytest.approx(largest_in_step(name, getattr(torch, dtype)), abs=300)


@pytest.mark.parametrize("name", [n for n in TORCH if n not in ("adafactor", "adamw_fused")])
def test_a_master_s_float32_gradients_live_beside_the_temporaries(name):
    curve = memory(program(name, master=True), "bfloat16").curve
    ours = max(m.live["temporaries"] for m in curve if m.phase == "optimizer")
    assert ours == pytest.approx(largest_in_step(name, torch.bfloat16, master=True), abs=300)


def test_every_optimizer_reads_shapes_or_not_and_never_fails():
    for name in CHOICES:
        m = memory(program(name), "bfloat16")
        assert (m.optimizer > 0) == (name not in ("none", "sgd"))


def test_eight_bits_keep_small_weights_in_float32():
    small = [V] * 0 + [D, D, F, D] * LAYERS + [D * F] * (2 * LAYERS)  # 3,840 elements: below 4,096
    large = [V * D, V * D]
    for name, states in {"adamw": 2, "ademamix": 3, "lamb": 2, "lion": 1, "rmsprop": 1}.items():
        few = sum(states * 4 * n for n in small) + sum(states * (n + 4 * ceil(n / 256)) for n in large)
        assert memory(program(f"{name}_8bit"), "bfloat16").optimizer == few
        wide = states * 4 * sum(small + large)
        assert memory(program(f"{name}_32bit"), "bfloat16").optimizer == wide


def test_eight_bits_of_several_widths_are_those_of_each():
    def states(width):
        return estimate(
            "gpt2", config={"d_model": width, "heads": 4}, optimizer="adamw_8bit"
        ).memory.optimizer

    np.testing.assert_array_equal(states(np.array([256, 768])), [states(256), states(768)])
    with pytest.raises(InputError, match=r"optimizer: adamw_8bit: .*; allowed: one size at a time"):
        states(np.array([768, 8192]))  # norms on both sides of 4,096


def test_newton_schulz_costs_its_products():
    m, n = min(D, F), max(D, F)
    per_matrix = 5 * (2 * m * m * n + 2 * m**3 + 2 * m * m * n)
    matrices, vectors = 2 * LAYERS * D * F, 2 * V * D + LAYERS * (3 * D + F)
    extra = flops(program("muon")).optimizer - 4 * matrices - 14 * vectors
    assert 2 * LAYERS * per_matrix < extra < 2 * LAYERS * per_matrix * 1.05


def test_devices_share_out_the_matrices_that_muon_steps():
    def step(layout, **more):
        e = estimate("gpt2", device="h100-sxm", optimizer="muon", batch=2, seq=64, layout=layout, **more)
        return e.to_dict()["flops"]["pointwise"]["optimizer"]

    alone, shared = step("dp=8"), step("dp=8,zero=1")
    assert shared == pytest.approx(alone * 2 / 12, rel=0.01)  # 12 layers on 8 devices, and AdamW's rest
    with pytest.raises(InputError, match=r"layout\.zero: muon steps whole matrices"):
        step("dp=8,zero=3")


def test_shampoo_keeps_two_factors_and_two_roots_a_matrix():
    vectors, matrices = [D, D, F, D] * LAYERS, [(D, F)] * (2 * LAYERS) + [(V, D)] * 2
    sides = sum(n * n for n in vectors) + sum(a * a + b * b for a, b in matrices)
    weights = sum(vectors) + sum(a * b for a, b in matrices)
    assert memory(program("shampoo"), "float32").optimizer == 4 * (2 * sides + 2 * weights)


@pytest.mark.parametrize(
    "name", [n for n in CHOICES if n != "none" and not (n in BITSANDBYTES and BITSANDBYTES[n][2])]
)
def test_layers_that_are_counted_are_layers_written_out(name):
    few, more = (memory(program(name, layers=n), "float32").optimizer for n in (4, 5))
    one = memory(program(name, layers=1), "float32").optimizer
    assert few - one == 3 * (more - few)


def test_master_weights_are_in_float32_beside_their_states():
    n = memory(program("none"), "bfloat16").parameters / 2
    assert memory(program("adamw", master=True), "bfloat16").optimizer == 12 * n
    assert memory(program("adamw_loop", master=True), "bfloat16").optimizer == 12 * n


@pytest.mark.parametrize("name", [n for n in CHOICES if n != "none"])
def test_under_autocast_an_optimizer_sees_the_float32_weights_and_not_their_casts(name):
    one = {"batch": 1, "seq": 32, "optimizer": name}
    cast, wide = estimate("gpt2", precision="autocast", **one), estimate("gpt2", dtype="fp32", **one)
    assert cast.memory.optimizer == wide.memory.optimizer
    assert cast.flops.optimizer == wide.flops.optimizer


@pytest.mark.parametrize("name", [n for n in TORCH if n != "muon"])
def test_gradients_in_another_dtype_than_the_weights_are_refused_where_torch_refuses_them(name):
    net = Net().to(torch.bfloat16)
    for p in net.parameters():
        p.grad_dtype = torch.float32
        p.grad = torch.zeros_like(p, dtype=torch.float32)
    chosen = {"optimizer": name, "grad_dtype": "fp32", "precision": "pure", "batch": 1, "seq": 32}
    try:
        TORCH[name](net)[0].step()
    except RuntimeError:
        with pytest.raises(InputError, match=f"grad_dtype: got fp32 .*{name} refuses; allowed: the weights'"):
            estimate("gpt2", **chosen)
    else:
        estimate("gpt2", **chosen)
    estimate("gpt2", **{**chosen, "precision": "master"})


def test_every_name_of_transformers_is_one_here_or_refused_with_its_reason():
    names = {x.value for x in pytest.importorskip("transformers").training_args.OptimizerNames}
    assert ALIASES.keys() - names == {"adamw_hf", "lamb"}  # of versions before; what people call it
    assert not REFUSED.keys() - names
    one = {"batch": 1, "seq": 32}
    for name in names:
        if name in REFUSED:
            with pytest.raises(
                InputError, match=f"optimizer: got {name}, which .*, and is not modelled; allowed: none, "
            ):
                estimate("gpt2", optimizer=name, **one)
        else:
            assert estimate("gpt2", optimizer=name, **one).task.optimizer == ALIASES.get(name, name)


def test_bad_input_is_one_line():
    with pytest.raises(InputError, match="optimizer: unknown name 'adamww'; did you mean 'adamw"):
        program("adamww")
    with pytest.raises(InputError, match="there is one already"):
        optimizer(program("sgd"), "sgd")
