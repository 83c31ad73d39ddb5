"""What matmul.py computes, in plain torch."""

import torch

from .activations import reference_activate, reference_slope


def reference_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor | None,
    residual: torch.Tensor | None,
    scale_a: torch.Tensor | None,
    scale_b: torch.Tensor | None,
    activation: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(out, a @ b + bias, a @ gate) in float32 torch, or in float64 for float64 operands."""
    compute = torch.float64 if a.dtype == torch.float64 else torch.float32
    wide_a = a.to(compute)
    linear = wide_a @ b.to(compute)
    if scale_a is not None:
        linear = linear * scale_a.reshape(-1, 1)
    if scale_b is not None:
        linear = linear * scale_b.reshape(1, -1)
    if bias is not None:
        linear = linear + bias
    gate_linear = None if gate is None else wide_a @ gate.to(compute)
    if gate_linear is None:
        out = reference_activate(linear, activation)
    else:
        out = linear * reference_activate(gate_linear, activation)
    if residual is not None:
        out = out + residual
    return out, linear, gate_linear


def reference_epilogue_backward(
    grad: torch.Tensor, linear: torch.Tensor, gate_linear: torch.Tensor | None, activation: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gradients of a @ b + bias and of a @ gate."""
    compute = torch.promote_types(torch.float32, grad.dtype)
    grad, linear = grad.to(compute), linear.to(compute)
    if gate_linear is None:
        return grad * reference_slope(linear, activation), None
    gate_linear = gate_linear.to(compute)
    grad_gate = grad * linear * reference_slope(gate_linear, activation)
    return grad * reference_activate(gate_linear, activation), grad_gate
