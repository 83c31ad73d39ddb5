"""ResNet, ResNeXt and Wide ResNet with torchvision's structure, SE-ResNet with timm's."""

from torch import nn

from .convnets import Squeeze


def _norm(conv):
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


class Basic(nn.Module):
    expansion = 1

    def __init__(self, c, planes, stride, squeeze=0, **_):
        super().__init__()
        self.main = nn.Sequential(
            _norm(nn.Conv2d(c, planes, 3, stride, 1, bias=False)),
            nn.ReLU(inplace=True),
            _norm(nn.Conv2d(planes, planes, 3, 1, 1, bias=False)),
            *_squeeze(planes, squeeze),
        )
        self.down = _down(c, planes, stride)

    def forward(self, x):
        y = self.main(x)
        y += self.down(x)
        return y.relu_()


class Bottleneck(Basic):
    expansion = 4

    def __init__(self, c, planes, stride, groups=1, base=64, squeeze=0):
        nn.Module.__init__(self)
        width = int(planes * (base / 64.0)) * groups
        self.main = nn.Sequential(
            _norm(nn.Conv2d(c, width, 1, bias=False)),
            nn.ReLU(inplace=True),
            _norm(nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)),
            nn.ReLU(inplace=True),
            _norm(nn.Conv2d(width, planes * 4, 1, bias=False)),
            *_squeeze(planes * 4, squeeze),
        )
        self.down = _down(c, planes * 4, stride)


def _squeeze(c, reduction):
    return [Squeeze(c, c // reduction, nn.ReLU(), nn.Sigmoid())] if reduction else []


def _down(c, f, stride):
    return nn.Identity() if stride == 1 and c == f else _norm(nn.Conv2d(c, f, 1, stride, bias=False))


def resnet(block, depths, groups=1, base=64, squeeze=0, classes=1000, in_channels=3):
    layers = [
        _norm(nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    c = 64
    for i, depth in enumerate(depths):
        for j in range(depth):
            settings = {"groups": groups, "base": base, "squeeze": squeeze}
            layers.append(block(c, 64 * 2**i, 2 if i and not j else 1, **settings))
            c = 64 * 2**i * block.expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))
