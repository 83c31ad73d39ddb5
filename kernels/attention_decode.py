"""Attention of few queries over many keys: decoding, split over the cache.

Decoding is bound by the reads of the cache, so every key should be read once. One program takes all
the queries that share a key head (the rows of its tile: grouped heads times positions) and a chunk
of the keys; the chunks fill the GPU where batch and heads do not. A second kernel combines the
chunks' outputs by their logs of the sum.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from . import settings
from .attention_forward import attend, finish
from .attention_rules import Rules, find_settings, strides
from .attention_tile import LOG2_E, block_ranges, key_bounds, offset
from .launch import Prepared, launch

MAX_ROWS = 64  # the most rows of a program's tile
MIN_BLOCKS = 8  # with fewer blocks of keys a split does not pay
COMBINED = 4096  # elements that a program of the second kernel holds: 32 a thread


@triton.jit
def _attention_decode_kernel(
    q, k, v, bias, part_out, part_log_sum, lengths, table,
    q_strides, k_strides, v_strides, bias_strides, table_stride,
    kv_heads, group, seq_q, seq_k, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
    LENGTHS: tl.constexpr, PAGE: tl.constexpr,
    PRECISION: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One chunk of keys; part_out is [chunks, batch * heads * seq_q, HEAD_DIM], float32.

    LENGTHS: lengths says how many of seq_k keys each batch entry has. PAGE: as in attend().
    """
    batch = (tl.program_id(0) // kv_heads).to(tl.int64)
    kv_head = (tl.program_id(0) % kv_heads).to(tl.int64)
    rows = group * seq_q
    row = tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK_D)[None, :]
    inside = (row < rows)[:, None] & (d < HEAD_DIM)
    head = (kv_head * group + row // seq_q)[:, None]
    query = (row % seq_q)[:, None]
    q += batch * q_strides[0]
    q_tile = tl.load(q + head * q_strides[1] + query * q_strides[2] + d, mask=inside, other=0.0)
    if LENGTHS:
        seq_k = tl.minimum(tl.load(lengths + batch), seq_k)
    if PAGE:
        table += batch * table_stride
        k += kv_head * k_strides[1]
        v += kv_head * v_strides[1]
    else:
        k += offset(k_strides, batch, kv_head, 0, False)
        v += offset(v_strides, batch, kv_head, 0, False)
    bias_rows = bias
    if BIAS:
        bias_rows += batch * bias_strides[0] + head * bias_strides[1]

    accumulator = tl.zeros((ROWS, BLOCK_D), tl.float32)
    m = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    bounds = key_bounds(0, seq_q, seq_q, seq_k, window, CAUSAL, WINDOW)
    ranges = block_ranges(bounds, BLOCK_N)
    # The visible keys are divided evenly over the chunks, in whole blocks.
    chunk = tl.cdiv(tl.cdiv(tl.maximum(ranges[3] - ranges[0], 0), BLOCK_N), tl.num_programs(1)) * BLOCK_N
    first = ranges[0] + tl.program_id(1) * chunk
    for part in tl.static_range(3):  # as in the forward kernel, within the chunk
        if WINDOW or part > 0:
            accumulator, m, total = attend(
                q_tile, accumulator, m, total, k, v, bias_rows,
                k_strides[2], v_strides[2], bias_strides, batch, kv_head, query,
                tl.maximum(ranges[part], first), tl.minimum(ranges[part + 1], first + chunk),
                seq_q, seq_k, scale, softcap, window, CAUSAL, WINDOW, BIAS, SOFTCAP,
                HEAD_DIM, BLOCK_D, BLOCK_N, PRECISION, False, part != 1,
                table, k_strides[0], v_strides[0], PAGE,
            )  # fmt: skip
    output, log_sum = finish(accumulator, m, total)
    # Row (head, query) of this key head is row head * seq_q + query of [batch, heads, seq_q].
    part_row = (tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * rows + row
    tl.store(part_out + part_row[:, None] * HEAD_DIM + d, output, mask=inside)
    tl.store(part_log_sum + part_row, log_sum, mask=row < rows)


@triton.jit
def _combine_kernel(
    part_out, part_log_sum, sinks, out, log_sum, out_strides, log_sum_strides, heads, seq_q, chunks,
    SINKS: tl.constexpr, CHUNKS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_D columns of a row of [batch, heads, seq_q]: the chunks' outputs weighted by their sums.

    SINKS: with a logit [heads] that has no value.
    """
    row = tl.program_id(0).to(tl.int64)
    head = row // seq_q % heads
    rows = tl.num_programs(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    part = tl.arange(0, CHUNKS)
    parts = tl.load(part_log_sum + part * rows + row, mask=part < chunks, other=float("inf"))
    parts = tl.where(parts == float("inf"), float("-inf"), parts)  # a chunk that saw no key
    maximum = tl.max(parts, 0)
    if SINKS:
        sink = tl.load(sinks + head).to(tl.float32) * LOG2_E
        maximum = tl.maximum(maximum, sink)
    maximum = tl.where(maximum == float("-inf"), 0.0, maximum)
    weights = tl.exp2(parts - maximum)
    total = tl.sum(weights, 0)
    if SINKS:
        total += tl.exp2(sink - maximum)
    # All chunks are loaded at once: in a loop, each would wait for its own reads.
    inside = (part < chunks)[:, None] & (d < HEAD_DIM)[None, :]
    offsets = (part.to(tl.int64) * rows + row)[:, None] * HEAD_DIM + d[None, :]
    values = tl.load(part_out + offsets, mask=inside, other=0.0)
    accumulator = tl.sum(weights[:, None] * values, 0)
    output, row_log_sum = _finish_row(accumulator, maximum, total)
    batch = row // (heads * seq_q)
    out += batch * out_strides[0] + head * out_strides[1]
    out += row % seq_q * out_strides[2]
    tl.store(out + d, output.to(out.dtype.element_ty), mask=d < HEAD_DIM)
    log_sum += batch * log_sum_strides[0] + head * log_sum_strides[1] + row % seq_q
    tl.store(log_sum, row_log_sum, mask=tl.program_id(1) == 0)


@triton.jit
def _finish_row(accumulator, m, total):
    """finish() for a single row."""
    empty = total == 0
    total = tl.where(empty, 1.0, total)
    return accumulator / total, tl.where(empty, float("inf"), m + tl.log2(total))


def decodes(q: torch.Tensor, k: torch.Tensor) -> bool:
    """Whether the queries are few and the keys many."""
    rows = q.shape[2] * (q.shape[1] // k.shape[1])
    if q.numel() == 0 or rows > MAX_ROWS:
        return False
    block = find_settings("attention_decode", q)["BLOCK_N"]
    return k.shape[2] >= MIN_BLOCKS * max(block, q.shape[2])


def launch_decode(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    sinks: torch.Tensor | None,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    rules: Rules,
    lengths: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
) -> None:
    """Fill out (like q) and log_sum ([batch, heads, seq], float32).

    lengths [batch]: how many keys there are; table [batch, pages]: where, if k and v are pages of them.
    """
    batch, heads, seq_q, head_dim = q.shape
    kv_heads, page = k.shape[1], 0 if table is None else k.shape[2]
    seq_k = k.shape[2] if table is None else table.shape[1] * page
    chosen = find_settings("attention_decode", q)
    # So many chunks that each processor has two programs, in whole blocks of keys.
    blocks = triton.cdiv(seq_k, chosen["BLOCK_N"])
    wanted = triton.cdiv(2 * settings.processors(q.device), batch * kv_heads)
    chunks = triton.cdiv(blocks, triton.cdiv(blocks, min(wanted, blocks)))
    rows = batch * heads * seq_q
    part_out = q.new_empty((chunks, rows, head_dim), dtype=torch.float32)
    part_log_sum = q.new_empty((chunks, rows), dtype=torch.float32)

    def prepare() -> Prepared:
        group = heads // kv_heads
        names = ("q_strides", "k_strides", "v_strides", "bias_strides")
        rest: dict[str, Any] = dict(zip(names, strides(q, k, v, bias), strict=True))
        rest |= {"table_stride": 0 if table is None else table.stride(0), "kv_heads": kv_heads}
        rest |= {"group": group, "seq_q": seq_q, "seq_k": seq_k, "ROWS": _rows(group * seq_q)}
        rest |= {"BIAS": bias is not None, "LENGTHS": lengths is not None, "PAGE": page}
        return (batch * kv_heads, chunks), tensors, rest | rules.arguments() | chosen

    tensors = (q, k, v, bias, part_out, part_log_sum, lengths, table)
    launch(_attention_decode_kernel, tensors, rules, prepare)

    def prepare_combine() -> Prepared:
        block = triton.next_power_of_2(chunks)
        columns = max(16, min(chosen["BLOCK_D"], COMBINED // block))
        rest = {
            "out_strides": out.stride(), "log_sum_strides": log_sum.stride(), "heads": heads, "seq_q": seq_q,
            "chunks": chunks, "SINKS": sinks is not None, "CHUNKS": block, "HEAD_DIM": head_dim,
            "BLOCK_D": columns, "num_warps": 4,
        }  # fmt: skip
        return (rows, triton.cdiv(head_dim, columns)), parts, rest

    parts = (part_out, part_log_sum, sinks, out, log_sum)
    launch(_combine_kernel, parts, None, prepare_combine)


def _rows(count: int) -> int:
    """The number of rows of a tile that holds count of them."""
    return max(16, triton.next_power_of_2(count))
