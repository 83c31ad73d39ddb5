import math

import pytest
import torch
import torch.nn.functional as F
from budget.kernels.rms_norm import add_rms_norm, rms_norm
from cases import (
    DEVICE,
    DTYPES,
    assert_close,
    dtypes,
    examples,
    generator,
    gradients,
    layouts,
    leaves,
    random,
    route,
    routes,
    seeds,
)
from hypothesis import given
from hypothesis import strategies as st


def eager(x, residual, weight, eps, offset):
    """(torch's own norm, what was normalized)."""
    total = x if residual is None else x + residual
    factor = None if weight is None else (weight + offset).to(x.dtype)
    return F.rms_norm(total, x.shape[-1:], factor, eps), total


def ours(x, residual, weight, eps, offset):
    if residual is None:
        return rms_norm(x, weight, eps=eps, offset=offset), x
    return add_rms_norm(x, residual, weight, eps=eps, offset=offset)


def check(x, residual, weight, eps, offset, where, seed):
    """Outputs, and the gradients of a function of both, against float64."""
    tensors = (x, residual, weight)
    runs = []
    with route(where):
        for function, dtype in ((ours, None), (eager, None), (eager, torch.float64)):
            inputs = leaves(tensors, dtype)
            outputs = function(*inputs, eps, offset)
            grads = [random(x.shape, x.dtype, generator=generator(seed + i)) for i in range(2)]
            loss = sum((o * g.to(o.dtype)).sum() for o, g in zip(outputs, grads, strict=True))
            runs.append((*outputs, *gradients(loss, inputs, torch.ones((), device=DEVICE))))
    assert runs[0][0].dtype == x.dtype
    names = ["out", "sum", "x", *["residual"] * (residual is not None), "weight"]
    for name, *triple in zip(names, *runs, strict=False):
        of = {"x": _terms(x, residual, weight, eps, offset), "weight": _rounded(x, residual, eps, grads[0])}
        terms = of.get(name, 0.0)
        assert_close(name, *(t.detach() for t in triple), terms=terms)


def _terms(x, residual, weight, eps, offset):
    """The size of what cancels in the gradient of x: to nothing for a row of one element."""
    wide = x.double() if residual is None else x.double() + residual.double()
    factor = 1.0 if weight is None else (weight.double() + offset).abs().max().item()
    if not wide.numel():
        return 0.0
    return 4 * 4 * factor * (wide.square().mean(-1) + eps).rsqrt().max().item()


def _rounded(x, residual, eps, grad):
    """What the gradient of a weight is a sum of, in float32's roundings: of each row, where a residual was
    added, off by one in x's dtype. Torch's own errors may cancel in few rows.
    """
    if residual is None or not x.numel():
        return 0.0
    wide = x.double() + residual.double()
    summands = grad.double() * wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    units = torch.finfo(x.dtype).eps / torch.finfo(torch.float32).eps
    return units * summands.abs().reshape(-1, x.shape[-1]).sum(0).max().item()


@examples(40)
@given(
    leading=st.lists(st.integers(1, 5), max_size=3), columns=st.integers(1, 700), dtype=dtypes,
    layout=layouts, eps=st.sampled_from([1e-6, 1e-5, 0.1]), offset=st.sampled_from([0.0, 1.0]),
    has_weight=st.booleans(), wide_weight=st.booleans(), has_residual=st.booleans(), where=routes, seed=seeds,
)  # fmt: skip
def test_rms_norm(
    leading, columns, dtype, layout, eps, offset, has_weight, wide_weight, has_residual, where, seed
):
    g = generator(seed)
    shape = (*leading, columns)
    x = random(shape, dtype, layout, generator=g, scale=2.0)
    residual = random(shape, dtype, layout, generator=g) if has_residual else None
    weight = random((columns,), torch.float32 if wide_weight else dtype, generator=g) if has_weight else None
    check(x, residual, weight, eps, offset if has_weight else 0.0, where, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 128, 1025, 9000])
def test_row_lengths(columns, dtype):
    g = generator(columns)
    x, weight = random((5, columns), dtype, generator=g), random((columns,), dtype, generator=g)
    check(x, None, weight, 1e-6, 1.0, "triton", 0)


def test_many_rows_to_a_program_and_the_same_twice():
    """More rows than programs walk over at once, and a weight gradient equal to the last bit."""
    g = generator(0)
    x, weight = random((67, 40), torch.float32, generator=g), random((40,), torch.float32, generator=g)
    check(x, None, weight, 1e-6, 0.0, "triton", 0)
    found = []
    for _ in range(2):
        leaf = weight.detach().requires_grad_()
        rms_norm(x, leaf).square().sum().backward()
        found.append(leaf.grad)
    assert torch.equal(*found)


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("shape", [(0, 5), (1,), (2, 0, 4)])
def test_small_shapes(shape, where):
    weight = random(shape[-1:], torch.float32, generator=generator(0))
    check(random(shape, torch.float32, generator=generator(0)), None, weight, 1e-6, 0.0, where, 0)


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_zeros_nan_and_infinities_stay_in_their_rows(where):
    x = random((4, 70), torch.float32, generator=generator(0))
    x[0], x[1, 3], x[2, 3] = 0.0, math.nan, math.inf
    with route(where):
        out = rms_norm(x, eps=1e-6)
    assert (out[0] == 0).all()
    assert out[1].isnan().all()
    assert torch.equal(out[2].isnan(), F.rms_norm(x[2], (70,), eps=1e-6).isnan())
    assert out[3].isfinite().all()


def test_only_the_sum_is_used():
    x, residual = (random((3, 8), torch.float32, generator=generator(0)).requires_grad_() for _ in range(2))
    _, total = add_rms_norm(x, residual)
    total.sum().backward()
    assert (x.grad == 1).all()
    assert (residual.grad == 1).all()
