"""What random modules are made of: a call with layers by name, a weight, an activation."""

from __future__ import annotations

import torch
from torch import nn


class Call(nn.Module):
    """A function of an input, with layers and parameters by name."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args):
        return self.run(self, *args)


def weight(*sizes):
    return nn.Parameter(torch.rand(sizes) - 0.5)


ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.LeakyReLU, nn.LogSigmoid, nn.Softshrink,
    nn.Hardshrink, nn.Tanhshrink, nn.PReLU, nn.Softmin, nn.RReLU,
)  # fmt: skip
INPLACE = (
    nn.ReLU,
    nn.ReLU6,
    nn.ELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.Hardsigmoid,
)


def activation(r, d):
    if r.random() < 0.3:
        return r.choice(INPLACE)(inplace=True)
    kind = r.choice(ACTIVATIONS)
    return kind(dim=-1) if kind is nn.Softmin else kind()
