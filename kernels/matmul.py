"""Matrix products with fused epilogues: bias, activation, gate, residual, scales.

    out = (a @ b * scales + bias) -> activation -> + residual
    out = (a @ b + bias) * activation(a @ gate) -> + residual          with a gate

One persistent Triton kernel computes all of it (matmul_kernel.py; in plain torch:
matmul_reference.py); this file is its face: checks, custom operators and their gradients. The
backward pass is one elementwise kernel (the epilogue's derivative and the bias gradient in one
read) and two products per weight, which run on the forward kernel with transposed strides.
"""

import torch
from torch.utils.flop_counter import register_flop_formula

from . import checks
from .activations import NAMES
from .autocast import autocast
from .matmul_epilogue import launch_epilogue_backward
from .matmul_kernel import launch_matmul
from .matmul_reference import reference_epilogue_backward, reference_matmul
from .operators import operator
from .settings import runs_triton

__all__ = ["matmul"]

FP8 = (torch.float8_e4m3fn,)


@autocast()
def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    activation: str | None = None,
    gate: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    scale_a: torch.Tensor | None = None,
    scale_b: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    tf32: bool = False,
) -> torch.Tensor:
    """The product of a [..., M, K] and b [K, N] or [..., K, N], with an epilogue fused in.

    Any strides; leading dimensions broadcast as in torch.matmul. Products accumulate in float32.

    bias: [N], added to a @ b.
    activation: None, "relu", "gelu" (erf), "gelu_tanh" or "silu".
    gate: like b; the result is then (a @ b + bias) * activation(a @ gate): SwiGLU with "silu".
    residual: [..., M, N], added last.
    scale_a, scale_b: float32, one element or one per row of a ([M]) / column of b ([N]);
        they multiply a @ b. Only for float8_e4m3fn operands.
    out_dtype: float16, bfloat16 or float32; by default a's dtype, bfloat16 for float8 operands.
    tf32: round float32 operands to TF32, on GPUs that have it.

    a and b: float16, bfloat16, float32 or float8_e4m3fn, of one dtype; bias, gate and residual
    have it too (with float8 operands: out_dtype). Float8 operands have no gradient.
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device, a name).
    """
    out_dtype = _check(a, b, bias, activation, gate, residual, scale_a, scale_b, out_dtype, tf32)
    batch_shape, rows, columns = a.shape[:-2], a.shape[-2], b.shape[-1]
    if b.ndim == 2:  # a linear layer: the leading dimensions are rows
        a3, b3, gate3 = _flat(a).unsqueeze(0), b.unsqueeze(0), _unsqueezed(gate)
        scale_a = _per_row(scale_a, a3.shape[1], batch_shape)
    else:
        batch_shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a3, b3 = _batched(a, batch_shape), _batched(b, batch_shape)
        gate3 = None if gate is None else _batched(gate, batch_shape)
    shape = (*batch_shape, rows, columns)
    if residual is not None:
        residual = residual.expand(shape).reshape(a3.shape[0], a3.shape[1], columns)
    operands = [t for t in (a, b, bias, gate) if t is not None]
    save = torch.is_grad_enabled() and any(t.requires_grad for t in operands)
    out, _, _ = _matmul(
        a3, b3, bias, gate3, residual, scale_a, scale_b, activation or "none", out_dtype, tf32, save
    )
    return out.reshape(shape)


def _flat(a: torch.Tensor) -> torch.Tensor:
    return a if a.ndim == 2 else a.reshape(a.shape[:-1].numel(), a.shape[-1])


