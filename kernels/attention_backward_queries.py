"""dQ by blocks of queries: a program walks over the keys that its queries see.

The formulas are in attention_backward.py, which launches this.
"""

import triton
import triton.language as tl

from .attention_tile import (
    LN_2,
    VARYING,
    at,
    block_ranges,
    key_bounds,
    load_rows,
    load_vector,
    logits,
    offset,
    place,
    sequence,
    store_rows,
)


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
def attention_backward_queries_kernel(
    q, k, v, bias, dout, log_sum, delta, dq, cu_seqlens_q, cu_seqlens_k,
    q_strides, k_strides, v_strides, bias_strides, dout_strides, log_sum_strides, dq_strides,
    blocks, heads, group, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dQ of a block of queries of one head; inputs as in attention_backward_keys_kernel."""
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
