"""The picture: well-formed, and drawn to scale."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import budget
from budget.errors import InputError
from budget.estimate import plan as layouts
from budget.report import render
from budget.report._draw import BYTES, LEFT, RIGHT, SECONDS, WIDTH, ticks
from budget.report.svg import HIGH, TOP

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
    e = budget.estimate("llama-3-8b", device="h100")
    areas, texts = drawn(e)
    assert min(y for area in areas.values() for _, y in area) == pytest.approx(TOP, abs=0.1)
    too_much = (e.process - e.device.usable_bytes) / 2**30  # the process, as the table has it
    assert any(f"does not fit: {too_much:.0f} GiB too much" in text for text in texts)


def test_the_limit_has_its_label_and_the_heading_what_was_asked():
    _, texts = drawn(budget.estimate("llama-3-8b", device="h100", seq=4096))
    assert any(text.startswith("H100") and "GiB" in text for text in texts)
    assert any("4,096 tokens" in text and "adamw" in text and "training" in text for text in texts)


def test_the_ramp_of_all_layers_is_there():
    areas, _ = drawn(budget.estimate("llama-3-8b"))
    heights = {round(y) for x, y in areas["activations"] if x > LEFT}
    assert len(heights) > 32  # a step a layer


@pytest.mark.parametrize("units", [BYTES, SECONDS])
@given(digits=st.integers(1000, 9999), power=st.integers(-6, 9))
def test_ticks_are_round_and_within(units, digits, power):
    most = digits * 10.0**power
    found = ticks(most, units)
    values = [value for value, _ in found]
    assert values[0] == 0 and values[-1] <= most * 1.001 and 3 <= len(found) <= 12
    step = values[1] / next(size for size, unit in units if unit == found[1][1].split()[1])
    assert f"{step:.3e}"[0] in "125" and float(found[1][1].split()[0].replace(",", "")) == pytest.approx(step)


PICTURES = [
    lambda: budget.estimate("gpt2"),
    lambda: budget.estimate("gpt2", batch=8, device="rtx-4090"),  # the limit is the highest line
    lambda: budget.estimate("gpt2", accumulate=8, batch=8),
    lambda: budget.estimate("mixtral-8x7b"),
    lambda: budget.estimate("llama-3-8b", mode="decode", batch=8, device="h100"),
    lambda: budget.compare("gpt2", "resnet50", device=["a100", "h100"]),
    lambda: budget.fit("llama-3-8b", device="h100"),
    lambda: layouts("llama-3-8b", 8, global_batch=64, device="h100"),
    lambda: budget.scale(usd=1e6, device="h100"),
    lambda: budget.scale(compute=1e19, law="kaplan"),
    lambda: budget.serve("llama-3-8b", context=4096, device="h100"),
    lambda: budget.serve("gpt2", device="t4"),  # many points near each other
]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("rsvg-convert"), reason="no rsvg-convert (Debian: librsvg2-bin)")
@pytest.mark.parametrize("found", PICTURES[3:])
def test_librsvg_draws_it(tmp_path, found):
    (tmp_path / "x.svg").write_text(found().plot())
    subprocess.run(["rsvg-convert", str(tmp_path / "x.svg"), "-o", str(tmp_path / "x.png")], check=True)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("found", PICTURES)
def test_texts_do_not_overlap(found):
    root = ElementTree.fromstring(found().plot())  # noqa: S314 - our own
    boxes = []
    for text in root.iter(f"{SPACE}text"):
        wide, y = 6.0 * len(text.text or ""), float(text.get("y"))
        x = float(text.get("x")) - {"end": wide, "middle": wide / 2}.get(text.get("class"), 0)
        boxes.append((x, x + wide - 1, y, text.text))
    for a, b in combinations(boxes, 2):
        assert a[1] <= b[0] or b[1] <= a[0] or abs(a[2] - b[2]) >= 10, (a[3], b[3])


def test_several_are_bars_to_scale():
    found = budget.compare("gpt2", device=["a100", "h100"])
    root = ElementTree.fromstring(render(found, "svg"))  # noqa: S314 - our own
    bars = [float(r.get("width")) for r in root.iter(f"{SPACE}rect") if r.get("fill")]
    times = [e.times.step for e in found]
    assert bars[0] / bars[3] == pytest.approx(times[0] / times[1], rel=0.01)
    assert bars[1] == bars[4]
    held = [e.memory.peak / e.process for e in found]
    assert [bars[i] / (bars[i] + bars[i + 1]) for i in (1, 4)] == pytest.approx(held, abs=0.01)


MARKED = [
    lambda: budget.compare("gpt2", "llama-3-8b", device=["a100", "rtx-4090"]),
    *PICTURES[6:8],
]


@pytest.mark.parametrize("found", MARKED)
def test_no_words_cross_a_device_s_mark_nor_the_edge(found):
    root = ElementTree.fromstring(render(found(), "svg"))  # noqa: S314 - our own
    marks = [x for x in root.iter(f"{SPACE}line") if x.get("class") == "limit"]
    assert marks
    for t in (t for t in root.iter(f"{SPACE}text") if t.text):
        wide = 6.0 * len(t.text)
        left = float(t.get("x")) - (wide if t.get("class") == "end" else 0)
        assert left >= 0 and left + 0.9 * wide <= WIDTH
        beside = [m for m in marks if float(m.get("y1")) < float(t.get("y")) - 1 < float(m.get("y2"))]
        assert not any(left < float(m.get("x1")) < left + wide for m in beside), t.text


def test_a_plan_s_layouts_are_bars_the_best_first():
    found = layouts("llama-3-8b", 8, global_batch=64, device="h100")
    root = ElementTree.fromstring(found.plot())  # noqa: S314 - our own
    bars = [float(r.get("width")) for r in root.iter(f"{SPACE}rect") if r.get("fill")]
    assert bars[::3] == sorted(bars[::3])
    first, second = (t.estimate.times.step for t in found.tried[:2])
    assert bars[3] / bars[0] == pytest.approx(second / first, rel=0.01)
    assert str(found).splitlines()[0] == f"{len(found.tried)} layouts, the best first"


@pytest.mark.parametrize("law", ["chinchilla", "muennighoff", "kaplan"])
def test_a_plans_laws_are_to_scale(law):
    found = budget.scale(compute=1e22, law=law)
    root = ElementTree.fromstring(render(found, "svg"))  # noqa: S314 - our own
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(f"{SPACE}circle")]
    laws = found.to_dict()["laws"]
    rows = dots[-2 * len(laws) :]
    sizes = [math.log(law[key]) for law in laws for key in ("params", "tokens")]
    x = [x for x, _ in rows]
    slope = (max(x) - min(x)) / (max(sizes) - min(sizes))
    for at, size in zip(x, sizes, strict=True):
        assert at - min(x) == pytest.approx((size - min(sizes)) * slope, abs=0.2)
    assert len({y for _, y in rows}) == len(laws)
    assert (len(dots) > len(rows)) == (found.loss is not None)


@pytest.mark.parametrize(("batch", "by"), [(np.array([1, 2]), ""), (1, "layer")])
def test_what_it_cannot_show(batch, by):
    with pytest.raises(InputError, match="format"):
        render(budget.estimate("gpt2", batch=batch), "svg", by)
