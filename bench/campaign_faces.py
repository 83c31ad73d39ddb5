"""Checks of how kernels are called: inside torch.compile, and captured in a CUDA graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.kernels.attention import attention
from budget.kernels.matmul import matmul
from budget.kernels.softmax import cross_entropy, softmax

from .campaign_gate import Check
from .cases import compiled, random


def _check(function, exact, inputs, wrap) -> Check:
    """function as wrap makes it callable; the exact result of the same inputs in float64."""
    held: list = []  # compiled and captured once, at the first run

    def run():
        if not held:
            held.append(wrap(function, inputs))
        return (held[0](*inputs).clone(),)

    return Check(run, lambda: (exact(*(x.double() for x in inputs)),))


def _compile(function, inputs):
    return compiled(function) if inputs[0].device.type == "cuda" else function


def _capture(function, inputs):
    if inputs[0].device.type != "cuda":
        return function
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        function(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function(*inputs)

    def replayed(*_):
        out.fill_(float("nan"))
        graph.replay()
        return out

    return replayed


def _attention(device, shape, wrap) -> Check:
    inputs = [random(*shape, device=device, dtype="bfloat16") for _ in range(3)]
    exact = lambda *x: F.scaled_dot_product_attention(*x, is_causal=True)  # noqa: E731 - passed on
    return _check(lambda *x: attention(*x, causal=True), exact, inputs, wrap)


def _matmul(device, m, n, k, wrap) -> Check:
    inputs = [random(*s, device=device, dtype="bfloat16") for s in ((m, k), (n, k), (n,))]
    ours = lambda x, w, b: matmul(x, w.mT, b, activation="gelu")  # noqa: E731 - passed on
    return _check(ours, lambda x, w, b: F.gelu(F.linear(x, w, b)), inputs, wrap)


def compiled_attention(device, *shape) -> Check:
    """attention inside torch.compile."""
    return _attention(device, shape, _compile)


def graphed_attention(device, *shape) -> Check:
    """attention in a CUDA graph."""
    return _attention(device, shape, _capture)


def compiled_matmul(device, m, n, k) -> Check:
    """matmul with GELU inside torch.compile."""
    return _matmul(device, m, n, k, _compile)


def graphed_matmul(device, m, n, k) -> Check:
    """matmul with GELU in a CUDA graph."""
    return _matmul(device, m, n, k, _capture)


def compiled_softmax(device, *shape) -> Check:
    """softmax inside torch.compile."""
    inputs = [random(*shape, device=device, dtype="bfloat16")]
    return _check(softmax, lambda x: torch.softmax(x, -1), inputs, _compile)


def graphed_loss(device, b, v) -> Check:
    """cross_entropy in a CUDA graph."""
    target = torch.randint(v, (b,), device=device)
    inputs = [random(b, v, device=device, dtype="bfloat16")]
    ours = lambda x: cross_entropy(x, target, reduction="none")  # noqa: E731 - passed on
    return _check(ours, lambda x: F.cross_entropy(x, target, reduction="none"), inputs, _capture)
