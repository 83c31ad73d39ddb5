"""The Triton code of rope.py: a program takes a block of positions of some heads, which share the angles."""

import torch
import triton
import triton.language as tl

from . import settings
from .launch import Prepared, launch


@triton.jit
def _rope_kernel(
    x, cos, sin, positions, out, x_strides, out_strides, table_strides, position_strides,
    heads, seq, table_rows, head_dim, pairs,
    INTERLEAVED: tl.constexpr, BACK: tl.constexpr, POSITIONS: tl.constexpr, REST: tl.constexpr,
    BLOCK_M: tl.constexpr, HEADS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """REST: how many elements beyond the pairs to copy, rounded up to a power of two; 0 for none."""
    head_blocks, seq_blocks = tl.cdiv(heads, HEADS), tl.cdiv(seq, BLOCK_M)
    batch = (tl.program_id(0) // (head_blocks * seq_blocks)).to(tl.int64)
    first_head = tl.program_id(0) % head_blocks * HEADS
    block = tl.program_id(0) // head_blocks % seq_blocks
    position = (block * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    pair = tl.arange(0, PAIRS)[None, :]
    exists = position < seq
    row = position
    if POSITIONS:
        row = tl.load(positions + batch * position_strides[0] + position * position_strides[1],
                      mask=exists, other=0)  # fmt: skip
    angles = batch * table_strides[0] + row.to(tl.int64) * table_strides[1] + pair * table_strides[2]
    known = exists & (pair < pairs) & (row >= 0) & (row < table_rows)
    c = tl.load(cos + angles, mask=known, other=float("nan")).to(tl.float32)
    s = tl.load(sin + angles, mask=known, other=float("nan")).to(tl.float32)
    if BACK:
        s = -s
    x += batch * x_strides[0] + position.to(tl.int64) * x_strides[2]
    out += batch * out_strides[0] + position.to(tl.int64) * out_strides[2]
    inside = exists & (pair < pairs)
    for head in range(first_head, tl.minimum(first_head + HEADS, heads)):
        source = x + tl.cast(head, tl.int64) * x_strides[1]
        target = out + tl.cast(head, tl.int64) * out_strides[1]
        if INTERLEAVED:
            column = tl.arange(0, 2 * PAIRS)[None, :]
            both_inside = exists & (column < 2 * pairs)
            both = tl.load(source + column, mask=both_inside, other=0.0).to(tl.float32)
            a, b = tl.split(both.reshape(BLOCK_M, PAIRS, 2))
            turned = tl.join(a * c - b * s, b * c + a * s).reshape(BLOCK_M, 2 * PAIRS)
            tl.store(target + column, turned.to(out.dtype.element_ty), mask=both_inside)
        else:
            a = tl.load(source + pair, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(source + pairs + pair, mask=inside, other=0.0).to(tl.float32)
            tl.store(target + pair, (a * c - b * s).to(out.dtype.element_ty), mask=inside)
            tl.store(target + pairs + pair, (b * c + a * s).to(out.dtype.element_ty), mask=inside)
        if REST:
            column = 2 * pairs + tl.arange(0, REST)[None, :]
            rest_inside = exists & (column < head_dim)
            tl.store(target + column, tl.load(source + column, mask=rest_inside), mask=rest_inside)


def launch_rope(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    out: torch.Tensor,
    *,
    interleaved: bool,
    back: bool,
) -> None:
    """Fill out, which may be x itself; its last dimension is contiguous."""
    if x.numel() == 0:
        return
    in_place = out is x
    x = x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
    if sin.stride() != cos.stride():
        cos, sin = cos.contiguous(), sin.contiguous()

    def prepare() -> Prepared:
        batch, heads, seq, head_dim = x.shape
        rows, pairs = cos.shape[-2:]
        several = cos.ndim == 3 and cos.shape[0] > 1
        ids = None if positions is None else positions.expand(batch, seq)
        nothing_left = in_place or 2 * pairs == head_dim
        chosen = settings.find("rope", x.device, "all")
        programs = batch * triton.cdiv(heads, chosen["HEADS"]) * triton.cdiv(seq, chosen["BLOCK_M"])
        rest = {
            "x_strides": x.stride(), "out_strides": out.stride(),
            "table_strides": (cos.stride(0) if several else 0, *cos.stride()[-2:]),
            "position_strides": (0, 0) if ids is None else ids.stride(),
            "heads": heads, "seq": seq, "table_rows": rows, "head_dim": head_dim, "pairs": pairs,
            "INTERLEAVED": interleaved, "BACK": back, "POSITIONS": ids is not None,
            "REST": 0 if nothing_left else triton.next_power_of_2(head_dim - 2 * pairs),
            "PAIRS": triton.next_power_of_2(max(pairs, 1)),
        }  # fmt: skip
        return (programs,), tensors, rest | chosen

    tensors = (x, cos, sin, positions, out)
    launch(_rope_kernel, tensors, (interleaved, back, in_place), prepare)
