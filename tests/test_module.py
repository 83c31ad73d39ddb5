"""Techniques on captured modules, against MemTracker where it can measure them."""

import pytest
import torch
from oracles.memory import peak
from torch import nn

import budget
from budget import InputError
from budget.read.module import program

pytest.importorskip("transformers")
from oracles.modules import made
from oracles.plan import B, C, S, saved
from oracles.plan import net as gated

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quiet")]


def net():
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))


def measured(build, **settings):
    """MemTracker's peak, without the numbers of AdamW's steps, which a device has on the host."""
    found = peak(build, **settings)
    return found["Total"] - found["Steps"]


@pytest.mark.parametrize(
    ("name", "shape", "micro"),
    [
        ("gpt2", (8, 256), 2),
        ("t5", (2, 16), 2),
        ("resnet", (2, 32), 3),
        ("lstm", (2, 5), 2),
    ],
)
def test_the_peak_over_micro_batches_is_mem_tracker_s(name, shape, micro):
    module, inputs = made(name, shape)
    answer = budget.estimate(module, inputs=inputs, accumulate=micro)
    assert answer.memory.peak == pytest.approx(measured(lambda: made(name, shape), micro=micro), rel=0.005)


def test_micro_batches_multiply_the_work_of_all_but_the_step():
    one, four = (budget.estimate(net(), inputs=torch.zeros(8, 64), accumulate=n) for n in (1, 4))
    assert (four.flops.forward, four.flops.backward) == (4 * one.flops.forward, 4 * one.flops.backward)
    assert (four.model.samples, four.params) == (32, one.params)
    assert four.memory.gradients == one.memory.gradients
    assert four.times.optimizer == one.times.optimizer
    assert four.times.forward == pytest.approx(4 * one.times.forward)


def partly_frozen(name, shape, *frozen):
    module, inputs = made(name, shape)
    for path, p in module.named_parameters():
        if any(part in path for part in frozen):
            p.requires_grad_(requires_grad=False)
    return module, inputs


@pytest.mark.parametrize(
    ("name", "shape", "frozen"),
    [
        ("gpt2", (8, 256), ("wte", "wpe", "h.0")),
        ("llama", (8, 256), ("q_proj", "mlp")),
        ("resnet", (16, 128), ("embedder", "stages.0")),
    ],
)
def test_what_is_frozen_has_no_gradient_and_keeps_less(name, shape, frozen):
    module, inputs = partly_frozen(name, shape, *frozen)
    m = budget.estimate(module, inputs=inputs).memory
    own = peak(lambda: partly_frozen(name, shape, *frozen))
    assert (m.parameters, m.gradients, m.optimizer) == (own["Weights"], own["Trained"], 2 * own["Trained"])
    assert m.peak == pytest.approx(own["Total"] - own["Steps"], rel=1e-3)


def test_states_on_the_host():
    plain, away = (
        budget.estimate(net(), inputs=torch.zeros(8, 64), offload=where) for where in ("none", "optimizer")
    )
    assert (away.memory.optimizer, away.memory.host) == (0, plain.memory.optimizer)
    assert away.memory.peak == plain.memory.peak - plain.memory.optimizer
    assert away.times.step >= plain.times.step


def test_activations_on_the_host_are_those_that_autograd_saves():
    module, x = gated(3), torch.randn(B, S, C)
    plain, away = (
        budget.estimate(module, inputs=x, offload=where).memory for where in ("none", "activations")
    )
    kept, _ = saved(module, x)
    assert away.host == kept
    assert away.activations == plain.activations - kept


@pytest.mark.parametrize(("name", "shape"), [("llama", (8, 256)), ("unet", (8, 64))])
def test_offloaded_activations_leave_the_device(name, shape):
    module, inputs = made(name, shape)
    plain, away = (budget.estimate(module, inputs=inputs, offload=where) for where in ("none", "activations"))
    assert plain.memory.activations == away.memory.activations + away.memory.host
    assert away.memory.peak < 0.7 * plain.memory.peak
    assert away.flops == plain.flops
    assert away.times.step > plain.times.step  # the host's link


