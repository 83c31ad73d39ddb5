"""Kinds of modules that captures have got wrong, one minimal module each, against what torch runs."""

import dataclasses
import threading

import pytest
import torch
from fuzz_modules import differences, facts, outcome, touched
from oracles.counts import as_on_a_gpu, measured
from oracles.random_modules import Call, weight
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import budget
from budget import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def x8(*sizes):
    return torch.randn(sizes or (8, 16))


def linear(**settings):
    return nn.Linear(16, 16, **settings)


def concatenated():
    def run(m, x):
        return F.linear(x, torch.cat((m.q, m.k, m.v)), torch.cat((m.a, m.b, m.c)))

    parts = {name: weight(16, 16) for name in "qkv"} | {name: weight(16) for name in "abc"}
    return Call(run, **parts), (x8(),)


def clipped():
    def run(m, x):
        with torch.no_grad():
            m.net.weight.clamp_(-1, 1)
        return m.net(x)

    return Call(run, net=linear()), (x8(),)


def bounded():
    return nn.Embedding(100, 16, max_norm=1.0), (torch.randint(0, 100, (4, 8)),)


def listed():
    all_of_it = [weight(16, 16) for _ in range(3)]
    net = Call(lambda m, x: sum(x @ p for p in all_of_it), parts=nn.ParameterList(all_of_it))
    return net, (x8(),)


def enclosed():
    net = nn.Sequential(linear(bias=False))
    w = net[0].weight
    net.forward = lambda x: F.linear(x, w)
    return net, (x8(),)


def stepped():
    """The optimizer's step within the backward pass: no gradient outlives its hook."""
    net = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4)))
    steps = {p: torch.optim.SGD([p], lr=0.1) for p in net.parameters()}

    def hook(p):
        steps[p].step()
        steps[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(hook)
    return net, (x8(8, 64),)


def differentiable():
    return linear(), (x8().requires_grad_(),)


def reentrant():
    net = nn.Sequential(linear(), nn.ReLU(), linear())
    return Call(lambda m, x: checkpoint(m.net, x, use_reentrant=True), net=net), (x8().requires_grad_(),)


def forces():
    def run(m, x):
        x = x.detach().requires_grad_()
        return -torch.autograd.grad(m.net(x).sum(), x, create_graph=True)[0]

    return Call(run, net=nn.Sequential(linear(), nn.SiLU(), nn.Linear(16, 1, bias=False))), (x8(),)


def complex_valued():
    w = nn.Parameter(torch.randn(16, dtype=torch.complex64))
    return Call(lambda m, x: torch.view_as_real(x * m.w), w=w), (x8(),)


def of_16_bits():
    net = Call(lambda m, x: m.net(x) * m.scale, net=linear())
    net.register_buffer("scale", torch.ones(16, dtype=torch.int16))
    return net, (x8(),)


def resized():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.CrossMapLRN2d(2)), (x8(2, 3, 16, 16),)


def tied(share):
    def build():
        net = nn.Sequential(linear(bias=False), linear(bias=False))
        net[1].weight.data = share(net[0].weight.data)
        return net, (x8(),)

    return build


def expanded():
    net = Call(lambda m, x: m.net(x) + m.b, net=linear())
    net.register_buffer("b", torch.zeros(1, 16).expand(8, 16))
    return net, (torch.zeros(1, 16).expand(8, 16),)


def encoder():
    layers = (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(2))
    return nn.Sequential(*layers), (x8(2, 8, 16),)


def served():
    net, inputs = encoder()
    return net.eval(), inputs


def inference():
    def run(m, x):
        with torch.inference_mode():
            y = m.a(x)
        return m.b(y.clone())

    return Call(run, a=linear(), b=linear()), (x8(),)


def dropped_layers():
    def run(m, x):
        for layer in m.layers:
            x = x if torch.rand([]) < 0.0 else layer(x)
        return x

    return Call(run, layers=nn.ModuleList(linear() for _ in range(4))), (x8(),)


