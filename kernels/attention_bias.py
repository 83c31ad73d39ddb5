"""The gradient of attention's bias, summed over all scores that share an element of it.

A program takes a tile of the bias and walks over the batch entries and heads for which it is repeated (and
over the blocks, along a dimension of size 1). It computes the scores once more, which is two products: in
memory, the scores' gradient would be batch x heads x seq x kv_seq numbers. Where the tiles are few, each is
divided among several programs, whose parts torch adds up: no atomics, the same result in every run.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from . import settings
from .attention_rules import Rules, find_settings, loadable, sources, strides
from .attention_tile import key_bounds, load_rows, load_vector, logits, offset
from .launch import Prepared, launch


@triton.jit
def _digit(number, size, HERE: tl.constexpr):
    """(number's last digit in base size, the others); (0, number) unless HERE."""
    if HERE:
        return number % size, number // size
    else:  # noqa: RET505 - Triton compiles what follows an `if` that returned
        return number * 0, number


@triton.jit
def _digits(number, blocks_n, blocks_m, heads, N: tl.constexpr, M: tl.constexpr, HEADS: tl.constexpr):
    """(batch, head, block of queries, block of keys) of a number; 0 along dimensions that are not asked
    for.
    """
    block_n, number = _digit(number, blocks_n, N)
    block_m, number = _digit(number, blocks_m, M)
    head, number = _digit(number, heads, HEADS)
    return number, head, block_m, block_n


@triton.jit(do_not_specialize=("blocks_m", "blocks_n", "heads", "members", "share", "window"))
def _attention_backward_bias_kernel(
    q, k, v, bias, dout, log_sum, delta, dbias,
    q_strides, k_strides, v_strides, bias_strides, dout_strides, log_sum_strides, dbias_strides,
    blocks_m, blocks_n, heads, group, seq_q, seq_k, members, share, scale, softcap, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, ALL_HEADS: tl.constexpr,
    ALL_QUERIES: tl.constexpr, ALL_KEYS: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A tile of dbias [parts, batch, heads, seq_q, seq_k]: the sum over its share of its members, the tiles
    of scores that read it.

    ALL_HEADS, ALL_QUERIES, ALL_KEYS: dbias has size 1 there; where it has size 1 along the batch, members are
    of all entries. q, k, v and dout are tensor descriptors where DESCRIPTORS, else pointers.
    """
    at_batch, at_head, at_m, at_n = _digits(tl.program_id(0), blocks_n, blocks_m, heads,
                                            not ALL_KEYS, not ALL_QUERIES, not ALL_HEADS)  # fmt: skip
    first = tl.program_id(1) * share
    end = tl.minimum(first + share, members)
    if not ALL_QUERIES and not ALL_KEYS:  # the same tile for all members: is any of it seen?
        start_q = at_m * BLOCK_M
        seen = key_bounds(start_q, tl.minimum(start_q + BLOCK_M, seq_q), seq_q, seq_k, window, CAUSAL, WINDOW)
        if (at_n * BLOCK_N >= seen[3]) | ((at_n + 1) * BLOCK_N <= seen[0]):
            end = first
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for member in range(first, end):
        more = _digits(member, blocks_n, blocks_m, heads, ALL_KEYS, ALL_QUERIES, ALL_HEADS)
        batch, head = (at_batch + more[0]).to(tl.int64), (at_head + more[1]).to(tl.int64)
        start_q, start_k = (at_m + more[2]) * BLOCK_M, (at_n + more[3]) * BLOCK_N
        kv_head = head // group
        query = (start_q + tl.arange(0, BLOCK_M))[:, None]
        key = (start_k + tl.arange(0, BLOCK_N))[None, :]
        q_tile = load_rows(_at(q, q_strides, batch, head, DESCRIPTORS), q_strides[2], batch, head, start_q,
                           seq_q, BLOCK_M, HEAD_DIM, BLOCK_D, True, DESCRIPTORS)  # fmt: skip
        k_tile = load_rows(_at(k, k_strides, batch, kv_head, DESCRIPTORS), k_strides[2], batch, kv_head,
                           start_k, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D, True, DESCRIPTORS)  # fmt: skip
        products = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)
        z, _ = logits(products, bias + offset(bias_strides, batch, head, 0, False), query, key, seq_q, seq_k,
                      bias_strides, scale, softcap, window, CAUSAL, WINDOW, True, SOFTCAP, True)  # fmt: skip
        rows = offset(log_sum_strides, batch, head, 0, False)
        p = tl.exp2(z - load_vector(log_sum + rows, start_q, seq_q, float("inf"), BLOCK_M, True)[:, None])
        do = load_rows(_at(dout, dout_strides, batch, head, DESCRIPTORS), dout_strides[2], batch, head,
                       start_q, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D, True, DESCRIPTORS)  # fmt: skip
        v_tile = load_rows(_at(v, v_strides, batch, kv_head, DESCRIPTORS), v_strides[2], batch, kv_head,
                           start_k, seq_k, BLOCK_N, HEAD_DIM, BLOCK_D, True, DESCRIPTORS)  # fmt: skip
        dp = tl.dot(do, v_tile.T, input_precision=PRECISION)
        total += p * (dp - load_vector(delta + rows, start_q, seq_q, 0.0, BLOCK_M, True)[:, None])

    row = (at_m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    column = (at_n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    if ALL_QUERIES:
        total, row = tl.sum(total, 0, keep_dims=True), tl.zeros((1, 1), tl.int32)
    if ALL_KEYS:
        total, column = tl.sum(total, 1, keep_dims=True), tl.zeros((1, 1), tl.int32)
    dbias += tl.program_id(1).to(tl.int64) * dbias_strides[0] + at_batch.to(tl.int64) * dbias_strides[1]
    dbias += at_head.to(tl.int64) * dbias_strides[2] + row.to(tl.int64) * dbias_strides[3] + column
    tl.store(dbias, total, mask=(row < seq_q) & (column < seq_k))


@triton.jit
def _at(source, strides, batch, head, DESCRIPTORS: tl.constexpr):
    """source moved to a head; a descriptor stays as it is."""
    if DESCRIPTORS:
        return source
    else:  # noqa: RET505 - as above
        return source + offset(strides, batch, head, 0, False)


def launch_backward_bias(inputs: tuple[torch.Tensor, ...], dbias: torch.Tensor, rules: Rules) -> None:
    """Fill dbias, float32 and contiguous, [batch or 1, heads or 1, seq_q or 1, seq_k or 1].

    inputs: q, k, v, bias (expanded), dout, log_sum, delta.
    """
    q, k = inputs[:2]
    chosen = find_settings("attention_backward_bias", q)
    (batch, heads, seq_q, _), seq_k = q.shape, k.shape[2]
    whole = (batch, heads, triton.cdiv(seq_q, chosen["BLOCK_M"]), triton.cdiv(seq_k, chosen["BLOCK_N"]))
    one_for_all = [size == 1 for size in dbias.shape]
    tiles, members = 1, 1
    for count, one in zip(whole, one_for_all, strict=True):
        tiles, members = tiles * (1 if one else count), members * (count if one else 1)
    # Two programs a processor.
    share = triton.cdiv(members, min(members, triton.cdiv(2 * settings.processors(q.device), tiles)))
    parts = triton.cdiv(members, share)
    target = dbias.unsqueeze(0) if parts == 1 else dbias.new_empty((parts, *dbias.shape))

    def prepare() -> Prepared:
        q, k, v, bias, dout, log_sum, delta = inputs
        q, k, v, dout = loadable(chosen, None, q, k, v, dout)
        described, (*qkv, source_dout) = sources(
            chosen, None, (q, "BLOCK_M"), (k, "BLOCK_N"), (v, "BLOCK_N"), (dout, "BLOCK_M")
        )
        names = ("q_strides", "k_strides", "v_strides", "bias_strides", "dout_strides", "log_sum_strides")
        rest: dict[str, Any] = dict(zip(names, strides(q, k, v, bias, dout, log_sum), strict=True))
        rest |= {"dbias_strides": target.stride(), "blocks_m": whole[2], "blocks_n": whole[3]}
        rest |= {"heads": heads, "group": heads // k.shape[1], "seq_q": seq_q, "seq_k": seq_k}
        rest |= {"members": members, "share": share}
        rest |= dict(zip(("ALL_HEADS", "ALL_QUERIES", "ALL_KEYS"), one_for_all[1:], strict=True))
        rest |= rules.arguments() | chosen | {"DESCRIPTORS": described}
        return (tiles, parts), (*qkv, bias, source_dout, log_sum, delta, target), rest

    launch(_attention_backward_bias_kernel, (*inputs, target), rules, prepare)
    if parts > 1:
        torch.sum(target, 0, out=dbias)
