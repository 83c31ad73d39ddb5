"""A launch that is planned hands over what the first one did: the tensors, descriptors of them, or copies."""

import json
import os
import shutil
import subprocess
import sys
import weakref
from types import SimpleNamespace

import fake_driver
import pytest
import torch
from budget.kernels.descriptors import aligned, describe
from cases import DEVICE

from budget.kernels import launch


class Kernel:
    """In the place of a compiled kernel: notes what it is called with."""

    arg_names = ("a", "b", "out", "size")

    def __init__(self):
        self.calls, self.function, self.packed_metadata = [], None, ()

    def __getitem__(self, grid):
        def first(*sources, size, num_warps):
            self.calls.append((grid, sources, size))
            return self

        return first

    def run(self, x, y, z, _stream, _function, _packed, _metadata, _enter, _leave, *arguments):
        self.calls.append(((x, y, z), arguments[:-1], arguments[-1]))


@pytest.fixture
def kernel(monkeypatch):
    active = SimpleNamespace(get_current_device=lambda: -1, get_current_stream=lambda _: 0)
    monkeypatch.setattr(launch, "driver", SimpleNamespace(active=active))
    monkeypatch.setattr(launch, "keeps_plans", lambda _: True)
    launch.forget()
    yield Kernel()
    launch.forget()


def test_a_planned_launch_is_the_first_one_of_other_tensors(kernel):
    prepared = []

    def called(a, b, out):
        def prepare():
            prepared.append(a.shape)
            ready = aligned(b)
            return (len(a),), (a, describe(ready, [1, 8]), out), {"size": len(a), "num_warps": 4}

        launch.launch(kernel, (a, b, out), "flags", prepare)

    # Rows of 7 numbers start at multiples of 16 bytes in a copy only.
    for seed in range(3):
        torch.manual_seed(seed)
        called(torch.randn(4), b := torch.randn(5, 7), None)
        (x, *_), (a, descriptor, out), size = kernel.calls[-1]
        assert (x, size, out) == (4, 4, None)
        assert torch.equal(descriptor.base, b)
        assert descriptor.base.stride(0) == 8
        assert a.shape == (4,)
    assert len(prepared) == 1
    called(torch.randn(4), b := torch.randn(5, 8), None)
    called(torch.randn(4), b := torch.randn(5, 8), None)
    assert len(prepared) == 2  # another shape, another plan
    assert kernel.calls[-1][1][1].base is b  # which needs no copy


def test_nothing_is_kept_alive(kernel):
    def called():
        a = torch.randn(4)
        launch.launch(kernel, (a, a, a), None, lambda: ((1,), (a, a, a), {"size": 1, "num_warps": 4}))
        kernel.calls.clear()
        return weakref.ref(a)

    assert called()() is None


@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU every other test launches")
def test_tritons_own_launcher_takes_a_plan(tmp_path):
    """On a driver that writes down what it is asked for: from the first call and from its plan the same."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: the driver cannot be made")
    fake_driver.make(tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    environment |= dict.fromkeys(("LD_LIBRARY_PATH", "TRITON_LIBCUDA_PATH"), str(tmp_path))
    environment["LAUNCHES"] = str(tmp_path / "launches")
    done = subprocess.run(
        [sys.executable, fake_driver.__file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in found] == ["softmax", "matmul", "matmul, odd", "attention", "cached"]
    for name, (first, asked), (planned, asked_again) in found:
        assert planned == first, name
        assert asked == len(first) >= 1, name
        assert asked_again == 0, name
