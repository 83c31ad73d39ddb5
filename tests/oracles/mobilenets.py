"""Networks of inverted residuals with torchvision's structure: MobileNets, MnasNet, EfficientNets."""

from torch import nn

from .convnets import Squeeze, head, unit


class Inverted(nn.Module):
    def __init__(self, c, f, inner, kernel, stride, act, squeeze=None, fused=False):
        super().__init__()
        self.residual = stride == 1 and c == f
        if fused and inner == c:
            self.body = unit(c, f, kernel, stride, act=act)
        elif fused:
            self.body = nn.Sequential(unit(c, inner, kernel, stride, act=act), unit(inner, f, 1, act=None))
        else:
            self.body = nn.Sequential(
                *([unit(c, inner, 1, act=act)] if inner != c else []),
                unit(inner, inner, kernel, stride, groups=inner, act=act),
                *([squeeze] if squeeze else []),
                unit(inner, f, 1, act=None),
            )

    def forward(self, x):
        return self.body(x) + x if self.residual else self.body(x)


def _divisible(v, d=8):
    new = max(d, int(v + d / 2) // d * d)
    return new + d if new < 0.9 * v else new


def mobilenet_v2(width=1.0, classes=1000):
    c = _divisible(32 * width)
    layers = [unit(3, c, 3, 2, act=nn.ReLU6)]
    for t, f, n, s in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for i in range(n):
            f_ = _divisible(f * width)
            layers.append(Inverted(c, f_, round(c * t), 3, 1 if i else s, nn.ReLU6))
            c = f_
    last = _divisible(1280 * max(1.0, width))
    return nn.Sequential(*layers, unit(c, last, 1, act=nn.ReLU6), head(last, classes))


def mnasnet(width=1.0, classes=1000):
    depths = [_divisible(f * width) for f in (32, 16, 24, 40, 80, 96, 192, 320)]
    layers = [
        unit(3, depths[0], 3, 2),
        unit(depths[0], depths[0], 3, groups=depths[0]),
        unit(depths[0], depths[1], 1, act=None),
    ]
    c = depths[1]
    stacks = ((3, 2, 3, 3), (5, 2, 3, 3), (5, 2, 6, 3), (3, 1, 6, 2), (5, 2, 6, 4), (3, 1, 6, 1))
    for f, (k, s, t, n) in zip(depths[2:], stacks, strict=True):
        for i in range(n):
            layers.append(Inverted(c, f, c * t, k, 1 if i else s, nn.ReLU))
            c = f
    return nn.Sequential(*layers, unit(c, 1280, 1), head(1280, classes))


V3_SMALL = (
    *((3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2)),
    *((5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1)),
    *((5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1)),
)
V3_LARGE = (
    *((3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2)),
    *((5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1)),
    *((3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1)),
    *((5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1)),
)


def mobilenet_v3(plan, last, classes=1000):
    layers, c = [unit(3, 16, 3, 2, act=nn.Hardswish)], 16
    for k, inner, f, se, hs, s in plan:
        squeeze = Squeeze(inner, _divisible(inner // 4), nn.ReLU(), nn.Hardsigmoid()) if se else None
        layers.append(Inverted(c, f, inner, k, s, nn.Hardswish if hs else nn.ReLU, squeeze))
        c = f
    return nn.Sequential(
        *(*layers, unit(c, 6 * c, 1, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(6 * c, last), nn.Hardswish(inplace=True), nn.Linear(last, classes)),
    )


def _efficientnet(plan, stem, last, classes=1000):
    layers, c = [unit(3, stem, 3, 2, act=nn.SiLU)], stem
    for fused, t, k, s, f, n in plan:
        for i in range(n):
            squeeze = None if fused else Squeeze(c * t, max(1, c // 4), nn.SiLU(inplace=True), nn.Sigmoid())
            layers.append(Inverted(c, f, c * t, k, 1 if i else s, nn.SiLU, squeeze, fused))
            c = f
    return nn.Sequential(*layers, unit(c, last, 1, act=nn.SiLU), head(last, classes))


def efficientnet(width=1.0, depth=1.0, classes=1000):
    base = (
        *((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)),
        *((6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)),
    )
    plan = [(False, t, k, s, _divisible(f * width), int(-(-n * depth // 1))) for t, k, s, f, n in base]
    return _efficientnet(plan, _divisible(32 * width), 4 * _divisible(320 * width), classes)


def efficientnet_v2_s(classes=1000):
    plan = (
        *((True, 1, 3, 1, 24, 2), (True, 4, 3, 2, 48, 4), (True, 4, 3, 2, 64, 4)),
        *((False, 4, 3, 2, 128, 6), (False, 6, 3, 1, 160, 9), (False, 6, 3, 2, 256, 15)),
    )
    return _efficientnet(plan, 24, 1280, classes)
