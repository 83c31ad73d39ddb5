"""Softmax and log-softmax over the last dimension, with scale and mask fused in.

A row that fits on the chip is read once and written once (_row_kernel); a longer one is read
twice, the second time mostly from L2 (_long_row_kernel). Exponentials are base 2, the unit of
the hardware. Backward is one kernel of the same two forms over the output and its gradient.
"""

import math

import torch
import triton
import triton.language as tl

from budget.kernels import checks, settings
from budget.kernels.settings import runs_triton

__all__ = ["cross_entropy", "log_softmax", "softmax"]

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))


def softmax(
    x: torch.Tensor,
    *,
    scale: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """softmax(x * scale + mask) over the last dimension of x [..., N]; x's shape and dtype.

    x: float16, bfloat16 or float32, any shape and strides (the last dimension is copied where
        it is not contiguous); computed in float32.
    mask: broadcasts to x; boolean (True takes part) or additive, of x's dtype or float32.
    causal: x is [..., queries, keys]; query i sees the keys up to i + keys - queries.
    A row with nothing left after mask and causal gives zeros, as in torch's attention; without
    them, a row of -inf gives NaN, as in torch.softmax.
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device, a non-finite scale).
    """
    return _checked_softmax(x, scale, mask, causal, log=False)


def log_softmax(
    x: torch.Tensor,
    *,
    scale: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """The logarithm of softmax(...), same arguments; -inf where the mask leaves nothing.

    An element whose log-probability is -inf passes no gradient on.
    """
    return _checked_softmax(x, scale, mask, causal, log=True)


def _checked_softmax(x, scale, mask, causal, log):
    checks.require_tensor("x", x)
    checks.require(x.ndim >= 1, "x: expected at least 1 dimension, got 0")
    scale = checks.require_number("scale", scale)
    checks.require_bool("causal", causal)
    checks.require(not causal or x.ndim >= 2, "causal: x needs a dimension for the queries")
    if mask is not None:
        checks.require_tensor("mask", mask, (torch.bool, torch.float32, x.dtype))
        checks.require_device("mask", mask, "x", x)
        checks.require_broadcast("mask", mask, tuple(x.shape))
    return _softmax(x, mask, scale, causal, log)


def causal_mask(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """True where query i sees key j: aligned at the last query and the last key."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def reference_softmax(
    x: torch.Tensor, mask: torch.Tensor | None, scale: float, causal: bool, log: bool
) -> torch.Tensor:
    """Plain torch in float32, or in float64 for float64 x."""
    z = x.to(torch.promote_types(torch.float32, x.dtype)) * scale
    if mask is not None:
        z = z.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else z + mask
    if causal:
        z = z.masked_fill(~causal_mask(*x.shape[-2:], x.device), -math.inf)
    y = torch.log_softmax(z, -1) if log else torch.softmax(z, -1)
    if mask is None and not causal:
        return y
    nothing_left = (z == -math.inf).all(-1, keepdim=True)
    return y.masked_fill(nothing_left, -math.inf if log else 0.0)


def reference_softmax_backward(
    grad: torch.Tensor, y: torch.Tensor, scale: float, log: bool
) -> torch.Tensor:
    """The gradient of x, from the output y."""
    compute = torch.promote_types(torch.float32, y.dtype)
    grad, y = grad.to(compute), y.to(compute)
    if not log:
        return scale * y * (grad - (y * grad).sum(-1, keepdim=True))
    grad = grad.masked_fill(y == -math.inf, 0.0)
    return scale * (grad - y.exp() * grad.sum(-1, keepdim=True))


@torch.library.custom_op("budget::softmax", mutates_args=())
def _softmax(
    x: torch.Tensor, mask: torch.Tensor | None, scale: float, causal: bool, log: bool
) -> torch.Tensor:
    out = x.new_empty(x.shape)
    if runs_triton(x):
        launch_softmax(x, mask, out, scale=scale, causal=causal, log=log)
    else:
        out.copy_(reference_softmax(x, mask, scale, causal, log))
    return out


@_softmax.register_fake
def _(x, mask, scale, causal, log):
    return x.new_empty(x.shape)


@torch.library.custom_op("budget::softmax_backward", mutates_args=())
def _softmax_backward(grad: torch.Tensor, y: torch.Tensor, scale: float, log: bool) -> torch.Tensor:
    out = y.new_empty(y.shape)
    if runs_triton(y):
        launch_softmax_backward(grad, y, out, scale=scale, log=log)
    else:
        out.copy_(reference_softmax_backward(grad, y, scale, log))
    return out


@_softmax_backward.register_fake
def _(grad, y, scale, log):
    return y.new_empty(y.shape)


def _setup_context(ctx, inputs, output):
    _, mask, scale, _, log = inputs
    ctx.save_for_backward(output)
    ctx.mask, ctx.scale, ctx.log = (
        (mask.shape, mask.dtype) if mask is not None else None,
        scale,
        log,
    )


def _backward(ctx, grad):
    (y,) = ctx.saved_tensors
    if not ctx.needs_input_grad[1]:
        return _softmax_backward(grad, y, ctx.scale, ctx.log), None, None, None, None
    # The mask is added after the scale, so its gradient is that of scale 1.
    shape, dtype = ctx.mask
    grad_z = _softmax_backward(grad, y, 1.0, ctx.log)
    return grad_z * ctx.scale, grad_z.sum_to_size(shape).to(dtype), None, None, None


_softmax.register_autograd(_backward, setup_context=_setup_context)


@triton.jit
def _logits(
    x, mask, row, column, rows, columns, queries, x_stride, scale,
    mask_sizes, mask_strides, MASK: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """x * scale + mask for rows [R, 1] and columns [1, C] in float32; -inf outside and masked."""
    inside = (row < rows) & (column < columns)
    z = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32) * scale
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
    if LOG:
        return z - maximum - tl.log2(total) * LN_2
    else:
        if MASKED:
            total = tl.where(total == 0, 1.0, total)
        return tl.exp2((z - maximum) * LOG2_E) / total


@triton.jit
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
                mask_sizes, mask_strides, MASK, CAUSAL)  # fmt: skip
    maximum = _finite_maximum(tl.max(z, 1), MASKED)[:, None]
    total = tl.sum(tl.exp2((z - maximum) * LOG2_E), 1)[:, None]
    y = _normalize(z, maximum, total, LOG, MASKED)
    inside = (row < rows) & (column < columns)
    tl.store(out + row * columns + column, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _long_row_kernel(
    x, out, mask, rows, columns, queries, x_stride, scale, mask_sizes, mask_strides,
    LOG: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One row a program, in steps of COLUMNS: maximum and sum in one pass, the output in a second.

    Every lane keeps its own maximum and sum, so that only the last step reduces across lanes.
    """
    MASKED: tl.constexpr = CAUSAL or MASK != "none"
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, COLUMNS)
    maxima = tl.full((COLUMNS,), float("-inf"), tl.float32)
    totals = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, columns, COLUMNS):
        z = _logits(x, mask, row, start + lane, rows, columns, queries, x_stride, scale,
                    mask_sizes, mask_strides, MASK, CAUSAL)  # fmt: skip
        new_maxima = tl.maximum(maxima, z)
        shift = _finite_maximum(new_maxima, True)
        totals = totals * tl.exp2((maxima - shift) * LOG2_E) + tl.exp2((z - shift) * LOG2_E)
        maxima = new_maxima
    maximum = _finite_maximum(tl.max(maxima, 0), MASKED)
    total = tl.sum(totals * tl.exp2((maxima - maximum) * LOG2_E), 0)
    for start in range(0, columns, COLUMNS):
        column = start + lane
        z = _logits(x, mask, row, column, rows, columns, queries, x_stride, scale,
                    mask_sizes, mask_strides, MASK, CAUSAL)  # fmt: skip
        y = _normalize(z, maximum, total, LOG, MASKED)
        tl.store(out + row * columns + column, y.to(out.dtype.element_ty), mask=column < columns)


@triton.jit
def _weighted_gradient(grad, y, row, column, rows, columns, grad_stride, LOG: tl.constexpr):
    """(dy, the row's weights p, what the row sums up) for rows [R, 1] and columns [1, C]."""
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


@triton.jit
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


@triton.jit
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
    """(whether a row fits on the chip, its block sizes and launch options).

    The settings are in classes by row length: the first whose COLUMNS hold the row is used.
    """
    width = triton.next_power_of_2(x.shape[-1])
    for name in ("short", "middle", "wide"):
        chosen = settings.find(kernel, x.device, name)
        if width <= chosen["COLUMNS"]:
            rows = max(1, chosen["TILE"] // width)
            options = {"ROWS": rows, "COLUMNS": width, "num_warps": chosen["num_warps"]}
            return True, options
    return False, settings.find(kernel, x.device, "long")


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
    fits, chosen = row_plan("softmax", x)
    kernel = _row_kernel if fits else _long_row_kernel
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(rows, chosen.get("ROWS", 1)),)](
            flat, out, mask, rows, columns, x.shape[-2] if causal else 1, flat.stride(0), scale,
            mask_sizes, mask_strides, LOG=log, MASK=mask_kind, CAUSAL=causal, **chosen,
        )  # fmt: skip


def launch_softmax_backward(
    grad: torch.Tensor, y: torch.Tensor, out: torch.Tensor, *, scale: float, log: bool
) -> None:
    """Fill the contiguous out with the gradient of x, from the contiguous output y."""
    if y.numel() == 0:
        return
    flat = as_rows(grad)
    rows, columns = flat.shape
    fits, chosen = row_plan("softmax_backward", y)
    kernel = _row_backward_kernel if fits else _long_row_backward_kernel
    with torch.cuda.device_of(y):
        kernel[(triton.cdiv(rows, chosen.get("ROWS", 1)),)](
            flat, y, out, rows, columns, flat.stride(0), scale, LOG=log, **chosen
        )


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
