"""What nobody says of a machine, as a desktop's host beside a GeForce board, moves ends of intervals."""

import csv
from pathlib import Path

import numpy as np
import pytest

from budget import InputError, device, estimate
from budget.answer.unsaid import unsure

ROWS = Path(__file__).parent / "data/unseen_inference.csv"
NAMES = {"all-MiniLM-L6-v2": "minilm-l6", "bge-base-en-v1.5": "bert-base", "bge-large-en-v1.5": "bert-large"}


def of(name, model="bert-base", **more):
    settings = {"batch": 1, "seq": 16, "mode": "forward", "dtype": "fp32", "stack": "transformers", **more}
    return estimate(model, device=name, **settings)


def test_encoders_beside_a_desktops_processor_are_inside():
    with ROWS.open() as file:
        rows = [r for r in csv.DictReader(file) if "Core Ultra 9 285K" in r["notes"] and r["model"] in NAMES]
    assert len(rows) == 6
    for row in rows:
        found = of("rtx-4080-super", NAMES[row["model"]], seq=int(row["input_len"]))
        low, high = (found.times.step * end for end in found.interval)
        assert low <= float(row["e2e_latency_ms"]) / 1e3 <= high


def test_only_geforce_boards_that_wait_for_their_host_may_be_faster():
    one, server = of("rtx-4090"), of("l40s")
    many = of("rtx-4090", batch=64, seq=512, dtype="fp16")  # the board is what takes long
    low, high = (np.array([e.interval[end] for e in (one, many, server)]) for end in (0, 1))
    ends = [[end ** unsure(e) for e in (one, many, server)] for end in (one.profile.low, one.profile.high)]
    assert high == pytest.approx(ends[1])
    assert low[1:] == pytest.approx(ends[0][1:])
    assert low[0] < 0.6 * ends[0][0]
    assert device.load("l40s").generation == device.load("rtx-4090").generation


def test_the_more_of_a_time_is_kernels_starts_the_wider_is_its_interval():
    one, few, many = (
        of("a100", "resnet18", seq=None, batch=n, dtype="fp16", stack="tensorrt") for n in (1, 8, 256)
    )
    assert one.interval[1] > few.interval[1] > many.interval[1]
    assert many.interval[1] == pytest.approx(many.profile.high, rel=0.02)
    assert all(e.times.overhead == 0 for e in (one, few, many))  # nothing waits for the host


def test_an_array_s_intervals_are_each_size_s_own():
    sizes = np.array([1, 8, 256])
    several = of("a100", "resnet18", seq=None, batch=sizes, dtype="fp16", stack="tensorrt").interval
    for at, n in enumerate(sizes):
        alone = of("a100", "resnet18", seq=None, batch=int(n), dtype="fp16", stack="tensorrt").interval
        assert [float(end[at]) for end in several] == pytest.approx(alone)


def test_a_module_that_computes_nothing_has_sizes_and_no_time():
    torch = pytest.importorskip("torch")
    e = estimate(torch.nn.Flatten(), mode="forward", inputs=torch.zeros(4, 8, 8))
    assert (e.params.total, e.flops.forward) == (0, 0)
    with pytest.raises(InputError, match="module: starts no kernel"):
        e.seconds()
