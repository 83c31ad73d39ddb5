"""The kernels' tests run Triton in its interpreter, on the CPU: `TRITON_INTERPRET=0 pytest tests/kernels`
runs the same tests compiled, on a GPU.

Triton fixes the mode when it is imported, so it is chosen here, before anything imports it.
"""

import os
import sys
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("torch")
pytest.importorskip("triton")

import numpy as np
import torch

HERE = Path(__file__).parent

try:
    from budget.kernels import settings  # noqa: F401 - repairs the interpreter
except ImportError as error:
    sys.exit(f"tests/kernels: {error}; give this folder first, or alone")


def pytest_collection_modifyitems(items):
    """The interpreter takes minutes for all of them."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fresh memory holds NaN: an element that a kernel forgets to write is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings():
        # The references' own operators on a GPU: not what the mode is for here.
        warnings.filterwarnings("ignore", ".*deterministic", UserWarning)
        yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def quiet_interpreter():
    """NumPy warns of what a GPU computes silently: exp2 of infinities, overflow in rows not stored."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        yield
