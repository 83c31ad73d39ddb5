"""Softmax and log-softmax over the last dimension, with scale and mask fused in.

The Triton code is in softmax_kernel.py; cross_entropy, on the same machinery, in cross_entropy.py.
"""

import math

import torch

from . import checks
from .autocast import autocast
from .cross_entropy import cross_entropy
from .operators import operator
from .settings import runs_triton
from .softmax_kernel import launch_softmax, launch_softmax_backward

__all__ = ["cross_entropy", "log_softmax", "softmax"]


@autocast(to_float32=True)
def softmax(
    x: torch.Tensor,
    *,
    scale: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Softmax of x * scale + mask over the last dimension of x [..., N]; x's shape and dtype.

    x: float16, bfloat16 or float32, any shape and strides (the last dimension is copied where
        it is not contiguous); computed in float32.
    mask: broadcasts to x; boolean (True takes part) or additive, of x's dtype or float32.
    causal: x is [..., queries, keys]; query i sees the keys up to i + keys - queries.
    A row with nothing left after mask and causal gives zeros, as in torch's attention; without
    them, a row of -inf gives NaN, as in torch.softmax.
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device, a non-finite scale).
    """
    return _checked_softmax(x, scale, mask, causal, log=False)


@autocast(to_float32=True)
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


def reference_softmax_backward(grad: torch.Tensor, y: torch.Tensor, scale: float, log: bool) -> torch.Tensor:
    """The gradient of x, from the output y."""
    compute = torch.promote_types(torch.float32, y.dtype)
    grad, y = grad.to(compute), y.to(compute)
    if not log:
        return scale * y * (grad - (y * grad).sum(-1, keepdim=True))
    grad = grad.masked_fill(y == -math.inf, 0.0)
    return scale * (grad - y.exp() * grad.sum(-1, keepdim=True))


@operator("softmax")
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


@operator("softmax_backward")
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
