"""What experts cost beside their products, as dispatchers are written (moe-on-the-host, te-multi-stream)."""

import os
from functools import partial

import pytest

from budget import estimate
from budget.device import profile
from budget.stack import load

DATASHEET = profile.load(os.path.join(profile.FOLDER, "datasheet.json"))


def test_a_host_that_counts_experts_rows_and_its_device_take_turns():
    """Seconds add up in layers with experts, not in a dense network and not in a graph; and each expert's
    product is started.
    """
    software = load("megatron")
    ahead = software._replace(counts_experts=False)
    step = partial(estimate, device="h100", batch=1, seq=4096, config={"layers": 2})
    waits, runs = (step("mixtral-8x7b", stack=s).times for s in (software, ahead))
    device = waits.forward + waits.backward + waits.optimizer
    assert waits.alternate and not runs.alternate
    assert waits.step > runs.step >= device
    assert waits.step <= 2 * runs.step  # the longer of the two was there before
    assert step("llama-3-8b", stack=software).times == step("llama-3-8b", stack=ahead).times
    in_graphs = [step("mixtral-8x7b", stack=s, execution="graph").times.step for s in (software, ahead)]
    assert in_graphs[0] == in_graphs[1]
    alone = software._replace(experts={"": "grouped"})
    streams, one = (step("mixtral-8x7b", stack=s).times.kernels for s in (software, alone))
    assert {k.work.groups for k in streams} == {1, 8}
    for mine, other in zip(streams, one, strict=True):
        assert (mine.seconds > other.seconds) == (mine.work.groups > 1)


@pytest.mark.parametrize(
    ("device", "stack", "measured"),
    [("h100", "vllm", 62.9e-6), ("h200", "vllm", 60.9e-6), ("h200", "tensorrt-llm", 78.7e-6),
     ("b200", "vllm", 31.2e-6), ("b200", "sglang", 23.3e-6), ("b300", "vllm", 29.1e-6)],
)  # fmt: skip
def test_an_engine_s_operator_of_experts_takes_what_was_measured(device, stack, measured):
    """gpt-oss-120b's, one token, MXFP4, against AIConfigurator's records: starts, as profilers show them,
    and, on an H200, widening take what memory would not, whatever was fitted.
    """
    plain = load(stack)._replace(reached={"": {"launch": 5e-6 / DATASHEET.launch_s}})
    times = estimate(
        "gpt-oss-120b", mode="decode", batch=1, seq=64, stack=plain, device=device, quantize="mxfp4"
    ).times
    found = [k for k in times.kernels if "run0.experts." in k.work.op]
    assert len(found) == 4
    assert sum(k.seconds / k.work.times for k in found) == pytest.approx(measured, rel=0.6)
