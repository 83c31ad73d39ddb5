"""Precision: autocast against torch's own casts, the others by their bytes."""

import math

import pytest

from budget import estimate
from budget.errors import InputError
from budget.fold.count import flops
from budget.fold.memory import memory
from budget.ir import Model, block, elements, link, op, walk
from budget.plan import fp8
from budget.plan.backward import backward
from budget.plan.optimizer import optimizer
from budget.plan.precision import gradients, precision
from budget.plan.recompute import recompute

torch = pytest.importorskip("torch")
from oracles.plan import B, C, D, F, S, model, net, saved  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_autocast_saves_what_torch_saves(layers):
    module, x = net(layers), torch.randn(B, S, C)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, out = saved(module, x)
    ours = memory(backward(precision(model(layers), "autocast", "cpu")), "bfloat16")
    held = out.numel() * out.element_size()
    assert ours.activations - held == theirs
    parameters = sum(4 * p.numel() for p in module.parameters())
    assert (ours.parameters, ours.gradients) == (parameters, parameters)


def test_inference_under_autocast_casts_what_torch_casts():
    """The copies to another dtype that torch.autocast makes of a forward pass, in elements."""
    layers, module, x = 3, net(3), torch.randn(B, S, C)
    made = []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default:
                made.append(out.numel())
            return out

    with torch.no_grad(), Casts(), torch.autocast("cpu", torch.bfloat16):
        module(x)
    program = precision(model(layers), "autocast", "cpu")
    casts = [(o, times) for o, times in walk(program.nodes) if o.kind == "cast"]
    assert sum(times for _, times in casts) == len(made)
    assert sum(elements(o.out, o.sizes) * times for o, times in casts) == sum(made)


def test_without_a_training_step_there_is_autocast_and_nothing_else():
    pure, cast = (
        estimate("vit-b-16", batch=8, mode="forward", device="rtx-3090", dtype="fp16", precision=p)
        for p in ("pure", "autocast")
    )
    assert cast.flops.forward == pure.flops.forward and cast.times.step > pure.times.step
    assert cast.memory.parameters == 2 * pure.memory.parameters
    with pytest.raises(
        InputError, match=r"^precision: got master in mode decode; allowed: pure, autocast, or"
    ):
        estimate("gpt2", mode="decode", precision="master")


def test_autocast_casts_a_weight_once_though_two_read_it():
    nodes = (
        op("in", "!raw: b s c, *c d -> x: b s d"),
        block(
            "loop",
            (op("w", "x: b s d, *d e -> y: b s e", e=D), op("act", "y: b s e -> x: b s d", "tanh", e=D)),
            4,
            shared=True,
        ),
    )
    linked, ends = link(nodes, dict(b=B, s=S, c=C, d=D))
    program = precision(Model("t", "t", linked, {}, ends), "autocast", "cpu")
    casts = [n.name for n in program.nodes if n.name.startswith("loop.w.cast")]
    assert casts == ["loop.w.cast1"]


def test_autocast_changes_no_product():
    plain, cast = backward(model(3)), backward(precision(model(3), "autocast"))
    assert flops(cast)[:2] == flops(plain)[:2]
    again = recompute(cast, "full")
    assert memory(again, "bfloat16").activations < memory(cast, "bfloat16").activations


def test_master_weights_are_megatron_s_18_bytes_a_parameter():
    trained = backward(model(4))
    n = memory(trained, "bfloat16").parameters // 2
    m = memory(optimizer(gradients(trained, "float32"), "adamw_fused", master=True), "bfloat16")
    counters = 4 * (1 + 4 * 8 + 2)
    assert m.parameters + m.gradients + m.optimizer - counters == 18 * n


@pytest.mark.parametrize(
    ("choice", "dtype", "size", "history"),
    [("fp8", "float8", 1, 4 * 1024 * 5), ("nvfp4", "nvfp4", 0.5 + 1 / 16, 0)],
)
def test_few_bits_keep_inputs_in_few_bytes_and_weights_twice(choice, dtype, size, history):
    layers = 4
    wide, narrow = (backward(m) for m in (model(layers), precision(model(layers), choice)))
    narrow = fp8.trained(narrow, dtype)
    inputs = (2 - size) * B * S * (D + F)  # of gate and up together, and of down
    weights = size * 2 * 3 * D * F
    edge = math.ceil(
        size * B * S * C
    )  # the first product: its input is kept anyway, its weight not read again
    difference = memory(narrow, "bfloat16").activations - memory(wide, "bfloat16").activations
    assert difference == layers * (weights - inputs) + edge
    assert flops(narrow)[:2] == flops(wide)[:2]
    assert memory(narrow, "bfloat16").gradients == memory(wide, "bfloat16").gradients
    assert memory(narrow, "bfloat16").optimizer == history * (3 * layers + 1)


