"""Intervals of memory: what an answer says, and how they follow from peaks that were measured."""

import csv
import math
import random

import numpy as np
import pytest
from budget.bench.published import peaks
from budget.bench.published.peaks import ANY, Peak, held, intervals, shortest

from budget import estimate, stack, table
from budget.answer.held import INTERVALS, SIZES, measured

FILE = table.load(INTERVALS)
ASKED = (
    {"batch": 8},
    {"batch": 8, "device": "cpu"},  # nothing is known besides its tensors
    {"batch": 8, "reserve": 0},
    {"batch": 4, "mode": "decode", "seq": 512},
    {"batch": 16, "devices": 2, "layout": {"dp": 2, "zero": 3}, "device": "h100"},
)


@pytest.mark.parametrize("mode", ["train", "serve"])
def test_the_file_has_stacks_that_there_are_and_ends_around_one(mode):
    assert set(FILE[mode]) - {""} <= set(stack.names())
    assert set(FILE[mode][""]) == set(SIZES.values())
    for quantities in FILE[mode].values():
        assert set(quantities) <= set(SIZES.values())
        assert all(0 < low <= 1 <= high for low, high in quantities.values())


@pytest.mark.parametrize("asked", ASKED)
def test_each_size_lies_in_its_interval_and_the_ends_are_in_the_sizes_order(asked):
    sizes = estimate("gpt2", **asked).to_dict()["memory_bytes"]
    for name in SIZES:
        assert sizes[f"{name}_low"] <= sizes[name] <= sizes[f"{name}_high"]
    for end in ("", "_low", "_high"):
        assert sizes[f"peak{end}"] <= sizes[f"reserved{end}"] <= sizes[f"process{end}"]


def test_a_stack_has_its_own_interval_and_others_that_of_all():
    known, other = (estimate("gpt2", stack=name, device="h100") for name in ("transformers", "llm-foundry"))
    for e, name in ((known, "transformers"), (other, "")):
        low, high = FILE["train"][name]["allocated"]
        sizes = e.sizes()
        assert sizes["peak_low"] == pytest.approx(sizes["peak"] * low)
        assert sizes["peak_high"] == pytest.approx(min(sizes["peak"] * high, sizes["process_high"]))
        assert measured(e.stack, "train") == name
    assert known.to_dict()["provenance"]["memory"] == "published peaks of transformers"
    assert "other stacks" in str(other)
    same = estimate("gpt2", stack="timm", device="h100", mode="forward", batch=1)
    assert measured(same.stack, "train") == "torch-eager"  # whose settings alone it has not


def test_the_summary_shows_both_intervals_and_one_where_nothing_is_held_besides():
    def line(**asked):
        return next(
            x for x in str(estimate("gpt2", batch=8, **asked)).splitlines() if x and x.split()[0] == "range"
        )

    assert line(device="h100").count(" to ") == 2
    assert line(device="cpu").count(" to ") == 1


def test_arrays_have_the_intervals_of_their_elements():
    batches = np.array([1, 8, 64])
    found = estimate("gpt2", batch=batches, device="h100").sizes()
    for i, batch in enumerate(batches):
        one = estimate("gpt2", batch=int(batch), device="h100").sizes()
        assert one["peak_low"] == np.broadcast_to(found["peak_low"], batches.shape)[i]


def test_a_row_of_a_true_test_has_the_error_that_it_had_first(tmp_path):
    row = {"id": "a-001", "source": "a page (PyTorch eager)", "scenario": "finetune", "model": "gpt2"}
    row |= {"gpu": "A100-80GB", "n_gpus": "1", "precision": "fp32", "optimizer": "SGD", "method": "full"}
    row |= {
        "quant": "None",
        "micro_batch": "1",
        "seq": "64",
        "measured_gb": "2",
        "metric": "GB max allocated",
    }
    notes = (
        "",
        "tenth test, first -50.0%",
        "a test; first 0.5 of measured; off: lengths",
        "first not covered",
        "tenth test, first -80.0%",
    )
    path = tmp_path / "table.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [*row, "recompute", "notes"])
        writer.writeheader()
        writer.writerows({**row, "notes": text} for text in notes)
    told, *tested, uncovered, another = (p.error for p in peaks.peaks([str(path)]))
    assert tested == pytest.approx([math.log(2)] * 2)
    assert told == uncovered == another != pytest.approx(math.log(2))


@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_no_interval_around_zero_that_holds_as_much_is_shorter(part):
    drawn = random.Random(3)
    weighed = [(drawn.gauss(0.1, 0.3), drawn.choice((1, 2, 5))) for _ in range(40)]
    ends = [0.0, *(error for error, _ in weighed)]

    def holds(low, high):
        return sum(w for e, w in weighed if low <= e <= high) >= part * sum(w for _, w in weighed)

    low, high = shortest(weighed, part)
    assert low <= 0 <= high
    assert holds(low, high)
    least = min(b - a for a in ends for b in ends if a <= 0 <= b and holds(a, b))
    assert high - low == pytest.approx(least)


def _drawn(pages, rows, size):
    """Peaks of so many pages, whose rows are off together and apart, above more than below."""
    drawn = random.Random(1)
    for page in range(pages):
        together = drawn.gauss(0, size)
        for row in range(rows):
            error = together + drawn.gauss(0, size)
            yield Peak(f"{page}.{row}", f"page {page}", "a", "train", "allocated", 2 * max(error, error / 2))


def test_nine_of_ten_rows_of_pages_left_out_are_held():
    found = list(_drawn(60, 5, 0.1))
    assert sum(held(found).values()) == pytest.approx(0.9 * len(found), rel=0.05)
    low, high = intervals(found)["train", "allocated", "a"]
    assert -low < high  # as errors are


def test_worse_stacks_have_wider_intervals_and_one_page_says_little():
    good = [p._replace(stack="good", source=f"good {p.source}") for p in _drawn(20, 3, 0.02)]
    bad = [p._replace(stack="bad", id=f"b{p.id}") for p in _drawn(20, 3, 0.2)]
    few = [Peak("f", "alone", "few", "train", "allocated", 0.0)]
    ends = intervals([*good, *bad, *few])
    width = {name: high - low for (_, _, name), (low, high) in ends.items()}
    assert width["good"] < width["few"] < width["bad"]
    assert width["good"] < width[ANY] < width["bad"]


def test_rows_of_memory_have_a_size_and_its_interval(tmp_path, capsys):
    head = "id,source,scenario,model,method,quant,metric,measured_gb,micro_batch,seq,gpu,precision"
    known = {"GB max reserved": 11, "GB nvidia-smi": 14, "GB allocated": 9}
    rows = [
        f"r{gb},a.org/page {gb} (transformers),finetune,gpt2,full,None,{of},{gb},8,1024,A100,bf16 amp"
        for of, gb in known.items()
    ]
    path = tmp_path / "memory.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    found = list(peaks.peaks([str(path)]))
    assert [p.quantity for p in found] == ["reserved", "process", "allocated"]
    assert all(abs(p.error) < math.log(3) for p in found)
    assert peaks.main([str(path)]) == 0
    assert "train allocated transformers" in capsys.readouterr().out
