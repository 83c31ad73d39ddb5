"""YOLOv8 and YOLO11, written from the published blocks: C2f, C3k2, SPPF, C2PSA and the head of cells."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def unit(c, f, kernel=1, stride=1, groups=1, act=True):
    conv = nn.Conv2d(c, f, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(f), *([nn.SiLU(inplace=True)] if act else []))


class Bottleneck(nn.Module):
    def __init__(self, c, inner, shortcut):
        super().__init__()
        self.body, self.shortcut = nn.Sequential(unit(c, inner, 3), unit(inner, c, 3)), shortcut

    def forward(self, x):
        return x + self.body(x) if self.shortcut else self.body(x)


class C3k(nn.Module):
    def __init__(self, c):
        super().__init__()
        inner = c // 2
        pair = (Bottleneck(inner, inner, True) for _ in range(2))
        self.run, self.beside = nn.Sequential(unit(c, inner), *pair), unit(c, inner)
        self.out = unit(2 * inner, c)

    def forward(self, x):
        return self.out(torch.cat((self.run(x), self.beside(x)), 1))


class Split(nn.Module):
    """C2f and C3k2: parts of which each is made of the last one."""

    def __init__(self, c, f, half, repeats, inner):
        super().__init__()
        self.enter, self.out = unit(c, 2 * half), unit((2 + repeats) * half, f)
        self.inner = nn.ModuleList(inner(half) for _ in range(repeats))

    def forward(self, x):
        parts = list(self.enter(x).chunk(2, 1))
        for inner in self.inner:
            parts.append(inner(parts[-1]))
        return self.out(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """SPPF."""

    def __init__(self, c):
        super().__init__()
        self.enter, self.out, self.pool = unit(c, c // 2), unit(2 * c, c), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.out(torch.cat(parts, 1))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = max(c // 64, 1)
        self.wide = c // self.heads
        self.key = self.wide // 2
        self.qkv = unit(c, c + 2 * self.key * self.heads, act=False)
        self.near, self.project = unit(c, c, 3, groups=c, act=False), unit(c, c, act=False)

    def forward(self, x):
        rows = self.qkv(x).view(len(x), self.heads, 2 * self.key + self.wide, -1)
        q, k, v = rows.split((self.key, self.key, self.wide), 2)
        weights = (q.transpose(2, 3) @ k * self.key**-0.5).softmax(-1)
        return self.project((v @ weights.transpose(2, 3)).view(x.shape) + self.near(v.reshape(x.shape)))


class Attended(nn.Module):
    """C2PSA."""

    def __init__(self, c, repeats):
        super().__init__()
        half = c // 2
        self.enter, self.out = unit(c, c), unit(c, c)
        self.attention = nn.ModuleList(Attention(half) for _ in range(repeats))
        self.mlp = nn.ModuleList(
            nn.Sequential(unit(half, c), unit(c, half, act=False)) for _ in range(repeats)
        )

    def forward(self, x):
        kept, x = self.enter(x).chunk(2, 1)
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = x + attention(x)
            x = x + mlp(x)
        return self.out(torch.cat((kept, x), 1))


class Yolo(nn.Module):
    """In training the answer is (the boxes' sides, the scores), each [b, cells, ...]; else one tensor."""

    def __init__(self, version, depth, width, most, nested=False, classes=80, bins=16):
        super().__init__()
        self.bins = bins

        def wide(f):
            return math.ceil(min(f, most) * width / 8) * 8

        def many(n):
            return max(round(n * depth), 1)

        def mixed(c, f, n, shortcut=False, deep=False, part=2):
            f = wide(f)
            if version == 8:
                return Split(c, f, f // 2, many(n), lambda h: Bottleneck(h, h, shortcut))
            is_deep = deep or nested
            return Split(
                c, f, f // part, many(2), lambda h: C3k(h) if is_deep else Bottleneck(h, h // 2, True)
            )

        c = wide(64)
        stages, self.stem = [], unit(3, c, 3, 2)
        plan = ((128, 3), (256, 6), (512, 6), (1024, 3))
        for i, (f, n) in enumerate(plan):
            slim = version == 11 and i < 2
            block = mixed(wide(f), 2 * f if slim else f, n, True, i > 1, 4 if slim else 2)
            stages.append(nn.Sequential(unit(c, wide(f), 3, 2), block))
            c = block.out[0].out_channels
        stages[-1].append(Pyramid(c))
        if version == 11:
            stages[-1].append(Attended(c, many(2)))
        self.stages = nn.ModuleList(stages)
        large, middle, small = (stage[1].out[0].out_channels for stage in stages[1:])
        self.down1 = mixed(small + middle, 512, 3)
        self.down2 = mixed(wide(512) + large, 256, 3)
        self.half1 = unit(wide(256), wide(256), 3, 2)
        self.up1 = mixed(wide(256) + wide(512), 512, 3)
        self.half2 = unit(wide(512), wide(512), 3, 2)
        self.up2 = mixed(wide(512) + small, 1024, 3, deep=True)
        levels = (wide(256), wide(512), wide(1024))
        near, seen = max(16, levels[0] // 4, 4 * bins), max(levels[0], min(classes, 100))

        def scores(c):
            if version == 8:
                return nn.Sequential(unit(c, seen, 3), unit(seen, seen, 3), nn.Conv2d(seen, classes, 1))
            return nn.Sequential(
                *(unit(c, c, 3, groups=c), unit(c, seen)),
                *(unit(seen, seen, 3, groups=seen), unit(seen, seen), nn.Conv2d(seen, classes, 1)),
            )

        self.boxes = nn.ModuleList(
            nn.Sequential(unit(c, near, 3), unit(near, near, 3), nn.Conv2d(near, 4 * bins, 1)) for c in levels
        )
        self.scores = nn.ModuleList(scores(c) for c in levels)
        self.mean = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x):
        x, kept = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        _, large, middle, small = kept
        middle = self.down1(torch.cat((F.interpolate(small, scale_factor=2.0), middle), 1))
        large = self.down2(torch.cat((F.interpolate(middle, scale_factor=2.0), large), 1))
        middle = self.up1(torch.cat((self.half1(large), middle), 1))
        small = self.up2(torch.cat((self.half2(middle), small), 1))
        levels = (large, middle, small)
        boxes = torch.cat([f(x).flatten(2) for f, x in zip(self.boxes, levels, strict=True)], 2)
        scores = torch.cat([f(x).flatten(2) for f, x in zip(self.scores, levels, strict=True)], 2)
        bins = boxes.unflatten(1, (4, self.bins))
        if not self.training:
            sides = self.mean(bins.transpose(1, 2).softmax(1)).squeeze(1)
            return torch.cat((sides * 8, scores.sigmoid()), 1)
        odds = bins.permute(0, 3, 1, 2).contiguous().softmax(3)
        places = torch.arange(self.bins, dtype=odds.dtype, device=odds.device)
        return F.linear(odds, places[None]).squeeze(3), scores.transpose(1, 2).contiguous()


def loss(out, box, target):
    """Of the boxes, and of the classes."""
    sides, scores = out
    return F.mse_loss(sides, box) + F.binary_cross_entropy_with_logits(scores, target)
