"""Attention that never writes its scores to memory: the face of the kernels beside it.

attention_forward.py, attention_backward.py and attention_decode.py hold the Triton code,
attention_tile.py what they share, attention_reference.py the same in plain torch.
"""

import math

import torch
from torch.utils.flop_counter import register_flop_formula

from . import checks
from .attention_backward import launch_backward
from .attention_checks import check_bias, check_heads, check_rules, check_sinks
from .attention_decode import decodes, launch_decode
from .attention_forward import launch_forward
from .attention_reference import reference_backward, reference_forward, unpack
from .attention_rules import Packing, Rules, row_numbers
from .autocast import autocast
from .operators import operator
from .settings import runs_triton

__all__ = ["attention", "attention_packed"]


@autocast()
def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """softmax(softcap(q k^T * scale) + bias) v, shape and dtype of q.

    q: [batch, heads, seq, head_dim]; k, v: [batch, kv_heads, kv_seq, head_dim], where kv_heads
        divides heads (grouped and multi-query heads). float16, bfloat16 or float32, head_dim
        from 16 to 256, any strides with a contiguous head_dim (others are copied).
    Positions are aligned at the end: query i stands at key position p = i + kv_seq - seq.
    causal: p sees the keys up to p.
    window: p sees the keys nearer than window: p - window < j, and j < p + window if not causal.
    bias: broadcasts to [batch, heads, seq, kv_seq]; q's dtype or float32.
    sinks: [heads], q's dtype or float32: each head's logit of a key that has no value and that all queries
        see, as in gpt-oss. Neither scale nor softcap touch it.
    softcap: logits become softcap * tanh(logits / softcap), before the bias.
    scale: positive, 1 / sqrt(head_dim) by default.
    A query that sees no key gives zeros. Few queries over many keys are split over the keys.
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device, a number out of range).
    """
    check_heads(q, k, v, dims=4)
    if q.shape[0] != k.shape[0]:
        raise ValueError(f"k: batch {k.shape[0]} is not q's {q.shape[0]}")
    rules = check_rules(q, causal, window, softcap, scale)
    bias = check_bias(bias, q, k.shape[2])
    return _attention(q, k, v, bias, check_sinks(q, sinks), None, None, 0, 0, *rules)[0]


@autocast()
def attention_packed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    longest_q: int,
    longest_k: int,
    *,
    causal: bool = False,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """attention() of sequences of different lengths, one after the other without padding.

    q: [rows, heads, head_dim]; k, v: [kv_rows, kv_heads, head_dim].
    cu_seqlens_q, cu_seqlens_k: int32, [sequences + 1]; sequence i is the rows from
        cu_seqlens[i] to cu_seqlens[i + 1], the first from row 0 on. Rows after the last one
        belong to none: their output and gradients are zeros.
    longest_q, longest_k: the longest sequence, or an upper bound (a longer sequence is cut off,
        and the rest of it gives zeros).
    The rest as in attention().
    """
    check_heads(q, k, v, dims=3)
    rules = check_rules(q, causal, window, softcap, scale)
    for name, cu_seqlens in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        checks.require_tensor(name, cu_seqlens, (torch.int32,))
        checks.require_device(name, cu_seqlens, "q", q)
        if not (cu_seqlens.ndim == 1 and cu_seqlens.numel() >= 1):
            raise ValueError(f"{name}: expected shape [sequences + 1], got {tuple(cu_seqlens.shape)}")
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"cu_seqlens_k: {cu_seqlens_k.numel()} entries, cu_seqlens_q has {cu_seqlens_q.numel()}"
        )
    for name, value in (("longest_q", longest_q), ("longest_k", longest_k)):
        checks.require_int(name, value, at_least=0)
    q4, k4, v4 = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    packing = (cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous(), longest_q, longest_k)
    out, _ = _attention(q4, k4, v4, None, check_sinks(q4, sinks), *packing, *rules)
    return out.squeeze(0).transpose(0, 1)


def _like(t: torch.Tensor) -> torch.Tensor:
    """An empty tensor of t's shape, in memory as [.., heads, seq, ..] or [.., seq, heads, ..]."""
    if not t.is_contiguous() and t.transpose(1, 2).is_contiguous():
        return t.new_empty(t.transpose(1, 2).shape).transpose(1, 2)
    return t.new_empty(t.shape)


def _with_rows(t: torch.Tensor) -> torch.Tensor:
    """t with a contiguous head dimension."""
    return t if t.stride(-1) == 1 else t.contiguous()


