"""The Triton code of softmax.py.

Softmax is bound by its reads and writes. A row that fits in registers is read once and written once
(_row_kernel); a longer one is read twice, the second time mostly from L2 (_long_row_kernel). Exponentials are
base 2, as the hardware's are. Columns beyond a row are loaded as -inf: they change neither the maximum nor
the sum, so that a block can be a power of two for any row. Backward has the same two forms, over the output
and its gradient.
"""

# ruff: noqa: RET505 - Triton compiles what follows an `if` that returned: it needs the else.

import math

import torch
import triton
import triton.language as tl

from . import settings
from .launch import Prepared, launch, remembered

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _logits(
    x, mask, row, column, rows, columns, queries, x_stride, scale,
    mask_sizes, mask_strides, MASK: tl.constexpr, CAUSAL: tl.constexpr, EVICTION: tl.constexpr,
):  # fmt: skip
    """x * scale + mask for rows [R, 1] and columns [1, C] in float32; -inf outside and masked."""
    inside = (row < rows) & (column < columns)
    z = tl.load(x + row * x_stride + column, mask=inside, other=0.0, eviction_policy=EVICTION)
    z = z.to(tl.float32) * scale
    if MASK != "none":
        # The row number in mixed radix over the mask's (outer, middle, inner) leading dimensions.
        inner = row % mask_sizes[1]
        middle = row // mask_sizes[1] % mask_sizes[0]
        outer = row // mask_sizes[1] // mask_sizes[0]
        offset = outer * mask_strides[0] + middle * mask_strides[1] + inner * mask_strides[2]
        m = tl.load(mask + offset + column.to(tl.int64) * mask_strides[3], mask=inside, other=0)
        if MASK == "boolean":
            z = tl.where(m != 0, z, float("-inf"))
        else:
            z += m.to(tl.float32)
    visible = inside
    if CAUSAL:
        visible &= column <= row % queries + columns - queries
    return tl.where(visible, z, float("-inf"))


@triton.jit
def _finite_maximum(maximum, MASKED: tl.constexpr):
    """With a mask, a row (or lane) of -inf is shifted by 0, so that its exponentials are zeros."""
    if MASKED:
        maximum = tl.where(maximum == float("-inf"), 0.0, maximum)
    return maximum


@triton.jit
def _normalize(z, maximum, total, LOG: tl.constexpr, MASKED: tl.constexpr):
    """The output for logits z, given the row's shift and its sum of exponentials."""
    if MASKED:
        total = tl.where(total == 0, 1.0, total)
    if LOG:
        return z - maximum - tl.log2(total) * LN_2
    else:
        return tl.exp2((z - maximum) * LOG2_E) / total


