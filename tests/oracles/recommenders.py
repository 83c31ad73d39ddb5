"""DLRM and Wide & Deep from their papers and DLRM's reference repository."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def tower(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(m for c, f in pairwise(widths) for m in (nn.Linear(c, f), nn.ReLU())))


class Dlrm(nn.Module):
    def __init__(self, dense: int, rows: Sequence[int], d: int, bottom: Sequence[int], top: Sequence[int]):
        super().__init__()
        n = len(rows) + 1
        self.bottom = tower(dense, *bottom, d)
        self.tables = nn.ModuleList(nn.EmbeddingBag(v, d, mode="sum") for v in rows)
        self.top = nn.Sequential(*tower(d + n * (n - 1) // 2, *top, 1)[:-1], nn.Sigmoid())
        self.lower = torch.tril_indices(n, n, -1, device="cpu")

    def forward(self, dense: Tensor, ids: Sequence[Tensor]) -> Tensor:
        x = self.bottom(dense)
        rows = torch.stack([x, *(table(i) for table, i in zip(self.tables, ids, strict=True))], 1)
        dots = torch.bmm(rows, rows.transpose(1, 2))
        flat = dots[:, *self.lower.to(dots.device)]
        return self.top(torch.cat((x, flat), 1))


class WideDeep(nn.Module):
    def __init__(self, dense: int, rows: Sequence[int], d: int, wide: int, hidden: Sequence[int]):
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(v, d, mode="sum") for v in rows)
        self.deep = tower(len(rows) * d + dense, *hidden, 1)[:-1]
        self.wide, self.bias = nn.EmbeddingBag(wide, 1, mode="sum"), nn.Parameter(torch.zeros(1))

    def forward(self, dense: Tensor, ids: Sequence[Tensor], crosses: Tensor) -> Tensor:
        x = torch.cat([*(table(i) for table, i in zip(self.tables, ids, strict=True)), dense], 1)
        return torch.sigmoid(self.deep(x) + self.wide(crosses) + self.bias)
