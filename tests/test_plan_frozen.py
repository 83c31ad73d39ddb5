"""What trains and what is saved: frozen parts, LoRA and adapters, against torch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget.fold.count import flops, params
from budget.fold.memory import memory
from budget.ir import EMBED, walk
from budget.plan.adapters import adapters
from budget.plan.backward import backward
from budget.plan.freeze import freeze, freeze_layers
from budget.plan.input_gradients import input_gradients
from budget.plan.lora import lora
from budget.plan.optimizer import optimizer

torch = pytest.importorskip("torch")
from oracles.flops import count_flops  # noqa: E402
from oracles.plan import RANK, B, C, D, F, LoRA, S, held, model, net, saved  # noqa: E402
from torch import nn  # noqa: E402


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


@pytest.mark.parametrize("first", [1, 2, 4, 5])
def test_frozen_layers_save_nothing(first):
    module = net(5)
    for part in list(module)[: 1 + first]:
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


class Upcast(LoRA):
    """peft's linear layer in a 16-bit model, with adapters in float32."""

    def __init__(self, base):
        super().__init__(base)
        self.a.float()
        self.b.float()

    def forward(self, x):
        return (self.base(x) + self.b(self.a(x.float())) * 0.5).to(x.dtype)


@pytest.mark.parametrize("layers", [1, 3])
def test_adapters_in_float32_keep_casts_of_their_inputs(layers):
    module = net(layers).bfloat16().requires_grad_(False)
    for layer in list(module)[1:-1]:
        layer.gate, layer.down = Upcast(layer.gate), Upcast(layer.down)
    theirs, out = saved(module, torch.randn(B, S, C, dtype=torch.bfloat16))
    program = backward(lora(model(layers), RANK, "gate,down", "float32"))
    ours = memory(program, "bfloat16")
    # A norm's statistics are float32 on a GPU, and in the input's dtype on a CPU; the first norm keeps none.
    statistics = layers * 2 * B * S * (4 - 2)
    assert ours.activations - out.numel() * 2 - theirs == statistics
    assert ours.gradients == 4 * layers * 2 * RANK * (D + F)


@pytest.mark.parametrize("trained", [1, 3])
def test_embeddings_with_a_gradient_send_it_through_frozen_layers(trained):
    """As transformers' enable_input_require_grads does."""
    module, first = net(5), 5 - trained
    for part in list(module)[: 1 + first]:
        part.requires_grad_(False)
    module[0].register_forward_hook(lambda module, args, out: out.requires_grad_(True))
    ours = freeze_layers(model(5), first)
    embed = ours.nodes[0]._replace(tag=EMBED)
    program = backward(input_gradients(ours._replace(nodes=(embed, *ours.nodes[1:])), reentrant=True))
    theirs, _ = saved(module, torch.randn(B, S, C))
    assert held(program) == theirs
    assert flops(program)[:2] == count_flops(module.to("meta"), torch.empty(B, S, C, device="meta"))
