"""Settings that all tests share."""

import gc
import os
import warnings
import zlib
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


SHARE = 4  # of the slow tests, which take half an hour of two cores, one in so many is drawn by its name
ASKED = "BUDGET_SLOW"  # the workers' word for what --slow says, or for all where tests are named or chosen


def pytest_addoption(parser):
    parser.addoption(
        "--slow", choices=("some", "all"), default="some",
        help=f"of slow tests one in {SHARE}, always the same, or all; "
             "where tests are named or chosen, all of those",
    )  # fmt: skip


def pytest_configure(config):
    named = config.args_source is pytest.Config.ArgsSource.ARGS, config.option.keyword, config.option.markexpr
    if not hasattr(config, "workerinput"):
        os.environ[ASKED] = "all" if any(named) else config.option.slow


def pytest_report_header():
    return f"slow tests: one in {SHARE}; `--slow all` runs all" if os.environ[ASKED] == "some" else None


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config, items):
    """All but each n-th case of a test with the mark `every(n)` are slow."""
    seen = Counter()
    for item in items:
        mark = item.get_closest_marker("every")
        if mark and not item.get_closest_marker("slow"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % mark.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[name] += 1
    if os.environ[ASKED] == "some":
        others = {item for item in items if item.get_closest_marker("slow") and not _drawn(item)}
        config.hook.pytest_deselected(items=[*others])
        items[:] = [item for item in items if item not in others]


def _drawn(item):
    """Whether a slow test is one of some."""
    return zlib.crc32(item.nodeid.encode()) % SHARE == 0


def pytest_collection_finish():
    """Keep the garbage collector from all that is imported by now: to look through it takes half a second."""
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
