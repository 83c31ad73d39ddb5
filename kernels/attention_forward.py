"""Attention forward: one program a block of queries and a head, a loop over blocks of keys.

The softmax is online (FlashAttention-2): each row keeps a running maximum m and a running total, and the
accumulator is rescaled when m grows. The loop is split in three, so that only blocks at the border of the
visible keys pay for a mask: the window's edge, the blocks seen in full, the diagonal.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .attention_packing import clear_rest
from .attention_rules import (
    Packing,
    Rules,
    cu_seqlens,
    find_settings,
    loadable,
    longest,
    sources,
    strides,
)
from .attention_tile import (
    LOG2_E,
    VARYING,
    at,
    block_ranges,
    key_bounds,
    load_paged_rows,
    load_rows,
    logits,
    offset,
    page_of,
    place,
    sequence,
    store_rows,
)
from .launch import Prepared, launch


@triton.jit
def attend(
    q_tile, accumulator, m, total, k, v, bias, k_stride, v_stride, bias_strides,
    batch, kv_head, query, from_key, to_key, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, MASKED: tl.constexpr,
    table=None, k_page=0, v_page=0, PAGE: tl.constexpr = 0,
):  # fmt: skip
    """Attend to the keys from_key to to_key; query holds the rows' positions, [M, 1].

    PAGE: the keys of a page, where the cache is pages that table names, k_page (v_page) apart; 0: one piece.
    """
    for start in range(from_key, to_key, BLOCK_N):
        key = (start + tl.arange(0, BLOCK_N))[None, :]
        if PAGE:
            page = page_of(table, start, seq_k, BLOCK_N, PAGE)
            k_tile = load_paged_rows(
                k, k_stride, k_page, page, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D, PAGE
            )
        else:
            k_tile = load_rows(k, k_stride, batch, kv_head, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D,
                               MASKED, DESCRIPTORS)  # fmt: skip
        products = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)
        if MASKED or BIAS or SOFTCAP:
            z, _ = logits(products, bias, query, key, seq_q, seq_k, bias_strides, scale, softcap,
                          window, CAUSAL, WINDOW, BIAS, SOFTCAP, MASKED)  # fmt: skip
            m_new = tl.maximum(m, tl.max(z, 1))
            # A row that has seen nothing yet is shifted by 0: exp2(-inf - 0) is the zero it needs.
            shift = tl.where(m_new == float("-inf"), 0.0, m_new)
            p = tl.exp2(z - shift[:, None])
        else:
            # scale > 0, so it commutes with the maximum: one multiply-add an element.
            m_new = tl.maximum(m, tl.max(products, 1) * scale)
            shift = m_new
            p = tl.exp2(products * scale - shift[:, None])
        rescale = tl.exp2(m - shift)
        total = total * rescale + tl.sum(p, 1)
        accumulator *= rescale[:, None]
        if PAGE:
            v_tile = load_paged_rows(
                v, v_stride, v_page, page, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D, PAGE
            )
        else:
            v_tile = load_rows(v, v_stride, batch, kv_head, start, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D,
                               MASKED, DESCRIPTORS)  # fmt: skip
        accumulator = tl.dot(p.to(v_tile.dtype), v_tile, accumulator, input_precision=PRECISION)
        m = m_new
    return accumulator, m, total


@triton.jit
def finish(accumulator, m, total):
    """(output, base-2 log of the sum): zeros and +inf for a row that saw nothing.

    With +inf, exp2(z - log_sum) is 0 in the backward pass, whatever z.
    """
    empty = total == 0
    output = accumulator / tl.where(empty, 1.0, total)[:, None]
    return output, tl.where(empty, float("inf"), m + tl.log2(tl.where(empty, 1.0, total)))


@triton.jit(do_not_specialize=VARYING)
def _attention_forward_kernel(
    q, k, v, bias, sinks, out, log_sum, cu_seqlens_q, cu_seqlens_k,
    q_strides, k_strides, v_strides, out_strides, bias_strides, log_sum_strides,
    blocks, heads, group, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr, PACKED: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """q, k and v are tensor descriptors where DESCRIPTORS, else pointers; sinks [heads] where SINKS."""
    batch, head, block = place(heads, blocks)
    # Last block first: under a causal mask it has the most keys, and should not end alone.
    start = (blocks - 1 - block) * BLOCK_M
    q_start, seq_q = sequence(cu_seqlens_q, batch, seq_q, PACKED)
    k_start, seq_k = sequence(cu_seqlens_k, batch, seq_k, PACKED)
    if start < seq_q:
        q = at(q, q_strides, batch, head, q_start, PACKED, DESCRIPTORS)
        kv_head = head // group
        k = at(k, k_strides, batch, kv_head, k_start, PACKED, DESCRIPTORS)
        v = at(v, v_strides, batch, kv_head, k_start, PACKED, DESCRIPTORS)
        out += offset(out_strides, batch, head, q_start, PACKED)
        log_sum += offset(log_sum_strides, batch, head, q_start, PACKED)
        if BIAS:
            bias += offset(bias_strides, batch, head, q_start, False)

        row = start + tl.arange(0, BLOCK_M)
        q_tile = load_rows(q, q_strides[2], batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D,
                           True, DESCRIPTORS)  # fmt: skip
        accumulator = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        m = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        if SINKS:  # a logit without a value: the sum begins with it
            sink = tl.load(sinks + head).to(tl.float32) * LOG2_E
            m = tl.zeros((BLOCK_M,), tl.float32) + sink
            total += tl.where(sink == float("-inf"), 0.0, 1.0)
        end = tl.minimum(start + BLOCK_M, seq_q)
        bounds = key_bounds(start, end, seq_q, seq_k, window, CAUSAL, WINDOW)
        ranges = block_ranges(bounds, BLOCK_N)
        for part in tl.static_range(3):  # the window's edge, seen in full, the diagonal and the end
            if WINDOW or part > 0:
                accumulator, m, total = attend(
                    q_tile, accumulator, m, total, k, v, bias,
                    k_strides[2], v_strides[2], bias_strides,
                    batch, kv_head, row[:, None], ranges[part], ranges[part + 1],
                    seq_q, seq_k, scale, softcap, window,
                    CAUSAL, WINDOW, BIAS, SOFTCAP, HEAD_DIM, BLOCK_D, BLOCK_N, PRECISION,
                    DESCRIPTORS, part != 1,
                )  # fmt: skip
        output, row_log_sum = finish(accumulator, m, total)
        store_rows(out, out_strides[2], start, seq_q, output, BLOCK_M, HEAD_DIM, BLOCK_D)
        tl.store(log_sum + row, row_log_sum, mask=row < seq_q)


def launch_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    sinks: torch.Tensor | None,
    packing: Packing | None,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    rules: Rules,
) -> None:
    """Fill out (like q) and log_sum ([batch, heads, seq], float32)."""
    if q.numel() == 0:
        return

    def prepare() -> Prepared:
        chosen = find_settings("attention_forward", q, packing, bias is not None or rules.softcap > 0)
        q_, k_, v_ = loadable(chosen, packing, q, k, v)
        sequences, rows = q.shape[0], q.shape[2]
        if packing is not None:
            sequences, rows = packing.sequences, packing.longest_q
        heads, blocks = q.shape[1], triton.cdiv(rows, chosen["BLOCK_M"])
        described, loaded = sources(chosen, packing, (q_, "BLOCK_M"), (k_, "BLOCK_N"), (v_, "BLOCK_N"))
        names = ("q_strides", "k_strides", "v_strides", "out_strides", "bias_strides", "log_sum_strides")
        rest: dict[str, Any] = dict(zip(names, strides(q_, k_, v_, out, bias, log_sum), strict=True))
        rest |= {"blocks": blocks, "heads": heads, "group": heads // k.shape[1]}
        rest |= {"seq_q": q.shape[2], "seq_k": k.shape[2]}
        rest |= {"BIAS": bias is not None, "SINKS": sinks is not None, "PACKED": packing is not None}
        rest |= rules.arguments() | chosen | {"DESCRIPTORS": described}
        return (sequences * heads * blocks,), (*loaded, *tensors[3:]), rest

    tensors = (q, k, v, bias, sinks, out, log_sum, *cu_seqlens(packing))
    launch(_attention_forward_kernel, tensors, (rules, longest(packing)), prepare)
    if packing is not None:
        clear_rest(out, packing.cu_seqlens_q, packing.longest_q)
