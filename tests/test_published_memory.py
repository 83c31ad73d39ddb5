"""Published measurements of memory: what is arithmetic is exact, the rest keeps its distance."""

from statistics import median

import pytest
from published_memory import scores

SCORES = list(scores())
EXACT = ("kv cache per token", "weight file size")


def test_rows_are_covered():
    assert len(SCORES) >= 61


@pytest.mark.parametrize(
    "score", [s for s in SCORES if s.row["scenario"] in EXACT], ids=lambda s: s.row["id"]
)
def test_arithmetic(score):
    assert score.ours == pytest.approx(score.measured, rel=5e-4)


@pytest.mark.parametrize(("tier", "bound"), [("A", 0.06), ("B", 0.4)])
def test_the_median_is_no_worse_than_it_was(tier, bound):
    errors = [abs(s.error) for s in SCORES if s.row["tier"] == tier and s.error is not None]
    assert median(errors) < bound
