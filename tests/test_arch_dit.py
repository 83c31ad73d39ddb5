"""DiT against the same network in torch."""

import pytest
import torch
from oracles.dit import Dit
from oracles.flops import count_flops, count_params

from budget.arch.dit import Config, build
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward


@pytest.mark.parametrize(
    ("layers", "d", "heads", "patch", "side", "channels", "classes", "batch"),
    [(3, 48, 6, 2, 8, 4, 10, 2), (1, 21, 3, 4, 13, 3, 1, 1), (1, 1152, 16, 2, 32, 4, 1000, 1)],
)
def test_equals_torch(layers, d, heads, patch, side, channels, classes, batch):
    with torch.device("meta"):
        real = Dit(layers, d, heads, patch, side, channels, classes)
        label = torch.empty(batch, dtype=torch.long)
        expected = count_flops(real, torch.empty(batch, channels, side, side), torch.empty(batch, 256), label)
    config = Config(
        layers=layers, d_model=d, heads=heads, patch=patch, image=8 * side, channels=channels, classes=classes
    )
    ours = backward(build(config, Workload(batch=batch)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def test_paper():
    """Table 9: 675 million parameters, 118.6 Gflops that are multiply-adds."""
    ours = build(Config(), Workload())
    assert round(params(ours).total / 1e6) == 675
    assert round(flops(ours).forward / 2e9, 1) == 118.6


def test_bad_input_names_the_field():
    with pytest.raises(InputError, match="patch"):
        build(Config(), Workload(image=8))
