"""Convolutional networks with torchvision's structure, written from the papers and from memory of it."""

import torch
from torch import nn
from torch.nn import functional as F


def unit(c, f, kernel=3, stride=1, padding=None, groups=1, act=nn.ReLU):
    """Convolution, batch norm, activation."""
    if padding is None:
        padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    layers = [nn.Conv2d(c, f, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(f)]
    return nn.Sequential(*layers, act(inplace=True)) if act else nn.Sequential(*layers)


def head(c, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


def vgg(plan, norm=False, classes=1000):
    layers, c = [], 3
    for f in plan:
        if f == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [
            nn.Conv2d(c, f, 3, padding=1),
            *([nn.BatchNorm2d(f)] if norm else []),
            nn.ReLU(inplace=True),
        ]
        c = f
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        *(nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Linear(4096, 4096), nn.ReLU(True)),
        nn.Linear(4096, classes),
    )


def alexnet(classes=1000):
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(256 * 36, 4096), nn.ReLU(inplace=True)),
        *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, classes)),
    )


class DenseLayer(nn.Module):
    def __init__(self, c, growth, wide):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(c), nn.ReLU(inplace=True), nn.Conv2d(c, wide * growth, 1, bias=False)),
            *(nn.BatchNorm2d(wide * growth), nn.ReLU(inplace=True)),
            nn.Conv2d(wide * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, parts):
        return self.body(torch.cat(parts, 1))


class DenseBlock(nn.Module):
    def __init__(self, c, depth, growth, wide):
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(c + i * growth, growth, wide) for i in range(depth))

    def forward(self, x):
        parts = [x]
        for layer in self.layers:
            parts.append(layer(parts))
        return torch.cat(parts, 1)


def densenet(depths, growth=32, stem=64, wide=4, classes=1000):
    layers, c = [unit(3, stem, 7, 2), nn.MaxPool2d(3, 2, 1)], stem
    for i, depth in enumerate(depths):
        layers.append(DenseBlock(c, depth, growth, wide))
        c += depth * growth
        if i < len(depths) - 1:
            layers += [
                nn.BatchNorm2d(c),
                nn.ReLU(inplace=True),
                nn.Conv2d(c, c // 2, 1, bias=False),
                nn.AvgPool2d(2, 2),
            ]
            c //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(c), nn.ReLU(inplace=True), head(c, classes))


class Parallel(nn.Module):
    """Branches whose outputs are concatenated."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def _chain(c, *layers):
    units = []
    for f, kernel, *rest in layers:
        units.append(unit(c, f, kernel, *rest))
        c = f
    return nn.Sequential(*units)


def _inception_a(c, pooled):
    average = nn.AvgPool2d(3, 1, 1)
    return Parallel(
        _chain(c, (64, 1)),
        _chain(c, (48, 1), (64, 5)),
        _chain(c, (64, 1), (96, 3), (96, 3)),
        nn.Sequential(average, _chain(c, (pooled, 1))),
    )


def _inception_c(c, n):
    return Parallel(
        _chain(c, (192, 1)),
        _chain(c, (n, 1), (n, (1, 7)), (192, (7, 1))),
        _chain(c, (n, 1), (n, (7, 1)), (n, (1, 7)), (n, (7, 1)), (192, (1, 7))),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _chain(c, (192, 1))),
    )


def _inception_e(c):
    def fork():
        return Parallel(unit(384, 384, (1, 3)), unit(384, 384, (3, 1)))

    return Parallel(
        _chain(c, (320, 1)),
        nn.Sequential(_chain(c, (384, 1)), fork()),
        nn.Sequential(_chain(c, (448, 1), (384, 3)), fork()),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _chain(c, (192, 1))),
    )


class Inception(nn.Module):
    """Returns the sum of the logits, and of the auxiliary head's where it has one."""

    def __init__(self, aux=True, classes=1000):
        super().__init__()
        self.lower = nn.Sequential(
            *(unit(3, 32, 3, 2, 0), unit(32, 32, 3, 1, 0), unit(32, 64, 3), nn.MaxPool2d(3, 2)),
            *(unit(64, 80, 1), unit(80, 192, 3, 1, 0), nn.MaxPool2d(3, 2)),
            *(_inception_a(192, 32), _inception_a(256, 64), _inception_a(288, 64)),
            Parallel(
                _chain(288, (384, 3, 2, 0)), _chain(288, (64, 1), (96, 3), (96, 3, 2, 0)), nn.MaxPool2d(3, 2)
            ),
            *(_inception_c(768, 128), _inception_c(768, 160), _inception_c(768, 160), _inception_c(768, 192)),
        )
        self.aux = None
        if aux:
            self.aux = nn.Sequential(
                nn.AvgPool2d(5, 3), unit(768, 128, 1), unit(128, 768, 5, 1, 0), head(768, classes)
            )
        self.upper = nn.Sequential(
            Parallel(
                _chain(768, (192, 1), (320, 3, 2, 0)),
                _chain(768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0)),
                nn.MaxPool2d(3, 2),
            ),
            *(_inception_e(1280), _inception_e(2048), head(2048, classes)),
        )

    def forward(self, x):
        x = self.lower(x)
        total = self.upper(x).sum()
        return total + self.aux(x).sum() if self.aux else total


