"""RMSNorm over the last dimension, forward and backward, with the residual's addition fused in.

The Triton code is in rms_norm_kernel.py.
"""

import torch

from . import checks
from .operators import operator
from .rms_norm_kernel import launch_rms_norm, launch_rms_norm_backward
from .settings import runs_triton

__all__ = ["add_rms_norm", "rms_norm"]


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None = None, *, eps: float = 1e-6, offset: float = 0.0
) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * (offset + weight) over the last dimension; x's shape and dtype.

    x [..., N]: float16, bfloat16 or float32, any strides; computed in float32 and rounded once, at the end.
    weight [N]: x's dtype or float32; None is a factor of 1.
    offset: 1 for models that store the weight's distance from 1 (Gemma), else 0.
    Source: rms-norm.
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device, a number out of range).
    """
    eps, offset = _check(x, weight, eps, offset)
    return _rms_norm(x, None, weight, eps, offset)[0]


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(rms_norm(x + residual), x + residual): a residual connection and the norm after it, in one pass.

    residual: of x's shape and dtype. The sum is rounded to it before the norm, as where it is stored.
    The rest as in rms_norm().
    """
    eps, offset = _check(x, weight, eps, offset)
    checks.require_tensor("residual", residual)
    checks.require_like("residual", residual, "x", x)
    checks.require(
        residual.shape == x.shape, f"residual: shape {tuple(residual.shape)} is not x's {tuple(x.shape)}"
    )
    out, total, _ = _rms_norm(x, residual, weight, eps, offset)
    return out, total


def _check(x, weight, eps, offset) -> tuple[float, float]:
    checks.require_tensor("x", x)
    checks.require(x.ndim >= 1, "x: expected at least 1 dimension, got 0")
    checks.require(x.shape[-1] >= 1, "x: expected rows of at least one element, got 0")
    eps, offset = checks.require_number("eps", eps), checks.require_number("offset", offset)
    checks.require(eps >= 0, f"eps: expected at least 0, got {eps}")
    if weight is None:
        checks.require(offset == 0, "offset: there is no weight that it could be added to")
        return eps, offset
    checks.require_tensor("weight", weight, (torch.float32, x.dtype))
    checks.require_device("weight", weight, "x", x)
    checks.require(
        weight.shape == x.shape[-1:], f"weight: shape {tuple(weight.shape)} is not {tuple(x.shape[-1:])}"
    )
    return eps, offset


def reference_rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, 1 / sqrt(mean(x^2) + eps) a row) in float32, or in float64 for float64 x."""
    wide = x.to(torch.promote_types(torch.float32, x.dtype))
    inverse = (wide.square().mean(-1) + eps).rsqrt()
    out = wide * inverse.unsqueeze(-1)
    return out if weight is None else out * (weight.to(wide.dtype) + offset), inverse


def reference_rms_norm_backward(
    grad: torch.Tensor,
    grad_total: torch.Tensor | None,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    inverse: torch.Tensor,
    offset: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the gradient of x, of the weight)."""
    inverse = inverse.unsqueeze(-1)
    grad, normalized = grad.to(inverse.dtype), x.to(inverse.dtype) * inverse
    weighted = grad if weight is None else grad * (weight.to(inverse.dtype) + offset)
    dx = inverse * (weighted - normalized * (weighted * normalized).mean(-1, keepdim=True))
    if grad_total is not None:
        dx = dx + grad_total
    return dx, (grad * normalized).flatten(0, -2).sum(0) if x.ndim > 1 else grad * normalized


@operator("rms_norm")
def _rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(out, x + residual, 1 / root mean square a row in float32); no sum without a residual."""
    outputs = _outputs(x, residual)
    if runs_triton(x):
        launch_rms_norm(x, residual, weight, *outputs, eps=eps, offset=offset)
        return outputs
    out, total, inverse = outputs
    if residual is not None:
        x = total.copy_(x + residual)
    for target, value in zip((out, inverse), reference_rms_norm(x, weight, eps, offset), strict=True):
        target.copy_(value)
    return outputs


def _outputs(x, residual):
    total = x.new_empty((0,) if residual is None else x.shape)
    return x.new_empty(x.shape), total, x.new_empty(x.shape[:-1], dtype=torch.float32)


@_rms_norm.register_fake
def _(x, residual, weight, eps, offset):
    return _outputs(x, residual)


@operator("rms_norm_backward")
def _rms_norm_backward(
    grad: torch.Tensor,
    grad_total: torch.Tensor | None,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    inverse: torch.Tensor,
    offset: float,
    needs_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the gradient of x, in float32 that of the weight where it is needed)."""
    dx, dweight = _gradients(x, needs_weight)
    if runs_triton(x):
        launch_rms_norm_backward(grad, grad_total, x, weight, inverse, dx, dweight, offset=offset)
        return dx, dweight
    wide_dx, wide_dweight = reference_rms_norm_backward(grad, grad_total, x, weight, inverse, offset)
    dx.copy_(wide_dx)
    if needs_weight:
        dweight.copy_(wide_dweight)
    return dx, dweight


def _gradients(x, needs_weight):
    return x.new_empty(x.shape), x.new_empty((x.shape[-1] if needs_weight else 0,), dtype=torch.float32)


@_rms_norm_backward.register_fake
def _(grad, grad_total, x, weight, inverse, offset, needs_weight):
    return _gradients(x, needs_weight)


def _setup_context(ctx, inputs, output):
    x, residual, weight, _, ctx.offset = inputs
    _, total, inverse = output
    ctx.adds = residual is not None
    ctx.save_for_backward(x if residual is None else total, weight, inverse)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, grad_total, _grad_inverse):
    x, weight, inverse = ctx.saved_tensors
    needs_weight = ctx.needs_input_grad[2]
    grad_total = grad_total if ctx.adds else None  # a tensor without elements has a gradient, too
    dx, dweight = grad_total, None
    if grad is not None:
        dx, dweight = _rms_norm_backward(grad, grad_total, x, weight, inverse, ctx.offset, needs_weight)
        dweight = dweight.to(weight.dtype) if needs_weight else None
    return dx, dx if ctx.needs_input_grad[1] else None, dweight, None, None


_rms_norm.register_autograd(_backward, setup_context=_setup_context)
