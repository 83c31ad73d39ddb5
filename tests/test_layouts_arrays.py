"""Arrays of sizes and of degrees over several devices are each one's answer."""

from functools import partial

import numpy as np
import pytest
from small_layouts import small

from budget.errors import InputError


def test_arrays_of_batches_are_each_one():
    batches = np.array([1, 2, 4, 8])
    many = small("tp=2,dp=4,zero=1", batch=batches)
    for i, batch in enumerate(batches):
        one = small("tp=2,dp=4,zero=1", batch=int(batch))
        assert many.memory.peak[i] == one.memory.peak
        assert many.times.step[i] == pytest.approx(one.times.step)


def test_arrays_of_degrees_are_each_one():
    tp, dp = np.array([1, 2, 4]), np.array([8, 4, 2])
    many = small({"tp": tp, "dp": dp, "zero": 1})
    for i, degrees in enumerate(zip(tp, dp, strict=True)):
        one = small({"tp": int(degrees[0]), "dp": int(degrees[1]), "zero": 1})
        assert many.memory.peak[i] == one.memory.peak
        assert many.times.step[i] == pytest.approx(one.times.step)
        assert many.throughput.mfu[i] == pytest.approx(one.throughput.mfu)


# A small batch waits for launches, of the stage of most layers; a large one for the last stage's head.
@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ({"pp": 2}, {}),
        ({"pp": 2, "dp": 4, "zero": 2, "stages": (3, 1)}, {"accumulate": 4, "config": {"vocab": 8192}}),
        ({"pp": 2, "vpp": 2, "tp": 2, "stages": (6, 2)}, {"accumulate": 4, "config": {"layers": 8}}),
        ({"pp": 4, "stages": (1, 2, 2, 1)}, {"accumulate": 8, "config": {"layers": 6, "vocab": 8192}}),
        ({"pp": 2, "schedule": "dualpipe", "stages": (3, 1)}, {"accumulate": 4, "config": {"vocab": 8192}}),
        ({"pp": 2, "schedule": "zb_h1", "stages": (3, 1)}, {"accumulate": 4, "config": {"vocab": 8192}}),
        ({"pp": 2}, {"mode": "prefill"}),
        ({"pp": 2, "dp": [2, 4, 8, 16], "zero": 1}, {"accumulate": 2}),
    ],
)
def test_arrays_over_a_pipeline_are_each_one(layout, settings):
    """Another stage may hold most, or be slowest, for each size."""
    batches = np.array([1, 4, 64, 2048])
    arrays = {name: np.array(x) for name, x in layout.items() if isinstance(x, list)}
    many = small({**layout, **arrays}, batch=batches, **settings)
    said, rows = many.spread.communication_rows(many.ran), many.rows()
    assert len(many.to_dict()["time_s"]["step"]) == len(batches)
    for i, batch in enumerate(batches):
        own = {**layout, **{name: int(x[i]) for name, x in arrays.items()}}
        one = small(own, batch=int(batch), **settings)
        at = partial(element, i)
        for kind in ("parameters", "gradients", "optimizer", "activations", "peak"):
            assert at(getattr(many.memory, kind)) == getattr(one.memory, kind), kind
        for part in ("forward", "backward", "optimizer", "communication", "bubble", "overhead", "step"):
            assert at(getattr(many.times, part)) == pytest.approx(getattr(one.times, part), rel=1e-9), part
        assert at(many.throughput.mfu) == pytest.approx(one.throughput.mfu)
        assert at(many.mbu) == pytest.approx(one.mbu)
        assert bool(at(many.fits)) == one.fits
        for of_many, of_one in ((said, one.spread.communication_rows(one.ran)), (rows, one.rows())):
            assert total(of_many, at) == pytest.approx(total(of_one, float), rel=1e-9)


def element(i, size):
    """One of an array; a number is that of all."""
    return float(size[i]) if getattr(size, "shape", ()) else float(size)


def total(table, at):
    """What a table adds up to: bytes and seconds of messages; seconds, runs and FLOPs of operators."""
    if table and "axis" not in table[0]:
        names = ("time_s", "runs", "forward_flops", "backward_flops", "params")
        return [sum(at(row[name]) for row in table) for name in names]
    return [
        sum(at(row["times"]) for row in table),
        sum(at(row["times"]) * at(row["bytes"]) for row in table),
        sum(at(row["times"]) * at(row["seconds"]) for row in table),
        sum(at(row["exposed_s"]) for row in table),
    ]


def test_what_only_one_stage_has_is_refused_of_arrays():
    many = small("pp=2", batch=np.array([1, 64]))
    with pytest.raises(InputError, match="another stage holds most for each size"):
        many.rows("moment")