class Squeeze(nn.Module):
    def __init__(self, c, inner, act, gate):
        super().__init__()
        self.down, self.up, self.act, self.gate = nn.Conv2d(c, inner, 1), nn.Conv2d(inner, c, 1), act, gate

    def forward(self, x):
        return self.gate(self.up(self.act(self.down(F.adaptive_avg_pool2d(x, 1))))) * x


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, c, kernel):
        super().__init__()
        self.depthwise = nn.Conv2d(c, c, kernel, padding=kernel // 2, groups=c)
        self.mlp = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))
        self.scale = nn.Parameter(torch.empty(c, 1, 1))

    def forward(self, x):
        return self.scale * self.mlp(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + x


def convnext(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), kernel=7, classes=1000):
    layers = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0])]
    for i, (depth, c) in enumerate(zip(depths, widths, strict=True)):
        if i:
            layers += [ChannelNorm(widths[i - 1]), nn.Conv2d(widths[i - 1], c, 2, 2)]
        layers += [ConvNeXtBlock(c, kernel) for _ in range(depth)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), ChannelNorm(c), nn.Flatten(), nn.Linear(c, classes)
    )


def fire(c, narrow, wide):
    def layer(c, f, kernel):
        return nn.Sequential(nn.Conv2d(c, f, kernel, padding=kernel // 2), nn.ReLU(inplace=True))

    return nn.Sequential(layer(c, narrow, 1), Parallel(layer(narrow, wide, 1), layer(narrow, wide, 3)))


def squeezenet(version="1_1", classes=1000):
    stem, kernel = (96, 7) if version == "1_0" else (64, 3)
    plan = {
        "1_0": ("M", 16, 16, 32, "M", 32, 48, 48, 64, "M", 64),
        "1_1": ("M", 16, 16, "M", 32, 32, "M", 48, 48, 64, 64),
    }[version]
    layers, c = [nn.Conv2d(3, stem, kernel, 2), nn.ReLU(inplace=True)], stem
    for narrow in plan:
        if narrow == "M":
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        else:
            layers.append(fire(c, narrow, 4 * narrow))
            c = 8 * narrow
    last = (nn.Conv2d(c, classes, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *last)


class Shuffle(nn.Module):
    def __init__(self, c, f, stride):
        super().__init__()
        half = f // 2
        self.left = (
            nn.Sequential(unit(c, c, 3, 2, groups=c, act=None), unit(c, half, 1)) if stride == 2 else None
        )
        self.right = nn.Sequential(
            unit(c if stride == 2 else half, half, 1),
            unit(half, half, 3, stride, groups=half, act=None),
            unit(half, half, 1),
        )

    def forward(self, x):
        left, right = (self.left(x), x) if self.left else x.chunk(2, 1)
        x = torch.cat((left, self.right(right)), 1)
        b, c, *space = x.shape
        return x.view(b, 2, c // 2, *space).transpose(1, 2).reshape(b, c, *space)


def shufflenet(widths=(116, 232, 464), last=1024, classes=1000):
    layers, c = [unit(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)], 24
    for depth, f in zip((4, 8, 4), widths, strict=True):
        for i in range(depth):
            layers.append(Shuffle(c, f, 1 if i else 2))
            c = f
    return nn.Sequential(*layers, unit(c, last, 1), head(last, classes))
