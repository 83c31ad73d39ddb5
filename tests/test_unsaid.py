"""The ends of an interval that what nobody says moves: a desktop's host beside a GeForce board."""

import csv
from pathlib import Path

import pytest

from budget import device, estimate

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
    assert one.interval[0] < 0.6 / one.interval[1]
    many = of("rtx-4090", batch=64, seq=512, dtype="fp16")  # the board is what takes long
    assert many.interval == pytest.approx((many.profile.low, many.profile.high), rel=0.01)
    assert server.interval[0] == pytest.approx(1 / server.interval[1], rel=0.01)
    assert device.load("l40s").generation == device.load("rtx-4090").generation
