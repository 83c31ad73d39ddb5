"""Conformer and Deep Speech 2 from their papers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.positions = nn.Linear(d, d, bias=False)
        self.u, self.w = (nn.Parameter(torch.zeros(heads, d // heads)) for _ in range(2))

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1))  # noqa: E731
        q, k, v = split(self.q(x)), split(self.k(x)).transpose(1, 2), split(self.v(x)).transpose(1, 2)
        pos = split(self.positions(distances)).permute(1, 2, 0)
        content = (q + self.u).transpose(1, 2) @ k.transpose(-2, -1)
        distance = self.shift((q + self.w).transpose(1, 2) @ pos)
        weights = ((content + distance) * (x.shape[-1] // self.heads) ** -0.5).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).flatten(2))

    def shift(self, w: Tensor) -> Tensor:
        b, h, s, p = w.shape
        return nn.functional.pad(w, (1, 0)).view(b, h, p + 1, s)[:, :, 1:].reshape(b, h, s, p)[..., :s]


class Layer(nn.Module):
    def __init__(self, d: int, heads: int, kernel: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(5))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 4 * d), nn.SiLU(), nn.Linear(4 * d, d)) for _ in range(2)
        )
        self.attention = Attention(d, heads)
        self.convolution = nn.Sequential(
            nn.Conv1d(d, 2 * d, 1),
            nn.GLU(1),
            nn.Conv1d(d, d, kernel, padding=kernel // 2, groups=d),
            nn.BatchNorm1d(d),
            nn.SiLU(),
            nn.Conv1d(d, d, 1),
        )

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        x = x + self.mlps[0](self.norms[0](x)) / 2
        x = x + self.attention(self.norms[1](x), distances)
        x = x + self.convolution(self.norms[2](x).transpose(1, 2)).transpose(1, 2)
        return self.norms[4](x + self.mlps[1](self.norms[3](x)) / 2)


class Conformer(nn.Module):
    def __init__(self, layers: int, d: int, heads: int, kernel: int, mels: int, vocab: int):
        super().__init__()
        self.subsample = nn.Sequential(nn.Conv2d(1, d, 3, 2), nn.ReLU(), nn.Conv2d(d, d, 3, 2), nn.ReLU())
        self.linear = nn.Linear(d * (((mels - 1) // 2 - 1) // 2), d)
        self.layers = nn.ModuleList(Layer(d, heads, kernel) for _ in range(layers))
        self.head = nn.Linear(d, vocab)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.linear(self.subsample(mel[:, None]).transpose(1, 2).flatten(2))
        distances = x.new_zeros(2 * x.shape[1] - 1, x.shape[2])
        for layer in self.layers:
            x = layer(x, distances)
        return self.head(x)


class DeepSpeech2(nn.Module):
    def __init__(self, cell: str, layers: int, n: int, frequencies: int, channels: int, vocab: int):
        super().__init__()
        conv = lambda i, *a: (nn.Conv2d(i, channels, *a), nn.BatchNorm2d(channels), nn.Hardtanh(0, 20))  # noqa: E731
        self.convolutions = nn.Sequential(
            *conv(1, (41, 11), (2, 2), (20, 5)), *conv(channels, (21, 11), (2, 1), (10, 5))
        )
        bins = ((frequencies - 1) // 2 + 1 - 1) // 2 + 1
        rnn = getattr(nn, cell.upper())
        widths = (channels * bins, *[n] * (layers - 1))
        self.rnns = nn.ModuleList(rnn(width, n, bidirectional=True) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for _ in range(layers))
        self.head = nn.Linear(n, vocab, bias=False)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.convolutions(spectrogram[:, None]).flatten(1, 2).permute(2, 0, 1)
        for rnn, norm in zip(self.rnns, self.norms, strict=True):
            x = rnn(x)[0].unflatten(-1, (2, -1)).sum(2)
            x = norm(x.flatten(0, 1)).view_as(x)
        return self.head(x)
