"""A language model's head and loss together: the logits hidden @ weight^T are never all in memory.

Forward makes the logits of some tokens at a time and keeps two numbers a token, the maximum and the sum of
exponentials. Backward makes the logits of all tokens again, some classes at a time, turns them in place into
their gradient, and multiplies that with hidden and weight: the weight's gradient is then one product, rounded
once, and only the hidden states' is a sum, in float32. Products and losses are matmul.py's and
cross_entropy.py's kernels. Source: cut-cross-entropy
"""

import torch
from torch.utils.flop_counter import register_flop_formula

from . import checks
from .autocast import autocast
from .cross_entropy import (
    check_classes,
    check_options,
    reduced,
    reference_cross_entropy,
    reference_cross_entropy_backward,
)
from .cross_entropy_kernel import launch_cross_entropy, launch_cross_entropy_backward
from .matmul_kernel import launch_matmul
from .matmul_reference import reference_matmul
from .operators import operator
from .settings import runs_triton

__all__ = ["linear_cross_entropy"]

# Logits in memory at a time, by token: so many, or so many widths of hidden if that is more. That is enough
# for the update of hidden's gradient, one read and write for all of them, to take little time beside their
# product.
CLASSES_AT_HAND, WIDTHS_AT_HAND = 16_384, 4


@autocast()
def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """cross_entropy(softcap((hidden @ weight^T + bias) * scale), target), in float32.

    hidden: [..., D], float16, bfloat16 or float32, any strides. weight: [V, D], as nn.Linear's; bias: [V];
        of hidden's dtype. target: int64, of hidden's leading shape. Logits are rounded to hidden's dtype.
    softcap: logits become softcap * tanh(logits / softcap) (Gemma 2).
    The rest as in cross_entropy().
    Memory beside the arguments and their gradients, for T tokens: T x max(4 D, 16384) logits of hidden's
    dtype and, backward, T x D numbers in float32. Work: one product forward, three backward.
    Raises TypeError (a dtype, a type) or ValueError (a shape, a device, a number out of range).
    """
    scale, smoothing, cap = _check(
        hidden, weight, target, bias, scale, softcap, ignore_index, label_smoothing, reduction
    )
    flat = hidden.reshape(hidden.shape[:-1].numel(), hidden.shape[-1])
    row = target.reshape(-1)
    loss, _, _ = _linear_cross_entropy(flat, weight, row, bias, scale, cap, ignore_index, smoothing)
    return reduced(loss.reshape(target.shape), target, ignore_index, reduction)


def _check(hidden, weight, target, bias, scale, softcap, ignore_index, label_smoothing, reduction):
    checks.require_tensor("hidden", hidden)
    checks.require(hidden.ndim >= 1, "hidden: expected at least 1 dimension, got 0")
    width = hidden.shape[-1]
    checks.require_tensor("weight", weight)
    checks.require_like("weight", weight, "hidden", hidden)
    checks.require(
        weight.ndim == 2 and weight.shape[0] > 0 and weight.shape[1] == width,
        f"weight: expected shape (classes, {width}), got {tuple(weight.shape)}",
    )
    if bias is not None:
        checks.require_tensor("bias", bias)
        checks.require_like("bias", bias, "hidden", hidden)
        checks.require(
            bias.shape == weight.shape[:1], f"bias: shape {tuple(bias.shape)} is not ({weight.shape[0]},)"
        )
    checks.require_tensor("target", target, (torch.int64,))
    checks.require_device("target", target, "hidden", hidden)
    checks.require(
        target.shape == hidden.shape[:-1],
        f"target: shape {tuple(target.shape)} is not hidden's {tuple(hidden.shape[:-1])}",
    )
    if softcap is not None:
        softcap = checks.require_number("softcap", softcap)
        checks.require(softcap > 0, f"softcap: expected a positive number, got {softcap}")
    return *check_options(scale, ignore_index, label_smoothing, reduction), softcap or 0.0


