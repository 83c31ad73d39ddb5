"""A module after an estimate, or after a refusal: as it was before; and what is refused, in one line."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fuzz_modules import facts, outcome
from oracles.random_parts import Call
from torch import nn
from torch._higher_order_ops.while_loop import while_loop
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

import budget
from budget import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def x8(*sizes):
    return torch.randn(sizes or (8, 16))


def linear():
    return nn.Linear(16, 16)


def cached():
    def run(m, x):
        if "table" not in m.tables:
            m.tables["table"] = torch.arange(16.0)
        m.last = x * 2
        m.seen.append(x)
        return m.net(x) * m.tables["table"]

    net = Call(run, net=linear())
    net.tables, net.seen = {}, []
    return net, (x8(),)


def test_what_forward_keeps_is_forgotten_also_in_a_thread_and_after_an_error():
    net, (x,) = cached()
    wrong = x8(8, 17)
    net(x).sum().backward()
    net.tables.clear()
    before, grads, attributes = facts(net), [p.grad for p in net.parameters()], set(vars(net))
    answers = []

    def ask(given):
        try:
            answers.append(budget.estimate(net, inputs=given).memory.peak)
        except InputError as error:
            answers.append(str(error))

    for given in (x, x, wrong):
        thread = threading.Thread(target=ask, args=(given,))
        thread.start()
        thread.join()
    assert answers[0] == answers[1]
    assert "17" in answers[2]
    assert facts(net) == before
    assert set(vars(net)) == attributes
    assert (net.tables, len(net.seen), type(net.last)) == ({}, 1, torch.Tensor)
    assert all(p.grad is g and type(g) is torch.Tensor for p, g in zip(net.parameters(), grads, strict=True))
    assert not any(isinstance(t, FakeTensor) for t in outcome(net, (x,)))
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_the_process_is_as_it_was():
    draws = Call(lambda m, x: m.net(x) + torch.rand(1), net=linear())

    def changes(m, x):
        torch.set_default_dtype(torch.float64)
        return m.net(x)

    x, changing = x8(), Call(changes, net=linear())
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    budget.estimate(draws, inputs=x)
    budget.estimate(changing, inputs=x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    assert torch.backends.mha.get_fastpath_enabled() == fast
    torch.manual_seed(0)
    kept = F.dropout(torch.ones(1000), 0.5)
    assert set(kept.unique().tolist()) == {0.0, 2.0}


@pytest.mark.slow
def test_what_torch_compiles_is_still_compiled():
    """A capture runs it as it is written, and leaves the compiler as it was."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    net = nn.Sequential(torch.compile(linear(), backend=backend))
    answer = budget.estimate(net, inputs=x8())
    assert (answer.flops.forward, graphs) == (2 * 8 * 16 * 16, [])
    net(x8())
    assert len(graphs) == 1
    either = Call(lambda m, x: torch.cond(x.sum() > 0, m.a, m.b, (x,)), a=linear(), b=linear())
    assert budget.estimate(either, inputs=x8()).flops.forward == 2 * 8 * 16 * 16
    assert either(x8()).shape == (8, 16)


def test_a_sharded_module_is_refused(tmp_path):
    distributed = pytest.importorskip("torch.distributed")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        sharded = fully_shard(linear(), mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(InputError, match=r"module: the module is a .* with sharded parameters"):
            budget.estimate(sharded, inputs=x8())
        with pytest.raises(InputError, match=r"needs other processes; allowed: its \.module"):
            budget.estimate(nn.parallel.DistributedDataParallel(linear()), inputs=x8())
    finally:
        distributed.destroy_process_group()


def in_threads():
    def run(m, x):
        with ThreadPoolExecutor(1) as pool:
            return m.a(x) + pool.submit(m.b, x).result()

    return Call(run, a=linear(), b=linear())


def grows():
    def run(m, x):
        m.scale = nn.Parameter(torch.ones(16))
        return m.net(x) * m.scale

    return Call(run, net=linear())


@pytest.mark.parametrize(
    ("build", "inputs", "says"),
    [
        (
            lambda: nn.LazyLinear(4),
            x8(),
            "module: the module is a LazyLinear whose parameters have no sizes yet",
        ),
        (
            lambda: torch.jit.script(linear()),
            x8(),
            "module: the module is a RecursiveScriptModule: TorchScript",
        ),
        (lambda: nn.Sequential(torch.jit.trace(linear(), x8())), x8(), "module: 0 is a TopLevelTracedModule"),
        (linear, torch.zeros(0, 16), "inputs: got [0, 16]; allowed: a first dimension of 1 or more"),
        (linear, torch.nested.nested_tensor([x8(2, 16)]), "inputs: got a nested tensor of strided layout"),
        (linear, torch.zeros(8, 16, dtype=torch.int64), "inputs: "),
        (
            lambda: Call(lambda m, x: m.net(x) if m.net(x).sum() > 0 else x, net=linear()),
            x8(),
            "module: .item(), or a branch on a tensor, needs the data",
        ),
        (
            lambda: Call(lambda m, x: while_loop(lambda y: y.sum() < 3, m.net, (x,)), net=linear()),
            x8(),
            "module: while_loop hides its calls",
        ),
        (in_threads, x8(), "module: b runs in a thread of its own, where its calls are not seen"),
        (grows, x8(), "module: forward makes the parameter scale; allowed: a module that has all of them"),
        (
            lambda: Call(lambda m, x: torch.ops._test_budget.product(m.net(x)), net=linear()),
            x8(),
            "module: _test_budget::product may hold products, and nobody knows their FLOPs",
        ),
    ],
)
def test_what_cannot_be_captured_is_one_line(build, inputs, says):
    with torch.library._scoped_library("_test_budget", "FRAGMENT") as library:
        library.define("product(Tensor x) -> Tensor")
        library.impl("product", torch.empty_like, "CompositeExplicitAutograd")
        with pytest.raises(InputError) as error:
            budget.estimate(build(), inputs=inputs, mode="forward")
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_a_second_estimate_sees_what_has_changed():
    net, x = nn.Sequential(linear(), nn.ReLU(), linear()), x8()
    first = budget.estimate(net, inputs=x)
    again = budget.estimate(net, inputs=x, optimizer="sgd")
    assert again.model.nodes[0] is first.model.nodes[0]  # it was not captured again
    net[0].weight.requires_grad_(requires_grad=False)
    assert budget.estimate(net, inputs=x).params.trainable == first.params.trainable - 256
    net[1] = linear()
    assert budget.estimate(net, inputs=x).params.total == first.params.total + 272
    net.eval()
    assert budget.estimate(net, inputs=x8(9, 16)).model.samples == 9
