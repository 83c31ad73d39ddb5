"""Engines' own all-reduces, against what others measured."""

import statistics

import numpy as np
import pytest
from collectives import rows, seconds

from budget import cluster, device
from budget.answer.spread import cluster_of
from budget.stack import load

# TensorRT-LLM 1.2's own all-reduce on H100: devices, bytes, microseconds. Source: engine-all-reduce.
ONE_SHOT = (
    (2, 256, 3.02), (2, 131072, 3.69), (2, 2**19, 4.94), (2, 2**20, 6.62),
    (4, 256, 3.62), (4, 131072, 4.59), (4, 2**19, 8.37), (4, 2**20, 13.2),
)  # fmt: skip


def engines(stack, name):
    """A cluster as an engine uses it."""
    return cluster_of(device.load(cluster.load(name).sold[0]), name, load(stack))


@pytest.mark.parametrize(("devices", "size", "measured"), ONE_SHOT)
def test_an_engines_own_all_reduce_is_as_fast_as_measured(devices, size, measured):
    own = engines("tensorrt-llm", "dgx-h100")
    assert seconds(own, "all_reduce", size, devices) * 1e6 == pytest.approx(measured, rel=0.3)


@pytest.mark.parametrize(("stack", "bound"), [("vllm", 0.06), ("sglang", 0.05), ("tensorrt-llm", 0.09)])
def test_engines_own_all_reduces(stack, bound):
    """Rows of devices and sizes that nothing was fitted to, 1 KiB to 4 MiB: bounds on the median error."""
    held = [r for r in rows("engine_all_reduce.csv") if r["stack"] == stack and r["split"] == "held"]
    own = {name: engines(stack, name) for name in {r["cluster"] for r in held}}
    off = [
        seconds(own[r["cluster"]], "all_reduce", int(r["bytes"]), int(r["devices"]))
        / (float(r["time_us"]) * 1e-6)
        - 1
        for r in held
    ]
    assert len(held) == 184
    assert statistics.median(map(abs, off)) < bound
    assert abs(statistics.median(off)) < 0.05


def test_it_is_for_few_bytes_and_does_not_leave_the_node():
    usual, own = cluster.load("dgx-h100"), engines("vllm", "dgx-h100")
    for kind, size, devices in (
        ("all_reduce", 1024, 16),
        ("all_gather", 1024, 8),
        ("all_reduce", 2**23, 2),
        ("all_reduce", 2**30, 8),
    ):
        assert seconds(own, kind, size, devices) == seconds(usual, kind, size, devices), (kind, size, devices)
    sizes = np.array([1024.0, 2**22, 2**23, 2**30])
    np.testing.assert_allclose(
        seconds(own, "all_reduce", sizes, 8), [seconds(own, "all_reduce", x, 8) for x in sizes]
    )


def test_what_no_graph_starts_takes_longer_for_each_collective(tmp_path):
    import json

    import budget
    from budget.table import load

    own = load("stacks", "faster-transformer.json")
    asked = {"mode": "decode", "device": "a100-80gb", "layout": "tp=8", "batch": 1, "seq": 64}
    waits = []
    for us in (0, 30):
        path = tmp_path / f"mine-{us}.json"
        path.write_text(json.dumps({**own, "call_us": us}))
        found = budget.estimate("llama-2-13b", stack=str(path), **asked)
        waits.append(found.times.communication)
    calls = sum(c.what.times for c in found.ran[0].communications)
    assert calls >= 2 * 40  # two all-reduces a layer
    assert waits[1] - waits[0] == pytest.approx(calls * 30e-6)
