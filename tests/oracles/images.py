"""Networks for images that transformers has not, written from torchvision's, timm's and the papers."""

import torch
from torch import nn

from .convnets import Parallel, Squeeze, unit


def auxiliary(c, classes):
    return nn.Sequential(
        *(nn.AdaptiveAvgPool2d(4), unit(c, 128, 1), nn.Flatten(), nn.Linear(2048, 1024)),
        *(nn.ReLU(inplace=True), nn.Linear(1024, classes)),
    )


def googlenet_module(c, a, b1, b2, c1, c2, d, wide):
    """Four branches, and as many channels as they have together."""
    branches = Parallel(
        unit(c, a, 1),
        nn.Sequential(unit(c, b1, 1), unit(b1, b2, 3)),
        nn.Sequential(unit(c, c1, 1), unit(c1, c2, wide)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(c, d, 1)),
    )
    return branches, a + b2 + c2 + d


class GoogLeNet(nn.Module):
    """Returns the sum of the logits, and of the auxiliary heads' where it has them."""

    def __init__(self, aux=True, wide=3, classes=1000):
        super().__init__()
        c = 192
        layers = [unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), unit(64, 64, 1), unit(64, c, 3)]
        self.parts, self.heads = nn.ModuleList(), nn.ModuleList()
        for kind, *channels in (
            *(("pool", 3), ("module", 64, 96, 128, 16, 32, 32), ("module", 128, 128, 192, 32, 96, 64)),
            *(("pool", 3), ("module", 192, 96, 208, 16, 48, 64), ("head",)),
            *(("module", 160, 112, 224, 24, 64, 64), ("module", 128, 128, 256, 24, 64, 64)),
            *(("module", 112, 144, 288, 32, 64, 64), ("head",), ("module", 256, 160, 320, 32, 128, 128)),
            *(("pool", 2), ("module", 256, 160, 320, 32, 128, 128), ("module", 384, 192, 384, 48, 128, 128)),
        ):
            if kind == "pool":
                layers.append(nn.MaxPool2d(channels[0], 2, ceil_mode=True))
            elif kind == "module":
                module, c = googlenet_module(c, *channels, wide)
                layers.append(module)
            elif aux:
                self.parts.append(nn.Sequential(*layers))
                self.heads.append(auxiliary(c, classes))
                layers = []
        self.last = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))

    def forward(self, x):
        total = 0
        for part, head in zip(self.parts, self.heads, strict=True):
            x = part(x)
            total = total + head(x).sum()
        return total + self.last(x).sum()


class RepVGGBlock(nn.Module):
    def __init__(self, c, f, stride, groups, merged):
        super().__init__()
        if merged:
            self.branches = nn.ModuleList([nn.Conv2d(c, f, 3, stride, 1, groups=groups)])
            return
        self.branches = nn.ModuleList(unit(c, f, k, stride, groups=groups, act=None) for k in (3, 1))
        if stride == 1 and c == f:
            self.branches.append(nn.BatchNorm2d(f))

    def forward(self, x):
        return sum(branch(x) for branch in self.branches).relu_()


def repvgg(depths=(4, 6, 16, 1), widths=(64, 128, 256, 1280), stem=64, groups=1, merged=False, classes=1000):
    layers, c = [RepVGGBlock(3, stem, 2, 1, merged)], stem
    for depth, f in zip(depths, widths, strict=True):
        for i in range(depth):
            layers.append(RepVGGBlock(c, f, 1 if i else 2, 1 if len(layers) % 2 else groups, merged))
            c = f
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


