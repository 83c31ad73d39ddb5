"""Kinds of modules that captures have got wrong, one minimal module each, against what torch runs."""

import dataclasses

import pytest
import torch
from fuzz_modules import differences, touched
from oracles.counts import as_on_a_gpu, measured
from oracles.module_kinds import KINDS, forces, linear, stepped, tied, x8
from oracles.random_parts import Call
from torch import nn
from torch.nn import functional as F

import budget
from budget.ir import elements

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


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


def test_a_sparse_products_gradient_counts_the_same_values():
    """The gradient goes through the transposed matrix, which stores as many values; nothing is run twice."""
    net = Call(lambda m, a, x: m.last(a @ m.net(x)), net=linear(), last=linear())
    answer = budget.estimate(net, inputs=(torch.eye(8).to_sparse(), x8()))
    dense, sparse = 2 * 8 * 16 * 16, 2 * 8 * 16
    assert (answer.flops.forward, answer.flops.backward) == (2 * dense + sparse, 3 * dense + sparse)
    assert answer.hardware[:2] == answer.flops[:2]


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


def test_memory_that_is_only_taken_costs_no_time():
    """torch.empty starts no kernel, and times 0 (beta) cuBLAS does not read what is added."""
    net = Call(lambda m, x: m.net(torch.baddbmm(torch.empty(4, 16, 16), x, x, beta=0)), net=linear())
    answer = budget.estimate(net, inputs=torch.zeros(4, 16, 16), mode="forward", execution="eager")
    first, *others = answer.times.kernels
    assert [k.work.kind for k in (first, *others)] == ["matmul", "matmul"]
    assert first.work.bytes == 2 * 4 * 4 * 16 * 16  # x once, and the scores