def _expanded(bias: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor | None:
    return None if bias is None else bias.expand(*q.shape[:3], k.shape[2])


def _packing(cu_seqlens_q, cu_seqlens_k, longest_q, longest_k) -> Packing | None:
    if cu_seqlens_q is None:
        return None
    return Packing(cu_seqlens_q, cu_seqlens_k, longest_q, longest_k)


@operator("attention")
def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    sinks: torch.Tensor | None,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    longest_q: int,
    longest_k: int,
    causal: bool,
    window: int,
    softcap: float,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, base-2 log of the sum of exponentials [batch, heads, seq])."""
    rules = Rules(causal, window, softcap, scale)
    packing = _packing(cu_seqlens_q, cu_seqlens_k, longest_q, longest_k)
    out, log_sum = _like(q), row_numbers(q)
    if packing is not None and sinks is not None:
        log_sum.fill_(math.inf)  # the sinks' gradient reads all rows, also those of no sequence
    if runs_triton(q):
        q, k, v = (_with_rows(t) for t in (q, k, v))
        bias = _expanded(bias, q, k)
        if packing is None and decodes(q, k):
            launch_decode(q, k, v, bias, sinks, out, log_sum, rules)
        else:
            launch_forward(q, k, v, bias, sinks, packing, out, log_sum, rules)
        return out, log_sum
    if packing is not None:
        out.zero_()
    for rows, keys in [(slice(None), slice(None))] if packing is None else unpack(packing):
        part = reference_forward(q[:, :, rows], k[:, :, keys], v[:, :, keys], bias, rules, sinks)
        out[:, :, rows], log_sum[:, :, rows] = part
    return out, log_sum


@_attention.register_fake
def _(q, k, v, bias, sinks, cu_q, cu_k, longest_q, longest_k, causal, window, softcap, scale):
    return _like(q), row_numbers(q)


@operator("attention_backward")
def _attention_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    bias: torch.Tensor | None,
    sinks: torch.Tensor | None,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    longest_q: int,
    longest_k: int,
    causal: bool,
    window: int,
    softcap: float,
    scale: float,
    needs_bias: bool,
    needs_sinks: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(dq, dk, dv, and where needed the bias's and the sinks' gradients in float32)."""
    rules = Rules(causal, window, softcap, scale)
    packing = _packing(cu_seqlens_q, cu_seqlens_k, longest_q, longest_k)
    gradients = _empty_gradients(q, k, v, bias if needs_bias else None, sinks if needs_sinks else None)
    dq, dk, dv, dbias, dsinks = gradients
    if runs_triton(q):
        tensors = (_with_rows(t) for t in (dout, q, k, v, out))
        wanted = (dbias if needs_bias else None, dsinks if needs_sinks else None)
        bias = _expanded(bias, q, k)
        launch_backward(*tensors, log_sum, bias, sinks, packing, dq, dk, dv, *wanted, rules)
        return gradients
    if packing is not None:
        for gradient in (dq, dk, dv):
            gradient.zero_()
    dsinks.zero_()
    for rows, keys in [(slice(None), slice(None))] if packing is None else unpack(packing):
        dq[:, :, rows], dk[:, :, keys], dv[:, :, keys], dz, share = reference_backward(
            *(t[:, :, rows] for t in (dout, q)), *(t[:, :, keys] for t in (k, v)),
            out[:, :, rows], log_sum[:, :, rows], bias, rules, sinks,
        )  # fmt: skip
        if needs_bias:
            dbias.copy_(dz.sum_to_size(dbias.shape))
        if needs_sinks:
            dsinks += share
    return gradients


def _empty_gradients(q, k, v, bias, sinks):
    more = (q.new_empty((0,) if t is None else t.shape, dtype=torch.float32) for t in (bias, sinks))
    return _like(q), _like(k), _like(v), *more


@_attention_backward.register_fake
def _(dout, q, k, v, out, log_sum, bias, sinks, cu_q, cu_k, longest_q, longest_k, causal, window,
      softcap, scale, needs_bias, needs_sinks):  # fmt: skip
    return _empty_gradients(q, k, v, bias if needs_bias else None, sinks if needs_sinks else None)


def _setup_context(ctx, inputs, output):
    q, k, v, bias, sinks, cu_seqlens_q, cu_seqlens_k, *ctx.numbers = inputs
    ctx.save_for_backward(q, k, v, *output, bias, sinks, cu_seqlens_q, cu_seqlens_k)
    ctx.set_materialize_grads(False)


def _backward(ctx, dout, _dlog_sum):
    if dout is None:
        return (None,) * 13
    q, k, v, out, log_sum, bias, sinks, cu_seqlens_q, cu_seqlens_k = ctx.saved_tensors
    needed = ctx.needs_input_grad[3:5]
    *gradients, dbias, dsinks = _attention_backward(
        dout, q, k, v, out, log_sum, bias, sinks, cu_seqlens_q, cu_seqlens_k, *ctx.numbers, *needed
    )
    more = (
        g.to(t.dtype) if n else None for g, t, n in zip((dbias, dsinks), (bias, sinks), needed, strict=True)
    )
    return *gradients, *more, *(None,) * 8


_attention.register_autograd(_backward, setup_context=_setup_context)


def _pairs(q, k, cu_seqlens_q, cu_seqlens_k, longest_q, longest_k) -> int:
    """How many pairs of a query and a key there are, in all batches or packed sequences."""
    if cu_seqlens_q is None:
        return q.shape[0] * q.shape[2] * k.shape[2]
    if isinstance(cu_seqlens_q, torch.Tensor) and cu_seqlens_q.device.type == "cpu":
        lengths = cu_seqlens_q.diff() * cu_seqlens_k.diff()
        return int(lengths.sum())
    return (cu_seqlens_q.numel() - 1) * longest_q * longest_k  # on meta: the bound


@register_flop_formula(torch.ops.budget.attention, get_raw=True)
def attention_flops(q, k, v, bias, sinks, *packing_and_rules, out_val=None, **_) -> int:
    """Two products, in full under a mask too, as torch counts its own attention."""
    return 4 * q.shape[1] * q.shape[3] * _pairs(q, k, *packing_and_rules[:4])


@register_flop_formula(torch.ops.budget.attention_backward, get_raw=True)
def attention_backward_flops(dout, q, k, v, out, log_sum, bias, sinks, *rest, out_val=None, **_) -> int:
    """Five products: the scores again, and one for each of dp, dq, dk and dv."""
    return 10 * q.shape[1] * q.shape[3] * _pairs(q, k, *rest[:4])