@triton.jit(do_not_specialize=("rows", "queries"))
def _row_kernel(
    x, out, mask, rows, columns, queries, x_stride, scale, mask_sizes, mask_strides,
    LOG: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """ROWS whole rows a program."""
    MASKED: tl.constexpr = CAUSAL or MASK != "none"
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    z = _logits(x, mask, row, column, rows, columns, queries, x_stride, scale,
                mask_sizes, mask_strides, MASK, CAUSAL, "")  # fmt: skip
    maximum = _finite_maximum(tl.max(z, 1), MASKED)[:, None]
    total = tl.sum(tl.exp2((z - maximum) * LOG2_E), 1)[:, None]
    y = _normalize(z, maximum, total, LOG, MASKED)
    inside = (row < rows) & (column < columns)
    tl.store(out + row * columns + column, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=("rows", "queries"))
def _long_row_kernel(
    x, out, mask, rows, columns, queries, x_stride, scale, mask_sizes, mask_strides,
    LOG: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr, COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """One row a program, in steps of COLUMNS: maximum and sum in one pass, the output in a second.

    Every lane keeps its own maximum and sum, so that only the last step reduces across lanes. The second pass
    goes backwards, as the end of the row, which was read last, is still in L2.
    """
    MASKED: tl.constexpr = CAUSAL or MASK != "none"
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, COLUMNS)
    maxima = tl.full((COLUMNS,), float("-inf"), tl.float32)
    totals = tl.zeros((COLUMNS,), tl.float32)
    for start in tl.range(0, columns, COLUMNS, num_stages=STAGES):
        z = _logits(x, mask, row, start + lane, rows, columns, queries, x_stride, scale,
                    mask_sizes, mask_strides, MASK, CAUSAL, "evict_last")  # fmt: skip
        new_maxima = tl.maximum(maxima, z)
        shift = _finite_maximum(new_maxima, True)
        totals = totals * tl.exp2((maxima - shift) * LOG2_E) + tl.exp2((z - shift) * LOG2_E)
        maxima = new_maxima
    maximum = _finite_maximum(tl.max(maxima, 0), MASKED)
    total = tl.sum(totals * tl.exp2((maxima - maximum) * LOG2_E), 0)
    steps = tl.cdiv(columns, COLUMNS)
    for step in tl.range(0, steps, num_stages=STAGES):
        column = (steps - 1 - step) * COLUMNS + lane
        z = _logits(x, mask, row, column, rows, columns, queries, x_stride, scale,
                    mask_sizes, mask_strides, MASK, CAUSAL, "evict_first")  # fmt: skip
        y = _normalize(z, maximum, total, LOG, MASKED).to(out.dtype.element_ty)
        tl.store(out + row * columns + column, y, mask=column < columns, eviction_policy="evict_first")


@triton.jit
def _weighted_gradient(grad, y, row, column, rows, columns, grad_stride, LOG: tl.constexpr):
    """(dy, the row's probabilities p, the terms of its sum) for rows [R, 1] and columns [1, C]."""
    inside = (row < rows) & (column < columns)
    dy = tl.load(grad + row * grad_stride + column, mask=inside, other=0.0).to(tl.float32)
    p = tl.load(y + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    if LOG:
        dy = tl.where(p == float("-inf"), 0.0, dy)
        return dy, tl.exp2(p * LOG2_E), dy
    else:
        return dy, p, p * dy


@triton.jit
def _gradient(dy, p, total, scale, LOG: tl.constexpr):
    if LOG:
        return scale * (dy - p * total)
    else:
        return scale * p * (dy - total)


@triton.jit(do_not_specialize=("rows",))
def _row_backward_kernel(
    grad, y, out, rows, columns, grad_stride, scale,
    LOG: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """ROWS whole rows a program."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    dy, p, part = _weighted_gradient(grad, y, row, column, rows, columns, grad_stride, LOG)
    dx = _gradient(dy, p, tl.sum(part, 1)[:, None], scale, LOG)
    inside = (row < rows) & (column < columns)
    tl.store(out + row * columns + column, dx.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=("rows",))
def _long_row_backward_kernel(
    grad, y, out, rows, columns, grad_stride, scale, LOG: tl.constexpr, COLUMNS: tl.constexpr
):
    """One row a program: the sum in one pass, the gradient in a second."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, COLUMNS)
    totals = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, columns, COLUMNS):
        _, _, part = _weighted_gradient(grad, y, row, start + lane, rows, columns, grad_stride, LOG)
        totals += part
    total = tl.sum(totals, 0)
    for start in range(0, columns, COLUMNS):
        column = start + lane
        dy, p, _ = _weighted_gradient(grad, y, row, column, rows, columns, grad_stride, LOG)
        dx = _gradient(dy, p, total, scale, LOG)
        tl.store(out + row * columns + column, dx.to(out.dtype.element_ty), mask=column < columns)


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """x [..., N] as [rows, N] with a contiguous last dimension; a copy only where it must be."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def row_plan(kernel: str, x: torch.Tensor) -> tuple[bool, dict[str, int]]:
    """(whether a row of x fits on the chip, its block sizes and launch options).

    The settings are in classes by row length: the first whose COLUMNS hold the row is used.
    """
    return _row_plan(kernel, x.device, x.shape[-1])


@remembered
def _row_plan(kernel: str, device: torch.device, columns: int) -> tuple[bool, dict[str, int]]:
    width = triton.next_power_of_2(columns)
    for name in ("short", "middle", "wide"):
        chosen = settings.find(kernel, device, name)
        if width <= chosen["COLUMNS"]:
            rows = max(1, chosen["TILE"] // width)
            options = {"ROWS": rows, "COLUMNS": width, "num_warps": chosen["num_warps"]}
            return True, options
    return False, settings.find(kernel, device, "long")


def launch_softmax(
    x: torch.Tensor,
    mask: torch.Tensor | None,
    out: torch.Tensor,
    *,
    scale: float,
    causal: bool,
    log: bool,
) -> None:
    """Fill the contiguous out."""
    if x.numel() == 0:
        return
    flat = as_rows(x)
    rows, columns = flat.shape
    mask_kind, mask_sizes, mask_strides = "none", (1, 1), (0, 0, 0, 0)
    if mask is not None:
        mask_kind = "boolean" if mask.dtype == torch.bool else "additive"
        mask, mask_sizes, mask_strides = _mask_layout(mask, x.shape)
    queries = x.shape[-2] if causal else 1
    fits, chosen = row_plan("softmax", x)

    def prepare() -> Prepared:
        rest = {
            "rows": rows, "columns": columns, "queries": queries, "x_stride": flat.stride(0), "scale": scale,
            "mask_sizes": mask_sizes, "mask_strides": mask_strides,
            "LOG": log, "MASK": mask_kind, "CAUSAL": causal,
        }  # fmt: skip
        return (triton.cdiv(rows, chosen.get("ROWS", 1)),), tensors, rest | chosen

    tensors = (flat, out, mask)
    kernel = _row_kernel if fits else _long_row_kernel
    launch(kernel, tensors, (queries, scale, mask_kind, mask_sizes, mask_strides, causal, log), prepare)


def launch_softmax_backward(
    grad: torch.Tensor, y: torch.Tensor, out: torch.Tensor, *, scale: float, log: bool
) -> None:
    """Fill the contiguous out with the gradient of x, from the contiguous output y."""
    if y.numel() == 0:
        return
    flat = as_rows(grad)
    rows, columns = flat.shape
    fits, chosen = row_plan("softmax_backward", y)

    def prepare() -> Prepared:
        rest = {"rows": rows, "columns": columns, "grad_stride": flat.stride(0), "scale": scale, "LOG": log}
        return (triton.cdiv(rows, chosen.get("ROWS", 1)),), tensors, rest | chosen

    tensors = (flat, y, out)
    kernel = _row_backward_kernel if fits else _long_row_backward_kernel
    launch(kernel, tensors, (scale, log), prepare)


def _mask_layout(
    mask: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, tuple[int, int], tuple[int, int, int, int]]:
    """The mask expanded to shape, its leading dimensions merged into (outer, middle, inner).

    Returns (mask, (middle, inner) sizes, four strides). A mask that takes more than three
    leading dimensions is written out in full.
    """
    mask = mask.expand(shape)
    dims: list[tuple[int, int]] = []  # (size, stride), outermost first
    for size, stride in zip(shape[:-1], mask.stride()[:-1], strict=True):
        if size == 1:
            continue
        if dims and dims[-1][1] == size * stride:
            dims[-1] = (dims[-1][0] * size, stride)
        else:
            dims.append((size, stride))
    if len(dims) > 3:
        mask = mask.contiguous()
        dims = [(shape[:-1].numel(), shape[-1])]
    dims = [(1, 0)] * (3 - len(dims)) + dims
    strides = (*(stride for _, stride in dims), mask.stride(-1))
    return mask, (dims[1][0], dims[2][0]), strides
