"""Rotary position embedding (RoPE), forward and backward, out of place or in place.

A pair of elements is a point in the plane, rotated by its position's angle. The gradient is rotated back, by
the same kernel with the sine's sign changed. Source: rope.
"""

import torch

from . import checks
from .operators import operator
from .rope_kernel import launch_rope
from .settings import runs_triton

__all__ = ["rope", "rope_"]

POSITIONS = (torch.int32, torch.int64)


def rope(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None = None,
    *,
    interleaved: bool = False,
) -> torch.Tensor:
    """x with the first 2 r elements of its last dimension rotated in pairs; shape and dtype of x.

    x: [batch, heads, seq, head_dim], float16, bfloat16 or float32, any strides with a contiguous head_dim
        (others are copied); computed in float32 and rounded once.
    cos, sin: [rows, r], or one table a batch entry, [batch, rows, r]: each angle once; x's dtype or float32,
        without a gradient. What lies beyond the 2 r elements stays as it is (partial rotation, GPT-NeoX's).
    positions: int32 or int64, [seq] or [batch, seq]: the row of the table for each position. Without them,
        position i has row i. A row that the table does not have raises ValueError on the CPU and gives NaN
        on a GPU, where looking would cost a synchronization.
    interleaved: elements 2 i and 2 i + 1 are a pair (GPT-J), else elements i and i + r (Llama).
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device).
    """
    _check(x, cos, sin, positions, interleaved)
    return _rope(x, cos, sin, positions, interleaved, False)


def rope_(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None = None,
    *,
    interleaved: bool = False,
) -> torch.Tensor:
    """rope() in place; returns x. Raises ValueError where a gradient is required."""
    _check(x, cos, sin, positions, interleaved)
    checks.require(not (torch.is_grad_enabled() and x.requires_grad), "x: rope_ has no gradient; rope has")
    alone = all(size == 1 or stride for size, stride in zip(x.shape, x.stride(), strict=True))
    checks.require(alone, "x: in place, no two elements may share their memory")
    checks.require(
        x.stride(-1) == 1 or x.shape[-1] == 1, "x: in place, the last dimension must be contiguous"
    )
    _rope_(x, cos, sin, positions, interleaved)
    return x


def _check(x, cos, sin, positions, interleaved):
    checks.require_tensor("x", x)
    checks.require(x.ndim == 4, f"x: expected [batch, heads, seq, head_dim], got {x.ndim} dimensions")
    checks.require_bool("interleaved", interleaved)
    batch, _, seq, head_dim = x.shape
    for name, table in (("cos", cos), ("sin", sin)):
        checks.require_tensor(name, table, (torch.float32, x.dtype))
        checks.require_device(name, table, "x", x)
        checks.require(not table.requires_grad, f"{name}: a table has no gradient here")
        checks.require(table.ndim in (2, 3), f"{name}: expected 2 or 3 dimensions, got {table.ndim}")
    checks.require_like("sin", sin, "cos", cos)
    checks.require(sin.shape == cos.shape, f"sin: shape {tuple(sin.shape)} is not cos' {tuple(cos.shape)}")
    rows, pairs = cos.shape[-2:]
    checks.require(2 * pairs <= head_dim, f"cos: {pairs} pairs are more than a head of {head_dim} has")
    checks.require(
        cos.ndim == 2 or cos.shape[0] in (1, batch),
        f"cos: {cos.shape[0]} tables are not x's batch of {batch}",
    )
    if positions is None:
        checks.require(rows >= seq, f"cos: {rows} rows are fewer than x's {seq} positions")
        return
    checks.require_tensor("positions", positions, POSITIONS)
    checks.require_device("positions", positions, "x", x)
    checks.require_broadcast("positions", positions, (batch, seq))


def reference_rope(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    interleaved: bool,
    back: bool,
) -> torch.Tensor:
    """Plain torch in float32, or in float64 for float64 x; back: by the opposite angles."""
    compute = torch.promote_types(torch.float32, x.dtype)
    batch, _, seq, _ = x.shape
    cos, sin = (_rows(t, positions, batch, seq).to(compute) for t in (cos, sin))
    sin = -sin if back else sin
    turned, rest = x.to(compute).tensor_split([2 * cos.shape[-1]], -1)
    a, b = turned.unflatten(-1, (-1, 2)).unbind(-1) if interleaved else turned.chunk(2, -1)
    pair = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat((turned, rest), -1)


def _rows(table: torch.Tensor, positions: torch.Tensor | None, batch: int, seq: int) -> torch.Tensor:
    """The table's rows for each position, [batch or 1, 1, seq, pairs]."""
    table = table if table.ndim == 3 else table.unsqueeze(0)
    if positions is None:
        return table[:, None, :seq]
    table, index = table.expand(batch, -1, -1), positions.expand(batch, seq).long()
    return table.gather(1, index.unsqueeze(-1).expand(-1, -1, table.shape[-1])).unsqueeze(1)


def _require_positions(positions: torch.Tensor | None, cos: torch.Tensor) -> None:
    if positions is not None and positions.device.type == "cpu":
        inside = ((positions >= 0) & (positions < cos.shape[-2])).all()
        checks.require(bool(inside), f"positions: a position is not from 0 to {cos.shape[-2] - 1}")


@operator("rope")
def _rope(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor | None,
    interleaved: bool,
    back: bool,
) -> torch.Tensor:
    _require_positions(positions, cos)
    out = _like(x)
    if runs_triton(x):
        launch_rope(x, cos, sin, positions, out, interleaved=interleaved, back=back)
    else:
        out.copy_(reference_rope(x, cos, sin, positions, interleaved, back))
    return out


def _like(x: torch.Tensor) -> torch.Tensor:
    """An empty tensor of x's shape, in memory as [.., heads, seq, ..] or [.., seq, heads, ..]."""
    if x.transpose(1, 2).is_contiguous():
        return x.new_empty(x.transpose(1, 2).shape).transpose(1, 2)
    return x.new_empty(x.shape)


@_rope.register_fake
def _(x, cos, sin, positions, interleaved, back):
    return _like(x)


def _setup_context(ctx, inputs, output):
    _, cos, sin, positions, ctx.interleaved, ctx.back = inputs
    ctx.save_for_backward(cos, sin, positions)


def _backward(ctx, grad):
    turned = _rope(grad, *ctx.saved_tensors, ctx.interleaved, not ctx.back)
    return turned, None, None, None, None, None


_rope.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op("budget::rope_", mutates_args=("x",))
def _rope_(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None, interleaved: bool
) -> None:
    _require_positions(positions, cos)
    if runs_triton(x):
        launch_rope(x, cos, sin, positions, x, interleaved=interleaved, back=False)
    else:
        x.copy_(reference_rope(x, cos, sin, positions, interleaved, False))


@_rope_.register_fake
def _(x, cos, sin, positions, interleaved):
    return None
