import math

import pytest
import torch
from budget.kernels.softmax import log_softmax, softmax
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

FUNCTIONS = {False: softmax, True: log_softmax}


def eager(x, mask, scale, causal, log):
    """The same in torch's own operators; zeros (-inf) where a mask leaves nothing."""
    z = x * scale
    if mask is not None:
        z = z.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else z + mask.to(z.dtype)
    if causal:
        seen = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device).tril(x.shape[-1] - x.shape[-2])
        z = z.masked_fill(~seen, -math.inf)
    if mask is None and not causal:
        return torch.log_softmax(z, -1) if log else torch.softmax(z, -1)
    empty = (z == -math.inf).all(-1, keepdim=True)
    z = z.masked_fill(empty, 0.0)
    if log:
        return torch.log_softmax(z, -1).masked_fill(empty, -math.inf)
    return torch.softmax(z, -1).masked_fill(empty, 0.0)


def check(x, mask, scale, causal, log, where, seed):
    needs_mask = mask is not None and mask.is_floating_point()
    tensors = (x, mask if needs_mask else None)
    function = FUNCTIONS[log]

    def inputs(dtype=None):
        own_x, own_mask = leaves(tensors, dtype)
        return own_x, own_mask if needs_mask else mask

    ours_inputs, own_inputs, oracle_inputs = inputs(), inputs(), inputs(torch.float64)
    with route(where):
        ours = function(ours_inputs[0], mask=ours_inputs[1], scale=scale, causal=causal)
        own = eager(*own_inputs, scale, causal, log)
        oracle = eager(*oracle_inputs, scale, causal, log)
        assert ours.dtype == x.dtype
        assert_close("out", ours, own, oracle)
        grad = random(x.shape, x.dtype, generator=generator(seed + 1))
        grad = grad.masked_fill(oracle == -math.inf, 0.0)
        pairs = [
            gradients(out, [t for t in ins if t is not None and t.requires_grad], grad)
            for out, ins in ((ours, ours_inputs), (own, own_inputs), (oracle, oracle_inputs))
        ]
    terms = gradient_terms(oracle.detach(), grad.double(), log) * max(1.0, abs(scale))
    for name, *triple in zip(("x", "mask"), *pairs, strict=False):
        assert_close(f"gradient of {name}", *triple, terms=terms)


def gradient_terms(out, grad, log):
    """The largest of the two terms whose difference is the gradient: torch's own error in a row of few
    elements may by chance be none, and differs between processors.
    """
    part, weights = (grad, out.exp()) if log else (grad * out, out)
    both = torch.cat([part.flatten(), (weights * part.sum(-1, keepdim=True)).flatten()])
    return both.abs().max().item() if both.numel() else 0.0


@examples(40)
@given(
    leading=st.lists(st.integers(1, 4), max_size=3), columns=st.integers(1, 700), dtype=dtypes,
    layout=layouts, scale=st.sampled_from([1.0, 0.125, -2.0, 0.0]), log=st.booleans(),
    mask=st.sampled_from(["none", "boolean", "additive"]), mask_leading=st.integers(0, 7),
    causal=st.booleans(), where=routes, seed=seeds,
)  # fmt: skip
def test_softmax(leading, columns, dtype, layout, scale, log, mask, mask_leading, causal, where, seed):
    g = generator(seed)
    shape = (*leading, columns)
    x = random(shape, dtype, layout, generator=g, scale=3.0)
    # The mask's leading dimensions: each is the tensor's or 1, some are missing.
    mask_shape = [s if mask_leading >> i & 1 else 1 for i, s in enumerate(leading)] + [columns]
    m = None
    if mask == "boolean":
        m = (torch.rand(mask_shape, generator=g) < 0.7).to(DEVICE)
    elif mask == "additive":
        m = random(mask_shape, dtype, layout, generator=g)
        m = m.masked_fill((torch.rand(mask_shape, generator=g) < 0.2).to(DEVICE), -math.inf)
    check(x, m, scale, causal and bool(leading), log, where, seed)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 1024, 1025, 4096, 5000, 12_289])
def test_row_lengths(columns, dtype, log):
    x = random((2, columns), dtype, generator=generator(columns), scale=2.0)
    check(x, None, 1.5, False, log, "triton", 0)


@pytest.mark.parametrize("log", [False, True])
def test_longest_row(log):
    x = random((1, 262_144), torch.bfloat16, generator=generator(0), scale=2.0)
    mask = (torch.rand(262_144, generator=generator(1)) < 0.5).to(DEVICE)
    check(x, mask, 1.0, False, log, "triton", 0)


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("columns", [5, 1300])
@pytest.mark.parametrize("log", [False, True])
def test_nothing_left_nan_and_infinities(columns, log, where):
    x = random((6, columns), torch.float32, generator=generator(0))
    x[0], x[1, 2], x[2, 1], x[3, 0] = -math.inf, math.nan, math.inf, -math.inf
    with route(where):
        assert_close("no mask", FUNCTIONS[log](x), eager(x, None, 1.0, False, log),
                     eager(x.double(), None, 1.0, False, log))  # fmt: skip
        mask = torch.ones_like(x, dtype=torch.bool)
        mask[4] = False
        mask[5, 1:] = False
        ours = FUNCTIONS[log](x, mask=mask)
    assert_close("mask", ours, eager(x, mask, 1.0, False, log), eager(x.double(), mask, 1.0, False, log))
    assert (ours[4] == (-math.inf if log else 0.0)).all()
    assert ours[5, 0] == (0.0 if log else 1.0)


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0), (1,), (2, 0, 4)])
def test_small_shapes(shape, where):
    check(random(shape, torch.float32, generator=generator(0)), None, 1.0, False, False, where, 0)


def test_mask_of_many_dimensions():
    g = generator(0)
    x = random((2, 3, 2, 3, 5), torch.float32, generator=g)
    mask = random((2, 1, 2, 1, 5), torch.float32, generator=g)
    check(x, mask, 1.0, False, False, "triton", 0)
    check(x, random((2, 1, 2, 3, 5), torch.float32, generator=g), 1.0, False, False, "triton", 0)
