"""Published measurements of memory: what is arithmetic is exact, the rest keeps its distance."""

from statistics import median

import pytest
from published_litgpt import settings
from published_memory import MODELS, scores

from budget import estimate

SCORES = list(scores())
EXACT = ("kv cache per token", "weight file size")


def test_rows_are_covered():
    assert len(SCORES) >= 73


@pytest.mark.parametrize(
    "score", [s for s in SCORES if s.row["scenario"] in EXACT], ids=lambda s: s.row["id"]
)
def test_arithmetic(score):
    assert score.ours == pytest.approx(score.measured, rel=5e-4)


@pytest.mark.parametrize(
    "score",
    [s for s in SCORES if s.row["method"] not in ("", "full", "QLoRA") and s.error is not None],
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


@pytest.mark.parametrize("score", [s for s in SCORES if s.row["trainable_params"]], ids=lambda s: s.row["id"])
def test_trained_parameters_are_those_that_litgpt_printed(score):
    model = MODELS[score.row["model"]]
    ours = estimate(model, mode="train", **settings(score.row, model)).params.trainable
    assert ours == int(score.row["trainable_params"].replace(",", ""))
