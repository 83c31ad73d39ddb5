"""The gate of a campaign: every kernel with its main features, at real sizes, against float64.

A check runs on fresh memory that holds NaN, twice: a second result that differs is wrong, too. Its error is
the norm of the difference over the norm of the exact result. Allowed is four times what rounding the exact
result to the output's format costs (the kernels round probabilities and gradients of scores once more), or
twice what torch does in the same format where that is more. On a processor the same checks run at tiny sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from budget.kernels.attention import attention, attention_packed
from budget.kernels.attention_cached import attention_cached
from budget.kernels.attention_reference import reference_backward, reference_forward
from budget.kernels.attention_rules import Rules
from budget.kernels.matmul import matmul
from budget.kernels.matmul_reference import reference_matmul

from ..cases import random, torch_dtype

SCORES = 2**27  # in float64 in memory at once: a gigabyte
ROUNDINGS = 4
Outputs = Sequence[torch.Tensor]


class Check(NamedTuple):
    """A kernel's outputs, their exact values, and torch's in the same format where it has the feature."""

    run: Callable[[], Outputs]
    exact: Callable[[], Outputs]
    torchs: Callable[[], Outputs] | None = None


def with_gradients(function, inputs: Sequence[torch.Tensor], grad: torch.Tensor | None) -> Outputs:
    """The output, and where grad is given the inputs' gradients."""
    if grad is None:
        return (function(*inputs),)
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = function(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype)))


def product(
    device, m, n, k, *, activation=None, gated=False, dtype="bfloat16", batch=0, train=False, b_row=False,
    residual=False, biased=True, out_dtype="",
) -> Check:  # fmt: skip
    """matmul with an epilogue; float8 operands have scales."""
    lead, fp8 = ((batch,) if batch else ()), dtype == "float8"
    make = partial(random, device=device, dtype=dtype)
    wide = partial(random, device=device, dtype="bfloat16" if fp8 else dtype)
    weight = lambda: make(*lead, k, n) if b_row else make(*lead, n, k).mT  # noqa: E731 - twice below
    inputs = [make(*lead, m, k), weight()]
    names = ["a", "b"]
    for name, there, tensor in (
        ("bias", biased, lambda: wide(n)),
        ("gate", gated, weight),
        ("residual", residual, lambda: wide(*lead, m, n)),
    ):
        if there:
            names.append(name)
            inputs.append(tensor())
    scales = [torch.rand(size, device=device) + 0.5 for size in (1, n)] if fp8 else [None, None]
    grad = wide(*lead, m, n) if train else None

    def ours(*x):
        more = {"scale_a": scales[0], "scale_b": scales[1]} if fp8 else {}
        more |= {"out_dtype": torch_dtype(out_dtype)} if out_dtype else {}
        return matmul(**dict(zip(names, x, strict=True)), activation=activation, **more)

    def written_out(*x):
        given = {"bias": None, "gate": None, "residual": None} | dict(zip(names, x, strict=True))
        scale = dict(zip(("scale_a", "scale_b"), scales, strict=True))
        return reference_matmul(**given, **scale, activation=activation or "none")[0]

    return Check(
        lambda: with_gradients(ours, inputs, grad),
        lambda: with_gradients(written_out, [t.double() for t in inputs], grad),
        None if fp8 else lambda: with_gradients(_rounded(written_out, out_dtype or dtype), inputs, grad),
    )


def _rounded(function, dtype: str):
    """A reference that computes in float32, its result in dtype."""
    return lambda *x: function(*x).to(torch_dtype(dtype))


def heads(
    device, b, h, s, d, *, t=0, kv=0, causal=False, window=None, softcap=None, bias=False, dtype="bfloat16",
    train=True, strided=False, sinks=False,
) -> Check:  # fmt: skip
    """attention; strided: as a projection leaves it, [batch, seq, heads, head_dim] in memory."""
    t, kv = t or s, kv or h

    def make(heads, length):
        if strided:
            return random(b, length, heads, d, device=device, dtype=dtype).transpose(1, 2)
        return random(b, heads, length, d, device=device, dtype=dtype)

    q, grad, k, v = make(h, s), make(h, s), make(kv, t), make(kv, t)
    more = {"causal": causal, "window": window, "softcap": softcap}
    extra = {"bias": random(1, h, s, t, device=device, dtype=dtype)} if bias else {}
    extra |= {"sinks": random(h, device=device, dtype=dtype)} if sinks else {}
    given = [q, k, v, *extra.values()]
    rules = Rules(causal, window or 0, softcap or 0.0, 1 / math.sqrt(d))
    plain = not (window or softcap or extra or (causal and s != t))

    def ours(q, k, v, *tensors):
        return attention(q, k, v, **dict(zip(extra, tensors, strict=True)), **more)

    def sdpa(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=kv != h)

    return Check(
        lambda: with_gradients(ours, given, grad if train else None),
        lambda: exact_attention(
            q, k, v, extra.get("bias"), grad if train else None, rules, extra.get("sinks")
        ),
        (lambda: with_gradients(sdpa, given, grad if train else None)) if plain else None,
    )


