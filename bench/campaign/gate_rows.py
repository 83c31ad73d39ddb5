"""The gate's checks of kernels that work by rows: softmax, losses, norms, rotations."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from budget.kernels.linear_cross_entropy import linear_cross_entropy
from budget.kernels.rms_norm import add_rms_norm, rms_norm
from budget.kernels.rope import rope
from budget.kernels.softmax import cross_entropy, log_softmax, softmax

from ..cases import random, torch_dtype
from .gate import Check, with_gradients


def rows(device, *shape, log=False, masked=False, dtype="bfloat16") -> Check:
    """softmax or log_softmax, forward and backward; masked: causal, with a mask of the last dimension."""
    x, grad = (random(*shape, device=device, dtype=dtype) for _ in range(2))
    mask = random(shape[0], *[1] * (len(shape) - 2), shape[-1], device=device) > -1 if masked else None
    ours, torchs = (log_softmax, F.log_softmax) if log else (softmax, F.softmax)

    def written_out(z):
        if masked:
            seen = mask & torch.ones(shape[-2:], dtype=torch.bool, device=device).tril(shape[-1] - shape[-2])
            z = z.masked_fill(~seen, torch.finfo(z.dtype).min)
            return torchs(z, -1).masked_fill(~seen, 0.0)
        return torchs(z, -1)

    return Check(
        lambda: with_gradients(lambda z: ours(z, mask=mask, causal=masked), [x], grad),
        lambda: with_gradients(written_out, [x.double()], grad),
        lambda: with_gradients(written_out, [x], grad),
    )


def losses(device, b, v, *, smoothing=0.0, dtype="bfloat16") -> Check:
    """cross_entropy a row, forward and backward, with some rows ignored."""
    x, grad = random(b, v, device=device, dtype=dtype), random(b, device=device).abs()
    target = torch.randint(v, (b,), device=device)
    target[::7] = -100
    more = {"label_smoothing": smoothing, "reduction": "none"}
    theirs = lambda z: F.cross_entropy(z, target, **more)  # noqa: E731 - three times below
    return Check(
        lambda: with_gradients(lambda z: cross_entropy(z, target, **more), [x], grad),
        lambda: with_gradients(theirs, [x.double()], grad),
        lambda: with_gradients(lambda z: theirs(z.float()), [x], grad),
    )


def head_losses(device, b, d, v, *, softcap=None, biased=False, smoothing=0.0, dtype="bfloat16") -> Check:
    """linear_cross_entropy a token, forward and backward, with some tokens ignored."""
    make = partial(random, device=device, dtype=dtype)
    given = [make(b, d), make(v, d) * d**-0.5] + ([make(v)] if biased else [])
    grad, target = random(b, device=device).abs(), torch.randint(v, (b,), device=device)
    target[::7] = -100
    more = {"label_smoothing": smoothing, "reduction": "none"}

    def theirs(x, weight, bias=None):
        z = F.linear(x, weight, bias)
        z = z.to(torch.promote_types(torch.float32, z.dtype))
        z = softcap * torch.tanh(z / softcap) if softcap else z
        return F.cross_entropy(z, target, **more)

    def ours(x, weight, bias=None):
        return linear_cross_entropy(x, weight, target, bias, softcap=softcap, **more)

    return Check(
        lambda: with_gradients(ours, given, grad),
        lambda: with_gradients(theirs, [t.double() for t in given], grad),
        lambda: with_gradients(theirs, given, grad),
    )


def norm(device, s, d, *, added=False, offset=0.0, dtype="bfloat16") -> Check:
    """rms_norm, or with the residual added before it, forward and backward."""
    x, weight, residual, grad = (
        random(*n, device=device, dtype=dtype) for n in ((s, d), (d,), (s, d), (s, d))
    )
    given = [x, weight, residual] if added else [x, weight]

    def ours(x, weight, residual=None):
        if residual is None:
            return rms_norm(x, weight, offset=offset)
        return add_rms_norm(x, residual, weight, offset=offset)[0]

    def theirs(x, weight, residual=None):
        total = x if residual is None else x + residual
        if residual is not None and x.dtype == torch.float64:  # what is normed is the sum as it is stored
            total = total + ((total.detach().to(torch_dtype(dtype)).double()) - total.detach())
        return F.rms_norm(total, (d,), weight + offset, 1e-6)

    return Check(
        lambda: with_gradients(ours, given, grad),
        lambda: with_gradients(theirs, [t.double() for t in given], grad),
        lambda: with_gradients(theirs, given, grad),
    )


def rotation(
    device, b, h, s, k, *, interleaved=False, rotated=0, by_position=False, dtype="bfloat16"
) -> Check:
    """rope of heads as a projection leaves them, forward and backward; rotated: how many elements (all)."""
    x, grad = (random(b, s, h, k, device=device, dtype=dtype).transpose(1, 2) for _ in range(2))
    r = (rotated or k) // 2
    angles = torch.arange(s, device=device)[:, None] * 1e4 ** (-torch.arange(r, device=device) / r)
    table, positions = (angles.cos(), angles.sin()), None
    if by_position:
        positions = torch.randint(s, (b, s), device=device)
    cos, sin = (t if positions is None else t[positions].unsqueeze(1) for t in table)

    def theirs(x):
        turning, rest = x[..., : 2 * r], x[..., 2 * r :]
        a, b = turning.unflatten(-1, (r, 2)).unbind(-1) if interleaved else turning.chunk(2, -1)
        turned = a * cos - b * sin, a * sin + b * cos
        out = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
        return torch.cat((out, rest), -1)

    return Check(
        lambda: with_gradients(lambda x: rope(x, *table, positions, interleaved=interleaved), [x], grad),
        lambda: with_gradients(theirs, [x.double()], grad),
    )
