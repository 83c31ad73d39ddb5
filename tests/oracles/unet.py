"""U-Net in two and three dimensions: the usual padded one, and the papers' without padding."""

import torch
from torch import nn
from torch.nn import functional as F


class UNet(nn.Module):
    def __init__(self, axes=2, c=1, classes=2, width=64, depth=4, *, norm="batch", affine=True, bias=False,
                 up_bias=True, padding=True, widen_late=False):  # fmt: skip
        super().__init__()
        conv, up = (nn.Conv2d, nn.ConvTranspose2d) if axes == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        norms = {
            "batch": (nn.BatchNorm2d, nn.BatchNorm3d),
            "instance": (nn.InstanceNorm2d, nn.InstanceNorm3d),
        }

        def layers(c, f):
            yield conv(c, f, 3, padding=int(padding), bias=bias)
            if norm != "none":
                yield norms[norm][axes - 2](f, affine=affine)
            yield nn.ReLU(inplace=True)

        def double(c, inner, f):
            return nn.Sequential(*layers(c, inner), *layers(inner, f))

        self.axes, self.padding = axes, padding
        self.down, self.grow, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in range(depth + 1):
            f = width * 2**level
            self.down.append(double(c, f // 2 if widen_late else f, f))
            c = f
        for level in reversed(range(depth)):
            f = width * 2**level
            grown = c if widen_late else f
            self.grow.append(up(c, grown, 2, 2, bias=up_bias))
            self.up.append(double(grown + f, f, f))
            c = f
        self.pool = nn.MaxPool2d(2) if axes == 2 else nn.MaxPool3d(2)
        self.head = conv(c, classes, 1)

    def forward(self, x):
        skips = []
        for i, level in enumerate(self.down):
            x = level(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        for grow, level in zip(self.grow, self.up, strict=True):
            x, skip = grow(x), skips.pop()
            x, skip = self.fit(x, skip)
            x = level(torch.cat([skip, x], 1))
        return self.head(x)

    def fit(self, x, skip):
        extra = [a - b for a, b in zip(skip.shape[2:], x.shape[2:], strict=True)]
        if self.padding:
            return F.pad(x, [n for e in reversed(extra) for n in (0, e)]), skip
        for axis, (e, n) in enumerate(zip(extra, x.shape[2:], strict=True), 2):
            skip = skip.narrow(axis, e // 2, n)
        return x, skip
