"""Techniques that change a network, against torch: what trains, what is saved, what is kept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import arch
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.fold.memory import memory
from budget.model import walk
from budget.op import HOST, WEIGHT
from budget.plan.accumulate import accumulate
from budget.plan.backward import backward
from budget.plan.distill import distill
from budget.plan.freeze import freeze, freeze_layers
from budget.plan.fused import fused, hold_chunk
from budget.plan.lora import adapters, lora
from budget.plan.offload import offload_activations, offload_optimizer
from budget.plan.optimizer import optimizer
from budget.plan.prune import prune
from budget.plan.quantize import quantize
from budget.plan.recompute import recompute, regroup

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from oracle import count_flops  # noqa: E402
from oracle_plan import B, C, D, F, S, model, net, saved  # noqa: E402

RANK = 4


def held(program):
    """Bytes kept when the forward pass ends, without the network's output."""
    return memory(program, "float32").activations - B * S * D * 4


class LoRA(nn.Module):
    """peft's linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = nn.Linear(base.in_features, RANK, bias=False), nn.Linear(RANK, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x)) * 0.5


class Adapter(nn.Module):
    """Houlsby's bottleneck behind a linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.out_features, RANK), nn.Linear(RANK, base.out_features)

    def forward(self, x):
        y = self.base(x)
        return y + self.up(nn.functional.gelu(self.down(y)))


def compare(module, ours):
    """Weights, trained weights, and what is saved of a pass, in both."""
    theirs, _ = saved(module, torch.randn(B, S, C))
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert params(ours)[0::2] == (sum(p.numel() for p in module.parameters()), trained)
    program = backward(ours)
    assert held(program) == theirs
    assert memory(program, "float32").gradients == 4 * trained
    assert params(program)[0::2] == params(ours)[0::2]
    assert flops(program)[:2] == count_flops(module.to("meta"), torch.empty(B, S, C, device="meta"))


@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_lora_trains_and_saves_what_torch_does(layers):
    module = net(layers).requires_grad_(False)
    for layer in list(module)[1:-1]:
        layer.gate, layer.down = LoRA(layer.gate), LoRA(layer.down)
    compare(module, lora(model(layers), RANK, "gate,down"))


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_adapters_train_and_save_what_torch_does(layers):
    module = net(layers).requires_grad_(False)
    for layer in list(module)[1:-1]:
        layer.norm.requires_grad_(True)
        layer.down = Adapter(layer.down)
    module[-1].requires_grad_(True)
    compare(module, adapters(model(layers), RANK, "down"))


@pytest.mark.parametrize("first", [1, 2, 4, 9])
def test_frozen_layers_save_nothing(first):
    module = net(5)
    for part in list(module)[: 1 + min(first, 5)]:
        part.requires_grad_(False)
    compare(module, freeze_layers(model(5), first))


@pytest.mark.parametrize("part", ["gate", "up,down", "norm", "layers", "in,layers.norm"])
def test_frozen_parts_have_no_gradient(part):
    module = net(3)
    names = {"gate": "gate", "up": "up", "down": "down", "norm": "norm"}
    for i, layer in enumerate(module):
        last = i == 4
        for name in part.split(","):
            if (name == "in" and i == 0) or (last and name == "norm") or (name == "layers" and 0 < i < 4):
                layer.requires_grad_(False)
            elif 0 < i < 4 and name.split(".")[-1] in names:
                getattr(layer, name.split(".")[-1]).requires_grad_(False)
    compare(module, freeze(model(3), part))


def test_freezing_everything_leaves_no_backward_pass():
    trained = backward(freeze(model(3), "*"))
    assert not any(o.phase == "backward" for o, _ in walk(trained.nodes))
    assert params(trained).trainable == 0
    m = memory(optimizer(trained, "adamw"), "float32")
    assert (m.gradients, m.optimizer) == (0, 0)


@given(layers=st.integers(1, 6), rank=st.integers(1, 64))
@settings(deadline=None)
def test_lora_s_parameters_are_its_formula(layers, rank):
    ours = lora(model(layers), rank, "gate,up,down")
    assert params(ours).trainable == layers * 3 * rank * (D + F)
    plain, added = flops(model(layers)).forward, flops(ours).forward
    assert added - plain == 2 * B * S * params(ours).trainable


