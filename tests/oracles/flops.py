"""What torch itself counts: parameters and FLOPs of a real module on the meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop, conv_flop_count

aten = torch.ops.aten


def count_params(module: nn.Module) -> int:
    """Elements of the parameters, each once."""
    return sum(p.numel() for p in module.parameters())


def count_flops(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[int, int]:
    """FLOPs of a forward pass and of its backward pass, from the loss or the sum of the output.

    The outer product that makes rotary frequencies is left out: transformers' versions differ in it.
    """
    with FlopCounterMode(
        display=False, custom_mapping={aten.convolution_backward: _convolution_backward}
    ) as counter:
        out = module(*args, **kwargs)
        forward = counter.get_total_flops()
        counts = counter.get_flop_counts().items()
        rotary = sum(sum(ops.values()) for name, ops in counts if name.endswith("rotary_emb"))
        _scalar(out).backward()
    return forward - rotary, counter.get_total_flops() - forward


def _convolution_backward(grad: Any, x: Any, w: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    """torch's own count, but for a grouped convolution: there it takes the weight's gradient for
    one between all channels, while each gradient costs what the forward pass does."""
    groups, mask = rest[-2], rest[-1]
    if groups == 1:
        return conv_backward_flop.__wrapped__(grad, x, w, *rest, out_shape=out_shape)
    transposed = rest[-4]
    return (mask[0] + mask[1]) * conv_flop_count(x, w, grad, transposed)


def _scalar(out: Any) -> Tensor:
    """The loss if there is one, else the sum of the (first) output."""
    loss = getattr(out, "loss", None)
    if loss is not None:
        return loss
    return (out if isinstance(out, Tensor) else out[0]).sum()