def test_master_weights_and_wide_gradients():
    answer = budget.estimate(
        net(), inputs=torch.zeros(8, 64), dtype="bf16", precision="master", grad_dtype="fp32", accumulate=2
    )
    m, n = answer.memory, answer.params.total
    assert (m.parameters, m.gradients, m.optimizer) == (2 * n, 4 * n, 12 * n)  # Megatron's 18 bytes


def test_tf32_is_float32_in_memory_and_faster():
    module, inputs = nn.Linear(4096, 4096), torch.zeros(4096, 4096)
    full, fast = (budget.estimate(module, inputs=inputs, dtype=dtype) for dtype in ("fp32", "tf32"))
    assert full.memory == fast.memory
    assert fast.times.forward < full.times.forward


def test_a_captured_program_is_asked_like_its_module():
    module, inputs = net(), torch.zeros(8, 64)
    captured = program(module, inputs=inputs)
    for settings in ({}, {"optimizer": "lion", "accumulate": 3}):
        a, b = budget.estimate(captured, **settings), budget.estimate(module, inputs=inputs, **settings)
        assert a.to_dict() == b.to_dict()
    with pytest.raises(InputError, match="recompute"):
        budget.estimate(captured, recompute="full")
    with pytest.raises(InputError, match="mode: got 'forward'; allowed for this torch module: train"):
        budget.estimate(captured, mode="forward")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"recompute": "selective"}, "recompute: a torch module does its own"),
        ({"lora_rank": 4}, "lora_rank: a torch module's dimensions have no names"),
        ({"freeze": "0"}, "freeze: a torch module's dimensions have no names"),
        ({"fuse": "norm"}, "fuse: a torch module's dimensions have no names"),
        ({"config": {"layers": 3}}, "layers: a torch module's dimensions have no names"),
        ({"precision": "autocast", "dtype": "bf16"}, "precision: a torch module casts by itself"),
        ({"dtype": "fp8"}, "dtype: got 'fp8'; allowed for a torch module: float64, float32, tf32"),
        ({"dtype": "int8"}, "dtype: got 'int8'; allowed for a torch module"),
        ({"dtype": "bf17"}, "dtype: unknown name 'bf17'"),
        ({"precision": "master"}, "precision: got master with float32"),
        ({"accumulate": 2, "mode": "forward"}, "accumulate: there is no backward pass"),
        ({"accumulate": 0}, "accumulate: got 0"),
        ({"seq": 2}, "seq: the inputs are given; allowed: batch"),
        ({"inputs": "5x4", "batch": 2}, "; the first of the sizes is the batch, as in 2x5x4"),
        ({"inputs": ["5x4"]}, "; the first of the sizes is the batch, as in 1x5x4"),
        ({"inputs": None, "batch": 0}, "batch: got 0"),
        ({"inputs": None}, "inputs: forward takes no input_ids or pixel_values"),
    ],
)
def test_what_a_module_cannot_be_asked(settings, says):
    with pytest.raises(InputError) as error:
        budget.estimate(net(), **{"inputs": torch.zeros(8, 64), **settings})
    assert says in str(error.value)


def test_a_module_s_batch_is_one_number():
    np = pytest.importorskip("numpy")
    with pytest.raises(InputError, match=r"batch: got array.*allowed for a torch module: one whole number"):
        program(net(), batch=np.array([1, 2]))


@pytest.mark.parametrize(
    ("side", "taps", "published"), [(64, 3, 69.6), (64, 7, 228.6), (64, 31, 3090.4), (32, 13, 141.2)]
)
def test_depthwise_convolutions_take_the_time_that_was_published(side, taps, published):
    """24 layers in float32, 64 pictures of 384 channels, on an RTX 2080 Ti. Source: replknet."""
    layers = [nn.Conv2d(384, 384, taps, padding=taps // 2, groups=384, bias=False) for _ in range(24)]
    x = torch.zeros(64, 384, side, side, device="meta")
    settings = {
        "mode": "forward",
        "dtype": "fp32",
        "precision": "pure",
        "device": "2080ti",
        "stack": "torch-1",
    }
    found = budget.estimate(nn.Sequential(*layers).to("meta"), inputs=x, **settings).times.step
    assert 1e3 * found == pytest.approx(published, rel=0.25)
