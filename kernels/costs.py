"""The kernels as operators of the calculator: what each computes and moves, for a time model.

An Op says what a kernel computes, in the calculator's notation. Cost says what the kernel executes and
moves with its tiles: FLOPs of whole tiles, also where a mask discards a part of one, and the bytes that
must cross device memory once. Derived. Re-reads that hit the L2 cache are not counted.
"""

from typing import Any, NamedTuple

from budget.ir import Op, group, op

LOG_SUM_BYTES = 4  # float32, one a row: a logarithm of a sum, a norm's root mean square


class Cost(NamedTuple):
    """One launch: what it computes (ops), and what the hardware executes and moves."""

    ops: tuple[Op, ...]
    flops: int
    bytes: int


def matmul_cost(m: int, k: int, n: int, *, setting: dict[str, Any], batch: int = 1, width: int = 2) -> Cost:
    """A product [batch, m, k] @ [batch, k, n] of operands of width bytes; tiles are whole."""
    o = op("matmul", "a: b m k, w: b k n -> out: b m n", b=batch, m=m, k=k, n=n)
    tiles = -(-m // setting["BLOCK_M"]) * -(-n // setting["BLOCK_N"]) * -(-k // setting["BLOCK_K"])
    flops = 2 * batch * tiles * setting["BLOCK_M"] * setting["BLOCK_N"] * setting["BLOCK_K"]
    return Cost((o,), flops, width * batch * (m * k + k * n + m * n))


def softmax_cost(rows: int, columns: int, *, setting: dict[str, Any], width: int = 2) -> Cost:
    """Softmax over rows: read once and written once, read twice where a row does not fit on the chip."""
    o = op("softmax", "x: b v -> y: b v", kind="softmax", b=rows, v=columns)
    reads = 1 if "TILE" in setting else 2
    return Cost((o,), 0, width * rows * columns * (reads + 1))


def linear_cross_entropy_cost(
    tokens: int, width: int, classes: int, *, at_hand: int, backward: bool = False, size: int = 2
) -> Cost:
    """Head and loss of a language model: operands of size bytes, the logits of at_hand classes at a time.

    Backward, the logits' product runs again and two more follow; hidden's gradient is added up in float32.
    """
    dims = {"b": tokens, "d": width, "v": classes}
    head = op("head", "x: b d, *w: v d -> z: b v", **dims)
    logits, operands = tokens * classes, (tokens + classes) * width
    if not backward:
        return Cost((head,), 2 * logits * width, size * (operands + 2 * logits))
    hidden = op("hidden_gradient", "dz: b v, *w: v d -> dx: b d", **dims)
    weight = op("weight_gradient", "dz: b v, x: b d -> dw: v d", **dims)
    sums = 2 * 4 * (-(-classes // at_hand) - 1) * tokens * width
    return Cost((head, hidden, weight), 6 * logits * width, size * (3 * operands + 5 * logits) + sums)


def rms_norm_cost(rows: int, columns: int, *, residual: bool = False, width: int = 2) -> Cost:
    """RMSNorm over rows, with the residual's addition where there is one; a row is read once.

    The second read of a row that does not fit on the chip comes from the cache.
    """
    norm = op("rms_norm", "total: b d, *d -> y: b d", kind="fused_rms_norm", b=rows, d=columns)
    added = op("add", "x: b d, residual: b d -> total: b d", kind="add", b=rows, d=columns)
    tensors = 4 if residual else 2
    moved = width * (tensors * rows * columns + columns) + LOG_SUM_BYTES * rows
    return Cost((added, norm) if residual else (norm,), 0, moved)


def rope_cost(
    batch: int, heads: int, seq: int, head_dim: int, pairs: int, *, width: int = 2, in_place: bool = False
) -> Cost:
    """Rotary embedding with float32 tables [seq, pairs]; in place, the rest is not moved."""
    turned = 2 * pairs
    line = "x: b h s k, cos: s p, sin: s p -> y: b h s k"
    o = op("rope", line, kind="rope", b=batch, h=heads, s=seq, k=turned, p=pairs)
    rows = batch * heads * seq
    return Cost((o,), 0, width * rows * 2 * (turned if in_place else head_dim) + 2 * 4 * seq * pairs)


def attention_cost(
    batch: int, heads: int, kv_heads: int, seq: int, kv_seq: int, head_dim: int,
    *, setting: dict[str, Any], causal: bool = False, width: int = 2,
) -> Cost:  # fmt: skip
    """Attention forward; the scores and probabilities stay on the chip."""
    sizes = {"b": batch, "h": kv_heads, "r": heads // kv_heads, "s": seq, "t": kv_seq, "k": head_dim}
    ops = group(
        "attention",
        op("scores", "q: b h r s k, key: b h t k -> z: b h r s t", **sizes),
        op("probabilities", "z: b h r s t -> p: b h r s t", kind="softmax", **sizes),
        op("values", "p: b h r s t, value: b h t k -> out: b h r s k", **sizes),
    )
    pairs = visited_pairs(seq, kv_seq, setting["BLOCK_M"], setting["BLOCK_N"], causal=causal)
    queries, keys = batch * heads * seq, batch * kv_heads * kv_seq
    moved = width * head_dim * 2 * (queries + keys) + LOG_SUM_BYTES * queries
    return Cost(ops, 4 * batch * heads * head_dim * pairs, moved)


def decode_cost(
    heads: int, kv_heads: int, seq: int, lengths: list[int], head_dim: int,
    *, setting: dict[str, Any], width: int = 2,
) -> Cost:  # fmt: skip
    """A step of generation: seq queries a batch entry over caches of lengths keys, which are read once.

    The queries that share a key head are rows of one tile, 16 at least; the chunks' parts are not counted.
    """
    group = heads // kv_heads
    rows = max(16, 1 << (group * seq - 1).bit_length())
    keys = sum(lengths)
    sizes = {"h": kv_heads, "r": group * seq, "t": keys, "k": head_dim}
    ops = (
        op("scores", "q: h r k, key: h t k -> z: h r t", **sizes),
        op("values", "z: h r t, value: h t k -> out: h r k", **sizes),
    )
    whole = sum(-(-n // setting["BLOCK_N"]) * setting["BLOCK_N"] for n in lengths)
    moved = width * head_dim * 2 * (kv_heads * keys + len(lengths) * heads * seq)
    return Cost(ops, 4 * kv_heads * rows * whole * head_dim, moved)


def visited_pairs(seq: int, kv_seq: int, block_m: int, block_n: int, *, causal: bool) -> int:
    """Pairs of a query and a key in all the tiles that the forward kernel visits."""
    pairs = 0
    for start in range(0, seq, block_m):
        end = min(start + block_m, seq)
        keys = max(min(end + kv_seq - seq, kv_seq), 0) if causal else kv_seq
        pairs += block_m * -(-keys // block_n) * block_n
    return pairs
