"""Real modules of transformers, diffusers, peft and timm against what torch runs, to the FLOP and 0.1 %."""

import logging

import pytest
import torch
from fuzz_modules import differences
from oracles.counts import as_on_a_gpu, measured
from oracles.packages import NAMES, made

import budget

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SKIPPED = 1.0  # what layers that are dropped at random draw: none is


@pytest.fixture
def on_a_gpu(monkeypatch):
    as_on_a_gpu(monkeypatch)
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, **k: SKIPPED if size == ([],) else draw(*size, **k))
    logging.disable(logging.CRITICAL)  # torch prints what its fake kernels raise
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("package", ["transformers", "diffusers", "peft", "timm"])
def test_real_modules(package, on_a_gpu):
    try:
        __import__(package)
    except (ImportError, RuntimeError) as error:  # timm needs a torchvision that is built for this torch
        pytest.skip(f"{package}: {error}")
    wrong = {}
    for name in NAMES:
        if name.startswith(package):
            module, inputs = made(name)
            answer = budget.estimate(module, inputs=inputs, optimizer="none")
            wrong[name] = differences(answer, measured(lambda name=name: made(name)))
    assert {name: found for name, found in wrong.items() if found} == {}
