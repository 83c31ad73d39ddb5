"""Recomputation, accumulation and offload, against torch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import estimate
from budget.fold.count import flops, params
from budget.fold.memory import memory
from budget.ir import HOST, rewrite, walk
from budget.plan.accumulate import accumulate
from budget.plan.backward import backward
from budget.plan.offload import offload_activations, offload_optimizer
from budget.plan.optimizer import CHOICES, optimizer
from budget.plan.recompute import recompute
from budget.plan.regroup import regroup

torch = pytest.importorskip("torch")
from oracles.plan import B, C, D, F, S, gpt, held, model, net, saved  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.distributed._tools.mem_tracker import MemTracker  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402


@given(n=st.integers(1, 9), batch=st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_micro_batches_multiply_the_products_and_keep_the_activations(n, batch):
    one = backward(gpt(batch=batch))
    many = accumulate(one, n)
    assert flops(many)[:4] == tuple(n * x for x in flops(one)[:4])
    a, b = memory(optimizer(one, "adamw"), "float32"), memory(optimizer(many, "adamw"), "float32")
    fields = ("parameters", "gradients", "optimizer", "activations")
    assert [getattr(a, f) for f in fields] == [getattr(b, f) for f in fields]
    assert a.peak <= b.peak <= a.peak + a.gradients


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 7])
def test_groups_of_layers_keep_what_checkpoint_keeps(every):
    layers = 5
    module = net(layers)

    class Groups(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, x):
            first, *body, last = self.module
            x = first(x)
            for i in range(0, layers, every):
                x = checkpoint(nn.Sequential(*body[i : i + every]), x, use_reentrant=True)
            return last(x)

    theirs, _ = saved(Groups(), torch.randn(B, S, C))
    program = recompute(backward(regroup(model(layers), every)), "full")
    assert held(program) == theirs
    whole = flops(backward(model(1))).forward - flops(backward(model(2))).forward
    skipped = (
        0 if every > 1 else 2 * B * S * F * D
    )  # early stop: the last product leads to nothing that is read
    extra = flops(program).backward - flops(backward(model(layers))).backward
    assert extra == layers * (-whole - skipped)
    assert params(program).total == params(model(layers)).total


@pytest.mark.parametrize("first", [1, 2, 4, 6])
def test_only_the_first_layers_are_recomputed(first):
    kept = held(recompute(backward(regroup(model(6), first=first)), "full"))
    per_layer = held(backward(model(2))) - held(backward(model(1)))
    assert kept == held(backward(model(6))) - first * (per_layer - B * S * D * 4)


@pytest.mark.parametrize("choice", ["none", "full"])
def test_offloaded_layers_leave_nothing_on_the_device(choice):
    plain = recompute(backward(gpt(layers=12)), choice)
    away = offload_activations(plain)
    a, b = memory(plain, "bfloat16"), memory(away, "bfloat16")
    assert flops(away)[:4] == flops(plain)[:4]
    assert a.activations == b.activations + b.host
    assert b.activations < a.activations and b.peak <= a.peak
    assert (
        memory(offload_activations(recompute(backward(gpt(layers=24)), choice)), "bfloat16").activations
        == b.activations
    )


NESTED = [  # layers within periods of unlike ones, within groups, within both
    ("gemma-3-1b", {}),
    ("gemma-3-1b", {"recompute": "full"}),
    ("gpt-oss-20b", {}),
    ("hybrid", {}),
    ("gpt2", {"recompute": "full", "recompute_every": 4}),
    ("gpt2", {"recompute": "full", "recompute_every": 5}),
]


@pytest.mark.parametrize(
    ("name", "how"), [*NESTED, *((n, {}) for n in ("vit-b-16", "t5-base", "whisper-small"))]
)
def test_layers_leave_the_device_however_they_are_nested(name, how):
    here, away = (
        estimate(name, batch=16, offload=o, optimizer="none", **how) for o in ("none", "activations")
    )
    a, b = here.memory, away.memory
    assert b.host > 0 and b.peak < a.peak and b.activations < a.activations
    assert away.hardware == here.hardware


def test_a_group_of_layers_sends_its_input():
    how = {"recompute": "full", "recompute_every": 4, "offload": "activations", "batch": 4, "seq": 128}
    c = estimate("gpt2", precision="pure", **how)
    assert c.memory.host == 12 / 4 * 4 * 128 * 768 * 2  # groups, tokens, width, bytes


@pytest.mark.parametrize("offload", ["activations", "optimizer"])
def test_the_host_holds_one_micro_batch(offload):
    one, many = (estimate("gpt2", offload=offload, accumulate=n).memory for n in (1, 8))
    assert many.host == one.host > 0


@pytest.mark.parametrize("name", [name for name in CHOICES if name not in ("none", "sgd")])
@pytest.mark.parametrize("precision", ["pure", "master"])
def test_states_of_weights_of_two_dtypes_are_on_the_host(name, precision):
    program = backward(model(3))
    half = {"layers.gate.weight": "bfloat16"}

    def mixed(ts):
        return tuple(t._replace(dtype=half.get(t.name.removeprefix("d:"), "float32")) for t in ts)

    program = program._replace(
        nodes=rewrite(program.nodes, lambda o: (o._replace(ins=mixed(o.ins), outs=mixed(o.outs)),))
    )
    here = optimizer(program, name, master=precision == "master")
    away = memory(offload_optimizer(here), "bfloat16")
    assert (away.optimizer, away.host) == (0, memory(here, "bfloat16").optimizer)


def test_offloaded_states_are_on_the_host():
    plain = optimizer(backward(gpt()), "adamw")
    away = offload_optimizer(plain)
    a, b = memory(plain, "bfloat16"), memory(away, "bfloat16")
    assert (b.optimizer, b.host, b.peak) == (0, a.optimizer, a.peak - a.optimizer)
    (step,) = (o for o, _ in walk(away.nodes) if o.phase == "optimizer")
    assert [t.name for t in step.outs if t.role == HOST] == ["state0", "state1"]


def tracked(layers, micro):
    """The peak that MemTracker finds over two steps of SGD."""
    with FakeTensorMode():
        module, x = net(layers), torch.randn(B, S, C)
        step = torch.optim.SGD(module.parameters(), 0.1)
        tracker = MemTracker()
        tracker.track_external(module, step, x)
        with tracker:
            for i in range(2 * micro):
                tracker.reset_mod_stats()
                out = module(x)
                seed = torch.ones_like(out)
                out.backward(seed)
                if i % micro == micro - 1:
                    step.step()
                    step.zero_grad()
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


@pytest.mark.every(2)
@pytest.mark.parametrize(("layers", "micro"), [(1, 2), (3, 1), (3, 2), (3, 3), (6, 5)])
def test_the_peak_over_micro_batches_is_mem_tracker_s(layers, micro):
    program = optimizer(accumulate(backward(model(layers)), micro), "sgd")
    seed = B * S * D * 4  # the gradient that the caller hands over, which is no operator's
    bias = F * 4  # one that waits for its turn
    ours = memory(program, "float32").peak + seed
    assert abs(ours - tracked(layers, micro)) <= bias
