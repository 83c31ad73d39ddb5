"""The epilogue of matmul.py in kernels of its own: after a product split over K, and backward."""

import torch
import triton
import triton.language as tl

from . import settings
from .activations import activate, activation_slope
from .launch import Prepared, launch
from .matmul_tile import finish_tile, load_tile


def vector_stride(scale: torch.Tensor | None) -> int:
    """The step from one row's scale to the next; 0 where all rows have one."""
    return 0 if scale is None or scale.numel() == 1 else scale.stride(0)


@triton.jit(do_not_specialize=("batches", "splits"))
def _reduce_kernel(
    parts, gate_parts, out, linear, gate_linear, bias, residual, scale_a, scale_b,
    batches, M, N, splits, part_strides, residual_strides, scale_a_stride, scale_b_stride,
    ACTIVATION: tl.constexpr, SAVE: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr, SCALE_A: tl.constexpr, SCALE_B: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The sum of the parts [splits * batches, M, N], in their order, then the epilogue."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    batch = tl.program_id(0) // tiles_m
    row = tl.program_id(0) % tiles_m * BLOCK_M
    column = tl.program_id(1) * BLOCK_N
    x = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    gate_x = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for split in range(splits):
        part = split * batches + batch
        x += load_tile(parts, part_strides, part, row, column, M, N, BLOCK_M, BLOCK_N, False, False)
        if GATED:
            gate_x += load_tile(gate_parts, part_strides, part, row, column, M, N, BLOCK_M, BLOCK_N,
                                False, False)  # fmt: skip
    finish_tile(
        x, gate_x, batch, row, column, M, N,
        out, linear, gate_linear, bias, residual, scale_a, scale_b,
        residual_strides, scale_a_stride, scale_b_stride,
        ACTIVATION, SAVE, GATED, BIAS, RESIDUAL, SCALE_A, SCALE_B, False, BLOCK_M, BLOCK_N,
    )  # fmt: skip


def launch_reduce(
    parts: torch.Tensor,
    gate_parts: torch.Tensor | None,
    out: torch.Tensor,
    linear: torch.Tensor | None,
    gate_linear: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    scale_a: torch.Tensor | None,
    scale_b: torch.Tensor | None,
    activation: str,
) -> None:
    """Fill out (and what is saved) from the parts of a product, float32 [splits * batches, M, N]."""

    def prepare() -> Prepared:
        chosen = settings.find("matmul_reduce", out.device, "all")
        batches, rows, columns = out.shape
        grid = (batches * triton.cdiv(rows, chosen["BLOCK_M"]), triton.cdiv(columns, chosen["BLOCK_N"]))
        rest = {
            "batches": batches, "M": rows, "N": columns, "splits": parts.shape[0] // batches,
            "part_strides": parts.stride(),
            "residual_strides": (0, 0, 0) if residual is None else residual.stride(),
            "scale_a_stride": vector_stride(scale_a), "scale_b_stride": vector_stride(scale_b),
            "ACTIVATION": activation, "SAVE": linear is not None, "GATED": gate_parts is not None,
            "BIAS": bias is not None, "RESIDUAL": residual is not None,
            "SCALE_A": scale_a is not None, "SCALE_B": scale_b is not None,
        }  # fmt: skip
        return grid, tensors, rest | chosen

    tensors = (parts, gate_parts, out, linear, gate_linear, bias, residual, scale_a, scale_b)
    launch(_reduce_kernel, tensors, activation, prepare)


@triton.jit(do_not_specialize=("rows",))
def _epilogue_backward_kernel(
    grad, linear, gate_linear, grad_linear, grad_gate, grad_bias_parts,
    rows, columns, grad_row_stride,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, BIAS: tl.constexpr,
    STEPS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A program takes BLOCK_N columns of STEPS x BLOCK_M rows and one row of grad_bias_parts."""
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    column_sum = tl.zeros((BLOCK_N,), tl.float32)
    for step in range(STEPS):
        i = (tl.program_id(0) * STEPS + step) * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = (i < rows)[:, None] & (j < columns)[None, :]
        i = i.to(tl.int64)[:, None]
        offsets = i * columns + j[None, :]
        dy = tl.load(grad + i * grad_row_stride + j[None, :], mask=inside, other=0.0)
        dy = dy.to(tl.float32)
        x = tl.load(linear + offsets, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            gate_x = tl.load(gate_linear + offsets, mask=inside, other=0.0).to(tl.float32)
            dgate = dy * x * activation_slope(gate_x, ACTIVATION)
            tl.store(grad_gate + offsets, dgate.to(grad_gate.dtype.element_ty), mask=inside)
            dx = dy * activate(gate_x, ACTIVATION)
        else:
            dx = dy * activation_slope(x, ACTIVATION)
        tl.store(grad_linear + offsets, dx.to(grad_linear.dtype.element_ty), mask=inside)
        column_sum += tl.sum(tl.where(inside, dx, 0.0), 0)
    if BIAS:
        # Parts that torch adds up: the same result in every run, unlike atomics.
        parts = grad_bias_parts + tl.program_id(0).to(tl.int64) * columns + j
        tl.store(parts, column_sum, mask=j < columns)


def launch_epilogue_backward(
    grad: torch.Tensor,
    linear: torch.Tensor,
    gate_linear: torch.Tensor | None,
    grad_linear: torch.Tensor,
    grad_gate: torch.Tensor,
    grad_bias: torch.Tensor,
    *,
    activation: str,
) -> None:
    """Fill the gradients of matmul's epilogue (those that have elements)."""
    columns = linear.shape[-1]
    rows = linear.shape[:-1].numel()
    if linear.numel() == 0:
        grad_bias.zero_()
        return
    chosen = settings.find("matmul_epilogue_backward", linear.device, "all")
    chunk = chosen["STEPS"] * chosen["BLOCK_M"]
    chunks = triton.cdiv(rows, chunk)
    parts = grad_bias.new_empty((chunks, columns)) if grad_bias.numel() else None
    flat = grad.reshape(rows, columns)
    flat = flat if flat.stride(1) == 1 or columns == 1 else flat.contiguous()

    def prepare() -> Prepared:
        rest = {
            "rows": rows, "columns": columns, "grad_row_stride": flat.stride(0),
            "ACTIVATION": activation, "GATED": gate_linear is not None, "BIAS": parts is not None,
        }  # fmt: skip
        return (chunks, triton.cdiv(columns, chosen["BLOCK_N"])), tensors, rest | chosen

    tensors = (flat, linear, gate_linear, grad_linear, grad_gate if grad_gate.numel() else None, parts)
    launch(_epilogue_backward_kernel, tensors, activation, prepare)
    if parts is not None:
        torch.sum(parts, dim=0, out=grad_bias)
