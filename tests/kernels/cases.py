"""Random tensors in awkward memory, the two routes of a call, and the measure of error."""

import contextlib
import importlib
import math
import os
from unittest import mock

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.utils.conventions import not_set

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "sliced", "transposed")

dtypes = st.sampled_from(DTYPES)
layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**31)
routes = st.sampled_from(("triton", "triton", "reference"))

MODULES = (
    "matmul",
    "softmax",
    "cross_entropy",
    "attention",
    "rms_norm",
    "rope",
    "linear_cross_entropy",
    "attention_cached",
)


def examples(count):
    """How many examples a property is tried on. No shrinking: an example takes the interpreter seconds. Where
    some of the slow tests run, half of what is drawn anew each time; what is written out runs always.

    Compiled, an example is several kernels of a second each: fewer, and always the same, for Triton's cache.
    """
    compiled = DEVICE != "cpu"
    interpreted = count // 2 if os.environ.get("BUDGET_SLOW") == "some" else count  # tests/conftest.py
    return settings(
        max_examples=min(count, 10) if compiled else interpreted,
        derandomize=compiled,
        database=None if compiled else not_set,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )


@contextlib.contextmanager
def route(name):
    """Send calls to Triton, or to the torch reference as on a machine without a GPU."""
    with contextlib.ExitStack() as stack:
        if name == "reference":
            for module in MODULES:
                target = importlib.import_module(f"budget.kernels.{module}")
                stack.enter_context(mock.patch.object(target, "runs_triton", return_value=False))
        yield


def random(shape, dtype, layout="contiguous", *, generator, scale=1.0):
    """Normal numbers in the given layout.

    sliced: the middle of a larger buffer of NaN, at an odd offset: a read outside is seen.
    transposed: the last two dimensions swapped in memory.
    """
    values = (torch.randn(shape, generator=generator) * scale).to(dtype).to(DEVICE)
    if layout == "transposed" and len(shape) >= 2:
        return values.mT.contiguous().mT
    if layout == "sliced":
        buffer = torch.full([size + 3 for size in shape], math.nan, dtype=dtype, device=DEVICE)
        middle = buffer[tuple(slice(1, 1 + size) for size in shape)]
        return middle.copy_(values)
    return values


def generator(seed):
    """A source of random numbers."""
    return torch.Generator().manual_seed(seed)


def leaves(tensors, dtype=None):
    """Copies that keep their layout and ask for a gradient, in another dtype if given."""
    out = []
    for tensor in tensors:
        if tensor is None:
            out.append(None)
        elif dtype is None:
            out.append(tensor.detach().requires_grad_())
        else:
            out.append(tensor.detach().to(dtype).requires_grad_())
    return out


def gradients(output, inputs, grad):
    """The gradients of the inputs that are there."""
    return [*torch.autograd.grad(output, [t for t in inputs if t is not None], grad.to(output.dtype))]


def assert_close(name, ours, torchs, oracle, terms=0.0):
    """Error against float64 at most twice torch's own in the same dtype, plus a rounding unit.

    The unit is one rounding of the largest result in its own dtype, two float32 roundings of it on the
    way (a sum, a quotient: torch's own error in few elements may by chance be none, and differs between
    processors), and one float32 rounding of the largest of the terms that cancel in it, if given. NaN and
    infinities stand exactly where the oracle has them.
    """
    assert ours.shape == oracle.shape, f"{name}: {tuple(ours.shape)} is not {tuple(oracle.shape)}"
    if oracle.numel() == 0:
        return
    assert torch.equal(ours.isnan(), oracle.isnan()), f"{name}: NaN in other places"
    infinite = oracle.isinf()
    assert torch.equal(ours[infinite].double(), oracle[infinite]), f"{name}: infinities differ"
    finite = oracle.isfinite()
    if not finite.any():
        return
    own = (torchs.double() - oracle)[finite].nan_to_num(0.0, 0.0, 0.0).abs().max().item()
    error = (ours.double() - oracle)[finite].abs().max().item()
    largest, eps32 = oracle[finite].abs().max().item(), torch.finfo(torch.float32).eps
    unit = (torch.finfo(ours.dtype).eps + 2 * eps32) * largest + eps32 * terms
    assert error <= 2 * own + unit, f"{name}: error {error:.3g}, torch's own {own:.3g}, unit {unit:.3g}"
