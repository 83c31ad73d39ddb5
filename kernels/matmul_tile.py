"""One tile in the kernels of matmul.py: load it, store it, finish it with the epilogue."""

# ruff: noqa: RET505 - Triton compiles what follows an `if` that returned: it needs the else.

import triton
import triton.language as tl

from .activations import activate


@triton.jit
def load_tile(source, strides, batch, row, column, rows, columns, ROWS: tl.constexpr,
               COLUMNS: tl.constexpr, DESCRIPTORS: tl.constexpr, TRANSPOSED: tl.constexpr):  # fmt: skip
    """The [ROWS, COLUMNS] tile at (row, column) of a batch, zero outside the matrix."""
    if DESCRIPTORS and TRANSPOSED:
        return source.load([batch, column, row]).reshape(COLUMNS, ROWS).T
    elif DESCRIPTORS:
        return source.load([batch, row, column]).reshape(ROWS, COLUMNS)
    else:
        i = row + tl.arange(0, ROWS)
        j = column + tl.arange(0, COLUMNS)
        offsets = i.to(tl.int64)[:, None] * strides[1] + j.to(tl.int64)[None, :] * strides[2]
        inside = (i < rows)[:, None] & (j < columns)[None, :]
        return tl.load(source + batch.to(tl.int64) * strides[0] + offsets, mask=inside, other=0.0)


@triton.jit
def store_tile(target, value, batch, row, column, rows, columns, ROWS: tl.constexpr,
                COLUMNS: tl.constexpr, DESCRIPTORS: tl.constexpr):  # fmt: skip
    """Store a tile of a contiguous [batches, rows, columns] output."""
    if DESCRIPTORS:
        value = value.to(target.dtype).reshape(1, ROWS, COLUMNS)
        target.store([batch, row, column], value)
    else:
        i = row + tl.arange(0, ROWS)
        j = column + tl.arange(0, COLUMNS)
        offsets = (batch.to(tl.int64) * rows + i.to(tl.int64)[:, None]) * columns + j[None, :]
        inside = (i < rows)[:, None] & (j < columns)[None, :]
        tl.store(target + offsets, value.to(target.dtype.element_ty), mask=inside)


@triton.jit
def finish_tile(
    x, gate_x, batch, row, column, M, N,
    out, linear, gate_linear, bias, residual, scale_a, scale_b,
    residual_strides, scale_a_stride, scale_b_stride,
    ACTIVATION: tl.constexpr, SAVE: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr, SCALE_A: tl.constexpr, SCALE_B: tl.constexpr,
    DESCRIPTORS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The epilogue of one accumulated tile, from the scales to the store."""
    i = row + tl.arange(0, ROWS)
    j = column + tl.arange(0, COLUMNS)
    if SCALE_A:
        x *= tl.load(scale_a + i * scale_a_stride, mask=i < M, other=0.0)[:, None]
    if SCALE_B:
        x *= tl.load(scale_b + j * scale_b_stride, mask=j < N, other=0.0)[None, :]
    if BIAS:
        x += tl.load(bias + j, mask=j < N, other=0.0).to(tl.float32)[None, :]
    if SAVE:
        store_tile(linear, x, batch, row, column, M, N, ROWS, COLUMNS, DESCRIPTORS)
    if GATED:
        if SAVE:
            store_tile(gate_linear, gate_x, batch, row, column, M, N, ROWS, COLUMNS, DESCRIPTORS)
        x *= activate(gate_x, ACTIVATION)
    else:
        x = activate(x, ACTIVATION)
    if RESIDUAL:
        x += load_tile(residual, residual_strides, batch, row, column, M, N, ROWS, COLUMNS,
                        False, False).to(tl.float32)  # fmt: skip
    store_tile(out, x, batch, row, column, M, N, ROWS, COLUMNS, DESCRIPTORS)
