"""Checks of arguments, shared by all public functions of attention."""

import math

import torch

from . import checks
from .attention_rules import Rules

MIN_HEAD_DIM, MAX_HEAD_DIM = 16, 256


def check_heads(q, k, v, dims):
    """Raise TypeError or ValueError unless q, k and v go together, of so many dimensions."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        checks.require_tensor(name, tensor)
        if tensor.ndim != dims:
            raise ValueError(f"{name}: expected {dims} dimensions, got {tensor.ndim}")
        checks.require_like(name, tensor, "q", q)
    head_dim = q.shape[-1]
    if not (MIN_HEAD_DIM <= head_dim <= MAX_HEAD_DIM):
        raise ValueError(f"q: head dimension {head_dim} is not from {MIN_HEAD_DIM} to {MAX_HEAD_DIM}")
    if k.shape[-1] != head_dim:
        raise ValueError(f"k: head dimension {k.shape[-1]} is not q's {head_dim}")
    if k.shape != v.shape:
        raise ValueError(f"v: shape {tuple(v.shape)} is not k's {tuple(k.shape)}")
    heads, kv_heads = q.shape[-3 if dims == 4 else -2], k.shape[-3 if dims == 4 else -2]
    if not (kv_heads > 0 and heads % kv_heads == 0):
        raise ValueError(f"k: {kv_heads} heads do not divide q's {heads}")


def check_bias(bias, q, keys):
    """bias in 4 dimensions; raise TypeError or ValueError unless it fits [batch, heads, seq, keys]."""
    if bias is None:
        return None
    checks.require_tensor("bias", bias, (torch.float32, q.dtype))
    checks.require_device("bias", bias, "q", q)
    checks.require_broadcast("bias", bias, (*q.shape[:3], keys))
    return bias if bias.ndim == 4 else bias[(None,) * (4 - bias.ndim)]


def check_sinks(q, sinks):
    """sinks, contiguous; raise TypeError or ValueError unless they are numbers for q's heads."""
    if sinks is None:
        return None
    checks.require_tensor("sinks", sinks, (torch.float32, q.dtype))
    checks.require_device("sinks", sinks, "q", q)
    checks.require(
        sinks.shape == q.shape[1:2], f"sinks: expected shape ({q.shape[1]},), got {tuple(sinks.shape)}"
    )
    return sinks.contiguous()


def check_rules(q, causal, window, softcap, scale) -> Rules:
    """The rules in the kernels' form; raise TypeError or ValueError for rules that they do not support."""
    checks.require_bool("causal", causal)
    if window is not None:
        checks.require_int("window", window, at_least=1)
    if softcap is not None:
        softcap = checks.require_number("softcap", softcap)
        if softcap <= 0:
            raise ValueError(f"softcap: expected a positive number, got {softcap}")
    if scale is not None:
        scale = checks.require_number("scale", scale)
        if scale <= 0:
            raise ValueError(f"scale: expected a positive number, got {scale}")
    return Rules(causal, window or 0, softcap or 0.0, scale or 1 / math.sqrt(q.shape[-1]))