class Transposed(nn.Module):
    """A module that sees the last two axes exchanged."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def mixer(layers=12, d=768, d_tokens=384, d_ff=3072, patch=16, side=224, c=3, classes=1000):
    """For images of one size."""

    def mlp(width, hidden):
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    blocks = []
    for _ in range(layers):
        blocks.append(Residual(nn.LayerNorm(d), Transposed(mlp((side // patch) ** 2, d_tokens))))
        blocks.append(Residual(nn.LayerNorm(d), mlp(d, d_ff)))
    return nn.Sequential(
        *(nn.Conv2d(c, d, patch, patch), nn.Flatten(2), Transposed(nn.Sequential(*blocks, nn.LayerNorm(d)))),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(d, classes)),
    )


def split(c, f, between, span, strides):
    time, *space = strides
    return nn.Sequential(
        nn.Conv3d(c, between, (1, 3, 3), (1, *space), (0, 1, 1), bias=False),
        *(nn.BatchNorm3d(between), nn.ReLU(inplace=True)),
        nn.Conv3d(between, f, (span, 1, 1), (time, 1, 1), (span // 2, 0, 0), bias=False),
    )


class VideoBlock(nn.Module):
    def __init__(self, c, f, span, stride, is_split):
        super().__init__()
        strides = (stride if span == 3 else 1, stride, stride)
        between = (c * f * 27) // (c * 9 + 3 * f)

        def conv(c, strides):
            if is_split:
                return split(c, f, between, span, strides)
            return nn.Conv3d(c, f, (span, 3, 3), strides, (span // 2, 1, 1), bias=False)

        self.body = nn.Sequential(
            *(conv(c, strides), nn.BatchNorm3d(f), nn.ReLU(inplace=True)),
            *(conv(f, (1, 1, 1)), nn.BatchNorm3d(f)),
        )
        self.down = None
        if stride > 1 or c != f:
            self.down = nn.Sequential(nn.Conv3d(c, f, 1, strides, bias=False), nn.BatchNorm3d(f))

    def forward(self, x):
        y = self.body(x)
        y += self.down(x) if self.down else x
        return y.relu_()


def video_resnet(temporal=4, is_split=False, depths=(2, 2, 2, 2), widths=(64, 128, 256, 512), classes=400):
    if is_split:
        layers = [
            *(nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False), nn.BatchNorm3d(45), nn.ReLU()),
            *(nn.Conv3d(45, 64, (3, 1, 1), 1, (1, 0, 0), bias=False), nn.BatchNorm3d(64), nn.ReLU()),
        ]
    else:
        layers = [
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(),
        ]
    c = 64
    for i, (depth, f) in enumerate(zip(depths, widths, strict=True)):
        for j in range(depth):
            layers.append(VideoBlock(c, f, 3 if i < temporal else 1, 2 if i and not j else 1, is_split))
            c = f
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(c, classes))


def gelu(**_):
    return nn.GELU()


class Attend(nn.Module):
    """MaxViT's attention within groups of side x side tokens of [b, groups, tokens, d]."""

    def __init__(self, d, side, head=32):
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(d, 3 * d), nn.Linear(d, d), head
        self.table = nn.Parameter(torch.empty((2 * side - 1) ** 2, d // head))
        self.tokens = side * side

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (-1, self.head)).transpose(2, 3) for t in self.qkv(x).chunk(3, -1))
        index = torch.zeros(self.tokens * self.tokens, dtype=torch.long, device=x.device)
        bias = self.table[index].view(self.tokens, self.tokens, -1).permute(2, 0, 1)
        weights = (q @ k.transpose(-1, -2) * self.head**-0.5 + bias).softmax(-1)
        return self.out((weights @ v).transpose(2, 3).flatten(-2))


class Grouped(nn.Module):
    """Attention and an MLP over an image's windows, or over its grids."""

    def __init__(self, d, side, of_grid):
        super().__init__()
        self.side, self.of_grid = side, of_grid
        mlp = (nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.body = nn.Sequential(Residual(nn.LayerNorm(d), Attend(d, side)), Residual(*mlp))

    def forward(self, x):
        b, d, y, _ = x.shape
        n = y // self.side
        inner = (self.side, n) if self.of_grid else (n, self.side)
        tiles = x.reshape(b, d, *inner, *inner)
        order = (0, 3, 5, 2, 4, 1) if self.of_grid else (0, 2, 4, 3, 5, 1)
        tokens = tiles.permute(order).reshape(b, n * n, self.side**2, d)
        return (
            self.body(tokens)
            .reshape(b, n, n, self.side, self.side, d)
            .permute(0, 5, 1, 3, 2, 4)
            .reshape(x.shape)
        )


class MaxConv(nn.Module):
    def __init__(self, c, f, stride):
        super().__init__()
        wide = 4 * f
        self.body = nn.Sequential(
            *(
                nn.BatchNorm2d(c),
                unit(c, wide, 1, act=gelu),
                unit(wide, wide, 3, stride, groups=wide, act=gelu),
            ),
            *(Squeeze(wide, f // 4, nn.SiLU(), nn.Sigmoid()), nn.Conv2d(wide, f, 1)),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or c != f:
            self.shortcut = nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.Conv2d(c, f, 1))

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


def maxvit(depths=(2, 2, 5, 2), widths=(64, 128, 256, 512), window=7, classes=1000):
    """With torchvision's structure."""
    layers, c = [unit(3, 64, 3, 2, act=gelu), nn.Conv2d(64, 64, 3, padding=1)], 64
    for depth, f in zip(depths, widths, strict=True):
        for i in range(depth):
            layers += [MaxConv(c, f, 1 if i else 2), Grouped(f, window, False), Grouped(f, window, True)]
            c = f
    return nn.Sequential(
        *(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(c), nn.Linear(c, c), nn.Tanh()),
        nn.Linear(c, classes, bias=False),
    )
