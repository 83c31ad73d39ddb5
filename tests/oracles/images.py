"""Networks for images that transformers has not, written from torchvision's, timm's and the papers."""

from torch import nn

from .convnets import Parallel, unit


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