def gpt(mode="train", batch=2, **values):
    module = arch.load("transformer")
    config = {"layers": 5, "d_model": 64, "heads": 4, "vocab": 500, "context": 32, **values}
    return module.build(make(module.Config, config), Workload(mode, batch, 32))


LLAMA = {"norm": "rms_norm", "gated": True, "activation": "silu", "positions": "rotary", "d_ff": 160}


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
    skipped = 0 if every > 1 else 2 * B * S * F * D  # early stop: the last product leads to nothing that is read
    extra = flops(program).backward - flops(backward(model(layers))).backward
    assert extra == layers * (-whole - skipped)
    assert params(program).total == params(model(layers)).total


@pytest.mark.parametrize("first", [1, 2, 4, 6, 8])
def test_only_the_first_layers_are_recomputed(first):
    kept = [held(recompute(backward(regroup(model(6), first=n)), "full")) for n in (first, min(first, 6))]
    per_layer = held(backward(model(2))) - held(backward(model(1)))
    assert kept[0] == kept[1] == held(backward(model(6))) - min(first, 6) * (per_layer - B * S * D * 4)


@pytest.mark.parametrize("name", ["cross_entropy", "chunked_cross_entropy"])
def test_a_fused_loss_never_stores_the_logits(name):
    plain = backward(gpt(layers=1, vocab=4000))
    program = hold_chunk(recompute(backward(fused(gpt(layers=1, vocab=4000), name)), "none"))
    logits = 2 * 32 * 4000
    head = 2 * logits * 64
    again = head if name == "cross_entropy" else 0
    assert flops(program).forward == flops(plain).forward
    assert flops(program).backward == flops(plain).backward + again
    less = memory(plain, "bfloat16").peak - memory(program, "bfloat16").peak
    assert less > 2 * logits


def test_a_fused_mlp_keeps_what_its_products_made():
    program = recompute(backward(fused(gpt(**LLAMA), "mlp")), "none")
    less = memory(backward(gpt(**LLAMA)), "bfloat16").activations - memory(program, "bfloat16").activations
    assert less == 5 * 2 * (2 * 32 * 160) * 2, "the activation and its product with the other half"
    assert flops(program)[:2] == flops(backward(gpt(**LLAMA)))[:2]


def test_a_fused_norm_keeps_its_input_and_one_statistic():
    x = 2 * 32 * 64
    less = memory(backward(gpt(**LLAMA)), "bfloat16").activations - memory(backward(fused(gpt(**LLAMA), "norm")), "bfloat16").activations
    # The float32 copy and the normed one of 11 norms; in0 is a residual that nothing else keeps.
    assert less == 11 * (4 * x + 2 * x - 2 * x)


def test_four_bits_a_weight_and_scales_of_two_levels():
    plain, few = lora(gpt(**LLAMA), RANK, "attn.o"), quantize(lora(gpt(**LLAMA), RANK, "attn.o"), "nf4")
    linear = 5 * (4 * 64 * 64 + 3 * 64 * 160)
    saved_bytes = memory(plain, "bfloat16").parameters - memory(few, "bfloat16").parameters
    assert saved_bytes == pytest.approx(linear * (2 - 0.5 - 1 / 64 - 4 / (64 * 256)), abs=35)
    a, b = (recompute(backward(m), "none") for m in (plain, few))
    assert memory(a, "bfloat16").activations == memory(b, "bfloat16").activations, "wide weights are never kept"
    assert (flops(a)[:2], params(a)) == (flops(b)[:2], params(b))


def test_sparse_products_do_half_of_the_arithmetic():
    forward = gpt("forward")
    sparse = prune(forward, "mlp", "bfloat16")
    mlp = 2 * 64 * 256 * 5
    assert flops(forward).forward - flops(sparse).forward == mlp * 2 * 32
    assert memory(forward, "bfloat16").parameters - memory(sparse, "bfloat16").parameters == mlp * 2 * 7 / 16
    trained = backward(gpt())
    assert flops(prune(trained, "mlp", "bfloat16")).backward == flops(trained).backward
    assert memory(prune(trained, "mlp", "bfloat16"), "bfloat16").parameters == memory(trained, "bfloat16").parameters


