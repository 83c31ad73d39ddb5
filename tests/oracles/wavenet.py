"""WaveNet from its paper."""

import torch
from torch import nn
from torch.nn import functional as F


class Causal(nn.Conv1d):
    """A convolution with zeros before the first sample."""

    def forward(self, x):
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class Layer(nn.Module):
    def __init__(self, d, f, k, kernel, dilation):
        super().__init__()
        self.left, self.kernel = (kernel - 1) * dilation, kernel
        self.filter, self.gate = (nn.Conv1d(d, f, kernel, dilation=dilation) for _ in range(2))
        self.skip, self.residual = nn.Conv1d(f, k, 1), nn.Conv1d(f, d, 1)

    def forward(self, x, total):
        padded = F.pad(x, (self.left, 0))
        u = torch.tanh(self.filter(padded)) * torch.sigmoid(self.gate(padded))
        return x + self.residual(u), total + self.skip(u)


class WaveNet(nn.Module):
    def __init__(self, cycles=3, depth=10, residual=32, inner=32, skip=512, kernel=2, levels=256):
        super().__init__()
        self.start, self.channels = Causal(levels, residual, kernel), skip
        self.layers = nn.ModuleList(
            Layer(residual, inner, skip, kernel, 2**i) for _ in range(cycles) for i in range(depth)
        )
        self.mix, self.head = nn.Conv1d(skip, skip, 1), nn.Conv1d(skip, levels, 1)

    def forward(self, samples):
        x = self.start(samples)
        total = torch.zeros(len(x), self.channels, x.shape[-1], dtype=x.dtype, device=x.device)
        for layer in self.layers:
            x, total = layer(x, total)
        return self.head(F.relu(self.mix(F.relu(total))))