def exact_attention(q, k, v, bias, grad, rules: Rules, sinks=None) -> Outputs:
    """In float64: out, and with grad the gradients of q, k, v (and bias, sinks), by parts that fit."""
    outputs = [torch.empty(t.shape, dtype=torch.float64, device=q.device) for t in (q, q, k, v)]
    dbias, dsinks = (None if t is None else torch.zeros_like(t, dtype=torch.float64) for t in (bias, sinks))
    for batch, rows, keys in _parts(q, k):
        wide = [x[batch, part].double() for x, part in ((q, rows), (k, keys), (v, keys))]
        b = None if bias is None else bias[:, rows].double()
        own = None if sinks is None else sinks[rows].double()
        out, log_sum = reference_forward(*wide, b, rules, own)
        outputs[0][batch, rows] = out
        if grad is not None:
            dout = grad[batch, rows].double()
            *gradients, dz, share = reference_backward(dout, *wide, out, log_sum, b, rules, own)
            for into, part, value in zip(outputs[1:], (rows, keys, keys), gradients, strict=True):
                into[batch, part] = value
            if dbias is not None:
                dbias[:, rows] += dz.sum(0, keepdim=True)
            if dsinks is not None:
                dsinks[rows] += share
    return outputs[:1] if grad is None else outputs + [t for t in (dbias, dsinks) if t is not None]


def cached(device, lengths, h, d, *, kv, capacity, page=0, seq=1, dtype="bfloat16") -> Check:
    """attention_cached with sinks, and a padding key first in each batch entry; page: of a cache in pages."""
    b = len(lengths)
    q, sinks = random(b, h, seq, d, device=device, dtype=dtype), random(h, device=device, dtype=dtype)
    k, v = (random(b, kv, capacity, d, device=device, dtype=dtype) for _ in range(2))
    bias = torch.zeros(b, 1, 1, capacity, device=device, dtype=q.dtype)
    bias[..., :1] = -math.inf
    there, table = torch.tensor(lengths, dtype=torch.int32, device=device), None
    pages = [k, v]
    if page:
        table = torch.randperm(b * capacity // page, device=device).int().view(b, -1)
        pages = [torch.empty_like(t.unflatten(2, (-1, page)).transpose(1, 2).flatten(0, 1)) for t in (k, v)]
        for into, t in zip(pages, (k, v), strict=True):
            into[table.flatten().long()] = t.unflatten(2, (-1, page)).transpose(1, 2).flatten(0, 1)

    def exact():
        rules, parts = Rules(True, 0, 0.0, 1 / math.sqrt(d)), []
        for i, n in enumerate(lengths):
            one = (q[i : i + 1], k[i : i + 1, :, :n], v[i : i + 1, :, :n], bias[i : i + 1, ..., :n])
            parts += exact_attention(*one, None, rules, sinks)
        return [torch.cat(parts)]

    return Check(lambda: (attention_cached(q, *pages, there, table, bias=bias, sinks=sinks),), exact)


def _parts(q: torch.Tensor, k: torch.Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """(batch entries, query heads, key heads) in which the scores fit."""
    group = q.shape[1] // k.shape[1]
    scores = q.shape[2] * k.shape[2]
    batches, kv = max(1, SCORES // (q.shape[1] * scores)), max(1, SCORES // (group * scores))
    for i in range(0, q.shape[0], batches):
        for j in range(0, k.shape[1], kv):
            yield slice(i, i + batches), slice(j * group, (j + kv) * group), slice(j, j + kv)


def packed(device, lengths, h, d, *, kv=0, causal=True, dtype="bfloat16") -> Check:
    """attention_packed of sequences of these lengths, forward and backward."""
    total, kv = sum(lengths), kv or h
    q, grad, k, v = (random(total, n, d, device=device, dtype=dtype) for n in (h, h, kv, kv))
    ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    bounds = torch.tensor(ends, dtype=torch.int32, device=device)
    longest, rules = max(lengths), Rules(causal, 0, 0.0, 1 / math.sqrt(d))

    def exact():
        parts = [
            exact_attention(*(x[a:e].transpose(0, 1)[None] for x in (q, k, v)), None,
                            grad[a:e].transpose(0, 1)[None], rules)
            for a, e in pairwise(ends) if a < e
        ]  # fmt: skip
        return [torch.cat([o.squeeze(0).transpose(0, 1) for o in x]) for x in zip(*parts, strict=True)]

    def ours(q, k, v):
        return attention_packed(q, k, v, bounds, bounds, longest, longest, causal=causal)

    return Check(lambda: with_gradients(ours, [q, k, v], grad), exact)


def verdict(check: Check) -> dict[str, Any]:
    """The largest error of the outputs, what is allowed, and whether a second run gave the same bits."""
    first = [t.detach().clone() for t in check.run()]
    again = check.run()
    same = all(_same(a, b) for a, b in zip(first, again, strict=True))
    exact = check.exact()
    theirs = check.torchs() if check.torchs else [None] * len(exact)
    errors = [_errors(*three) for three in zip(first, exact, theirs, strict=True)]
    right = all(error <= allowed for error, allowed in errors)  # False for NaN
    worst = max(errors, key=lambda pair: pair[0] / pair[1] if pair[0] == pair[0] else math.inf)
    return {
        "right": right, "same": same, "error": worst[0], "allowed": worst[1],
        "output": errors.index(worst), "errors": [e for e, _ in errors],
    }  # fmt: skip


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b) or torch.equal(a.nan_to_num(), b.nan_to_num())


def _errors(ours: torch.Tensor, exact: torch.Tensor, theirs: torch.Tensor | None) -> tuple[float, float]:
    """(the error of ours, what is allowed)."""
    size = max(_norm(exact), 1e-30)
    error = _norm(ours.double().sub_(exact)) / size
    allowed = ROUNDINGS * _norm(exact.to(ours.dtype).double().sub_(exact)) / size
    if ours.dtype == torch.float32:
        allowed += 32 * torch.finfo(torch.float32).eps  # sums of thousands of terms
    if theirs is not None:
        allowed = max(allowed, 2 * _norm(theirs.double().sub_(exact)) / size)
    return error, allowed


def _norm(t: torch.Tensor) -> float:
    return torch.linalg.vector_norm(t).item()
