"""Peak memory of the built-in architectures, from a config alone, against torch's MemTracker on the
real networks. tests/accuracy.py writes the same comparison, with the full-size networks, down.
"""

from functools import cache
from statistics import median

import pytest
from oracles.memory import peak
from oracles.memory_cases import SMALL, answer

CASES = {case.name: case for case in SMALL}
RUNS = [(name, *shape) for name, case in CASES.items() for shape in case.shapes]
MEDIAN, WORST = 0.005, 0.02
SOME = 15  # runs of a median
LOOSER = {"mamba": 0.05, "conformer": 0.03}  # its scan is a model; sizes of a few MiB

pytestmark = pytest.mark.slow


@cache
def compared(name, batch, size):
    case = CASES[name]
    return answer(case, batch, size).memory, peak(lambda: case.build(batch, size))


@pytest.mark.parametrize(("name", "batch", "size"), RUNS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of MemTracker, about modules that are gone
def test_peak_is_what_torch_measures(name, batch, size):
    ours, torchs = compared(name, batch, size)
    assert ours.peak == pytest.approx(torchs["Total"], rel=LOOSER.get(name, WORST))
    assert ours.parameters == torchs["Weights"]
    assert ours.gradients == torchs["Trained"]
    # MemTracker takes what the step makes and drops for state; AdamW's own numbers of steps are on the host.
    temporaries = ours.temporaries if ours.at == "optimizer" else 0
    assert ours.optimizer + temporaries == torchs["Optstate"] - torchs["Steps"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_median(request):
    """Of the last runs that are tested: most of them this worker has compared already."""
    tested = [
        i for i in request.session.items if getattr(i, "function", None) is test_peak_is_what_torch_measures
    ]
    runs = [tuple(i.callspec.params.values()) for i in tested] or RUNS
    pairs = [compared(*run) for run in runs[-SOME:]]
    assert len(CASES) >= 15
    assert median(abs(ours.peak / torchs["Total"] - 1) for ours, torchs in pairs) <= MEDIAN
