"""WaveNet against the same network in torch: the last layer's residual has no gradient."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from oracles.memory import peak
from oracles.memory_networks import Trained
from oracles.wavenet import WaveNet
from torch.nn import functional as F

import budget
from budget.arch import wavenet
from budget.config import Workload, make
from budget.fold.count import flops, params
from budget.ir.verify import verify
from budget.plan.backward import backward

CASES = [
    ({}, 1, 700),
    ({"cycles": 1, "depth": 1, "kernel": 3}, 2, 9),
    ({"cycles": 2, "depth": 3, "inner": 5}, 3, 31),
]


@pytest.mark.parametrize(("config", "batch", "seq"), CASES)
def test_it_equals_torch(config, batch, seq):
    with torch.device("meta"):
        real = WaveNet(**config)
        expected = count_flops(real, torch.empty(batch, 256, seq))
    ours = backward(wavenet.build(make(wavenet.Config, config), Workload(batch=batch, seq=seq)))
    verify(ours)
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peak_is_what_torch_measures():
    def build():
        target = torch.zeros(2, 1000, dtype=torch.int64)
        return Trained(WaveNet(depth=6), F.cross_entropy), {
            "samples": torch.zeros(2, 256, 1000),
            "target": target,
        }

    ours = budget.estimate(
        "wavenet", batch=2, seq=1000, config={"depth": 6}, execution="eager", precision="pure"
    ).memory
    assert ours.peak == pytest.approx(peak(build)["Total"], rel=0.02)
