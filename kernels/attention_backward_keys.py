"""dK and dV by blocks of keys: a program walks over all the query heads that share its keys.

The formulas are in attention_backward.py, which launches this.
"""

import triton
import triton.language as tl

from .attention_tile import (
    LN_2,
    VARYING,
    at,
    block_ranges,
    load_rows,
    load_vector,
    logits,
    offset,
    place,
    query_bounds,
    sequence,
    store_rows,
)


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

    Tiles are transposed, [keys, queries]: p and dz are then the first operand of their products (p dout,
    dz q), and Hopper's wgmma can take a first operand from registers, but the second only from shared memory.
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
def attention_backward_keys_kernel(
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
