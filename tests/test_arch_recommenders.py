"""DLRM and Wide & Deep against the same networks in torch."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from oracles.recommenders import Dlrm, WideDeep

from budget.arch import dlrm, wide_deep
from budget.config import Workload
from budget.fold.count import flops, params
from budget.plan.backward import backward


def ids(rows, batch, lookups=1):
    return [torch.empty(batch, lookups, dtype=torch.long) for _ in rows]


@pytest.mark.parametrize(
    ("dense", "rows", "d", "lookups", "bottom", "top", "batch"),
    [
        (13, (100, 3, 17), 16, 1, (32, 24), (40, 20), 8),
        (1, (5,), 3, 4, (7,), (9,), 1),
        (13, dlrm.Config().tables, 16, 1, (512, 256, 64), (512, 256), 128),
    ],
)
def test_dlrm_equals_torch(dense, rows, d, lookups, bottom, top, batch):
    with torch.device("meta"):
        real = Dlrm(dense, rows, d, bottom, top)
        expected = count_flops(real, torch.empty(batch, dense), ids(rows, batch, lookups))
    config = dlrm.Config(
        dense_features=dense, tables=rows, embedding_dim=d, lookups=lookups, bottom=bottom, top=top
    )
    ours = backward(dlrm.build(config, Workload(batch=batch)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


@pytest.mark.parametrize(
    ("dense", "rows", "d", "wide", "hidden", "batch"),
    [(13, (100, 3, 17), 32, 1000, (64, 32), 8), (2, (5,), 3, 7, (9,), 1)],
)
def test_wide_deep_equals_torch(dense, rows, d, wide, hidden, batch):
    with torch.device("meta"):
        real = WideDeep(dense, rows, d, wide, hidden)
        crosses = torch.empty(batch, 4, dtype=torch.long)
        expected = count_flops(real, torch.empty(batch, dense), ids(rows, batch), crosses)
    config = wide_deep.Config(
        dense_features=dense, tables=rows, embedding_dim=d, wide_rows=wide, crosses=4, hidden=hidden
    )
    ours = backward(wide_deep.build(config, Workload(batch=batch)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected
