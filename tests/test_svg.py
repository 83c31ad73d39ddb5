"""The picture: well-formed, and drawn to scale."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

import budget
from budget.errors import InputError
from budget.report import render
from budget.report.svg import HIGH, LEFT, RIGHT, TOP, WIDTH

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(estimate):
    """(areas by kind as lists of points, texts)."""
    root = ElementTree.fromstring(render(estimate, "svg"))  # noqa: S314 - our own
    areas = {
        path.findtext(f"{SPACE}title"): [
            tuple(map(float, point.split())) for point in re.split("[MLZ]", path.get("d")) if point
        ]
        for path in root.iter(f"{SPACE}path")
    }
    return areas, [text.text for text in root.iter(f"{SPACE}text")]


@pytest.mark.parametrize("name", ["gpt2", "resnet50", "mlp-10-20-10-2", "lstm-ptb-medium"])
@pytest.mark.parametrize("mode", ["train", "forward"])
def test_areas_are_to_scale(name, mode):
    estimate = budget.estimate(name, mode=mode)
    areas, texts = drawn(estimate)
    m = estimate.memory
    points = [point for area in areas.values() for point in area]
    # The device is much larger: the peak is the top of the picture.
    assert min(y for _, y in points) == pytest.approx(TOP, abs=0.1)
    assert {x for x, _ in points} >= {float(LEFT), float(WIDTH - RIGHT)}
    start = min(y for x, y in areas["parameters"] if x == LEFT)
    inputs = m.curve[0].live["inputs"]
    assert TOP + HIGH - start == pytest.approx(HIGH * (m.parameters + inputs) / m.peak, abs=0.1)
    assert any(m.at.removeprefix("d:") in text for text in texts)


def test_a_device_that_is_too_small_is_a_line_below_the_peak():
    areas, texts = drawn(budget.estimate("llama-3-8b", device="h100"))
    assert min(y for area in areas.values() for _, y in area) == pytest.approx(TOP, abs=0.1)
    assert any("does not fit" in text for text in texts)


@pytest.mark.parametrize(("batch", "by"), [(np.array([1, 2]), ""), (1, "layer")])
def test_what_it_cannot_show(batch, by):
    with pytest.raises(InputError, match="format"):
        render(budget.estimate("gpt2", batch=batch), "svg", by)
