"""Real modules of transformers, diffusers, peft and timm against what torch runs, to the FLOP and 0.1 %; and
each against itself: what it computes after an estimate is what it computed before.
"""

import logging

import pytest
import torch
from fuzz_modules import differences, touched
from oracles.counts import as_on_a_gpu, measured
from oracles.packages import NAMES, made

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SKIPPED = 1.0  # what layers that are dropped at random draw: none is


@pytest.fixture
def on_a_gpu(monkeypatch):
    as_on_a_gpu(monkeypatch)
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, **k: SKIPPED if size == ([],) else draw(*size, **k))
    logging.disable(logging.CRITICAL)  # torch prints what its fake kernels raise
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are small
    yield
    torch.set_num_threads(threads)
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", NAMES)
def test_real_modules(name, on_a_gpu):
    package = name.partition("-")[0]
    try:
        __import__(package)
    except (ImportError, RuntimeError) as error:  # timm needs a torchvision that is built for this torch
        pytest.skip(f"{package}: {error}")
    changed, answer = touched(lambda: made(name))
    assert not changed
    assert differences(answer, measured(lambda: made(name))) == []
