"""Under torch.autocast the kernels compute in the dtypes in which torch's own functions do."""

import copy

import pytest
import torch
import torch.nn.functional as F
from budget.kernels.attention import attention, attention_packed
from budget.kernels.matmul import matmul
from budget.kernels.modules import swap
from budget.kernels.softmax import cross_entropy, log_softmax, softmax
from cases import DEVICE, assert_close, generator, random, route
from torch import nn

DTYPE = torch.bfloat16


def tensor(*shape, dtype=torch.float32):
    return random(shape, dtype, generator=generator(0))


def autocast(dtype=DTYPE):
    return torch.autocast(DEVICE, dtype=dtype)


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("given", [torch.float32, torch.float16])
def test_products_are_in_autocasts_dtype(given, where):
    a, b, bias = tensor(5, 40, dtype=given), tensor(6, 40, dtype=given), tensor(6, dtype=given)
    q = tensor(1, 2, 20, 32, dtype=given)
    with route(where), autocast():
        ours, theirs = matmul(a, b.mT, bias=bias), F.linear(a, b, bias)
        attended, torchs = attention(q, k=q, v=q), F.scaled_dot_product_attention(q, q, q)
    assert ours.dtype == theirs.dtype == DTYPE
    # Float32 sums of rounded operands, rounded once: exactly what a call in that dtype gives.
    with route(where):
        assert torch.equal(ours, matmul(a.to(DTYPE), b.mT.to(DTYPE), bias.to(DTYPE)))
    assert attended.dtype == torchs.dtype == DTYPE
    assert_close("attention", attended, torchs, F.scaled_dot_product_attention(*[q.to(DTYPE).double()] * 3))


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_softmax_stays_exact(where):
    x, target = tensor(4, 9, dtype=DTYPE), torch.tensor([0, 1, 2, 8], device=DEVICE)
    with route(where), autocast():
        assert softmax(x).dtype == torch.softmax(x, -1).dtype
        assert log_softmax(x).dtype == torch.log_softmax(x, -1).dtype
        assert cross_entropy(x, target).dtype == torch.float32
        torch.testing.assert_close(softmax(x.float()), torch.softmax(x.float(), -1))


def test_packed_and_float8_and_switched_off():
    q = tensor(8, 2, 16)
    bounds = torch.tensor([0, 8], dtype=torch.int32, device=DEVICE)
    a = tensor(4, 16).to(torch.float8_e4m3fn)
    scale = torch.ones(1, device=DEVICE)
    with autocast():
        assert attention_packed(q, q, q, bounds, bounds, 8, 8).dtype == DTYPE
        assert matmul(a, a.mT, scale_a=scale, out_dtype=torch.float32).dtype == torch.float32
        with torch.autocast(DEVICE, enabled=False):
            assert matmul(q, q.mT).dtype == torch.float32


def test_swapped_models_train_as_the_original_does():
    layer = nn.TransformerEncoderLayer(32, 2, 48, dropout=0.0, batch_first=True, device=DEVICE)
    model = nn.Sequential(layer, nn.Linear(32, 8), nn.GELU()).to(DEVICE)
    swapped = swap(copy.deepcopy(model))
    x = tensor(2, 7, 32)
    outputs = []
    for each in (model, swapped):
        with autocast():
            outputs.append(each(x))
        outputs[-1].float().square().sum().backward()
    assert outputs[0].dtype == outputs[1].dtype == DTYPE
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0.03, atol=0.03)
    for ours, theirs in zip(swapped.parameters(), model.parameters(), strict=True):
        assert ours.grad.dtype == torch.float32
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=0.05, atol=0.05 * theirs.grad.abs().max().item()
        )


def test_compiled_in_one_graph():
    a, b = tensor(5, 40), tensor(40, 6)

    def function(a, b):
        with autocast():
            return matmul(a, b, activation="gelu")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, b), function(a, b))
