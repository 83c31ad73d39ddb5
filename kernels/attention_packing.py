"""Packed sequences: the rows of a buffer that belong to none of them.

A buffer may be longer than its sequences, for instance to have a fixed size for a CUDA graph. No program of
the attention kernels reaches such rows, so a kernel of its own writes their zeros: all memory is written just
once.
"""

import torch
import triton
import triton.language as tl

from .attention_tile import offset, store_rows
from .launch import Prepared, launch


@triton.jit(do_not_specialize=("sequences", "heads", "longest", "rows"))
def _clear_kernel(
    out, cu_seqlens, out_strides, sequences, heads, longest, rows,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """For one head: a sequence's rows from longest on, or all rows after the last sequence."""
    index = tl.program_id(0) // heads
    head = (tl.program_id(0) % heads).to(tl.int64)
    start = tl.load(cu_seqlens + index)
    end = rows
    if index < sequences:
        start += longest
        end = tl.load(cu_seqlens + index + 1)
    out += offset(out_strides, 0, head, 0, True)
    zeros = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for first in range(start, end, BLOCK_M):
        store_rows(out, out_strides[2], first, end, zeros, BLOCK_M, HEAD_DIM, BLOCK_D)


def clear_rest(out: torch.Tensor, cu_seqlens: torch.Tensor, longest: int) -> None:
    """Zeros in the rows of out [1, heads, rows, head_dim] that no sequence has, or has after longest."""

    def prepare() -> Prepared:
        _, heads, rows, head_dim = out.shape
        sequences = cu_seqlens.numel() - 1
        rest = {
            "out_strides": out.stride(), "sequences": sequences, "heads": heads, "longest": longest,
            "rows": rows, "HEAD_DIM": head_dim, "BLOCK_D": triton.next_power_of_2(head_dim), "BLOCK_M": 16,
        }  # fmt: skip
        return ((sequences + 1) * heads,), (out, cu_seqlens), rest | {"num_warps": 4}

    launch(_clear_kernel, (out, cu_seqlens), longest, prepare)