def counted():
    net = Call(lambda m, x: m.net(x) * int(m.count.item()), net=linear())
    net.register_buffer("count", torch.tensor(3))
    return net, (x8(),)


def selected():
    def run(m, x, edges):
        kept = edges[:, edges[0] != edges[1]]
        return torch.zeros_like(x).index_add(0, kept[1], m.net(x)[kept[0]])

    return Call(run, net=linear()), (x8(), torch.randint(0, 8, (2, 20)))


def masked():
    net = nn.Transformer(16, 4, 1, 1, 32, batch_first=True, dropout=0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(8)
    return Call(lambda m, a, b, mask: m.net(a, b, tgt_mask=mask), net=net), (x8(2, 8, 16), x8(2, 8, 16), mask)


def mixed():
    return Call(lambda m, x: F.mish(m.net(x), inplace=True), net=linear()), (x8(),)


def three():
    return nn.Bilinear(16, 16, 4), (x8(), x8())


def in_time():
    return Call(lambda m, x: torch.conv_tbc(x, m.w, m.b), w=weight(3, 16, 8), b=weight(8)), (x8(10, 2, 16),)


def in_place():
    return Call(lambda m, x: (x @ m.net.weight).addmm_(x, m.net.weight), net=linear(bias=False)), (x8(),)


KINDS = (
    concatenated, clipped, bounded, listed, enclosed, stepped, differentiable, reentrant, forces,
    complex_valued, of_16_bits, resized, expanded, encoder, served, inference, dropped_layers, counted,
    selected, masked, mixed, three, in_time, in_place,
)  # fmt: skip


@pytest.mark.parametrize("build", KINDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("mode", ["train", "forward"])
def test_it_is_what_torch_runs(build, mode, monkeypatch):
    if (build, mode) == (forces, "forward"):
        pytest.skip("torch.autograd.grad within needs gradients")
    as_on_a_gpu(monkeypatch)

    def first():
        torch.manual_seed(3)
        return build()

    module, inputs = first()
    answer = budget.estimate(module, inputs=inputs, optimizer="none", mode=mode)
    assert differences(answer, measured(first, train=mode == "train")) == []
    assert answer.params.total == sum(p.numel() for p in module.parameters())


def test_a_batch_norm_lays_out_what_it_makes_as_real_kernels_do():
    """Fake ones leave a transposed input's strides, which spares the linear layer behind it a copy."""

    def build():
        net = {"norm": nn.BatchNorm1d(16), "net": linear()}
        return Call(lambda m, x: m.net(m.norm(x.transpose(1, 2)).transpose(1, 2)), **net), (x8(4, 8, 16),)

    answer = budget.estimate(build()[0], inputs=build()[1], optimizer="none")
    assert answer.memory.peak == measured(build, real=True).peak


@pytest.mark.parametrize("share", [lambda w: w, lambda w: w.t()], ids=["same", "transposed"])
def test_parameters_of_one_storage_take_its_memory_once_and_train_each(share):
    module, inputs = tied(share)()
    answer = budget.estimate(module, inputs=inputs)
    assert answer.memory.parameters == 4 * 256
    assert (answer.memory.gradients, answer.memory.optimizer) == (2 * 4 * 256, 4 * 4 * 256)
    assert answer.params == (512, 512, 512)


@pytest.mark.parametrize("build", KINDS, ids=lambda f: f.__name__)
def test_the_module_is_as_it_was(build):
    if build is stepped:
        pytest.skip("its own hooks change it")

    def first():
        torch.manual_seed(3)
        return build()

    wrong, _ = touched(first)
    assert not wrong


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


@dataclasses.dataclass
class Nest:
    x: torch.Tensor
    scale: float = 2.0


def test_objects_as_inputs_and_outputs():
    net = Call(lambda m, nest: Nest(m.net(nest.x) * nest.scale), net=linear())
    answer = budget.estimate(net, inputs=(Nest(x8()),))
    assert answer.flops.forward == 2 * 8 * 16 * 16
    several = Call(lambda m, x: {"a": m.net(x).sum(), "b": m.net(x).mean()}, net=linear())
    assert budget.estimate(several, inputs=x8()).flops.backward == 2 * 2 * 8 * 16 * 16
    number = Call(lambda m, x: {"loss": 1.0, "y": m.net(x)}, net=linear())
    assert budget.estimate(number, inputs=x8()).flops.backward == 2 * 8 * 16 * 16


def test_sparse_products_count_the_values_that_are_there():
    adjacent = torch.eye(8).to_sparse()
    net = Call(lambda m, a, x: torch.sparse.mm(a, m.net(x)), net=linear())
    answer = budget.estimate(net, inputs=(adjacent, x8()), mode="forward")
    assert answer.flops.forward == 2 * 8 * 16 * 16 + 2 * 8 * 16
    held = Call(lambda m, x: torch.sparse.mm(m.a, m.net(x)), net=linear())
    held.register_buffer("a", adjacent)
    assert budget.estimate(held, inputs=x8(), mode="forward").flops == answer.flops


def test_ragged_inputs_count_their_rows():
    ragged = torch.nested.nested_tensor([x8(2, 16), x8(3, 16)], layout=torch.jagged)
    assert budget.estimate(linear(), inputs=ragged, mode="forward").flops.forward == 2 * 5 * 16 * 16


def test_flex_attention_and_cond():
    from torch.nn.attention.flex_attention import flex_attention

    def attend(m, x):
        q, k, v = (y.unflatten(-1, (4, 4)).transpose(1, 2) for y in m.net(x).chunk(3, -1))
        return flex_attention(q, k, v)

    answer = budget.estimate(Call(attend, net=nn.Linear(16, 48)), inputs=x8(2, 8, 16))
    attention = 2 * 2 * 4 * 8 * 8 * (4 + 4)
    assert answer.flops.forward == 2 * 16 * 16 * 48 + attention
    assert answer.flops.backward == 2 * 16 * 16 * 48 + 2 * attention

    either = Call(
        lambda m, x: torch.cond(m.a(x).sum() > 0, m.a, m.b, (x,)),
        a=linear(),
        b=nn.Linear(16, 16),
    )
    answer = budget.estimate(either, inputs=x8())
    assert answer.flops.forward == 2 * 2 * 8 * 16 * 16
    assert "torch.cond" in answer.model.uncounted[0]


def test_autocast_for_cuda_is_cuda_s():
    def run(m, x):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return F.layer_norm(m.net(x), (16,)).softmax(-1)

    answer = budget.estimate(Call(run, net=linear()), inputs=x8())
    kinds = {o.kind: o.out.dtype for o in answer.model.nodes if o.outs}
    assert (kinds["layer_norm"], kinds["softmax"]) == ("float32", "float32")
    products = {o.outs[0].dtype for o in answer.model.nodes if o.kind == "contract" and o.phase == "forward"}
    assert products == {"bfloat16"}


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


def test_a_device_by_any_name_is_the_one_that_there_is():
    net = Call(lambda m, x: m.net(x.cuda()).to("cuda:1") + torch.arange(16, device="cuda"), net=linear())
    assert budget.estimate(net, inputs=x8()).flops.forward == 2 * 8 * 16 * 16


def test_a_second_estimate_sees_what_has_changed():
    net, x = nn.Sequential(linear(), nn.ReLU(), linear()), x8()
    first = budget.estimate(net, inputs=x)
    assert budget.estimate(net, inputs=x, optimizer="sgd").model.nodes is first.model.nodes
    net[0].weight.requires_grad_(requires_grad=False)
    assert budget.estimate(net, inputs=x).params.trainable == first.params.trainable - 256
    net[1] = linear()
    assert budget.estimate(net, inputs=x).params.total == first.params.total + 272
    net.eval()
    assert budget.estimate(net, inputs=x8(9, 16)).model.samples == 9
