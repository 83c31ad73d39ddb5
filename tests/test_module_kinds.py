"""Kinds of modules that captures have got wrong, one minimal module each, against what torch runs."""

import dataclasses

import pytest
import torch
from fuzz_modules import differences, touched
from oracles.counts import as_on_a_gpu, measured
from oracles.random_modules import Call, weight
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import budget
from budget.ir import elements

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


def reassigned():
    """Another storage takes the weight's place, as clipping in the way of WGAN does."""

    def run(m, x):
        m.net.weight.data = m.net.weight.data.clamp(-1, 1)
        return m.net(x)

    return Call(run, net=linear()), (x8(),)


def aligned():
    """CTC's loss, its lengths as lists."""

    def run(m, x):
        return F.ctc_loss(m.net(x)[:, None].log_softmax(-1), torch.ones(1, 3, dtype=torch.int64), [8], [3])

    return Call(run, net=linear()), (x8(),)


def segmented():
    def run(m, x):
        return torch.segment_reduce(m.net(x), "sum", lengths=torch.tensor([3, 5]))

    return Call(run, net=linear()), (x8(),)


def twice_differentiated():
    net = nn.Sequential(linear(), nn.Tanh())
    return Call(lambda m, x: torch.func.hessian(lambda y: m.net(y).sum())(x[0]), net=net), (x8(),)


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
    concatenated, clipped, reassigned, aligned, segmented, twice_differentiated, bounded,
    listed, enclosed, stepped, differentiable, reentrant, forces,
    complex_valued, of_16_bits, resized, expanded, encoder, served, inference, dropped_layers, counted,
    selected, masked, mixed, three, in_time, in_place,
)  # fmt: skip


@pytest.mark.every(3)
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


def test_a_layer_norm_s_gradient_is_laid_out_plainly_as_real_kernels_do():
    """A fake one lies as the gradient that arrived: transposed, which a convolution cannot view."""

    def build():
        net = {
            "norm": nn.LayerNorm(8),
            "w": nn.Parameter(torch.ones(3, 8, 8)),
            "b": nn.Parameter(torch.ones(8)),
        }
        return Call(
            lambda m, x: m.norm(torch.conv_tbc(x, m.w, m.b, 1)).transpose(1, 2).contiguous().tanh(), **net
        ), (x8(4, 2, 8),)

    answer = budget.estimate(build()[0], inputs=build()[1], optimizer="none")
    assert answer.memory.peak == measured(build, real=True).peak


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


def test_a_batch_norm_over_processes_is_one_here_and_says_so():
    def norm(cls):
        return nn.Sequential(linear(), cls(16)), x8()

    (here, x), (over_all, _) = norm(nn.BatchNorm1d), norm(nn.SyncBatchNorm)
    answer, expected = budget.estimate(over_all, inputs=x), budget.estimate(here, inputs=x)
    assert (answer.flops, answer.memory) == (expected.flops, expected.memory)
    assert "SyncBatchNorm" in answer.model.uncounted[0]


def test_autocast_for_cuda_is_cuda_s():
    def run(m, x):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return F.layer_norm(m.net(x), (16,)).softmax(-1)

    answer = budget.estimate(Call(run, net=linear()), inputs=x8())
    kinds = {o.kind: o.out.dtype for o in answer.model.nodes if o.outs}
    assert (kinds["layer_norm"], kinds["softmax"]) == ("float32", "float32")
    products = {o.outs[0].dtype for o in answer.model.nodes if o.kind == "contract" and o.phase == "forward"}
    assert products == {"bfloat16"}


def test_a_device_by_any_name_is_the_one_that_there_is():
    net = Call(lambda m, x: m.net(x.cuda()).to("cuda:1") + torch.arange(16, device="cuda"), net=linear())
    assert budget.estimate(net, inputs=x8()).flops.forward == 2 * 8 * 16 * 16


def test_experts_in_a_loop_over_who_is_hit_are_hit_evenly():
    """Each of 8 rows goes through 2 of 4 experts, 4 rows each, whichever the router would choose."""

    def run(m, x):
        weights, chosen = m.router(x).topk(2, dim=-1)
        hit = F.one_hot(chosen, 4).permute(2, 1, 0)
        out = torch.zeros_like(x)
        for expert in hit.sum((1, 2)).nonzero()[:, 0].tolist():
            way, row = torch.where(hit[expert])
            out.index_add_(0, row, m.experts[expert](x[row]) * weights[row, way, None])
        return out

    net = Call(run, router=nn.Linear(16, 4), experts=nn.ModuleList(linear() for _ in range(4)))
    answer = budget.estimate(net, inputs=x8(), mode="forward")
    assert answer.flops.forward == 2 * 8 * 16 * 4 + 2 * 2 * 8 * 16 * 16
    products = [o for o in answer.model.nodes if o.kind == "contract" and "experts" in o.name]
    assert [elements(o.outs[0], o.sizes) for o in products] == [4 * 16] * 4
    assert "evenly" in answer.model.uncounted[-1]


def test_numbers_written_one_by_one_are_known_once_all_are():
    def run(m, x, rows):
        sizes = torch.empty(2, dtype=torch.long)
        sizes[0] = 3
        if rows:
            sizes[1] = rows
        first, second = x.split([int(n) for n in sizes])
        return m.net(first), m.net(second)

    answer = budget.estimate(Call(lambda m, x: run(m, x, 5), net=linear()), inputs=x8(), mode="forward")
    assert answer.flops.forward == 2 * 8 * 16 * 16
    with pytest.raises(budget.InputError, match="needs the data"):
        budget.estimate(Call(lambda m, x: run(m, x, 0), net=linear()), inputs=x8(), mode="forward")


def test_a_check_of_what_nobody_knows_passes():
    def run(m, x):
        y = m.net(x)
        torch._check_tensor_all_with(ValueError, y > 0, lambda: "negative")
        return y

    answer = budget.estimate(Call(run, net=linear()), inputs=x8(), mode="forward")
    assert answer.flops.forward == 2 * 8 * 16 * 16
