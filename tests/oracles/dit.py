"""DiT from the structure of its repository (facebookresearch/DiT, models.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU("tanh"), nn.Linear(4 * d, d))
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.ada(c).chunk(6, 1)
        x = x + gate1[:, None] * self.attend(modulate(self.norm(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(self.norm(x), shift2, scale2))

    def attend(self, x: Tensor) -> Tensor:
        b, s, d = x.shape
        q, k, v = self.qkv(x).reshape(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q * (d // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, s, d))


class Dit(nn.Module):
    def __init__(self, layers: int, d: int, heads: int, patch: int, side: int, channels: int, classes: int):
        super().__init__()
        self.patches = nn.Conv2d(channels, d, patch, patch)
        self.positions = nn.Parameter(torch.zeros(1, (side // patch) ** 2, d), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(256, d), nn.SiLU(), nn.Linear(d, d))
        self.classes = nn.Embedding(classes + 1, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))
        self.head = nn.Linear(d, patch * patch * channels * 2)

    def forward(self, latents: Tensor, frequencies: Tensor, label: Tensor) -> Tensor:
        x = self.patches(latents).flatten(2).transpose(1, 2) + self.positions
        c = self.time(frequencies) + self.classes(label)
        for layer in self.blocks:
            x = layer(x, c)
        return self.head(modulate(self.norm(x), *self.ada(c).chunk(2, 1)))
