"""Attention in plain torch, forward and backward: what the kernels compute, written out.

In float32, or in float64 for float64 tensors, which makes it its own oracle.
"""

import itertools
import math

import torch

from .attention_rules import Packing, Rules, sink_gradient


def visible(seq_q: int, seq_k: int, rules: Rules, device: torch.device) -> torch.Tensor:
    """True where query i sees key j, [seq_q, seq_k]; positions are aligned at the end."""
    query = torch.arange(seq_q, device=device)[:, None] + seq_k - seq_q
    distance = query - torch.arange(seq_k, device=device)[None, :]
    seen = torch.ones(seq_q, seq_k, dtype=torch.bool, device=device)
    if rules.causal:
        seen &= distance >= 0
    if rules.window:
        seen &= distance.abs() < rules.window
    return seen


def _repeat_heads(kv: torch.Tensor, heads: int) -> torch.Tensor:
    return kv.repeat_interleave(heads // kv.shape[1], dim=1)


def _logits(q, k, bias, rules):
    """(logits, the slope of the soft cap)."""
    z = q @ _repeat_heads(k, q.shape[1]).mT * rules.scale
    slope = torch.ones_like(z)
    if rules.softcap:
        capped = torch.tanh(z / rules.softcap)
        z, slope = rules.softcap * capped, 1 - capped.square()
    if bias is not None:
        z = z + bias
    return z.masked_fill(~visible(*z.shape[-2:], rules, z.device), -math.inf), slope


def reference_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    rules: Rules,
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, base-2 log of the sum of exponentials); zeros and +inf where nothing is seen, and no sink."""
    compute = torch.promote_types(torch.float32, q.dtype)
    z, _ = _logits(q.to(compute), k.to(compute), bias, rules)
    log_sum = z.logsumexp(-1)
    if sinks is not None:
        log_sum = torch.logaddexp(log_sum, sinks.to(compute)[:, None])
    log_sum = log_sum.masked_fill(log_sum == -math.inf, math.inf)
    p = (z - log_sum.unsqueeze(-1)).exp()
    out = p @ _repeat_heads(v.to(compute), q.shape[1])
    return out, log_sum / math.log(2)


def reference_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    bias: torch.Tensor | None,
    rules: Rules,
    sinks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(dq, dk, dv, dz, dsinks), dz the gradient of the logits after bias, [batch, heads, seq_q, seq_k]."""
    compute = torch.promote_types(torch.float32, q.dtype)
    dout, q, k, v, out = (t.to(compute) for t in (dout, q, k, v, out))
    heads, kv_heads = q.shape[1], k.shape[1]
    z, slope = _logits(q, k, bias, rules)
    p = (z - log_sum.unsqueeze(-1) * math.log(2)).exp()
    delta = (out * dout).sum(-1, keepdim=True)
    dz = p * (dout @ _repeat_heads(v, heads).mT - delta)
    scaled = dz * slope * rules.scale

    def summed_over_group(x):
        return x.unflatten(1, (kv_heads, heads // kv_heads)).sum(2)

    dq = scaled @ _repeat_heads(k, heads)
    dsinks = None if sinks is None else sink_gradient(sinks, log_sum, delta.squeeze(-1))
    return dq, summed_over_group(scaled.mT @ q), summed_over_group(p.mT @ dout), dz, dsinks


def unpack(packing: Packing) -> list[tuple[slice, slice]]:
    """The (query rows, key rows) of every packed sequence."""
    rows, keys = (
        [slice(*pair) for pair in itertools.pairwise(bounds.tolist())]
        for bounds in (packing.cu_seqlens_q, packing.cu_seqlens_k)
    )
    return list(zip(rows, keys, strict=True))
