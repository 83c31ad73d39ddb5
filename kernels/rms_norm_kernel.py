"""The Triton code of rms_norm.py.

A row that fits in registers is read once and written once; a longer row is read twice, the second time from
the cache. Backward gives the gradient of the input and, from the same read, the weight's in parts that torch
adds up:
no atomics, the same result in every run. Rows are masked at their end, since COLUMNS is a power of two.
"""

# ruff: noqa: RET505 - Triton compiles what follows an `if` that returned: it needs the else.

from typing import Any

import torch
import triton
import triton.language as tl

from . import settings
from .launch import Prepared, launch, remembered
from .softmax_kernel import as_rows


@triton.jit
def _factor(weight, column, columns, offset, WEIGHT: tl.constexpr):
    """The factor of a normalized row: offset + weight, or 1."""
    if WEIGHT:
        return tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32) + offset
    else:
        return 1.0


@triton.jit
def _elements(
    x, residual, total, row, column, rows, columns, x_stride, residual_stride,
    RESIDUAL: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    """The elements to normalize, in float32: x, or x + residual rounded to total's dtype (STORE: and
    stored).
    """
    inside = (row < rows) & (column < columns)
    z = tl.load(x + row * x_stride + column, mask=inside, other=0.0)
    if RESIDUAL:
        added = tl.load(residual + row * residual_stride + column, mask=inside, other=0.0)
        z = (z.to(tl.float32) + added.to(tl.float32)).to(total.dtype.element_ty)
        if STORE:
            tl.store(total + row * columns + column, z, mask=inside)
    return z.to(tl.float32)


@triton.jit
def _rms_norm_kernel(
    x, residual, weight, out, total, inverse, rows, columns, x_stride, residual_stride, eps, offset,
    RESIDUAL: tl.constexpr, WEIGHT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """ROWS whole rows a program."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    z = _elements(x, residual, total, row, column, rows, columns, x_stride, residual_stride, RESIDUAL, True)
    scale = tl.rsqrt(tl.sum(z * z, 1) / columns + eps)[:, None]
    y = z * scale * _factor(weight, column, columns, offset, WEIGHT)
    inside = (row < rows) & (column < columns)
    tl.store(out + row * columns + column, y.to(out.dtype.element_ty), mask=inside)
    tl.store(inverse + row, scale, mask=row < rows)


@triton.jit
def _long_rms_norm_kernel(
    x, residual, weight, out, total, inverse, rows, columns, x_stride, residual_stride, eps, offset,
    RESIDUAL: tl.constexpr, WEIGHT: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One row a program, in steps of COLUMNS."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, COLUMNS)
    squares = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, columns, COLUMNS):
        z = _elements(x, residual, total, row, start + lane, rows, columns, x_stride, residual_stride,
                      RESIDUAL, True)  # fmt: skip
        squares += z * z
    scale = tl.rsqrt(tl.sum(squares, 0) / columns + eps)
    for start in range(0, columns, COLUMNS):
        column = start + lane
        z = _elements(x, residual, total, row, column, rows, columns, x_stride, residual_stride,
                      RESIDUAL, False)  # fmt: skip
        y = z * scale * _factor(weight, column, columns, offset, WEIGHT)
        tl.store(out + row * columns + column, y.to(out.dtype.element_ty), mask=column < columns)
    tl.store(inverse + row, scale)


@triton.jit
def _terms(
    grad, x, weight, scale, row, column, rows, columns, grad_stride, x_stride, offset, WEIGHT: tl.constexpr
):
    """(the output's gradient, the normalized elements, the gradient of these)."""
    inside = (row < rows) & (column < columns)
    dy = tl.load(grad + row * grad_stride + column, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    return dy, z * scale, dy * _factor(weight, column, columns, offset, WEIGHT)


@triton.jit
def _store_gradient(out, dx, grad_total, row, column, rows, columns, grad_total_stride, TOTAL: tl.constexpr):
    """dx, with the gradient that came to x + residual itself."""
    inside = (row < rows) & (column < columns)
    if TOTAL:
        added = tl.load(grad_total + row * grad_total_stride + column, mask=inside, other=0.0)
        dx += added.to(tl.float32)
    tl.store(out + row * columns + column, dx.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_backward_kernel(
    grad, grad_total, x, weight, inverse, out, parts, rows, columns,
    grad_stride, grad_total_stride, x_stride, offset,
    TOTAL: tl.constexpr, WEIGHT: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """ROWS whole rows at a time, in strides of all programs; each sums its part of the weight's gradient."""
    column = tl.arange(0, COLUMNS)[None, :]
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
        row = (start + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        scale = tl.load(inverse + row, mask=row < rows, other=0.0)
        # The weight is read anew for every row, from the cache: held, it would spill registers.
        dy, normalized, weighted = _terms(grad, x, weight, scale, row, column, rows, columns,
                                          grad_stride, x_stride, offset, WEIGHT)  # fmt: skip
        if PARTS:
            sums += dy * normalized
        dx = scale * (weighted - normalized * (tl.sum(weighted * normalized, 1)[:, None] / columns))
        _store_gradient(out, dx, grad_total, row, column, rows, columns, grad_total_stride, TOTAL)
    if PARTS:
        part = tl.arange(0, COLUMNS)
        target = parts + tl.program_id(0).to(tl.int64) * columns + part
        tl.store(target, tl.sum(sums, 0), mask=part < columns)


@triton.jit
def _long_rms_norm_backward_kernel(
    grad, grad_total, x, weight, inverse, out, parts, rows, columns,
    grad_stride, grad_total_stride, x_stride, offset,
    TOTAL: tl.constexpr, WEIGHT: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One row at a time, in steps of COLUMNS; the sums do not fit in registers, and stay in the cache."""
    lane = tl.arange(0, COLUMNS)
    parts += tl.program_id(0).to(tl.int64) * columns
    for index in range(tl.program_id(0), rows, tl.num_programs(0)):
        row = tl.cast(index, tl.int64)
        scale = tl.load(inverse + row)
        dots = tl.zeros((COLUMNS,), tl.float32)
        for start in range(0, columns, COLUMNS):
            _, normalized, weighted = _terms(grad, x, weight, scale, row, start + lane, rows, columns,
                                             grad_stride, x_stride, offset, WEIGHT)  # fmt: skip
            dots += weighted * normalized
        dot = tl.sum(dots, 0) / columns
        for start in range(0, columns, COLUMNS):
            column = start + lane
            dy, normalized, weighted = _terms(grad, x, weight, scale, row, column, rows, columns,
                                              grad_stride, x_stride, offset, WEIGHT)  # fmt: skip
            if PARTS:
                later = (column < columns) & (index >= tl.num_programs(0))  # the first row starts the sums
                sums = tl.load(parts + column, mask=later, other=0.0) + dy * normalized
                tl.store(parts + column, sums, mask=column < columns)
            dx = scale * (weighted - normalized * dot)
            _store_gradient(out, dx, grad_total, row, column, rows, columns, grad_total_stride, TOTAL)
        tl.debug_barrier()  # another thread may load for the next row what this one has stored of the sums


@remembered
def _plan(kernel: str, device: torch.device, columns: int) -> tuple[bool, dict[str, int], dict[str, Any]]:
    """(whether a row fits on the chip, its block sizes and launch options, the settings they are from).

    The settings are in classes by row length: the first whose COLUMNS hold the row is used.
    """
    width = triton.next_power_of_2(columns)
    for name in ("short", "middle"):
        chosen = settings.find(kernel, device, name)
        if width <= chosen["COLUMNS"]:
            rows = max(1, chosen["TILE"] // width)
            return True, {"ROWS": rows, "COLUMNS": width, "num_warps": chosen["num_warps"]}, chosen
    chosen = settings.find(kernel, device, "long")
    return False, {name: chosen[name] for name in ("COLUMNS", "num_warps")}, chosen


def launch_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    weight: torch.Tensor | None,
    out: torch.Tensor,
    total: torch.Tensor,
    inverse: torch.Tensor,
    *,
    eps: float,
    offset: float,
) -> None:
    """Fill the contiguous out, inverse and, with a residual, total."""
    if x.numel() == 0:
        return
    flat, added = as_rows(x), None if residual is None else as_rows(residual)
    fits, options, _ = _plan("rms_norm", x.device, x.shape[-1])

    def prepare() -> Prepared:
        rows, columns = flat.shape
        rest = {
            "rows": rows, "columns": columns, "x_stride": flat.stride(0), "eps": eps, "offset": offset,
            "residual_stride": 0 if added is None else added.stride(0),
            "RESIDUAL": added is not None, "WEIGHT": weight is not None,
        }  # fmt: skip
        return (triton.cdiv(rows, options.get("ROWS", 1)),), tensors, rest | options

    tensors = (flat, added, _contiguous(weight), out, total, inverse)
    launch(_rms_norm_kernel if fits else _long_rms_norm_kernel, tensors, (eps, offset), prepare)


def launch_rms_norm_backward(
    grad: torch.Tensor,
    grad_total: torch.Tensor | None,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    inverse: torch.Tensor,
    dx: torch.Tensor,
    dweight: torch.Tensor,
    *,
    offset: float,
) -> None:
    """Fill the contiguous dx and, where it has elements, the float32 dweight."""
    if x.numel() == 0:
        dweight.zero_()
        return
    flat, flat_grad = as_rows(x), as_rows(grad)
    added = None if grad_total is None else as_rows(grad_total)
    rows, columns = flat.shape
    fits, options, chosen = _plan("rms_norm_backward", x.device, columns)
    tiles = triton.cdiv(rows, options.get("ROWS", 1))
    programs = min(tiles, settings.processors(x.device) * chosen["PER_PROCESSOR"])
    parts = dweight.new_empty((programs, columns)) if dweight.numel() else None

    def prepare() -> Prepared:
        rest = {
            "rows": rows, "columns": columns, "grad_stride": flat_grad.stride(0), "offset": offset,
            "grad_total_stride": 0 if added is None else added.stride(0), "x_stride": flat.stride(0),
            "TOTAL": added is not None, "WEIGHT": weight is not None, "PARTS": parts is not None,
        }  # fmt: skip
        return (programs,), tensors, rest | options

    tensors = (flat_grad, added, flat, _contiguous(weight), inverse, dx, parts)
    kernel = _rms_norm_backward_kernel if fits else _long_rms_norm_backward_kernel
    launch(kernel, tensors, (offset,), prepare)
    if parts is not None:
        torch.sum(parts, dim=0, out=dweight)


def _contiguous(weight: torch.Tensor | None) -> torch.Tensor | None:
    return None if weight is None else weight.contiguous()
