"""Attention backward: dK and dV by blocks of keys, dQ by blocks of queries (the bias: attention_bias.py).

Both kernels recompute the probabilities of a tile from the logits and the forward pass's log
of the sum. Two kernels compute the logits twice, but need no atomics: every gradient is the
same in every run, and a program's accumulators fit the registers. Grouped heads: a program of
the first kernel walks over all the query heads that share its keys.

With dz the gradient of a natural logit: p = exp(z - log_sum), delta = sum(out * dout),
dz = p * (dout . v - delta), dv += p^T dout, dk += dz^T q * scale, dq += dz k * scale.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from .attention_bias import launch_backward_bias
from .attention_packing import clear_rest
from .attention_rules import (
    Packing,
    Rules,
    cu_seqlens,
    find_settings,
    loadable,
    longest,
    row_numbers,
    sink_gradient,
    sources,
    strides,
    with_room,
)
from .attention_tile import (
    VARYING,
    at,
    block_ranges,
    key_bounds,
    load_rows,
    load_vector,
    logits,
    offset,
    place,
    query_bounds,
    sequence,
    store_rows,
)
from .launch import Prepared, launch

LN_2 = tl.constexpr(math.log(2))


@triton.jit(do_not_specialize=VARYING)
def _delta_kernel(
    out, dout, delta, out_strides, dout_strides, delta_strides, blocks, heads, seq_q,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """delta = sum(out * dout) over the head dimension."""
    batch, head, block = place(heads, blocks)
    start = block * BLOCK_M
    out += offset(out_strides, batch, head, 0, False)
    dout += offset(dout_strides, batch, head, 0, False)
    delta += offset(delta_strides, batch, head, 0, False)
    o = load_rows(out, out_strides[2], batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D, True,
                  False)  # fmt: skip
    do = load_rows(dout, dout_strides[2], batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D, True,
                   False)  # fmt: skip
    row = start + tl.arange(0, BLOCK_M)
    tl.store(delta + row, tl.sum(o.to(tl.float32) * do.to(tl.float32), 1), mask=row < seq_q)


@triton.jit
def _keys_loop(
    dk, dv, k_tile, v_tile, q, dout, bias, log_sum, delta, q_stride, dout_stride, bias_strides,
    batch, head, key, from_query, to_query, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, MASKED: tl.constexpr,
    DK: tl.constexpr, DV: tl.constexpr,
):  # fmt: skip
    """Add the queries from_query to to_query to dk (where DK) and dv (where DV).

    Tiles are transposed, [keys, queries]: p and dz are then the first operand of their products
    as they stand in registers.
    """
    for start in range(from_query, to_query, BLOCK_M):
        query = (start + tl.arange(0, BLOCK_M))[None, :]
        q_tile = load_rows(q, q_stride, batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D,
                           MASKED, DESCRIPTORS)  # fmt: skip
        row_log_sum = load_vector(log_sum, start, seq_q, float("inf"), BLOCK_M, MASKED)
        products = tl.dot(k_tile, q_tile.T, input_precision=PRECISION)
        z, slope = logits(products, bias, query, key, seq_q, seq_k, bias_strides, scale, softcap,
                          window, CAUSAL, WINDOW, BIAS, SOFTCAP, MASKED)  # fmt: skip
        p = tl.exp2(z - row_log_sum[None, :])
        do = load_rows(dout, dout_stride, batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D,
                       MASKED, DESCRIPTORS)  # fmt: skip
        if DV:
            dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        if DK:
            dp = tl.dot(v_tile, do.T, input_precision=PRECISION)
            row_delta = load_vector(delta, start, seq_q, 0.0, BLOCK_M, MASKED)
            dz = p * (dp - row_delta[None, :]) * slope
            dk = tl.dot(dz.to(q_tile.dtype), q_tile, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=VARYING)
def _attention_backward_keys_kernel(
    q, k, v, bias, dout, log_sum, delta, dk, dv, cu_seqlens_q, cu_seqlens_k,
    q_strides, k_strides, v_strides, bias_strides, dout_strides, log_sum_strides,
    dk_strides, dv_strides,
    blocks, kv_heads, group, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    DK: tl.constexpr, DV: tl.constexpr,
):  # fmt: skip
    """dK (where DK) and dV (where DV) of a block of keys of one key head.

    q, k, v and dout are tensor descriptors where DESCRIPTORS, else pointers.
    """
    batch, kv_head, block = place(kv_heads, blocks)
    start = block * BLOCK_N
    q_start, seq_q = sequence(cu_seqlens_q, batch, seq_q, PACKED)
    k_start, seq_k = sequence(cu_seqlens_k, batch, seq_k, PACKED)
    if start < seq_k:
        k = at(k, k_strides, batch, kv_head, k_start, PACKED, DESCRIPTORS)
        v = at(v, v_strides, batch, kv_head, k_start, PACKED, DESCRIPTORS)
        key = (start + tl.arange(0, BLOCK_N))[:, None]
        k_tile = load_rows(k, k_strides[2], batch, kv_head, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D,
                           True, DESCRIPTORS)  # fmt: skip
        v_tile = load_rows(v, v_strides[2], batch, kv_head, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D,
                           True, DESCRIPTORS)  # fmt: skip
        dk_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        dv_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        end = tl.minimum(start + BLOCK_N, seq_k)
        bounds = query_bounds(start, end, seq_q, seq_k, window, CAUSAL, WINDOW)
        ranges = block_ranges(bounds, BLOCK_M)
        for member in range(group):
            head = kv_head * group + member
            rows = offset(log_sum_strides, batch, head, q_start, PACKED)
            for part in tl.static_range(3):  # the diagonal, seen in full, the window's edge and end
                if part > 0 or CAUSAL or WINDOW:
                    dk_tile, dv_tile = _keys_loop(
                        dk_tile, dv_tile, k_tile, v_tile,
                        at(q, q_strides, batch, head, q_start, PACKED, DESCRIPTORS),
                        at(dout, dout_strides, batch, head, q_start, PACKED, DESCRIPTORS),
                        bias + offset(bias_strides, batch, head, 0, False) if BIAS else None,
                        log_sum + rows, delta + rows,
                        q_strides[2], dout_strides[2], bias_strides,
                        batch, head, key, ranges[part], ranges[part + 1],
                        seq_q, seq_k, scale, softcap, window, CAUSAL, WINDOW, BIAS, SOFTCAP,
                        HEAD_DIM, BLOCK_D, BLOCK_M, PRECISION, DESCRIPTORS, part != 1, DK, DV,
                    )  # fmt: skip
        if DK:
            dk += offset(dk_strides, batch, kv_head, k_start, PACKED)
            dk_tile *= scale * LN_2
            store_rows(dk, dk_strides[2], start, seq_k, dk_tile, BLOCK_N, HEAD_DIM, BLOCK_D)
        if DV:
            dv += offset(dv_strides, batch, kv_head, k_start, PACKED)
            store_rows(dv, dv_strides[2], start, seq_k, dv_tile, BLOCK_N, HEAD_DIM, BLOCK_D)


@triton.jit
def _queries_loop(
    dq, q_tile, do, row_log_sum, row_delta, k, v, bias, k_stride, v_stride, bias_strides,
    batch, kv_head, query, from_key, to_key, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Add the keys from_key to to_key to dq."""
    for start in range(from_key, to_key, BLOCK_N):
        key = (start + tl.arange(0, BLOCK_N))[None, :]
        k_tile = load_rows(k, k_stride, batch, kv_head, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D,
                           MASKED, DESCRIPTORS)  # fmt: skip
        v_tile = load_rows(v, v_stride, batch, kv_head, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D,
                           MASKED, DESCRIPTORS)  # fmt: skip
        products = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)
        z, slope = logits(products, bias, query, key, seq_q, seq_k, bias_strides, scale, softcap,
                          window, CAUSAL, WINDOW, BIAS, SOFTCAP, MASKED)  # fmt: skip
        p = tl.exp2(z - row_log_sum[:, None])
        dp = tl.dot(do, v_tile.T, input_precision=PRECISION)
        dz = p * (dp - row_delta[:, None]) * slope
        dq = tl.dot(dz.to(k_tile.dtype), k_tile, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=VARYING)
