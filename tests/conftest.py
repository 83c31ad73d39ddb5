"""Settings that all tests share."""

import gc
import os
import warnings
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

# Examples must not depend on which of our modules a worker has imported: Hypothesis draws their constants.
providers._get_local_constants = providers.Constants

# Networks here are small: threads of torch would only wait for one another, and each core has a worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Output is as wide and as plain as in a pipe, whatever terminal the tests run in.
for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)

# Timing is for benchmarks: this machine is noisy, and a first call may import torch.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Of a test with the mark `every(n)`, all cases that are not each n-th are slow."""
    seen = Counter()
    for item in items:
        mark = item.get_closest_marker("every")
        if mark and not item.get_closest_marker("slow"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % mark.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[name] += 1


def pytest_collection_finish():
    """What is imported by now stays: to look through it for garbage takes half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def quiet():
    """For captures of modules: torch's own kernels alone, no warnings, and no garbage that stays behind."""
    import torch

    with warnings.catch_warnings(), torch.backends.mkldnn.flags(enabled=False):
        warnings.simplefilter("ignore")
        yield
    gc.collect()
    gc.freeze()  # what is left is others': half a second, where it is looked through after each test


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's data folder of its own, in an empty folder, without a profile from before."""
    from budget.device import profile

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    profile._profile_for.cache_clear()
    yield tmp_path
    profile._profile_for.cache_clear()
