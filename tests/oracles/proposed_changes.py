"""What `budget fit` proposes and other packages do, in plain torch, as these have it on a GPU.

Layers in four bits and optimizers of bitsandbytes 0.50, Liger's loss by chunks. What their kernels write lies
where it does there; what they compute is of no interest on fake tensors.

Left out: tables of 256 numbers a layer, and the copy that peft's class for such layers makes of a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

SMALL = 4096  # bitsandbytes: elements of a weight below which its states are not in eight bits


def ceil_div(n: int, by: int) -> int:
    return -(-n // by)


class FourBit(nn.Linear):
    """bitsandbytes' Linear4bit, doubly quantized: two weights in a byte, 8-bit scales of 64 weights, float32
    ones of 256 scales.
    """

    def __init__(self, wide: Any):
        nn.Module.__init__(self)
        features = wide.weight.shape if isinstance(wide, Conv1D) else wide.weight.shape[::-1]
        self.in_features, self.out_features = features
        n = wide.weight.numel()
        self.weight = nn.Parameter(torch.zeros(ceil_div(n, 2), 1, dtype=torch.uint8), requires_grad=False)
        self.bias = wide.bias
        scales = ceil_div(n, 64)
        self.register_buffer("scales", torch.zeros(scales, dtype=torch.uint8))
        self.register_buffer("scales_of_scales", torch.zeros(ceil_div(scales, 256), dtype=torch.float32))
        self.computes = torch.get_default_dtype()

    def widened(self, dtype: torch.dtype) -> torch.Tensor:
        """Its weight; the scales are float32 while it is made."""
        scales = torch.empty(len(self.scales), dtype=torch.float32)
        wide = torch.empty(self.out_features, self.in_features, dtype=dtype)
        del scales
        return wide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _FourBit.apply(x.to(self.computes), self.bias, self).to(x.dtype)


class _FourBit(torch.autograd.Function):
    """MatMul4Bit: its weight is widened in both passes, and nothing is saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: Any, layer: FourBit) -> torch.Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.widened(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        return grad @ ctx.layer.widened(grad.dtype), None, None


def in_four_bits(module: nn.Module, head: nn.Module | None) -> None:
    """Replace all linear layers but the head, as transformers does."""
    for part in list(module.modules()):
        for name, layer in list(part.named_children()):
            if type(layer) in (nn.Linear, Conv1D) and layer is not head:
                setattr(part, name, FourBit(layer))


class Blockwise(torch.optim.Optimizer):
    """bitsandbytes' AdamW: a kernel a weight, states of `bits` each; `paged` ones are not on the device."""

    def __init__(self, parameters: Iterable[torch.Tensor], bits: int, *, paged: bool = False):
        super().__init__(parameters, {})
        self.bits, self.paged = bits, paged

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # no closure
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None or self.state[p] or self.paged:
                    continue
                if self.bits == 8 and p.numel() >= SMALL:
                    scales = ceil_div(p.numel(), 256)
                    self.state[p] = {
                        f"{what}{i}": torch.zeros(n, dtype=dtype)
                        for i in (1, 2)
                        for what, n, dtype in (
                            ("state", p.numel(), torch.uint8),
                            ("absmax", scales, torch.float32),
                        )
                    }
                else:
                    self.state[p] = {f"state{i}": torch.zeros_like(p, dtype=torch.float32) for i in (1, 2)}


class _Chunked(torch.autograd.Function):
    """Liger's fused linear cross-entropy: gradients are made forward, a chunk of tokens at a time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, trains: bool) -> torch.Tensor:
        rows, width = x.shape
        chunk = 1 << (ceil_div(rows, ceil_div(weight.shape[0], width)) - 1).bit_length()
        grad_x = torch.zeros_like(x)
        grad_weight = torch.zeros_like(weight) if trains else None
        losses = torch.zeros(rows, dtype=torch.float32)
        for i in range(0, rows, chunk):
            part = x[i : i + chunk]
            logits = part @ weight.t()  # and their gradients, in place
            grad_x[i : i + chunk] = logits @ weight
            if grad_weight is not None:
                narrow = part.to(logits.dtype)  # addmm with out_dtype adds to it in place
                del narrow
            del logits, part
        ctx.save_for_backward(grad_x, grad_weight)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor) -> tuple[Any, ...]:
        return (*ctx.saved_tensors, None)


@contextmanager
def chunked_loss(module: Any) -> Iterator[None]:
    """The network's head gives what it reads to Liger's loss, which has the head's weight."""
    head = module.get_output_embeddings()

    def loss(hidden: Any = None, *_: Any, logits: Any = None, **__: Any) -> torch.Tensor:
        hidden = logits if hidden is None else hidden
        return _Chunked.apply(hidden.flatten(0, -2), head.weight, head.weight.requires_grad)

    with (
        patch.object(head, "forward", lambda x: x),
        patch.multiple(
            module.config, create=True, final_logit_softcapping=None, vocab_size=head.weight.shape[1]
        ),
        patch.object(type(module), "loss_function", property(lambda _: loss), create=True),
        patch.object(functional, "cross_entropy", loss),
    ):
        yield