def _at_hand(hidden: torch.Tensor, weight: torch.Tensor) -> tuple[int, int]:
    """(classes of all tokens, tokens with all classes): how many logits fit the allowed memory, either
    way.
    """
    (tokens, width), classes = hidden.shape, weight.shape[0]
    some = min(classes, max(WIDTHS_AT_HAND * width, CLASSES_AT_HAND))
    rows = tokens * some // classes
    return some, max(rows // 128 * 128, min(rows, 128), 1)  # in whole tiles


def _product(
    a: torch.Tensor,
    b: torch.Tensor,
    out: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> None:
    """out = a @ b + bias + added, of matrices; added may be out."""
    if runs_triton(a):
        none = out.new_empty(0)
        third = None if added is None else added.unsqueeze(0)
        launch_matmul(
            a.unsqueeze(0), b.unsqueeze(0), bias, None, third, None, None, out.unsqueeze(0), none, none,
            activation="none", tf32=False,
        )  # fmt: skip
    else:
        out.copy_(reference_matmul(a, b, bias, None, added, None, None, "none")[0])


@operator("linear_cross_entropy")
def _linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    softcap: float,
    ignore_index: int,
    smoothing: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, maximum, sum of exponentials), each [tokens] in float32, of hidden [tokens, D]."""
    check_classes(target, ignore_index, weight.shape[0])
    outputs = _row_statistics(hidden)
    numbers = {"scale": scale, "ignore_index": ignore_index, "smoothing": smoothing, "softcap": softcap}
    _, rows = _at_hand(hidden, weight)
    buffer = hidden.new_empty((min(rows, hidden.shape[0]), weight.shape[0]))
    for first in range(0, hidden.shape[0], rows):
        part = slice(first, first + rows)
        logits = buffer[: hidden[part].shape[0]]
        _product(hidden[part], weight.mT, logits, bias=bias)
        if runs_triton(hidden):
            launch_cross_entropy(logits, target[part], *(t[part] for t in outputs), **numbers)
        else:
            found = reference_cross_entropy(logits, target[part], **numbers)
            for out, value in zip(outputs, found, strict=True):
                out[part] = value
    return outputs


def _row_statistics(hidden):
    loss, maximum, total = (hidden.new_empty(hidden.shape[0], dtype=torch.float32) for _ in range(3))
    return loss, maximum, total


@_linear_cross_entropy.register_fake
def _(hidden, weight, target, bias, scale, softcap, ignore_index, smoothing):
    return _row_statistics(hidden)


@operator("linear_cross_entropy_backward")
def _linear_cross_entropy_backward(
    grad: torch.Tensor,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    bias: torch.Tensor | None,
    maximum: torch.Tensor,
    total: torch.Tensor,
    scale: float,
    softcap: float,
    ignore_index: int,
    smoothing: float,
    needs_hidden: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of hidden, weight and bias, without elements where they are not needed."""
    gradients = _empty_gradients(hidden, weight, bias, needs_hidden, needs_weight, needs_bias)
    dhidden, dweight, dbias = gradients
    tokens, classes = hidden.shape[0], weight.shape[0]
    if tokens == 0:
        return dhidden, dweight.zero_(), dbias.zero_()
    numbers = {"scale": scale, "ignore_index": ignore_index, "smoothing": smoothing, "softcap": softcap}
    some, _ = _at_hand(hidden, weight)
    buffer = hidden.new_empty(tokens * some)
    sums = dhidden if some == classes else torch.empty_like(dhidden, dtype=torch.float32)
    for first in range(0, classes, some):
        part = slice(first, min(first + some, classes))
        rows = weight[part]
        logits = buffer[: tokens * rows.shape[0]].view(tokens, rows.shape[0])
        _product(hidden, rows.mT, logits, bias=None if bias is None else bias[part])
        given = (grad, logits, target, maximum, total)
        if runs_triton(hidden):
            launch_cross_entropy_backward(*given, logits, **numbers, first=first, classes=classes)
        else:
            logits.copy_(reference_cross_entropy_backward(*given, **numbers, first=first, classes=classes))
        if needs_hidden:
            out = dhidden if part.stop == classes else sums
            _product(logits, rows, out, added=sums if first else None)
        if needs_weight:
            _product(logits.mT, hidden, dweight[part])
        if needs_bias:
            dbias[part] = logits.sum(0, dtype=torch.float32)
    return gradients


def _empty_gradients(hidden, weight, bias, needs_hidden, needs_weight, needs_bias):
    def like(t, needed):
        return hidden.new_empty(t.shape if needed else (0,))

    return like(hidden, needs_hidden), like(weight, needs_weight), like(bias, needs_bias)


@_linear_cross_entropy_backward.register_fake
def _(grad, hidden, weight, target, bias, maximum, total, scale, softcap, ignore_index, smoothing,
      needs_hidden, needs_weight, needs_bias):  # fmt: skip
    return _empty_gradients(hidden, weight, bias, needs_hidden, needs_weight, needs_bias)


def _setup_context(ctx, inputs, output):
    hidden, weight, target, bias, *ctx.numbers = inputs
    ctx.save_for_backward(hidden, weight, target, bias, *output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _grad_maximum, _grad_total):
    if grad is None:
        return (None,) * 8
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
    found = _linear_cross_entropy_backward(grad, *ctx.saved_tensors, *ctx.numbers, *needs)
    dhidden, dweight, dbias = (t if needed else None for t, needed in zip(found, needs, strict=True))
    return dhidden, dweight, None, dbias, None, None, None, None


_linear_cross_entropy.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.budget.linear_cross_entropy)
def linear_cross_entropy_flops(hidden_shape, weight_shape, *_, **__) -> int:
    """One product."""
    return 2 * hidden_shape[0] * hidden_shape[1] * weight_shape[0]


@register_flop_formula(torch.ops.budget.linear_cross_entropy_backward, get_raw=True)
def linear_cross_entropy_backward_flops(grad, hidden, weight, *rest, out_val=None, **_) -> int:
    """The logits' product again, and one for each gradient that is needed."""
    needs_hidden, needs_weight, _ = rest[-3:]
    return 2 * hidden.numel() * weight.shape[0] * (1 + needs_hidden + needs_weight)
