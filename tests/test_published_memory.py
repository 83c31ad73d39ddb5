"""Published measurements of memory: what is arithmetic is exact, the rest keeps its distance."""

from statistics import median

import pytest
from published_memory import scores

SCORES = list(scores())
EXACT = ("kv cache per token", "weight file size")


def test_rows_are_covered():
    assert len(SCORES) >= 67


@pytest.mark.parametrize(
    "score", [s for s in SCORES if s.row["scenario"] in EXACT], ids=lambda s: s.row["id"]
)
def test_arithmetic(score):
    assert score.ours == pytest.approx(score.measured, rel=5e-4)


@pytest.mark.parametrize(
    "score",
    [s for s in SCORES if s.row["method"] in ("lora", "qlora", "inference") and s.error is not None],
    ids=lambda s: s.row["id"],
)
def test_adapters_and_inference(score):
    assert abs(score.error) < 0.035


def test_what_ran_out_of_memory_does_not_fit():
    assert all(s.agrees for s in SCORES if s.error is None)


@pytest.mark.parametrize("tier", ["A", "B"])
def test_the_median_is_no_worse_than_it_was(tier):
    errors = [abs(s.error) for s in SCORES if s.row["tier"] == tier and s.error is not None]
    assert median(errors) < 0.01
