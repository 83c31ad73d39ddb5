"""A hundred random modules against torch (python tests/fuzz_modules.py runs more of them)."""

import pytest
from fuzz_modules import problems
from oracles.counts import as_on_a_gpu

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_ten_random_modules(first, monkeypatch):
    as_on_a_gpu(monkeypatch)
    found = {seed: problems(seed) for seed in range(first, first + 10)}
    assert {seed: texts for seed, texts in found.items() if texts} == {}