def _unsqueezed(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else t.unsqueeze(0)


def _batched(t: torch.Tensor, batch_shape: torch.Size) -> torch.Tensor:
    rows, columns = t.shape[-2:]
    return t.expand(*batch_shape, rows, columns).reshape(batch_shape.numel(), rows, columns)


def _per_row(scale: torch.Tensor | None, rows: int, batch_shape: torch.Size) -> torch.Tensor | None:
    """A scale for each row of the folded a: [M] repeats over the leading dimensions."""
    if scale is None or scale.numel() in (1, rows):
        return scale
    return scale.repeat(batch_shape.numel())


def _check(a, b, bias, activation, gate, residual, scale_a, scale_b, out_dtype, tf32):
    """Raise on bad arguments; returns the output's dtype."""
    checks.require_tensor("a", a, checks.FLOATS + FP8)
    checks.require_tensor("b", b, checks.FLOATS + FP8)
    checks.require_like("b", b, "a", a)
    if a.ndim < 2:
        raise ValueError(f"a: expected at least 2 dimensions, got {a.ndim}")
    if b.ndim < 2:
        raise ValueError(f"b: expected at least 2 dimensions, got {b.ndim}")
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"b: has {b.shape[-2]} rows, but a has {a.shape[-1]} columns")
    batch_shape = a.shape[:-2]
    if b.ndim > 2:
        try:
            batch_shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except RuntimeError:
            message = f"b: batch {tuple(b.shape[:-2])} does not fit a's {tuple(a.shape[:-2])}"
            raise ValueError(message) from None
    if not (activation is None or activation in NAMES):
        raise ValueError(f"activation: {activation!r} is not one of None, {', '.join(NAMES)}")
    checks.require_bool("tf32", tf32)
    is_fp8 = a.dtype in FP8
    out_dtype = out_dtype or (torch.bfloat16 if is_fp8 else a.dtype)
    if out_dtype not in checks.FLOATS:
        raise TypeError(f"out_dtype: {out_dtype} is not float16, bfloat16 or float32")
    extra_dtype = out_dtype if is_fp8 else a.dtype
    rows, columns = a.shape[-2], b.shape[-1]
    for name, extra in (("bias", bias), ("residual", residual)):
        if extra is not None:
            checks.require_tensor(name, extra, (extra_dtype,))
            checks.require_device(name, extra, "a", a)
    if residual is not None:
        checks.require_broadcast("residual", residual, (*batch_shape, rows, columns))
    if bias is not None and bias.shape != (columns,):
        raise ValueError(f"bias: expected shape ({columns},), got {tuple(bias.shape)}")
    if is_fp8 or scale_a is not None or scale_b is not None:
        _check_scales(a, b, scale_a, scale_b, is_fp8)
    if gate is not None:
        checks.require(not is_fp8, "gate: float8 operands have no gated product")
        checks.require_tensor("gate", gate)
        checks.require_like("gate", gate, "a", a)
        if gate.shape != b.shape:
            raise ValueError(f"gate: shape {tuple(gate.shape)} is not b's {tuple(b.shape)}")
    return out_dtype


def _check_scales(a, b, scale_a, scale_b, is_fp8):
    for name, scale, length in (
        ("scale_a", scale_a, a.shape[-2]),
        ("scale_b", scale_b, b.shape[-1]),
    ):
        if scale is None:
            continue
        if not is_fp8:
            raise ValueError(f"{name}: only float8 operands are scaled")
        checks.require_tensor(name, scale, (torch.float32,))
        checks.require_device(name, scale, "a", a)
        if not (scale.numel() == 1 or tuple(scale.shape) == (length,)):
            raise ValueError(f"{name}: expected one element or shape ({length},), got {tuple(scale.shape)}")
    checks.require(not is_fp8 or not (a.requires_grad or b.requires_grad), "a: float8 has no gradient here")


def _needs_epilogue_backward(gate: torch.Tensor | None, activation: str) -> bool:
    return gate is not None or activation != "none"


def _outputs(a, b, gate, activation, out_dtype, save):
    """Empty (out, linear, gate_linear); tensors that the backward pass does not read have no elements."""
    shape = (a.shape[0], a.shape[1], b.shape[2])
    saves = save and _needs_epilogue_backward(gate, activation)
    out = a.new_empty(shape, dtype=out_dtype)
    linear = a.new_empty(shape if saves else (0,))
    gate_linear = a.new_empty(shape if saves and gate is not None else (0,))
    return out, linear, gate_linear


@operator("matmul")
def _matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor | None,
    residual: torch.Tensor | None,
    scale_a: torch.Tensor | None,
    scale_b: torch.Tensor | None,
    activation: str,
    out_dtype: torch.dtype,
    tf32: bool,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """a [B, M, K] @ b [B, K, N]; with save also the tensors that the backward pass needs."""
    outputs = _outputs(a, b, gate, activation, out_dtype, save)
    inputs = (a, b, bias, gate, residual, scale_a, scale_b)
    if runs_triton(a):
        launch_matmul(*inputs, *outputs, activation=activation, tf32=tf32)
        return outputs
    for target, value in zip(outputs, reference_matmul(*inputs, activation), strict=True):
        if target.numel():
            target.copy_(value)
    return outputs


