"""Activations and their derivatives, once for Triton and once for torch."""

import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

NAMES = ("none", "relu", "gelu", "gelu_tanh", "silu")

# These constants must stand second in a product: in the interpreter constexpr * tensor is no tensor.
_SQRT_HALF = tl.constexpr(math.sqrt(0.5))
_TWICE_SQRT_2_OVER_PI = tl.constexpr(2 * math.sqrt(2 / math.pi))
_INV_SQRT_2PI = tl.constexpr(1 / math.sqrt(2 * math.pi))
_GELU_CUBIC = tl.constexpr(0.044715)


@triton.jit
def tanh(x):
    """tanh without libdevice, which the interpreter lacks.

    It is 2 sigmoid(2 x) - 1, where the difference loses digits near zero; there the series' first terms are
    used.
    """
    square = x * x
    series = x * (1 + square * (-1 / 3 + square * (2 / 15 - square * (17 / 315))))
    return tl.where(square < 0.04, series, 2 * tl.sigmoid(2 * x) - 1)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """The activation NAME of the float32 tile x."""
    if NAME == "relu":
        x = tl.where(x < 0, 0.0, x)  # a NaN stays a NaN, unlike in maximum
    elif NAME == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * _SQRT_HALF))
    elif NAME == "gelu_tanh":
        # 0.5 (1 + tanh(u)) is sigmoid(2 u).
        x = x * tl.sigmoid((x + x * x * x * _GELU_CUBIC) * _TWICE_SQRT_2_OVER_PI)
    elif NAME == "silu":
        x = x * tl.sigmoid(x)
    return x


@triton.jit
def activation_slope(x, NAME: tl.constexpr):
    """The derivative of the activation NAME at the float32 tile x."""
    slope = tl.full(x.shape, 1.0, tl.float32)
    if NAME == "relu":
        slope = tl.where(x > 0, 1.0, 0.0)
    elif NAME == "gelu":
        slope = 0.5 * (1 + tl.erf(x * _SQRT_HALF)) + x * _INV_SQRT_2PI * tl.exp(-0.5 * x * x)
    elif NAME == "gelu_tanh":
        gate = tl.sigmoid((x + x * x * x * _GELU_CUBIC) * _TWICE_SQRT_2_OVER_PI)
        slope_2u = (1 + x * x * (3 * _GELU_CUBIC)) * _TWICE_SQRT_2_OVER_PI
        slope = gate + x * gate * (1 - gate) * slope_2u
    elif NAME == "silu":
        gate = tl.sigmoid(x)
        slope = gate * (1 + x * (1 - gate))
    return slope


def reference_activate(x: torch.Tensor, name: str) -> torch.Tensor:
    """The activation in torch."""
    if name == "relu":
        return F.relu(x)
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    return F.silu(x) if name == "silu" else x


def reference_slope(x: torch.Tensor, name: str) -> torch.Tensor:
    """The activation's derivative in torch."""
    ones = torch.ones_like(x)
    if name == "relu":
        return (x > 0).to(x.dtype)
    if name == "gelu":
        return torch.ops.aten.gelu_backward(ones, x)
    if name == "gelu_tanh":
        return torch.ops.aten.gelu_backward(ones, x, approximate="tanh")
    return torch.ops.aten.silu_backward(ones, x) if name == "silu" else ones
