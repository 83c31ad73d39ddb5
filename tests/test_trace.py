"""Traces and pictures of pipelines: events do not overlap, and end when the step does."""

import itertools
import json
from xml.etree import ElementTree

import pytest

import budget
from budget.errors import InputError
from budget.report import render

SVG = "{http://www.w3.org/2000/svg}"
NETWORK = {"layers": 8, "d_model": 512, "heads": 8, "d_ff": 2048, "vocab": 8192, "context": 512}


def estimate(layout, micro=16, **settings):
    dp = dict(part.split("=") for part in layout.split(",")).get("dp", 1)
    settings = {"config": NETWORK, "seq": 512, "device": "h100", "global_batch": micro * int(dp), **settings}
    return budget.estimate("transformer", layout=layout, **settings)


def streams(e):
    """Events of each rank's two streams, in order of their beginnings: seconds."""
    answer = json.loads(render(e, "trace"))
    found = {}
    for event in answer["traceEvents"]:
        if event["ph"] == "X":
            start = event["ts"] * 1e-6
            found.setdefault((event["pid"], event["tid"]), []).append(
                (start, start + event["dur"] * 1e-6, event["name"])
            )
    return {key: sorted(events) for key, events in found.items()}


LAYOUTS = [
    "pp=4",
    "tp=2,pp=4,dp=2,zero=1",
    "pp=2,vpp=2,dp=2",
    "tp=2,pp=4,schedule=gpipe",
    "pp=4,schedule=zb_h1",
    "pp=4,schedule=dualpipe",
    "tp=4,dp=2",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rank_does_one_thing_at_a_time_until_the_step_is_over(layout):
    e = estimate(layout)
    found = streams(e)
    for events in found.values():
        for (_, end, name), (start, _, other) in itertools.pairwise(events):
            both = "schedule=dualpipe" in layout  # some passes run together
            assert both or start >= end - 1e-9, (name, other)
    last = max(end for events in found.values() for _, end, _ in events)
    about = (
        0.12 if "dualpipe" in layout or "zb" in layout else 0.06
    )  # formulas of schedules are of equal stages
    assert last == pytest.approx(e.times.step, rel=about)


def test_each_rank_runs_each_micro_batch_twice():
    found = streams(estimate("tp=2,pp=4", micro=8))
    for rank in range(4):
        names = [name for _, _, name in found[rank, 0] if name not in ("optimizer", "host")]
        assert sorted(names) == sorted(f"{what} {i}" for what in ("forward", "backward") for i in range(8))
        assert {name for _, _, name in found[rank, 1]} == {"tp", "pp"}  # tied embeddings are added up once


def test_one_device_has_its_kernels():
    e = budget.estimate("gpt2", device="h100")
    (events,) = streams(e).values()
    assert sum(end - start for start, end, _ in events) == pytest.approx(e.times.step)


def test_arrays_have_no_trace():
    import numpy as np

    with pytest.raises(InputError, match="trace shows"):
        render(budget.estimate("gpt2", batch=np.array([1, 2])), "trace")


@pytest.mark.parametrize("layout", ["pp=4", "pp=2,vpp=2", "pp=4,schedule=zb_h1", "pp=4,schedule=dualpipe"])
def test_the_pipeline_is_drawn_to_scale(layout):
    e = estimate(layout, micro=8)
    root = ElementTree.fromstring(render(e, "svg"))  # noqa: S314 - our own
    boxes = [box for box in root.iter(f"{SVG}rect") if box.findtext(f"{SVG}title")]
    ranks = {float(box.get("y")) for box in boxes if float(box.get("height")) == 20}
    assert len(ranks) == int(layout.split(",")[0][-1])
    corners = [float(box.get(at)) for box in boxes for at in ("x", "y")]
    assert len(set(zip(corners[::2], corners[1::2], strict=True))) == len(boxes)  # none hides another
    forward = [box for box in boxes if box.findtext(f"{SVG}title").startswith("forward")]
    assert len(forward) == 8 * e.spread.layout.pp * e.spread.layout.vpp
    assert any("bubble" in text.text for text in root.iter(f"{SVG}text"))
