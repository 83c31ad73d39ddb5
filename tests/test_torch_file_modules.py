"""What a torch module of a user's is estimated as, and that it stays as it was."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import budget
from budget import InputError
from budget.ir import walk


def test_the_users_module_is_as_it_was():
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    parameters = list(net.parameters())
    answer = budget.estimate(net, inputs=torch.zeros(5, 8))
    assert answer.memory.parameters == 4 * (64 + 8 + 16)
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    assert all(p.grad is None for p in parameters)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not torch.nn.modules.module._global_forward_pre_hooks
    with pytest.raises(InputError):
        budget.estimate(net, inputs=torch.zeros(5, 9))
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))


def test_modules_on_the_meta_device_and_other_dtypes():
    with torch.device("meta"):
        net = nn.Linear(4096, 4096, bias=False)
    full = budget.estimate(net, inputs=(torch.zeros(2, 4096),))
    half = budget.estimate(net, inputs=(torch.zeros(2, 4096),), dtype="bf16")
    assert (full.task.dtype, half.task.dtype) == ("float32", "bfloat16")
    assert full.memory.parameters == 2 * half.memory.parameters == 4 * 4096**2
    assert net.weight.dtype == torch.float32


def test_frozen_parameters_have_no_gradient_and_no_state():
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    net[0].requires_grad_(requires_grad=False)
    answer = budget.estimate(net, inputs=torch.zeros(2, 8))
    assert answer.params == (128, 128, 64)
    assert answer.memory.gradients == 4 * 64
    assert answer.memory.optimizer == 2 * 4 * 64
    assert answer.flops.backward == 2 * 2 * 64


def test_a_forward_pass_alone_keeps_nothing():
    net = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(9)))
    answer = budget.estimate(net, inputs=torch.zeros(100, 64), mode="forward")
    assert answer.flops.backward == 0
    read_and_written = 2 * 100 * 64
    assert answer.memory.peak == 4 * (9 * 64 * 64 + 100 * 64 + read_and_written)


def test_checkpoints_in_the_module_are_seen():
    class Layers(nn.Module):
        def __init__(self, *, again):
            super().__init__()
            layers = (nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(6))
            self.layers = nn.ModuleList(layers)
            self.again = again

        def forward(self, x):
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=False) if self.again else layer(x)
            return x

    plain, again = (budget.estimate(Layers(again=a), inputs=torch.zeros(2000, 64)) for a in (False, True))
    assert again.memory.peak < plain.memory.peak
    assert again.flops.backward > plain.flops.backward


def test_what_nobody_knows_is_named_with_its_share():
    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(64, 64)

        def forward(self, x):
            return torch.fft.rfft(self.mix(x)).abs()

    (first, *_) = budget.estimate(Waves(), inputs=torch.zeros(4, 64)).model.uncounted
    assert "_fft" in first
    assert "% of the bytes" in first


def test_operators_have_torch_names():
    net = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8)))
    names = {o.of or o.name for o, _ in walk(budget.estimate(net, inputs=torch.zeros(2, 8)).model.nodes)}
    assert {"0", "1.0", "1.1"} <= names
