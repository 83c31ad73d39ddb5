"""Full-size networks by capture, against the figures of MemTracker that docs/accuracy.md has."""

import re

import pytest

pytest.importorskip("transformers")
from accuracy import PAGE
from oracles.memory_cases import FULL, captured

pytestmark = pytest.mark.slow
SLOW = ("Mamba-130M", "lstm")  # step after step; tests/accuracy.py has them, test_torch_module.py small ones
ROW = re.compile(r"^\| (.+?) \| (\d+) x (\d+) \| ([\d,.]+) \|", re.MULTILINE)
MEASURED = {
    (name, int(batch), int(size)): float(mebibytes.replace(",", ""))
    for name, batch, size, mebibytes in ROW.findall(PAGE.read_text("utf-8"))
}
CASES = {case.name: case for case in FULL if case.name not in SLOW}


@pytest.mark.parametrize("name", CASES)
def test_a_full_size_capture_is_what_torch_measured(name):
    batch, size = CASES[name].shapes[0]
    peak = captured(CASES[name], batch, size).memory.peak
    assert peak / 2**20 == pytest.approx(MEASURED[name, batch, size], rel=1e-3)


def test_billions_of_parameters_are_captured():
    assert captured(CASES["Llama-3-8B"], 1, 512).params.total == 8_030_261_248
