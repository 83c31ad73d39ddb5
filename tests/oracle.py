"""What torch itself counts: parameters and FLOPs of a real module on the meta device."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_params(module: nn.Module) -> int:
    """Elements of the parameters, each once."""
    return sum(p.numel() for p in module.parameters())


def count_flops(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[int, int]:
    """FLOPs of a forward pass and of its backward pass, from the loss or the sum of the output."""
    with FlopCounterMode(display=False) as counter:
        out = module(*args, **kwargs)
        forward = counter.get_total_flops()
        _scalar(out).backward()
    return forward, counter.get_total_flops() - forward


def _scalar(out: Any) -> Tensor:
    """The loss if there is one, else the sum of the (first) output."""
    loss = getattr(out, "loss", None)
    if loss is not None:
        return loss
    return (out if isinstance(out, Tensor) else out[0]).sum()
