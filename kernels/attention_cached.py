"""Attention over a cache of keys and values with room for more than it has: generation, step by step.

The number of keys in the cache is a tensor, so that no shape changes from step to step: one CUDA graph serves
all steps. A batch entry's cache is one piece, or pages that a table names. The kernel is that of decoding.
"""

import torch
from torch.utils.flop_counter import register_flop_formula

from . import checks
from .attention_checks import check_bias, check_heads, check_rules, check_sinks
from .attention_decode import MAX_ROWS, launch_decode
from .attention_reference import reference_forward
from .attention_rules import Rules
from .autocast import autocast
from .operators import operator
from .settings import runs_triton

__all__ = ["attention_cached"]


@autocast()
def attention_cached(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor | None = None,
    *,
    causal: bool = True,
    window: int | None = None,
    bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """attention() over the first lengths[b] keys of each batch entry's cache; shape and dtype of q.

    q: [batch, heads, seq, head_dim], the last positions: query i stands at key lengths[b] + i - seq. Its own
        key and value are in the cache and counted. seq x heads / kv_heads is at most 64.
    k, v: [batch, kv_heads, capacity, head_dim]; with a table, [pages, kv_heads, page_size, head_dim].
    lengths: int32, [batch], from 0 to the capacity. table: int32, [batch, n]: the page that holds keys
        i page_size to (i + 1) page_size of an entry; the capacity is n page_size.
    bias: broadcasts to [batch, heads, seq, capacity]. Lengths and pages that do not exist raise ValueError on
    the CPU; on a GPU, where a check would cost a synchronization, a longer length is cut off, and a page must
    exist. The rest as in attention(). There is no gradient: q, k and v that require one raise ValueError.
    """
    _check(q, k, v, lengths, table)
    rules = check_rules(q, causal, window, softcap, scale)
    bias, sinks = check_bias(bias, q, _capacity(k, table)), check_sinks(q, sinks)
    return _attention_cached(q, k, v, lengths, table, bias, sinks, *rules)


def _capacity(k, table):
    """The number of keys for which a batch entry's cache has room."""
    return k.shape[2] if table is None else table.shape[1] * k.shape[2]


def _check(q, k, v, lengths, table):
    check_heads(q, k, v, dims=4)
    for name, t in (("q", q), ("k", k), ("v", v)):
        wanted = torch.is_grad_enabled() and t.requires_grad
        checks.require(not wanted, f"{name}: attention_cached has no gradient; attention has")
        checks.require(t.stride(-1) == 1, f"{name}: the last dimension must be contiguous")
    rows = q.shape[2] * (q.shape[1] // k.shape[1])
    checks.require(
        rows <= MAX_ROWS, f"q: {rows} queries share a key head, more than {MAX_ROWS}; use attention"
    )
    checks.require_tensor("lengths", lengths, (torch.int32,))
    checks.require_device("lengths", lengths, "q", q)
    batch = q.shape[0]
    checks.require(lengths.shape == (batch,), f"lengths: shape {tuple(lengths.shape)} is not ({batch},)")
    if table is None:
        checks.require(k.shape[0] == batch, f"k: batch {k.shape[0]} is not q's {batch}")
        return
    checks.require_tensor("table", table, (torch.int32,))
    checks.require_device("table", table, "q", q)
    checks.require(
        table.ndim == 2 and table.shape[0] == batch, f"table: expected ({batch}, n), got {tuple(table.shape)}"
    )


def _require_contents(k, lengths, table):
    if lengths.device.type != "cpu":
        return
    capacity = _capacity(k, table)
    inside = bool(((lengths >= 0) & (lengths <= capacity)).all())
    checks.require(inside, f"lengths: a length is not from 0 to {capacity}")
    if table is not None:
        used = torch.arange(table.shape[1]) * k.shape[2] < lengths[:, None]
        inside = bool(((table >= 0) & (table < k.shape[0]) | ~used).all())
        checks.require(inside, f"table: a page is not from 0 to {k.shape[0] - 1}")


@operator("attention_cached")
def _attention_cached(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor | None,
    bias: torch.Tensor | None,
    sinks: torch.Tensor | None,
    causal: bool,
    window: int,
    softcap: float,
    scale: float,
) -> torch.Tensor:
    _require_contents(k, lengths, table)
    rules = Rules(causal, window, softcap, scale)
    out = q.new_empty(q.shape)
    capacity = _capacity(k, table)
    if out.numel() == 0 or capacity == 0:
        return out.zero_()
    if runs_triton(q):
        log_sum = q.new_empty(q.shape[:3], dtype=torch.float32)
        table = None if table is None else table.contiguous()
        bias = None if bias is None else bias.expand(*q.shape[:3], capacity)
        launch_decode(q, k, v, bias, sinks, out, log_sum, rules, lengths.contiguous(), table)
        return out
    for i, length in enumerate(lengths.tolist()):
        keys, values = (_entry(t, table, i)[:, :, :length] for t in (k, v))
        own = None if bias is None else bias.expand(q.shape[0], *bias.shape[1:])[i : i + 1, ..., :length]
        out[i : i + 1] = reference_forward(q[i : i + 1], keys, values, own, rules, sinks)[0]
    return out


def _entry(cache: torch.Tensor, table: torch.Tensor | None, i: int) -> torch.Tensor:
    """A batch entry's cache in one piece, [1, kv_heads, capacity, head_dim]."""
    if table is None:
        return cache[i : i + 1]
    pages = cache[table[i].long().clamp(0, cache.shape[0] - 1)]  # an entry that is not used may be anything
    return pages.transpose(0, 1).flatten(1, 2).unsqueeze(0)


@_attention_cached.register_fake
def _(q, k, v, lengths, table, bias, sinks, causal, window, softcap, scale):
    return q.new_empty(q.shape)


@register_flop_formula(torch.ops.budget.attention_cached, get_raw=True)
def attention_cached_flops(q, k, v, lengths, table, *_, out_val=None, **__) -> int:
    """Two products with the keys in the cache; on a GPU and on meta, with as many as it has room for."""
    if isinstance(lengths, torch.Tensor) and lengths.device.type == "cpu":
        keys = int(lengths.sum())
    else:
        keys = lengths.shape[0] * k.shape[2] * (1 if table is None else table.shape[1])
    return 4 * q.shape[1] * q.shape[2] * q.shape[3] * keys
