"""A small gated network twice, in our operators and in torch, and what torch's autograd saves of it."""

from __future__ import annotations

import torch
from torch import nn

from budget import arch
from budget.config import Workload, make
from budget.fold.memory import memory
from budget.ir import Model, block, link, op

B, S, D, F, C = 2, 7, 48, 80, 5
BODY = (
    op("norm", "x:, *d, +*d -> n:", "layer_norm"),
    op("gate", "n: b s d, *d f, +*f -> g: b s f"),
    op("act", "g: -> g:", "silu"),
    op("up", "n: b s d, *d f, +*f -> u: b s f"),
    op("mul", "g:, u: -> g:", "mul"),
    op("down", "g:, *f d, +*d -> m: b s d"),
    op("add", "x:, m: -> x:", "add"),
)


def model(layers):
    nodes = (
        op("in", "!raw: b s c, *c d -> x: b s d"),
        block("layers", BODY, layers),
        op("norm", "x:, *d, +*d -> x:", "layer_norm"),
    )
    linked, ends = link(nodes, dict(b=B, s=S, c=C, d=D, f=F))
    return Model("t", "t", linked, {}, ends)


class LoRA(nn.Module):
    """peft's linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = (
            nn.Linear(base.in_features, RANK, bias=False),
            nn.Linear(RANK, base.out_features, bias=False),
        )

    def forward(self, x):
        return self.base(x) + self.b(self.a(x)) * 0.5


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.gate, self.up, self.down = (
            nn.LayerNorm(D),
            nn.Linear(D, F),
            nn.Linear(D, F),
            nn.Linear(F, D),
        )

    def forward(self, x):
        n = self.norm(x)
        return x + self.down(nn.functional.silu(self.gate(n)) * self.up(n))


def net(layers):
    return nn.Sequential(nn.Linear(C, D, bias=False), *(Layer() for _ in range(layers)), nn.LayerNorm(D))


def saved(module, x, *forget):
    """Bytes of the storages that autograd saves, parameters, input and output aside."""
    kept = {}

    def keep(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = module(x)
    for t in (x, out, *module.parameters()):
        kept.pop(t.untyped_storage().data_ptr(), None)
    return sum(kept.values()), out


def held(program):
    """Bytes kept when the forward pass ends, without the network's output."""
    return memory(program, "float32").activations - B * S * D * 4


def gpt(mode="train", batch=2, **values):
    module = arch.load("transformer")
    config = {"layers": 5, "d_model": 64, "heads": 4, "vocab": 500, "context": 32, **values}
    return module.build(make(module.Config, config), Workload(mode, batch, 32))


RANK = 4
LLAMA = {"norm": "rms_norm", "gated": True, "activation": "silu", "positions": "rotary", "d_ff": 160}