@_matmul.register_fake
def _(a, b, bias, gate, residual, scale_a, scale_b, activation, out_dtype, tf32, save):
    return _outputs(a, b, gate, activation, out_dtype, save)


@operator("matmul_epilogue_backward")
def _epilogue_backward(
    grad: torch.Tensor,
    linear: torch.Tensor,
    gate_linear: torch.Tensor | None,
    activation: str,
    has_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(gradient of a @ b + bias, of a @ gate, of the bias in float32), from one read."""
    outputs = _epilogue_gradients(grad, linear, gate_linear, has_bias)
    grad_linear, grad_gate, grad_bias = outputs
    if runs_triton(grad):
        launch_epilogue_backward(grad, linear, gate_linear, *outputs, activation=activation)
        return outputs
    wide, wide_gate = reference_epilogue_backward(grad, linear, gate_linear, activation)
    grad_linear.copy_(wide)
    if wide_gate is not None:
        grad_gate.copy_(wide_gate)
    if has_bias:
        grad_bias.copy_(wide.sum(dim=(0, 1)))
    return outputs


def _epilogue_gradients(grad, linear, gate_linear, has_bias):
    grad_linear = linear.new_empty(linear.shape)
    grad_gate = linear.new_empty((0,) if gate_linear is None else linear.shape)
    grad_bias = linear.new_empty((linear.shape[-1] if has_bias else 0,), dtype=torch.float32)
    return grad_linear, grad_gate, grad_bias


@_epilogue_backward.register_fake
def _(grad, linear, gate_linear, activation, has_bias):
    return _epilogue_gradients(grad, linear, gate_linear, has_bias)


def _setup_context(ctx, inputs, output):
    a, b, bias, gate, _, _, _, activation, _, tf32, _ = inputs
    _, linear, gate_linear = output
    ctx.save_for_backward(a, b, gate, linear, gate_linear)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.activation, ctx.tf32 = activation, tf32
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _grad_linear, _grad_gate_linear):
    a, b, gate, linear, gate_linear = ctx.saved_tensors
    if grad is None:
        return (None,) * 11
    needs_a, needs_b, needs_bias, needs_gate, needs_residual = ctx.needs_input_grad[:5]
    grad_linear, grad_gate_linear, grad_bias = grad.to(a.dtype), None, None
    if _needs_epilogue_backward(gate, ctx.activation):
        saved_gate = None if gate is None else gate_linear
        grad_linear, grad_gate_linear, grad_bias = _epilogue_backward(
            grad, linear, saved_gate, ctx.activation, needs_bias
        )
    elif needs_bias:
        grad_bias = grad.sum(dim=(0, 1), dtype=torch.float32)

    def product(x, y, residual=None):
        return _matmul(x, y, None, None, residual, None, None, "none", a.dtype, ctx.tf32, False)[0]

    grad_a = grad_b = grad_gate = None
    if needs_a:
        grad_a = product(grad_linear, b.mT)
        if gate is not None:
            grad_a = product(grad_gate_linear, gate.mT, residual=grad_a)
    if needs_b:
        grad_b = product(a.mT, grad_linear)
    if needs_gate:
        grad_gate = product(a.mT, grad_gate_linear)
    grad_bias = grad_bias.to(ctx.bias_dtype) if needs_bias and grad_bias is not None else None
    grad_residual = grad.to(a.dtype) if needs_residual else None
    return grad_a, grad_b, grad_bias, grad_gate, grad_residual, *(None,) * 6


_matmul.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.budget.matmul)
def matmul_flops(a_shape, b_shape, bias_shape=None, gate_shape=None, *_, **__) -> int:
    """2 x batch x M x K x N; a gate is a second product."""
    batch, rows, inner = a_shape
    return 2 * batch * rows * inner * b_shape[-1] * (1 if gate_shape is None else 2)
