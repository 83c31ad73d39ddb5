"""A hundred random modules against torch (python tests/fuzz_modules.py runs more of them), and each call that
they are made of.
"""

import pytest
import torch
from fuzz_modules import differences, problems, touched
from oracles.counts import as_on_a_gpu, measured
from oracles.random_calls import CALLS
from oracles.random_parts import Call, weight
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 100, 10))
def test_ten_random_modules(first, monkeypatch):
    as_on_a_gpu(monkeypatch)
    found = {seed: problems(seed) for seed in range(first, first + 10)}
    assert {seed: texts for seed, texts in found.items() if texts} == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(CALLS), 15))
def test_fifteen_calls(first, monkeypatch):
    as_on_a_gpu(monkeypatch)
    found = {}
    for number, run in enumerate(CALLS[first : first + 15], first):

        def build(run=run):
            torch.manual_seed(1)
            called = Call(lambda m, x: run(x, m.w), w=weight(6, 6))
            return nn.Sequential(nn.Linear(6, 6), called, nn.Linear(6, 6)), (torch.randn(3, 5, 6),)

        changed, answer = touched(build)
        found[number] = [changed] * bool(changed) + differences(answer, measured(build))
    assert {number: texts for number, texts in found.items() if texts} == {}
