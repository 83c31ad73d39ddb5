"""The part that all attention kernels share: which keys a query sees, and the logits of a tile.

Positions are aligned at the end: query i of seq_q stands at key position i + seq_k - seq_q.
Logits are in base 2 throughout (scale and softcap come multiplied by log2 e), since the hardware's
exponential is exp2: with base e each element would need one more product. Functions of a tile take positions
of shape [R, 1] and [1, C], queries along either: the kernel for dK and dV works on transposed tiles.

A tile has BLOCK_D columns, the head dimension rounded up to a power of two, as tl.arange needs it; columns
beyond HEAD_DIM are loaded as zeros, which add nothing to a product. Rows beyond a sequence are loaded as
zeros only where MASKED: in blocks that all queries see in full there are none, and a mask would cost a
comparison an element.
"""

# ruff: noqa: RET505 - Triton compiles what follows an `if` that returned: it needs the else.

import math

import triton
import triton.language as tl

from .activations import tanh

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))

# Triton compiles a kernel anew for an integer that is 1 or divisible by 16, but not for these. The lengths
# are not among them: where they are divisible by 16, masked reads of a bias and of a row's sums become vector
# loads.
VARYING = ("blocks", "heads", "kv_heads", "window")


@triton.jit
def place(heads, blocks):
    """(batch, head, block) of a program: its place in [batch, heads, blocks].

    All programs are on the grid's first axis: the other two end at 65,535.
    """
    index = tl.program_id(0)
    row = index // blocks
    return (row // heads).to(tl.int64), (row % heads).to(tl.int64), index % blocks


@triton.jit
def load_rows(source, stride, batch, head, start, length, ROWS: tl.constexpr,
              HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr,
              DESCRIPTORS: tl.constexpr):  # fmt: skip
    """Rows start to start + ROWS of a [length, HEAD_DIM] matrix, zero outside.

    source is a descriptor of [batch, head, row, d] where DESCRIPTORS, else a pointer to the
    matrix. Without MASKED, the caller knows that all the rows exist.
    """
    if DESCRIPTORS:
        tile = source.load([tl.cast(batch, tl.int32), tl.cast(head, tl.int32), start, 0])
        return tile.reshape(ROWS, BLOCK_D)
    else:
        row = tl.arange(0, ROWS)[:, None]
        d = tl.arange(0, BLOCK_D)[None, :]
        pointers = source + tl.cast(start, tl.int64) * stride + row * stride + d
        if MASKED and HEAD_DIM != BLOCK_D:
            return tl.load(pointers, mask=(start + row < length) & (d < HEAD_DIM), other=0.0)
        elif MASKED:
            return tl.load(pointers, mask=start + row < length, other=0.0)
        elif HEAD_DIM != BLOCK_D:
            return tl.load(pointers, mask=d < HEAD_DIM, other=0.0)
        else:
            return tl.load(pointers)


@triton.jit
def load_vector(base, start, length, other, ROWS: tl.constexpr, MASKED: tl.constexpr):
    """Numbers of ROWS rows; other after length. The memory after length must be readable (ROOM)."""
    row = start + tl.arange(0, ROWS)
    value = tl.load(base + row)
    if MASKED:
        value = tl.where(row < length, value, other)
    return value


@triton.jit
def page_of(table, start, length, ROWS: tl.constexpr, PAGE: tl.constexpr):
    """The pages that hold rows start to start + ROWS of a sequence of length."""
    row = start + tl.arange(0, ROWS)
    return tl.load(table + row // PAGE, mask=row < length, other=0).to(tl.int64)


@triton.jit
def load_paged_rows(source, stride, page_stride, page, start, length, ROWS: tl.constexpr,
                    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, PAGE: tl.constexpr):  # fmt: skip
    """load_rows() of rows that lie in pages of PAGE, page_stride apart."""
    row = start + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK_D)[None, :]
    pointers = source + (page * page_stride + row % PAGE * stride)[:, None] + d
    return tl.load(pointers, mask=(row < length)[:, None] & (d < HEAD_DIM), other=0.0)


@triton.jit
def store_rows(base, stride, start, length, value, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr,
               BLOCK_D: tl.constexpr):  # fmt: skip
    """The counterpart of load_rows."""
    row = tl.arange(0, ROWS)[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    pointers = base + tl.cast(start, tl.int64) * stride + row * stride + d
    inside = (start + row < length) & (d < HEAD_DIM)
    tl.store(pointers, value.to(base.dtype.element_ty), mask=inside)


@triton.jit
def sequence(cu_seqlens, index, length, PACKED: tl.constexpr):
    """(first row, length) of a sequence: of a packed batch, or of a padded one."""
    if PACKED:
        start = tl.load(cu_seqlens + index)
        return start.to(tl.int64), tl.load(cu_seqlens + index + 1) - start
    else:
        return index * 0, length


@triton.jit
def offset(strides, batch, head, start, PACKED: tl.constexpr):
    """Where a sequence of a head starts; packed sequences all lie in one row of the batch."""
    if PACKED:
        return head * strides[1] + start * strides[2]
    else:
        return batch * strides[0] + head * strides[1]


@triton.jit
def at(source, strides, batch, head, start, PACKED: tl.constexpr, DESCRIPTORS: tl.constexpr):
    """source moved to a sequence of a head; a descriptor stays as it is."""
    if DESCRIPTORS:
        return source
    else:
        return source + offset(strides, batch, head, start, PACKED)


@triton.jit
def visible(query, key, seq_q, seq_k, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """Whether both positions exist and the query sees the key."""
    seen = (query < seq_q) & (key < seq_k)
    distance = query + (seq_k - seq_q) - key  # how far the key lies behind the query
    if CAUSAL:
        seen &= distance >= 0
    if WINDOW:
        seen &= distance < window
        if not CAUSAL:
            seen &= distance > -window
    return seen


@triton.jit
def logits(products, bias, query, key, seq_q, seq_k, bias_strides, scale, softcap, window,
           CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr,
           MASKED: tl.constexpr):  # fmt: skip
    """(logits of a tile of q.k products, their slope before the bias where SOFTCAP, else 1)."""
    z = products * scale
    slope = 1.0
    if SOFTCAP:
        capped = tanh(z / softcap)
        z = softcap * capped
        slope = 1 - capped * capped
    if BIAS:
        inside = (query < seq_q) & (key < seq_k)
        offsets = query.to(tl.int64) * bias_strides[2] + key.to(tl.int64) * bias_strides[3]
        z += tl.load(bias + offsets, mask=inside, other=0.0).to(tl.float32) * LOG2_E
    if MASKED:
        seen = visible(query, key, seq_q, seq_k, window, CAUSAL, WINDOW)
        z = tl.where(seen, z, float("-inf"))
    return z, slope


@triton.jit
def key_bounds(first, end, seq_q, seq_k, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """The keys that queries first to end - 1 see: (some from, all from, all to, some to)."""
    shift = seq_k - seq_q
    some_from, all_from = 0, 0
    all_to, some_to = seq_k, seq_k
    if WINDOW:
        some_from = tl.maximum(first + shift - window + 1, 0)
        all_from = tl.maximum(end + shift - window, 0)
        if not CAUSAL:
            all_to = tl.minimum(first + shift + window, seq_k)
            some_to = tl.minimum(end - 1 + shift + window, seq_k)
    if CAUSAL:
        all_to = tl.minimum(first + shift + 1, seq_k)
        some_to = tl.minimum(end + shift, seq_k)
    return some_from, all_from, all_to, some_to


@triton.jit
def query_bounds(first, end, seq_q, seq_k, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """The queries that see keys first to end - 1: (some from, all from, all to, some to)."""
    shift = seq_k - seq_q
    some_from, all_from = 0, 0
    all_to, some_to = seq_q, seq_q
    if WINDOW:
        all_to = tl.minimum(first - shift + window, seq_q)
        some_to = tl.minimum(end - 1 - shift + window, seq_q)
        if not CAUSAL:
            some_from = tl.maximum(first - shift - window + 1, 0)
            all_from = tl.maximum(end - shift - window, 0)
    if CAUSAL:
        some_from = tl.maximum(first - shift, 0)
        all_from = tl.maximum(end - 1 - shift, 0)
    return some_from, all_from, all_to, some_to


@triton.jit
def block_ranges(bounds, BLOCK: tl.constexpr):
    """bounds in whole blocks: masked [a, b), unmasked [b, c), masked [c, d)."""
    some_to = tl.maximum(bounds[3], 0)
    a = bounds[0] // BLOCK * BLOCK
    b = tl.minimum(tl.cdiv(bounds[1], BLOCK) * BLOCK, tl.cdiv(some_to, BLOCK) * BLOCK)
    b = tl.maximum(b, a)
    c = tl.maximum(tl.maximum(bounds[2], 0) // BLOCK * BLOCK, b)
    return a, b, c, some_to
