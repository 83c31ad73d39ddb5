"""Checks of how kernels are called: inside torch.compile, captured in a CUDA graph, by transformers."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from budget.kernels.attention import attention
from budget.kernels.attention_cached import attention_cached
from budget.kernels.matmul import matmul
from budget.kernels.rms_norm import rms_norm
from budget.kernels.rope import rope
from budget.kernels.softmax import cross_entropy, softmax

from ..cases import compiled, random
from .gate import Check


def _check(function, exact, inputs, wrap) -> Check:
    """The check of a wrapped function, with the exact result for the same inputs in float64."""
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


def graphed_decode(device, b, h, t, k) -> Check:
    """attention_cached in a CUDA graph, whose caches have grown in the second run since it was captured."""
    inputs = [
        random(b, n, s, k, device=device, dtype="bfloat16") for n, s in ((h, 1), (h // 4, t), (h // 4, t))
    ]
    lengths = torch.full((b,), t // 2, dtype=torch.int32, device=device)

    def ours(*x):
        return attention_cached(*x, lengths)

    def wrap(function, inputs):
        replay = _capture(function, inputs)
        lengths.fill_(t - 3)
        return replay

    def exact(q, key, value):
        return F.scaled_dot_product_attention(q, key[:, :, : t - 3], value[:, :, : t - 3], enable_gqa=True)

    return _check(ours, exact, inputs, wrap)


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


def graphed_norm(device, *shape) -> Check:
    """rms_norm in a CUDA graph."""
    inputs = [random(*shape, device=device, dtype="bfloat16") for shape in (shape, shape[-1:])]
    exact = lambda x, weight: F.rms_norm(x, x.shape[-1:], weight, 1e-6)  # noqa: E731 - passed on
    return _check(rms_norm, exact, inputs, _capture)


def graphed_rotation(device, b, h, s, k) -> Check:
    """rope in a CUDA graph."""
    angles = torch.arange(s, device=device)[:, None] * 1e4 ** (-torch.arange(k // 2, device=device) * 2 / k)
    inputs = [random(b, h, s, k, device=device, dtype="bfloat16"), angles.cos(), angles.sin()]

    def exact(x, cos, sin):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    return _check(rope, exact, inputs, _capture)


def llama(device, b, s, *, window=None, padded=False) -> Check:
    """A small Llama (with a window a Mistral) on our attention: gradients of the first layer."""
    import transformers
    from budget.kernels.transformers_attention import register

    register()
    sizes = {
        "vocab_size": 1000, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 4, "use_cache": False,
    }  # fmt: skip
    kind = "Mistral" if window else "Llama"
    more = {"sliding_window": window} if window else {}
    config = getattr(transformers, f"{kind}Config")(**sizes, **more)
    network = getattr(transformers, f"{kind}ForCausalLM")(config).to(device, torch.bfloat16)
    ids = torch.randint(1000, (b, s), device=device)
    mask, labels = None, ids
    if padded:
        mask = torch.ones_like(ids)
        mask[0, : s // 3] = 0
        labels = ids.masked_fill(mask == 0, -100)

    def run(net, implementation):
        net.set_attn_implementation(implementation)
        loss = net(input_ids=ids, attention_mask=mask, labels=labels).loss
        layer = net.model.layers[0].self_attn
        return torch.autograd.grad(loss, [layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight])

    def exact():
        return run(copy.deepcopy(network).double(), "sdpa")

    return Check(lambda: run(network, "budget"), exact, lambda: run(network, "sdpa"))
