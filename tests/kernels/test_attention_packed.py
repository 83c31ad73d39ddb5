"""Packed sequences: their ends, and what stays in one of them."""

import math

import pytest
import torch
from budget.kernels.attention import attention_packed
from cases import (
    DEVICE,
    generator,
    gradients,
    leaves,
    random,
    route,
)


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_rows_after_the_last_sequence_are_zeros(where):
    """And have no share in the sinks' gradient."""
    g = generator(0)
    tensors = [random((90, 2, 32), torch.float32, generator=g) for _ in range(3)]
    sinks = random((2,), torch.float32, generator=g)
    bounds = torch.tensor([0, 20, 50], dtype=torch.int32, device=DEVICE)
    with route(where):
        padded, exact = leaves([*tensors, sinks]), leaves([*(t[:50] for t in tensors), sinks])
        out, expected = (attention_packed(*t, bounds, bounds, 30, 30, sinks=s) for *t, s in (padded, exact))
        found = gradients(out, padded, torch.ones_like(out))
        wanted = gradients(expected, exact, torch.ones_like(expected))
    torch.testing.assert_close(found.pop(), wanted.pop())
    for ours, theirs in zip((out, *found), (expected, *wanted), strict=True):
        assert torch.equal(ours[:50], theirs)
        assert (ours[50:] == 0).all()


def test_a_sequence_longer_than_stated_is_cut_off():
    q = random((60, 2, 32), torch.float32, generator=generator(0))
    bounds = torch.tensor([0, 60], dtype=torch.int32, device=DEVICE)
    out = attention_packed(q, q, q, bounds, bounds, 32, 60)
    assert (out[:32] != 0).all()
    assert (out[32:] == 0).all()


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_nan_stays_in_its_sequence_and_head(where):
    g = generator(0)
    q, k, v = (random((60, 2, 32), torch.float32, generator=g) for _ in range(3))
    k[:20, 0], v[:20, 0] = math.nan, math.nan
    bounds = torch.tensor([0, 20, 60], dtype=torch.int32, device=DEVICE)
    with route(where):
        out = attention_packed(q, k, v, bounds, bounds, 40, 40)
    assert out[:20, 0].isnan().all()
    assert out[:20, 1].isfinite().all()
    assert out[20:].isfinite().all()
