"""Memory besides tensors: the data against messages of real processes, and what follows from it."""

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest

from budget import InputError, device, estimate, table
from budget.__main__ import main
from budget.device import reserve
from budget.fitting.largest import largest

GIB = 2**30
LINES = (Path(__file__).parent / "data/oom_messages.csv").read_text("utf-8").splitlines()
MESSAGES = [
    {k: float(v) for k, v in row.items()} for row in csv.DictReader(x for x in LINES if not x.startswith("#"))
]
H100 = device.load("h100")


def test_a_context_is_what_three_of_four_processes_need():
    alone = [m for m in MESSAGES if m["processes"] == 1]
    beyond = [m["process"] - m["allocated"] - m["unallocated"] for m in alone]
    kept = table.load("reserve.json")["context"]["mib"] / 1024
    assert statistics.quantiles(beyond, n=4)[2] == pytest.approx(kept, rel=0.06)


def test_fragments_are_the_mean_of_programs_that_repeat_themselves():
    shares = [m["unallocated"] / (m["allocated"] + m["unallocated"]) for m in MESSAGES]
    kept = table.load("reserve.json")["fragmentation"]["share"]
    assert statistics.mean(x for x in shares if x < 1 / 3) == pytest.approx(kept, rel=0.06)
    assert statistics.median(shares) < kept


def test_a_message_is_predicted_from_what_was_allocated():
    """Of processes alone on a GPU most hold no more than is predicted, the median one 4 % less at most."""
    alone = [m for m in MESSAGES if m["processes"] == 1 and m["unallocated"] < m["process"] / 3]
    usual = reserve.usual(device.load("a100"))
    ratios = [(usual.reserved(m["allocated"] * GIB) + usual.bytes) / (m["process"] * GIB) for m in alone]
    assert 1 <= statistics.median(ratios) < 1.04
    assert sum(r >= 1 for r in ratios) >= 0.6 * len(ratios)


def test_three_sizes_of_memory():
    e = estimate("gpt2", batch=8, device="h100")
    sizes = e.to_dict()["memory_bytes"]
    assert sizes["peak"] == sizes["allocated"] == e.memory.peak < sizes["reserved"] < sizes["process"]
    assert sizes["process"] - sizes["reserved"] == 544 * 2**20  # a context, and cuBLAS's 32 MiB on Hopper
    serves = estimate("gpt2", mode="decode", batch=8, device="h100")  # whose allocator is not replayed
    assert serves.reserved == pytest.approx(serves.memory.peak / 0.97)
    assert e.needed == pytest.approx(e.memory.peak / 0.97 + 544 * 2**20)
    assert e.needed < e.process
    bare = estimate("gpt2", batch=8, device="h100", reserve=0)
    assert bare.process == bare.memory.peak == e.memory.peak


@pytest.mark.parametrize("name", ["cpu", "tpu-v5e", "m3-max"])
def test_where_nothing_is_known_nothing_is_reserved(name):
    assert reserve.usual(device.load(name)) == reserve.NOTHING


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (10**9, 10**9),
        ("0", 0),
        ("2GiB", 2 * GIB),
        ("2gib", 2 * GIB),
        ("1.5 GB", 15 * 10**8),
        ("500M", 5 * 10**8),
        ("10%", round(H100.usable_bytes / 10)),
        ("12345", 12345),
    ],
)
def test_a_reserve_as_people_say_it(value, expected):
    assert reserve.asked(value, H100) == reserve.Reserve(expected, 0.0, True)


@pytest.mark.parametrize("value", ["", "lots", "-1", "5 %%", -1, "GiB", True, [], 1e30, float("nan"), "1e3"])
def test_another_reserve_is_an_error(value):
    with pytest.raises(InputError, match=r"^reserve: got .* allowed: bytes as 2GiB or 500MB, or a share"):
        estimate("gpt2", reserve=value)


def test_what_fits_leaves_room_for_the_reserve():
    settings = {"seq": 256, "device": "t4"}
    (with_it, found), (without, _) = (largest("gpt2", "batch", reserve=r, **settings) for r in (None, 0))
    assert 0 < with_it < without
    assert (
        found.process <= found.device.usable_bytes < estimate("gpt2", batch=with_it + 1, **settings).process
    )
    many = estimate("gpt2", batch=np.array([with_it, with_it + 1, without]), **settings)
    assert many.fits.tolist() == [True, False, False]


def test_the_command_says_it(capsys):
    assert main(["estimate", "gpt2", "--device", "a100", "--reserve", "5%"]) == 0
    assert "process" in capsys.readouterr().out
    assert main(["estimate", "gpt2", "--device", "a100", "--reserve", "five"]) == 2
    assert capsys.readouterr().err.startswith("budget: reserve: got 'five'; allowed: ")
    assert main(["estimate", "gpt2", "--device", "t4", "--batch", "16", "--fits", "--reserve", "90%"]) == 1
