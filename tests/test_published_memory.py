"""Published measurements of memory: what is arithmetic is exact, the rest keeps its distance."""

from functools import cache
from pathlib import Path
from statistics import median

import pytest
from budget.bench.published import memory
from budget.bench.published.predict import predict, run
from budget.bench.published.table import read

KIND, ROWS = read(str(Path(__file__).parent / "data" / "memory.csv"))
EXACT = ("kv cache per token", "weight file size")
MATRIX = ("gguf-009",)  # made with an importance matrix: ten layers' down projections have no more bits
# The hub's README calls both 2B Gemmas so, and its row has no other word for the second; see docs/accuracy.md
# for the two that were fully trained.
APART = ("litgpt-cfg-011", "litgpt-cfg-027", "litgpt-cfg-043")


@cache
def found(name):
    """The predictions of a row: where a test asks, as all of them take ten seconds."""
    return [p for row in ROWS if row["id"] == name for p in predict(KIND, row) if p.asked is not None]


def every():
    return [p for row in ROWS for p in found(row["id"])]


def peaks(predictions, *, several=False):
    """Of a peak, on one device or on several."""
    return [
        p
        for p in predictions
        if p.asked.quantity == "peak_bytes" and several == ("layout" in p.asked.parts[0].settings)
    ]


def known(predictions):
    return [p for p in predictions if p.error is not None]


def of_rows(which):
    """A test's cases: the ids of these rows."""
    return pytest.mark.parametrize("name", [row["id"] for row in ROWS if which(row)])


def test_rows_are_covered():
    assert len(peaks(every())) >= 73
    assert len({p.row["id"] for p in every()}) >= 0.7 * len(ROWS)


# A layer's bytes with tensor parallelism t, over s b h: Korthikanti et al. 2022, equations 2 to 6.
KEPT = {
    "tensor-parallel baseline, no recompute": lambda t, a: 10 + 24 / t + a / t,
    "sequence parallel only": lambda t, a: 34 / t + a / t,
    "selective recompute only": lambda t, a: 10 + 24 / t,
    "selective + sequence parallel": lambda t, a: 34 / t,
    "full recompute": lambda t, a: 2,
}


@of_rows(lambda row: row["scenario"] == "activation memory ratio")
def test_a_layer_keeps_what_the_paper_s_formulas_say(name):
    (p,) = found(name)
    assert p.asked.quantity == "activation_share"
    settings = p.asked.parts[0].settings
    scores = 5 * settings["config"]["heads"] * settings["seq"] / settings["config"]["d_model"]
    one, all_of_it = (
        KEPT[words](settings["layout"]["tp"], scores)
        for words in (p.row["recompute"], "tensor-parallel baseline, no recompute")
    )
    assert p.predicted == pytest.approx(one / all_of_it, rel=1e-3)
    assert abs(p.error) < 0.015  # digitised from a figure


def test_several_devices_keep_their_distance():
    """None fitted, and BLOOM's nine trials in bfloat16 not seen before either (docs/accuracy.md)."""
    several = peaks(every(), several=True)
    errors = [abs(p.error) for p in known(several)]
    assert len(errors) >= 60
    assert median(errors) < 0.06
    unseen = [abs(p.error) for p in several if "bf16optimizer" in p.row["precision"].lower()]
    assert len(unseen) == 9
    assert max(unseen) < 0.1


@of_rows(lambda row: row["scenario"] in EXACT)
def test_arithmetic(name):
    for p in known(peaks(found(name))):
        assert abs(p.error) < (1e-2 if name in MATRIX else 1.2e-3)  # of figures with three digits


@of_rows(lambda row: row["method"] not in ("", "QLoRA") and row["id"] not in APART)
def test_adapters_and_inference(name):
    for p in known(peaks(found(name))):
        assert abs(p.error) < 0.045


OTHER, UNSEEN = read(str(Path(__file__).parent / "data" / "unseen_memory.csv"))


@pytest.mark.slow
def test_rows_of_other_sources_keep_their_distance():
    """Twenty-one sources that no term was made with; causes were read afterwards (docs/accuracy.md)."""
    errors = [abs(p.error) for p in known(p for row in UNSEEN for p in predict(OTHER, row))]
    assert len(errors) >= 0.75 * len(UNSEEN)
    assert median(errors) < 0.06


def test_what_ran_out_of_memory_does_not_fit():
    without = [p for p in peaks(every()) if p.error is None]
    assert len(without) > 5
    for p in without:
        limit = float(p.row["gpu_mem_gb"]) * memory.GB
        assert (p.predicted > limit) == (p.row["measured_gb"] == "OOM"), p.row["id"]


@pytest.mark.parametrize("tier", ["A", "B"])
def test_the_median_is_no_worse_than_it_was(tier):
    assert median(abs(p.error) for p in known(peaks(every())) if p.row["tier"] == tier) < 0.01


@of_rows(lambda row: row["trainable_params"])
def test_trained_parameters_are_those_that_litgpt_printed(name):
    for p in peaks(found(name)):
        printed = int(p.row["trainable_params"].replace(",", ""))
        assert run(p.asked.parts[0]).params.trainable == printed