def _attention_backward_queries_kernel(
    q, k, v, bias, dout, log_sum, delta, dq, cu_seqlens_q, cu_seqlens_k,
    q_strides, k_strides, v_strides, bias_strides, dout_strides, log_sum_strides, dq_strides,
    blocks, heads, group, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dQ of a block of queries of one head; inputs as in the kernel above."""
    batch, head, block = place(heads, blocks)
    start = (blocks - 1 - block) * BLOCK_M
    q_start, seq_q = sequence(cu_seqlens_q, batch, seq_q, PACKED)
    k_start, seq_k = sequence(cu_seqlens_k, batch, seq_k, PACKED)
    if start < seq_q:
        kv_head = head // group
        q = at(q, q_strides, batch, head, q_start, PACKED, DESCRIPTORS)
        dout = at(dout, dout_strides, batch, head, q_start, PACKED, DESCRIPTORS)
        k = at(k, k_strides, batch, kv_head, k_start, PACKED, DESCRIPTORS)
        v = at(v, v_strides, batch, kv_head, k_start, PACKED, DESCRIPTORS)
        dq += offset(dq_strides, batch, head, q_start, PACKED)
        rows = offset(log_sum_strides, batch, head, q_start, PACKED)
        if BIAS:
            bias += offset(bias_strides, batch, head, 0, False)

        query = (start + tl.arange(0, BLOCK_M))[:, None]
        q_tile = load_rows(q, q_strides[2], batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D,
                           True, DESCRIPTORS)  # fmt: skip
        do = load_rows(dout, dout_strides[2], batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D,
                       True, DESCRIPTORS)  # fmt: skip
        row_log_sum = load_vector(log_sum + rows, start, seq_q, float("inf"), BLOCK_M, True)
        row_delta = load_vector(delta + rows, start, seq_q, 0.0, BLOCK_M, True)
        dq_tile = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        end = tl.minimum(start + BLOCK_M, seq_q)
        bounds = key_bounds(start, end, seq_q, seq_k, window, CAUSAL, WINDOW)
        ranges = block_ranges(bounds, BLOCK_N)
        for part in tl.static_range(3):  # the window's edge, seen in full, the diagonal and the end
            if WINDOW or part > 0:
                dq_tile = _queries_loop(
                    dq_tile, q_tile, do, row_log_sum, row_delta, k, v, bias,
                    k_strides[2], v_strides[2], bias_strides,
                    batch, kv_head, query, ranges[part], ranges[part + 1],
                    seq_q, seq_k, scale, softcap, window, CAUSAL, WINDOW, BIAS, SOFTCAP,
                    HEAD_DIM, BLOCK_D, BLOCK_N, PRECISION, DESCRIPTORS, part != 1,
                )  # fmt: skip
        dq_tile *= scale * LN_2
        store_rows(dq, dq_strides[2], start, seq_q, dq_tile, BLOCK_M, HEAD_DIM, BLOCK_D)


def launch_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    bias: torch.Tensor | None,
    sinks: torch.Tensor | None,
    packing: Packing | None,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    dbias: torch.Tensor | None,
    dsinks: torch.Tensor | None,
    rules: Rules,
) -> None:
    """Fill dq, dk and dv; where given, dbias as launch_backward_bias() does, and dsinks, float32 [heads]."""
    if q.numel() == 0 or k.numel() == 0:
        for gradient in (dq, dk, dv, dbias, dsinks):
            if gradient is not None:
                gradient.zero_()
        return
    log_sum, delta = with_room(log_sum), row_numbers(q)
    _launch_delta(out, dout, delta)
    inputs = (q, k, v, bias, dout, log_sum, delta)
    rich = bias is not None or rules.softcap > 0
    both = {"dk": dk, "dv": dv}
    # Apart, one of the two accumulators fits the registers; the scores are computed once more.
    apart = find_settings("attention_backward_keys", q, packing, rich)["APART"]
    for outputs in ({"dk": None, "dv": dv}, {"dk": dk, "dv": None}) if apart else (both,):
        _launch_gradients("attention_backward_keys", inputs, packing, outputs, rules)
    _launch_gradients("attention_backward_queries", inputs, packing, {"dq": dq}, rules)
    if dbias is not None:
        launch_backward_bias(inputs, dbias, rules)
    if sinks is not None and dsinks is not None:
        dsinks.copy_(sink_gradient(sinks, log_sum, delta))
    if packing is not None:
        clear_rest(dq, packing.cu_seqlens_q, packing.longest_q)
        for gradient in (dk, dv):
            clear_rest(gradient, packing.cu_seqlens_k, packing.longest_k)


def _launch_delta(out: torch.Tensor, dout: torch.Tensor, delta: torch.Tensor) -> None:
    def prepare() -> Prepared:
        chosen = find_settings("attention_delta", out)
        batch, heads, seq_q, _ = out.shape
        blocks = triton.cdiv(seq_q, chosen["BLOCK_M"])
        names = ("out_strides", "dout_strides", "delta_strides")
        rest = dict(zip(names, strides(*tensors), strict=True)) | chosen
        del rest["PRECISION"]
        return (batch * heads * blocks,), tensors, rest | {"blocks": blocks, "heads": heads, "seq_q": seq_q}

    tensors = (out, dout, delta)
    launch(_delta_kernel, tensors, None, prepare)


def _launch_gradients(
    kernel: str,
    inputs: tuple[Any, ...],
    packing: Packing | None,
    outputs: dict[str, torch.Tensor | None],
    rules: Rules,
) -> None:
    """Launch one of the two kernels, which take the same inputs and rules."""
    of_keys = kernel == "attention_backward_keys"
    tensors = (*inputs, *outputs.values(), *cu_seqlens(packing))

    def prepare() -> Prepared:
        q, k, v, bias, dout, log_sum, _ = inputs
        chosen = find_settings(kernel, q, packing, bias is not None or rules.softcap > 0)
        q, k, v, dout = loadable(chosen, packing, q, k, v, dout)
        (heads, seq_q), (kv_heads, seq_k) = q.shape[1:3], k.shape[1:3]
        sequences, lengths = q.shape[0], (seq_q, seq_k)
        if packing is not None:
            sequences, lengths = packing.sequences, longest(packing)
        loaded = ((q, "BLOCK_M"), (k, "BLOCK_N"), (v, "BLOCK_N"), (dout, "BLOCK_M"))
        described, (*sources_qkv, source_dout) = sources(chosen, packing, *loaded)
        rest: dict[str, Any] = {f"{name}_strides": strides(t)[0] for name, t in outputs.items()}
        names = ("q_strides", "k_strides", "v_strides", "bias_strides", "dout_strides", "log_sum_strides")
        rest |= dict(zip(names, strides(q, k, v, bias, dout, log_sum), strict=True))
        rest |= {"group": heads // kv_heads, "seq_q": seq_q, "seq_k": seq_k}
        rest |= {"BIAS": bias is not None, "PACKED": packing is not None}
        rest |= rules.arguments() | chosen | {"DESCRIPTORS": described}
        if of_keys:
            blocks, rows = triton.cdiv(lengths[1], chosen["BLOCK_N"]), kv_heads
            rest |= {"kv_heads": kv_heads, "DK": outputs["dk"] is not None, "DV": outputs["dv"] is not None}
            del rest["APART"]
        else:
            blocks, rows = triton.cdiv(lengths[0], chosen["BLOCK_M"]), heads
            rest["heads"] = heads
        arguments = (*sources_qkv, bias, source_dout, *tensors[5:])
        return (sequences * rows * blocks,), arguments, rest | {"blocks": blocks}

    code = _attention_backward_keys_kernel if of_keys else _attention_backward_queries_kernel
    launch(code, tensors, (rules, longest(packing)), prepare)
