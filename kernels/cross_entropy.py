"""Cross-entropy of logits and target classes, the loss of every language model.

The Triton code is in cross_entropy_kernel.py.
"""

import torch

from . import checks
from .autocast import autocast
from .cross_entropy_kernel import launch_cross_entropy, launch_cross_entropy_backward
from .operators import operator
from .settings import runs_triton

__all__ = ["cross_entropy"]

REDUCTIONS = ("mean", "sum", "none")


@autocast(to_float32=True)
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
    if target.shape != logits.shape[:-1]:
        raise ValueError(f"target: shape {tuple(target.shape)} is not logits' {tuple(logits.shape[:-1])}")
    scale, smoothing = check_options(scale, ignore_index, label_smoothing, reduction)
    loss, _, _ = _cross_entropy(logits, target, scale, ignore_index, smoothing)
    return reduced(loss, target, ignore_index, reduction)


def check_options(
    scale: object, ignore_index: object, label_smoothing: object, reduction: object
) -> tuple[float, float]:
    """(scale, label_smoothing) as floats; raise TypeError or ValueError for values out of range."""
    number = checks.require_number("scale", scale)
    smoothing = checks.require_number("label_smoothing", label_smoothing)
    if not (0 <= smoothing <= 1):
        raise ValueError(f"label_smoothing: {smoothing} is not from 0 to 1")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: {reduction!r} is not one of {', '.join(REDUCTIONS)}")
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index: expected an int, got {type(ignore_index).__name__}")
    return number, smoothing


def check_classes(target: torch.Tensor, ignore_index: int, classes: int) -> None:
    """Raise ValueError for a class that does not exist; on the CPU only, as a GPU would have to
    synchronize.
    """
    if target.device.type == "cpu":
        chosen = target[target != ignore_index]
        inside = ((chosen >= 0) & (chosen < classes)).all()
        checks.require(bool(inside), f"target: a class is not from 0 to {classes - 1}")


def reduced(loss: torch.Tensor, target: torch.Tensor, ignore_index: int, reduction: str) -> torch.Tensor:
    """The rows' losses, reduced."""
    if reduction == "none":
        return loss
    total = loss.sum()
    return total if reduction == "sum" else total / (target != ignore_index).sum()


def reference_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    scale: float,
    ignore_index: int,
    smoothing: float,
    softcap: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, maximum, sum of exponentials) a row, in float32 (float64 for float64 logits).

    softcap: logits * scale become softcap * tanh(logits * scale / softcap); 0 for none.
    """
    z = logits.to(torch.promote_types(torch.float32, logits.dtype)) * scale
    z = softcap * torch.tanh(z / softcap) if softcap else z
    maximum = z.amax(-1)
    total = (z - maximum.unsqueeze(-1)).exp().sum(-1)
    ignored = target == ignore_index
    chosen = z.gather(-1, target.masked_fill(ignored, 0).unsqueeze(-1)).squeeze(-1)
    loss = total.log() + (maximum - chosen)
    if smoothing:
        loss = loss + smoothing * (chosen - z.mean(-1))
    return loss.masked_fill(ignored, 0.0), maximum, total


def reference_cross_entropy_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    maximum: torch.Tensor,
    total: torch.Tensor,
    scale: float,
    ignore_index: int,
    smoothing: float,
    softcap: float = 0.0,
    first: int = 0,
    classes: int | None = None,
) -> torch.Tensor:
    """The gradient of the logits, or of the columns from first on where the rows have more classes."""
    z, slope = logits.to(total.dtype) * scale, 1.0
    if softcap:
        capped = torch.tanh(z / softcap)
        z, slope = softcap * capped, 1 - capped.square()
    p = (z - maximum.unsqueeze(-1)).exp() / total.unsqueeze(-1)
    ignored = target == ignore_index
    chosen = torch.arange(first, first + z.shape[-1], device=z.device) == target.unsqueeze(-1)
    dz = (p - smoothing / (classes or z.shape[-1]) - (1 - smoothing) * chosen) * slope
    return (dz * (grad * scale).unsqueeze(-1)).masked_fill(ignored.unsqueeze(-1), 0.0)


@operator("cross_entropy")
def _cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, scale: float, ignore_index: int, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    check_classes(target, ignore_index, logits.shape[-1])
    if runs_triton(logits):
        outputs = _row_statistics(logits, target)
        launch_cross_entropy(
            logits,
            target,
            *outputs,
            scale=scale, ignore_index=ignore_index, smoothing=smoothing,
        )  # fmt: skip
        return outputs
    return reference_cross_entropy(logits, target, scale, ignore_index, smoothing)


def _row_statistics(logits, target):
    shape = target.shape
    loss, maximum, total = (logits.new_empty(shape, dtype=torch.float32) for _ in range(3))
    return loss, maximum, total


@_cross_entropy.register_fake
def _(logits, target, scale, ignore_index, smoothing):
    return _row_statistics(logits, target)


@operator("cross_entropy_backward")
def _cross_entropy_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    maximum: torch.Tensor,
    total: torch.Tensor,
    scale: float,
    ignore_index: int,
    smoothing: float,
) -> torch.Tensor:
    out = logits.new_empty(logits.shape)
    numbers = {"scale": scale, "ignore_index": ignore_index, "smoothing": smoothing}
    if runs_triton(logits):
        launch_cross_entropy_backward(grad, logits, target, maximum, total, out, **numbers)
    else:
        out.copy_(reference_cross_entropy_backward(grad, logits, target, maximum, total, **numbers))
    return out


@_cross_entropy_backward.register_fake
def _(grad, logits, target, maximum, total, scale, ignore_index, smoothing):
    return logits.new_empty(logits.shape)


def _setup_context(ctx, inputs, output):
    logits, target, *ctx.numbers = inputs
    ctx.save_for_backward(logits, target, *output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _grad_maximum, _grad_total):
    if grad is None:
        return (None,) * 5
    return _cross_entropy_backward(grad, *ctx.saved_tensors, *ctx.numbers), None, None, None, None


_cross_entropy.register_autograd(_backward, setup_context=_setup_context)
