"""Cross-entropy of logits and target classes, the loss of every language model.

Forward reads the logits once, whatever the vocabulary, and keeps one number a row, the
logarithm of the sum of exponentials. Backward reads them once more and writes their gradient;
the probabilities never reach device memory.
"""

import torch
import triton
import triton.language as tl

from . import checks, settings
from .settings import runs_triton
from .softmax_kernel import LN_2, LOG2_E, as_rows

__all__ = ["cross_entropy"]

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    scale: float = 1.0,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """The cross-entropy of logits [..., V] * scale with classes target [...], in float32.

    logits: float16, bfloat16 or float32. target: int64, of the leading shape.
    ignore_index: a target of this value has loss and gradient 0.
    label_smoothing: the share, from 0 to 1, of the target spread evenly over all classes.
    reduction: "mean" (over the targets that are not ignored), "sum" or "none" ([...]).
    A target outside 0 to V - 1 raises ValueError on the CPU and makes the loss NaN on a GPU,
    where looking would cost a synchronization.
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device, a number out of range).
    """
    checks.require_tensor("logits", logits)
    checks.require(logits.ndim >= 1, "logits: expected at least 1 dimension, got 0")
    checks.require(logits.shape[-1] > 0, "logits: expected at least one class, got 0")
    checks.require_tensor("target", target, (torch.int64,))
    checks.require_device("target", target, "logits", logits)
    checks.require(
        target.shape == logits.shape[:-1],
        f"target: shape {tuple(target.shape)} is not logits' {tuple(logits.shape[:-1])}",
    )
    scale = checks.require_number("scale", scale)
    smoothing = checks.require_number("label_smoothing", label_smoothing)
    checks.require(0 <= smoothing <= 1, f"label_smoothing: {smoothing} is not from 0 to 1")
    checks.require(reduction in REDUCTIONS, f"reduction: {reduction!r} is not one of {', '.join(REDUCTIONS)}")
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index: expected an int, got {type(ignore_index).__name__}")
    loss, _ = _cross_entropy(logits, target, scale, ignore_index, smoothing)
    if reduction == "none":
        return loss
    total = loss.sum()
    return total if reduction == "sum" else total / (target != ignore_index).sum()