def test_a_teacher_adds_its_forward_pass_and_its_weights():
    teacher = gpt("forward", layers=9, d_model=128)
    student = gpt()
    both = backward(distill(student, teacher))
    assert flops(both).forward == flops(student).forward + flops(teacher).forward
    assert flops(both).backward == flops(backward(student)).backward
    a, b = memory(backward(student), "bfloat16"), memory(both, "bfloat16")
    assert b.parameters == a.parameters + memory(teacher, "bfloat16").parameters
    assert b.gradients == a.gradients
    with pytest.raises(InputError, match="teacher: answers .*; allowed: answers of one shape"):
        distill(gpt(), gpt("forward", vocab=77))


@pytest.mark.parametrize("choice", ["none", "full"])
def test_offloaded_layers_leave_nothing_on_the_device(choice):
    plain = recompute(backward(gpt(layers=12)), choice)
    away = offload_activations(plain)
    a, b = memory(plain, "bfloat16"), memory(away, "bfloat16")
    assert flops(away)[:4] == flops(plain)[:4]
    assert a.activations == b.activations + b.host
    assert b.activations < a.activations and b.peak <= a.peak
    assert memory(offload_activations(recompute(backward(gpt(layers=24)), choice)), "bfloat16").activations == b.activations


def test_offloaded_states_are_on_the_host():
    plain = optimizer(backward(gpt()), "adamw")
    away = offload_optimizer(plain)
    a, b = memory(plain, "bfloat16"), memory(away, "bfloat16")
    assert (b.optimizer, b.host, b.peak) == (0, a.optimizer, a.peak - a.optimizer)
    assert {t.role for o, _ in walk(away.nodes) for t in o.outs if o.phase == "optimizer"} == {HOST, "state"} | {
        t.role for o, _ in walk(away.nodes) for t in o.outs if "#" in t.name and o.phase == "optimizer"
    }


def test_neutral_settings_change_nothing():
    m = backward(gpt())
    assert accumulate(m, 1) is m
    assert quantize(gpt(), "none") == gpt()
    one = regroup(gpt(), 1, 0)
    assert one == gpt()
    assert not any(t.role != WEIGHT for o, _ in walk(gpt().nodes) for t in o.weights)


@pytest.mark.parametrize(("change", "error"), [
    (lambda: lora(gpt(), 4, "nothing"), "lora_targets: 'nothing' matches no operator; allowed: .*attn.q"),
    (lambda: lora(gpt(), 4, "norm1"), "lora_targets: 'norm1' matches no operator"),
    (lambda: lora(backward(gpt()), 4, "attn.q"), "lora_rank: comes too late; allowed: before backward"),
    (lambda: freeze(gpt(), ","), "freeze: got ','; allowed"),
    (lambda: accumulate(gpt(), 2), "accumulate: needs a backward pass"),
    (lambda: accumulate(optimizer(backward(gpt()), "sgd"), 2), "accumulate: comes too late; allowed: before optimizer"),
    (lambda: quantize(gpt(), "nf4"), "quantize: no linear layer of transformer is frozen"),
    (lambda: fused(gpt(), "attention"), "fuse: unknown name 'attention'"),
    (lambda: fused(gpt("forward"), "cross_entropy"), "fuse: transformer has no product before a loss"),
    (lambda: prune(gpt("forward"), "mlp", "float32"), "sparse: got dtype float32; allowed: bf16, fp16, fp8"),
    (lambda: regroup(model(2)._replace(nodes=model(2).nodes[:1]), 2), "recompute_every: t has no counted stack of layers"),
    (lambda: offload_optimizer(optimizer(backward(gpt()), "sgd")), "offload: the optimizer has no state"),
])
def test_bad_input_is_one_line(change, error):
    with pytest.raises(InputError, match=error):
        change()
