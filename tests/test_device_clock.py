"""A device's clock, and what a start costs by it and by the device's host."""

import os

import pytest

from budget import device, stack
from budget.device import software
from budget.device.profile import FOLDER, load

# As their makers print the boost clock; recalled, not read.
CLOCKS = {
    "v100-sxm-16gb": 1.53, "t4": 1.59, "rtx-2080-ti": 1.545, "a100-80gb": 1.41, "rtx-3090": 1.695,
    "a10": 1.695, "l4": 2.04, "rtx-4090": 2.52, "h100-sxm": 1.98, "rtx-5090": 2.407, "gtx-1080": 1.733,
    "p100-sxm": 1.48, "m1": 1.278, "m2-max": 1.398, "mi300x": 2.1,
}  # fmt: skip


@pytest.mark.parametrize("name", CLOCKS)
def test_the_clock_follows_from_the_rate_of_float32(name):
    assert device.load(name).hertz == pytest.approx(CLOCKS[name] * 1e9, rel=0.01)


def test_a_start_takes_cycles():
    slow, fast, unknown = (device.load(name) for name in ("a100-80gb", "h100-sxm", "mi250x"))
    base, eager = (
        load(os.path.join(FOLDER, "datasheet.json")),
        stack.load("torch-eager")._replace(reached={"": {}}),
    )
    starts = [software.profile(base, d, eager, "bfloat16").launch_s for d in (slow, fast, unknown)]
    assert starts[0] / starts[1] == pytest.approx(fast.hertz / slow.hertz)
    assert unknown.hertz is None
    assert starts[2] == pytest.approx(base.launch_s)


def test_a_host_is_as_old_as_its_device():
    h100 = device.load("h100-sxm")
    base, eager = (
        load(os.path.join(FOLDER, "datasheet.json")),
        stack.load("torch-eager")._replace(reached={"": {}}),
    )
    first, later, unknown = (
        software.profile(base, h100._replace(year=year), eager, "bfloat16") for year in (2017, 2022, None)
    )
    assert first.dispatch.forward / later.dispatch.forward == pytest.approx(1.1**5)
    assert first.turn[1] / later.turn[1] == pytest.approx(1.1**5)
    assert unknown.dispatch == later.dispatch


def test_a_host_on_the_chip_is_slower():
    """trtutils: at side 320 Ultralytics' YOLOv8n takes 12.7 ms of an AGX Orin, 17.5 of a Xavier NX, without
    what surrounds an engine, where a server's and two desktops' hosts take 3 to 5.
    """
    base, eager = load(os.path.join(FOLDER, "datasheet.json")), stack.load("torch-eager")
    names = ("jetson-xavier-nx", "jetson-agx-orin", "rtx-3090")
    eager = eager._replace(reached={"": {}})
    xavier, orin, server = (
        software.profile(base, device.load(name), eager, "fp32").dispatch.forward for name in names
    )
    assert xavier > orin > server