def reference_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, scale: float, ignore_index: int, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, log of the sum of exponentials) a row, in float32 (float64 for float64 logits)."""
    z = logits.to(torch.promote_types(torch.float32, logits.dtype)) * scale
    log_sum = z.logsumexp(-1)
    ignored = target == ignore_index
    chosen = z.gather(-1, target.masked_fill(ignored, 0).unsqueeze(-1)).squeeze(-1)
    loss = log_sum - (1 - smoothing) * chosen
    if smoothing:
        loss = loss - smoothing * z.mean(-1)
    return loss.masked_fill(ignored, 0.0), log_sum


def reference_cross_entropy_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    log_sum: torch.Tensor,
    scale: float,
    ignore_index: int,
    smoothing: float,
) -> torch.Tensor:
    """The gradient of the logits."""
    z = logits.to(log_sum.dtype) * scale
    dz = (z - log_sum.unsqueeze(-1)).exp() - smoothing / z.shape[-1]
    ignored = target == ignore_index
    index = target.masked_fill(ignored, 0).unsqueeze(-1)
    dz = dz.scatter_add(-1, index, torch.full_like(dz, smoothing - 1))
    return (dz * (grad * scale).unsqueeze(-1)).masked_fill(ignored.unsqueeze(-1), 0.0)


@torch.library.custom_op("budget::cross_entropy", mutates_args=())
def _cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, scale: float, ignore_index: int, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    if logits.device.type == "cpu":
        classes = target[target != ignore_index]
        inside = ((classes >= 0) & (classes < logits.shape[-1])).all()
        checks.require(bool(inside), f"target: a class is not from 0 to {logits.shape[-1] - 1}")
    if runs_triton(logits):
        loss, log_sum = _row_statistics(logits, target)
        launch_cross_entropy(
            logits, target, loss, log_sum,
            scale=scale, ignore_index=ignore_index, smoothing=smoothing,
        )  # fmt: skip
        return loss, log_sum
    return reference_cross_entropy(logits, target, scale, ignore_index, smoothing)


def _row_statistics(logits, target):
    shape = target.shape
    return (logits.new_empty(shape, dtype=torch.float32) for _ in range(2))


@_cross_entropy.register_fake
def _(logits, target, scale, ignore_index, smoothing):
    return tuple(_row_statistics(logits, target))


@torch.library.custom_op("budget::cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    log_sum: torch.Tensor,
    scale: float,
    ignore_index: int,
    smoothing: float,
) -> torch.Tensor:
    out = logits.new_empty(logits.shape)
    numbers = {"scale": scale, "ignore_index": ignore_index, "smoothing": smoothing}
    if runs_triton(logits):
        launch_cross_entropy_backward(grad, logits, target, log_sum, out, **numbers)
    else:
        out.copy_(reference_cross_entropy_backward(grad, logits, target, log_sum, **numbers))
    return out


@_cross_entropy_backward.register_fake
def _(grad, logits, target, log_sum, scale, ignore_index, smoothing):
    return logits.new_empty(logits.shape)


def _setup_context(ctx, inputs, output):
    logits, target, *ctx.numbers = inputs
    ctx.save_for_backward(logits, target, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _grad_log_sum):
    if grad is None:
        return (None,) * 5
    logits, target, log_sum = ctx.saved_tensors
    grad_logits = _cross_entropy_backward(grad, logits, target, log_sum, *ctx.numbers)
    return grad_logits, None, None, None, None


_cross_entropy.register_autograd(_backward, setup_context=_setup_context)


@triton.jit
def _cross_entropy_kernel(
    logits, target, loss, log_sum, columns, stride, scale, ignore_index, smoothing,
    SMOOTHING: tl.constexpr, COLUMNS: tl.constexpr,
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
        if SMOOTHING:
            sums += tl.where(inside, z, 0.0)
        z = tl.where(inside, z, float("-inf"))
        new_maxima = tl.maximum(maxima, z)
        shift = tl.where(new_maxima == float("-inf"), 0.0, new_maxima)
        totals = totals * tl.exp2((maxima - shift) * LOG2_E) + tl.exp2((z - shift) * LOG2_E)
        maxima = new_maxima
    maximum = tl.max(maxima, 0)
    total = tl.sum(totals * tl.exp2((maxima - maximum) * LOG2_E), 0)
    row_log_sum = maximum + tl.log2(total) * LN_2
    tl.store(log_sum + row, row_log_sum)

    chosen = tl.load(target + row)
    exists = (chosen >= 0) & (chosen < columns)
    z = tl.load(logits + row * stride + chosen, mask=exists, other=float("nan"))
    row_loss = row_log_sum - (1 - smoothing) * z.to(tl.float32) * scale
    if SMOOTHING:
        row_loss -= smoothing * tl.sum(sums, 0) / columns
    tl.store(loss + row, tl.where(chosen == ignore_index, 0.0, row_loss))


@triton.jit
def _cross_entropy_backward_kernel(
    grad, logits, target, log_sum, out, columns, stride, scale, ignore_index, smoothing,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program takes COLUMNS of one row: (softmax - target distribution) * grad * scale."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < columns
    chosen = tl.load(target + row)
    z = tl.load(logits + row * stride + column, mask=inside, other=0.0).to(tl.float32) * scale
    dz = tl.exp2((z - tl.load(log_sum + row)) * LOG2_E) - smoothing / columns
    dz = tl.where(column == chosen, dz - (1 - smoothing), dz) * (tl.load(grad + row) * scale)
    dz = tl.where(chosen == ignore_index, 0.0, dz)
    tl.store(out + row * columns + column, dz.to(out.dtype.element_ty), mask=inside)


def launch_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    loss: torch.Tensor,
    log_sum: torch.Tensor,
    *,
    scale: float,
    ignore_index: int,
    smoothing: float,
) -> None:
    """Fill the contiguous loss and log_sum."""
    if loss.numel() == 0:
        return
    flat = as_rows(logits)
    rows, columns = flat.shape
    chosen = settings.find("cross_entropy", logits.device, "rows")
    with torch.cuda.device_of(logits):
        _cross_entropy_kernel[(rows,)](
            flat, target.contiguous(), loss, log_sum, columns, flat.stride(0),
            scale, ignore_index, smoothing, SMOOTHING=smoothing > 0, **chosen,
        )  # fmt: skip


def launch_cross_entropy_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    log_sum: torch.Tensor,
    out: torch.Tensor,
    *,
    scale: float,
    ignore_index: int,
    smoothing: float,
) -> None:
    """Fill the contiguous out."""
    if out.numel() == 0:
        return
    flat = as_rows(logits)
    rows, columns = flat.shape
    chosen = settings.find("cross_entropy_backward", logits.device, "rows")
    with torch.cuda.device_of(logits):
        _cross_entropy_backward_kernel[(rows, triton.cdiv(columns, chosen["COLUMNS"]))](
            grad.contiguous(), flat, target.contiguous(), log_sum, out, columns, flat.stride(0),
            scale, ignore_index, smoothing, **chosen,
        )  # fmt: skip