def test_float32_upcasts_nothing():
    """A norm's upcast to float32 of what is float32 already is no copy."""
    nodes = (op("in", "!raw: b s c, *c d -> x: b s d"), op("norm", "x:, *d -> x:", "rms_norm"))
    linked, ends = link(nodes, dict(b=B, s=S, c=C, d=D))
    trained = backward(Model("t", "t", linked, {}, ends))
    one = B * S * D * 4
    assert memory(trained, "float32").activations == 3 * one + B * S * 4  # input, normed and output, rstd


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"precision": "nvfp4"}, "precision: H100 SXM 80GB has no nvfp4; allowed: pure, autocast, master"),
        ({"precision": "nvfp4", "device": "mi355x"}, "precision: MI355X has no nvfp4; allowed: pure"),
        ({"precision": "fp8", "dtype": "fp32"}, "precision: got fp8 with float32; allowed: pure, or dtype"),
        ({"precision": "autocats"}, "precision: got 'autocats'; did you mean 'autocast'"),
        (
            {"quantize_weights": "step"},
            "quantize_weights: got precision autocast; allowed: with precision fp8",
        ),
    ],
)
def test_bad_input_is_one_line(asked, error):
    with pytest.raises(InputError, match=error):
        estimate("gpt2", **{"device": "h100", **asked})


def test_the_order_is_checked():
    with pytest.raises(InputError, match="precision: comes too late; allowed: before backward"):
        precision(backward(model(1)), "autocast")
    with pytest.raises(InputError, match="grad_dtype: needs a backward pass"):
        gradients(model(1), "float32")


def test_weights_are_cast_by_the_first_micro_batch_of_a_step():
    """16 layers with 7 products each: of n micro-batches, n - 1 do not."""

    def casts(often, n):
        how = {"precision": "fp8", "quantize_weights": often, "execution": "eager", "accumulate": n}
        times = estimate("llama-3.2-1b", seq=128, device="h100", **how).times
        own = [k for k in times.kernels if k.work.own == "quantize"]
        return sum(k.work.launches * k.work.times for k in own), times.forward + times.backward

    once, each = ([casts(often, n) for n in (1, 3)] for often in ("step", "pass"))
    assert once[0] == each[0]
    assert each[1][0] - once[1][0] == 2 * 16 * 7
    assert each[1][1] > once[1][1]


@pytest.mark.parametrize(
    ("choice", "size", "gathers"), [("fp8", 1, 1), ("nvfp4", 0.5 + 1 / 16, 2), ("master", 2, 1)]
)
def test_what_tensor_parallel_layers_gather_and_scatter(choice, size, gathers):
    """A layer's two column-parallel parts gather their input, in the backward pass again, and scatter its
    gradient; the two row-parallel ones scatter their output and gather its gradient. Transformer Engine
    gathers in few bits, NVFP4's gradient transposed, too, and scatters in 16. Source: transformer-engine-tp.
    """
    own = {"layers": 3, "d_model": 64, "heads": 4, "vocab": 96, "gated": True, "context": 64, "tied": False}
    how = {"precision": choice, "layout": "tp=2", "micro_batch": 2, "device": "b200"}
    e = estimate("transformer", seq=64, config=own, **how)
    found = [c for c in e.to_dict()["communication"] if c["times"] == 3]
    moved = {"all_gather": 0, "reduce_scatter": 0}
    for c in found:
        moved[c["kind"]] += c["bytes"]
    one = 2 * 64 * 64
    assert moved == {"all_gather": one * size * (2 + 2 + 2 * gathers), "reduce_scatter": one * 2 * (2 + 2)}


@pytest.mark.parametrize(("choice", "dtype"), [("fp8", "float8"), ("nvfp4", "nvfp4")])
def test_a_linear_layer_quantizes_one_gradient_and_sums_are_in_16_bits(choice, dtype):
    """gate and up add up their gradients of one quantized input."""
    trained = fp8.trained(backward(precision(model(2), choice)), dtype)
    back = [(o, times) for o, times in walk(trained.nodes) if o.phase == "backward"]
    assert {t.dtype for o, _ in back if o.kind == "accumulate" for t in o.outs} == {""}
    assert sum(times for o, times in back if o.kind == "quantize") == 3 * 2 + 1
