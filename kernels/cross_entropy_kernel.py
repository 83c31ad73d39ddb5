"""The Triton code of cross_entropy.py.

Forward reads the logits once, whatever the vocabulary, and keeps two numbers a row: the maximum
and the sum of exponentials (their logarithm alone would cost the gradient half its digits where
the loss is large). Backward reads the logits once more and writes their gradient; the
probabilities never reach device memory.
"""

import torch
import triton
import triton.language as tl

from . import settings
from .activations import tanh
from .launch import Prepared, launch
from .softmax_kernel import LN_2, LOG2_E, as_rows


@triton.jit
def _softcapped(z, softcap, SOFTCAP: tl.constexpr):
    """(z under the soft cap, its slope there)."""
    slope = 1.0
    if SOFTCAP:
        capped = tanh(z / softcap)
        z = softcap * capped
        slope = 1 - capped * capped
    return z, slope


@triton.jit
def _cross_entropy_kernel(
    logits, target, loss, row_maximum, row_total, columns, stride, scale, ignore_index, smoothing, softcap,
    SMOOTHING: tl.constexpr, SOFTCAP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One row a program, in one pass; every lane keeps its own maximum and sum."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, COLUMNS)
    maxima = tl.full((COLUMNS,), float("-inf"), tl.float32)
    totals = tl.zeros((COLUMNS,), tl.float32)
    sums = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, columns, COLUMNS):
        column = start + lane
        inside = column < columns
        z = tl.load(logits + row * stride + column, mask=inside, other=0.0).to(tl.float32) * scale
        z, _ = _softcapped(z, softcap, SOFTCAP)
        if SMOOTHING:
            sums += tl.where(inside, z, 0.0)
        z = tl.where(inside, z, float("-inf"))
        new_maxima = tl.maximum(maxima, z)
        shift = tl.where(new_maxima == float("-inf"), 0.0, new_maxima)
        totals = totals * tl.exp2((maxima - shift) * LOG2_E) + tl.exp2((z - shift) * LOG2_E)
        maxima = new_maxima
    maximum = tl.max(maxima, 0)
    total = tl.sum(totals * tl.exp2((maxima - maximum) * LOG2_E), 0)
    tl.store(row_maximum + row, maximum)
    tl.store(row_total + row, total)

    chosen = tl.load(target + row)
    exists = (chosen >= 0) & (chosen < columns)
    z = tl.load(logits + row * stride + chosen, mask=exists, other=float("nan"))
    z, _ = _softcapped(z.to(tl.float32) * scale, softcap, SOFTCAP)
    row_loss = tl.log2(total) * LN_2 + (maximum - z)
    if SMOOTHING:
        row_loss += smoothing * (z - tl.sum(sums, 0) / columns)
    tl.store(loss + row, tl.where(chosen == ignore_index, 0.0, row_loss))


@triton.jit
def _cross_entropy_backward_kernel(
    grad, logits, target, maximum, total, out, columns, stride, first, classes,
    scale, ignore_index, smoothing, softcap, SOFTCAP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program takes COLUMNS of one row: (softmax - target distribution) * grad * scale.

    The row may be some columns, from first on, of a longer one with all classes; out may be logits.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < columns
    chosen = tl.load(target + row)
    z = tl.load(logits + row * stride + column, mask=inside, other=0.0).to(tl.float32) * scale
    z, slope = _softcapped(z, softcap, SOFTCAP)
    p = tl.exp2((z - tl.load(maximum + row)) * LOG2_E) / tl.load(total + row)
    dz = p - smoothing / classes
    dz = tl.where(column + first == chosen, dz - (1 - smoothing), dz) * slope * (tl.load(grad + row) * scale)
    dz = tl.where(chosen == ignore_index, 0.0, dz)
    tl.store(out + row * columns + column, dz.to(out.dtype.element_ty), mask=inside)


def launch_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    loss: torch.Tensor,
    maximum: torch.Tensor,
    total: torch.Tensor,
    *,
    scale: float,
    ignore_index: int,
    smoothing: float,
    softcap: float = 0.0,
) -> None:
    """Fill the contiguous loss, maximum and total."""
    if loss.numel() == 0:
        return
    flat = as_rows(logits)
    rows, columns = flat.shape

    def prepare() -> Prepared:
        rest = {
            "columns": columns, "stride": flat.stride(0), **numbers,
            "SMOOTHING": smoothing > 0, "SOFTCAP": softcap > 0,
        }  # fmt: skip
        return (rows,), tensors, rest | settings.find("cross_entropy", logits.device, "rows")

    tensors = (flat, target.contiguous(), loss, maximum, total)
    numbers = {"scale": scale, "ignore_index": ignore_index, "smoothing": smoothing, "softcap": softcap}
    launch(_cross_entropy_kernel, tensors, tuple(numbers.values()), prepare)


def launch_cross_entropy_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    maximum: torch.Tensor,
    total: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    ignore_index: int,
    smoothing: float,
    softcap: float = 0.0,
    first: int = 0,
    classes: int | None = None,
) -> None:
    """Fill the contiguous out, which may be logits; of the columns from first on, as in the reference."""
    if out.numel() == 0:
        return
    flat = as_rows(logits)
    rows, columns = flat.shape

    def prepare() -> Prepared:
        chosen = settings.find("cross_entropy_backward", logits.device, "rows")
        rest = {"columns": columns, "stride": flat.stride(0), **numbers, "SOFTCAP": softcap > 0}
        return (rows, triton.cdiv(columns, chosen["COLUMNS"])), tensors, rest | chosen

    tensors = (grad.contiguous(), flat, target.contiguous(), maximum, total, out)
    numbers = {
        "first": first, "classes": classes or columns,
        "scale": scale, "ignore_index": ignore_index, "smoothing": smoothing, "softcap": softcap,
    }  # fmt: skip
    launch(_cross_entropy_backward_kernel, tensors, tuple(numbers.values()), prepare)
