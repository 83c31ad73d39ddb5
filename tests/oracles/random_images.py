"""Steps of random modules that map images [batch, channels, side, side] to images."""

from __future__ import annotations

import torch
from oracles.random_parts import Call, activation, weight
from torch import nn
from torch.nn import functional as F


def convolution(r, c):
    groups = r.choice([g for g in (1, 2, c) if c % g == 0])
    kind = nn.ConvTranspose2d if r.random() < 0.2 else nn.Conv2d
    return kind(c, c, 3, padding=1, groups=groups, bias=r.random() < 0.5)


FLAT = (
    convolution,
    convolution,
    lambda r, c: nn.Conv2d(c, c, 3, padding=2, dilation=2),
    lambda r, c: nn.Sequential(nn.Conv2d(c, 2 * c, 1), activation(r, c), nn.Conv2d(2 * c, c, 1)),
    lambda r, c: nn.BatchNorm2d(c, affine=r.random() < 0.8, track_running_stats=r.random() < 0.8),
    lambda r, c: nn.GroupNorm(r.choice([g for g in (1, 2) if c % g == 0]), c),
    lambda r, c: nn.InstanceNorm2d(c, affine=r.random() < 0.5),
    lambda r, c: nn.LocalResponseNorm(2),
    lambda r, c: nn.CrossMapLRN2d(2),
    lambda r, c: r.choice((nn.MaxPool2d, nn.AvgPool2d))(3, 1, 1),
    lambda r, c: nn.Sequential(
        nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode=r.choice(("nearest", "bilinear")))
    ),
    lambda r, c: nn.Sequential(nn.Conv2d(c, 4 * c, 3, 2, 1), nn.PixelShuffle(2)),
    lambda r, c: Call(lambda m, x: x * m.net(x.mean((2, 3)))[..., None, None].sigmoid(), net=nn.Linear(c, c)),
    lambda r, c: nn.Sequential(
        r.choice((nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d))(1), nn.Conv2d(c, c, 3)
    ),
    lambda r, c: nn.Dropout2d(0.1),
    activation,
    lambda r, c: Call(
        lambda m, x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1) * m.w, w=weight(1)
    ),
    lambda r, c: Call(
        lambda m, x: F.grid_sample(x, m.g.expand(x.shape[0], -1, -1, -1), align_corners=False),
        g=weight(1, 8, 8, 2),
    ),
    lambda r, c: Call(lambda m, x: torch.cat((x, m.net(x)), 1)[:, :c], net=nn.Conv2d(c, c, 1)),
    lambda r, c: Call(
        lambda m, x: m.net(x.to(memory_format=torch.channels_last)).contiguous(),
        net=nn.Conv2d(c, c, 3, padding=1),
    ),
)
