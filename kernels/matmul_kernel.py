"""The Triton code of matmul.py: one persistent product kernel, one backward epilogue."""

# ruff: noqa: RET505 - Triton compiles what follows an `if` that returned: it needs the else.

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from . import settings
from .activations import activate, activation_slope
from .descriptors import describe


@triton.jit
def _load_tile(source, strides, batch, row, column, rows, columns, ROWS: tl.constexpr,
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
def _store_tile(target, value, batch, row, column, rows, columns, ROWS: tl.constexpr,
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
def _tile_position(tile, tiles_m, tiles_n, GROUP: tl.constexpr):
    """(batch, row, column) of a tile, in groups of GROUP rows so that neighbours share in L2."""
    batch = tile // (tiles_m * tiles_n)
    within = tile % (tiles_m * tiles_n)
    first = within // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    within = within % (GROUP * tiles_n)
    return batch, first + within % height, within // height


@triton.jit
def _finish_tile(
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
        _store_tile(linear, x, batch, row, column, M, N, ROWS, COLUMNS, DESCRIPTORS)
    if GATED:
        if SAVE:
            _store_tile(gate_linear, gate_x, batch, row, column, M, N, ROWS, COLUMNS, DESCRIPTORS)
        x *= activate(gate_x, ACTIVATION)
    else:
        x = activate(x, ACTIVATION)
    if RESIDUAL:
        x += _load_tile(residual, residual_strides, batch, row, column, M, N, ROWS, COLUMNS,
                        False, False).to(tl.float32)  # fmt: skip
    _store_tile(out, x, batch, row, column, M, N, ROWS, COLUMNS, DESCRIPTORS)


@triton.jit
def _halves(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The left and the right half of a tile."""
    return tl.split(x.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1))


@triton.jit(do_not_specialize=("batches",))
def _matmul_kernel(
    a, b, gate, out, linear, gate_linear, bias, residual, scale_a, scale_b,
    batches, M, N, K,
    a_strides, b_strides, gate_strides, residual_strides, scale_a_stride, scale_b_stride,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, SAVE: tl.constexpr,
    GATED: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
    SCALE_A: tl.constexpr, SCALE_B: tl.constexpr,
    DESCRIPTORS: tl.constexpr, A_TRANSPOSED: tl.constexpr, B_TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, HALVES: tl.constexpr,
    GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Each program walks over output tiles.

    a, b, gate and the outputs are tensor descriptors where DESCRIPTORS, else pointers. HALVES
    finishes a tile in two halves, to save registers.
    """
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    # Not flatten=True: it serializes the two products of a gate (ptxas warning C7515).
    for tile in tl.range(tl.program_id(0), batches * tiles_m * tiles_n, PROGRAMS):
        batch, tile_m, tile_n = _tile_position(tile, tiles_m, tiles_n, GROUP)
        row = tile_m * BLOCK_M
        column = tile_n * BLOCK_N
        x = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        gate_x = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(tl.cdiv(K, BLOCK_K)):
            k = step * BLOCK_K
            a_tile = _load_tile(a, a_strides, batch, row, k, M, K, BLOCK_M, BLOCK_K,
                                DESCRIPTORS, A_TRANSPOSED)  # fmt: skip
            b_tile = _load_tile(b, b_strides, batch, k, column, K, N, BLOCK_K, BLOCK_N,
                                DESCRIPTORS, B_TRANSPOSED)  # fmt: skip
            x = tl.dot(a_tile, b_tile, x, input_precision=PRECISION)
            if GATED:
                gate_tile = _load_tile(gate, gate_strides, batch, k, column, K, N, BLOCK_K,
                                       BLOCK_N, DESCRIPTORS, B_TRANSPOSED)  # fmt: skip
                gate_x = tl.dot(a_tile, gate_tile, gate_x, input_precision=PRECISION)

        if HALVES:
            x, x_right = _halves(x, BLOCK_M, BLOCK_N)
            gate_x, gate_x_right = _halves(gate_x, BLOCK_M, BLOCK_N)
            _finish_tile(
                x, gate_x, batch, row, column, M, N,
                out, linear, gate_linear, bias, residual, scale_a, scale_b,
                residual_strides, scale_a_stride, scale_b_stride,
                ACTIVATION, SAVE, GATED, BIAS, RESIDUAL, SCALE_A, SCALE_B,
                DESCRIPTORS, BLOCK_M, BLOCK_N // 2,
            )  # fmt: skip
            x, gate_x = x_right, gate_x_right
            column += BLOCK_N // 2
        _finish_tile(
            x, gate_x, batch, row, column, M, N,
            out, linear, gate_linear, bias, residual, scale_a, scale_b,
            residual_strides, scale_a_stride, scale_b_stride,
            ACTIVATION, SAVE, GATED, BIAS, RESIDUAL, SCALE_A, SCALE_B,
            DESCRIPTORS, BLOCK_M, BLOCK_N // 2 if HALVES else BLOCK_N,
        )  # fmt: skip


# Elsewhere float8_e4m3fn is not a type of the tensor cores (gfx942 has another e4m3).
FLOAT8_ARCHITECTURES = ("sm90", "sm100", "interpreter")


def launch_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor | None,
    residual: torch.Tensor | None,
    scale_a: torch.Tensor | None,
    scale_b: torch.Tensor | None,
    out: torch.Tensor,
    linear: torch.Tensor,
    gate_linear: torch.Tensor,
    *,
    activation: str,
    tf32: bool,
) -> None:
    """Fill out (and linear, gate_linear where they have elements)."""
    if out.numel() == 0:
        return
    if a.itemsize == 1 and settings.architecture(a.device) not in FLOAT8_ARCHITECTURES:
        a, b = a.to(torch.float16), b.to(torch.float16)  # exact
    batches, rows, inner = a.shape
    columns = b.shape[2]
    chosen = settings.find("matmul", a.device, shape_class(a, b, gate))
    blocks = [chosen["BLOCK_M"], chosen["BLOCK_N"], chosen["BLOCK_K"]]
    a_source, a_transposed = _describe(a, blocks[0], blocks[2])
    b_source, b_transposed = _describe(b, blocks[2], blocks[1])
    gate_source, gate_transposed = (b_source, b_transposed)
    if gate is not None:
        gate_source, gate_transposed = _describe(gate, blocks[2], blocks[1])
    out_block = [1, blocks[0], blocks[1] // 2 if chosen["HALVES"] else blocks[1]]
    described = [a_source, b_source, gate_source]
    target = describe(out, out_block)
    described += [target, *(describe(t, out_block) if t.numel() else target for t in (linear, gate_linear))]
    use_descriptors = chosen["DESCRIPTORS"] and gate_transposed == b_transposed and None not in described
    plain = [a, b, b if gate is None else gate, out, linear, gate_linear]
    tiles = batches * triton.cdiv(rows, blocks[0]) * triton.cdiv(columns, blocks[1])
    # Where the output goes through shared memory as float32, it takes the place of a stage of the operands.
    stages = chosen["num_stages"] - (use_descriptors and out.itemsize == 4 and a.itemsize < 4)
    # A constant of the kernel: the number of tiles, where they are few, would compile it for each.
    programs = settings.processors(a.device) * chosen["PER_PROCESSOR"]
    with torch.cuda.device_of(a):
        _matmul_kernel[(min(tiles, programs),)](
            *(described if use_descriptors else plain), bias, residual, scale_a, scale_b,
            batches, rows, columns, inner,
            a.stride(), b.stride(), b.stride() if gate is None else gate.stride(),
            (0, 0, 0) if residual is None else residual.stride(),
            _vector_stride(scale_a), _vector_stride(scale_b),
            ACTIVATION=activation, PRECISION="tf32" if tf32 else "ieee",
            SAVE=linear.numel() > 0, GATED=gate is not None, BIAS=bias is not None,
            RESIDUAL=residual is not None,
            SCALE_A=scale_a is not None, SCALE_B=scale_b is not None,
            DESCRIPTORS=use_descriptors, A_TRANSPOSED=a_transposed, B_TRANSPOSED=b_transposed,
            BLOCK_M=blocks[0], BLOCK_N=blocks[1], BLOCK_K=blocks[2], HALVES=chosen["HALVES"],
            GROUP=8, PROGRAMS=programs,
            num_warps=chosen["num_warps"], num_stages=stages,
        )  # fmt: skip


def shape_class(a: torch.Tensor, b: torch.Tensor, gate: torch.Tensor | None) -> str:
    """The class of settings.toml that a product belongs to."""
    if a.dtype == torch.float32:
        return "fp32"
    if a.shape[1] <= 64:
        return "skinny"
    if gate is not None:
        return "gated"
    if a.itemsize == 1:
        return "fp8"
    return "large" if a.shape[1] >= 1024 and b.shape[2] >= 1024 else "medium"


def _vector_stride(scale: torch.Tensor | None) -> int:
    return 0 if scale is None or scale.numel() == 1 else scale.stride(0)


def _describe(
    matrix: torch.Tensor, block_rows: int, block_columns: int
) -> tuple[TensorDescriptor | None, bool]:
    """(descriptor, whether it is of the transposed matrix); None where the strides allow none."""
    transposed = matrix.stride(2) != 1 and matrix.stride(1) == 1
    if transposed:
        return describe(matrix.mT, [1, block_columns, block_rows]), True
    return describe(matrix, [1, block_rows, block_columns]), False


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
    parts = grad_bias.new_empty((chunks, columns) if grad_bias.numel() else (0,))
    flat = grad.reshape(rows, columns)
    flat = flat if flat.stride(1) == 1 or columns == 1 else flat.contiguous()
    grid = (chunks, triton.cdiv(columns, chosen["BLOCK_N"]))
    with torch.cuda.device_of(linear):
        _epilogue_backward_kernel[grid](
            flat, linear, gate_linear, grad_linear, grad_gate, parts,
            rows, columns, flat.stride(0),
            ACTIVATION=activation, GATED=gate_linear is not None, BIAS=grad_bias.numel() > 0,
            **chosen,
        )  # fmt: skip
    if grad_bias.numel():
        torch.sum(parts, dim=0, out=grad_bias)
