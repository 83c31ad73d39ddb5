"""What stacks reach, fitted: the same minimum whatever the order of the rows, and what is known is found."""

import csv
import math
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from budget.bench.published import fit as fitting
from budget.bench.published import inference, measured
from budget.bench.published._terms import WITHOUT
from budget.bench.published.fit import NORMS, fit, predictions, start
from budget.bench.published.intervals import (
    COVERAGE,
    KNOWN,
    PROMPT,
    Powers,
    Widths,
    held,
    holding,
    intervals,
    widths,
)
from budget.bench.published.kernels import batches, seconds
from budget.bench.published.measured import cases
from budget.bench.published.picture import picture
from budget.bench.published.predict import predict
from budget.bench.published.scoreboard import _factors
from budget.bench.published.table import read
from budget.bench.published.targets import ASKED, LEFT_OUT, published_twice
from published_tables import inference_row, written
from published_tables import some as some_rows

import budget
from budget import stack as stacks
from budget.device import software
from budget.device.profile import FOLDER, load
from budget.fold.time import waiting

TABLE = Path(__file__).parent / "data" / "inference.csv"


@cache
def some():
    """Rows of two stacks on four generations of devices: tokens and prompts."""
    with TABLE.open() as file:
        rows = [r for r in csv.DictReader(file) if r["engine"].startswith(("gpt-fast", "llama.cpp (layer"))]
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "few.csv"
        with few.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows[::4])
        return [c for c in cases([str(few)]) if c.stack in ("gpt-fast", "llama.cpp-2024")]


def test_the_order_of_rows_changes_nothing():
    forth, back = (fit(rows, start(), norms=NORMS[-1:]) for rows in (some(), some()[::-1]))
    assert forth.keys() == back.keys()
    assert [back[n] for n in forth] == pytest.approx(list(forth.values()), rel=1e-3)


@pytest.mark.slow
def test_rows_that_factors_have_made_are_predicted_again(monkeypatch):
    """What a stack and a pair were given is found in the rows that it makes, if nothing draws elsewhere."""
    monkeypatch.setattr(fitting, "STACK", 5.0)
    monkeypatch.setattr(fitting, "PAIR", 5.0)
    monkeypatch.setattr(fitting, "KERNEL", (5.0, 5.0))
    true = {**start(), ("llama.cpp-2024", "stream"): 0.6, ("llama.cpp-2024", "sm89", "product"): 1.3}
    true[("gpt-fast", "launch")] = 2.0
    made = predictions(batches(some()), true)
    rows = [c._replace(measured=m) for c, m in zip(some(), made, strict=True)]
    found = predictions(batches(rows), fit(rows, start()))
    assert np.max(np.abs(found - made)) < 0.03


def test_a_row_is_the_sum_of_its_own_kernels():
    """Rows predicted together take what each takes alone."""
    each = [predictions(batches([c]), start())[0] for c in some()]
    assert list(predictions(batches(some()), start())) == pytest.approx(each, rel=1e-12)


def test_a_prompt_whose_host_starts_its_kernels_is_fitted_beside_tokens_of_a_graph(tmp_path):
    """Of one row's parts each runs in its own way, and together they take what their estimates say."""
    with TABLE.open() as file:
        columns = csv.DictReader(file).fieldnames or []
    row = {"id": "a", "source": "b", "model": "qwen2.5-0.5b", "gpu": "A100-80GB", "n_gpus": "1", "batch": "1"}
    row |= {"engine": "vLLM 0.7.3", "weight_precision": "fp16", "input_len": "64", "output_len": "99"}
    row |= {"e2e_latency_ms": "500"}
    (one,) = cases([written(tmp_path / "one.csv", [dict.fromkeys(columns, "") | row])])
    assert [part.execution for part in one.parts] == ["fused", "graph"]
    profile = software.profile(
        load(os.path.join(FOLDER, "datasheet.json")), one.device, stacks.load(one.stack), one.dtype
    )
    shared = {"model": "qwen2.5-0.5b", "device": "a100-80gb", "stack": "vllm-2024", "dtype": "fp16"}
    prompt, token = (
        budget.estimate(**shared, mode=mode, seq=seq).times.step
        for mode, seq in (("prefill", 64), ("decode", 113))
    )
    fitted = sum(float(seconds(b, profile).sum()) for b in batches([one]))
    assert fitted == pytest.approx(prompt + 99 * token, rel=1e-9)


@pytest.mark.parametrize(("gpus", "asked"), [("1", "one GPU"), ("2", "several GPUs")])
def test_layers_over_several_gpus_are_not_judged_as_one_gpu(gpus, asked, tmp_path):
    """Though they take turns, so that a token takes as long as on one."""
    row = inference_row(id="a", source="b", model="qwen2.5-7b", n_gpus=gpus, tpot_ms="20")
    row |= {"engine": "llama.cpp (2026-09, CUDA, fa 1)", "weight_precision": "Q4_K_M"}
    (one,) = cases([written(tmp_path / "one.csv", [row | {"input_len": "64", "output_len": "64"}])])
    assert [name for name, wanted in ASKED.items() if wanted(one)] == [f"inference on {asked}"]


@pytest.mark.parametrize(
    ("gpu", "engine", "version"),
    [
        ("R9700", "llama.cpp 7423 (2025-12, ROCm, fa 1)", "llama.cpp-2026-07"),
        ("R9700", "llama.cpp (2026-09, ROCm, fa 1)", ""),
        ("RTX 5090", "llama.cpp (2026-05, Vulkan, matrix cores: KHR_coopmat, fa 1)", "llama.cpp-vulkan-khr"),
    ],
)
def test_a_version_that_has_a_stacks_numbers_is_fitted_by_its_own_kernels(
    gpu, engine, version, tmp_path, monkeypatch
):
    """A stack's numbers make of a row what its table is predicted, by the version that it ran."""
    with TABLE.open() as file:
        columns = csv.DictReader(file).fieldnames or []
    row = {"id": "a", "source": "b", "model": "llama-3.1-8b", "gpu": gpu, "n_gpus": "1", "batch": "1"}
    row |= {"engine": engine, "weight_precision": "Q4_K_M", "input_len": "8192", "prefill_tok_s": "1000"}
    path = written(tmp_path / "one.csv", [dict.fromkeys(columns, "") | row])
    (one,) = cases([path])
    assert one.version == version
    profile = load(os.path.join(FOLDER, "datasheet.json"))
    monkeypatch.setattr(fitting, "base", lambda numbers: profile)
    known = stacks.load(one.stack).reached_on(one.generation)
    found = predictions(batches([one]), {(one.stack, kind): share for kind, share in known.items()})
    (expected,) = predict(inference, read(path)[1][0])
    assert math.exp(found[0]) == pytest.approx(expected.predicted, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "every"), [("inference.csv", 60), ("training_throughput.csv", 40), ("serving.csv", 60)]
)
def test_a_fit_predicts_rows_as_their_table_is_predicted(name, every, tmp_path, monkeypatch):
    """By the shipped numbers: what a fit takes for the kernels of a row is what an answer takes."""
    named = [
        row for row in some_rows(name, 1) if "flash" in row.get("notes", "").lower()
    ]  # in place of SDPA's
    path = written(tmp_path / name, [*some_rows(name, every), *named[::10]])
    rows = list(cases([path]))
    numbers = {}
    for stack, generation in {(c.stack, c.generation) for c in rows}:
        usual, here = (stacks.load(stack).reached_on(g) for g in ("", generation))
        numbers |= {(stack, kind): share for kind, share in usual.items()}
        numbers |= {(stack, generation, kind): share / usual[kind] for kind, share in here.items()}
    profile = load(os.path.join(FOLDER, "datasheet.json"))
    monkeypatch.setattr(fitting, "base", lambda numbers: profile)
    found = dict(zip((c.key for c in rows), predictions(batches(rows), numbers), strict=True))
    kind, table = read(path)
    asked = [(row, p) for row in table for p in predict(kind, row) if p.asked]
    expected = {
        f"{row['id']} {p.asked.quantity}": p.asked.work / p.predicted if p.asked.work else p.predicted
        for row, p in asked
    }
    off = {key: math.exp(seconds) / expected[key] for key, seconds in found.items()}
    assert len(off) > 5
    assert {key: ratio for key, ratio in off.items() if abs(ratio - 1) > 1e-3} == {}  # a bubble


@pytest.mark.slow
def test_a_minimum_is_one():
    """From a start where each number is off by a half or so the rows are predicted alike."""
    first, drawn = fit(some(), start()), np.random.default_rng(0)
    other = fit(some(), start(), {n: v * math.exp(drawn.normal(0, 0.5)) for n, v in first.items()})
    apart = np.abs(predictions(batches(some()), first) - predictions(batches(some()), other))
    assert np.median(apart) < 0.005
    assert np.max(apart) < 0.05


def test_two_publications_of_the_same_say_how_far_they_are_apart():
    """Once either way for each two; what is predicted otherwise, or published once, says nothing."""
    row = some()[0]
    rows = [
        row._replace(id="a", source="one", measured=0.0),
        row._replace(id="b", source="other", measured=0.1),
        row._replace(id="c", source="other", measured=0.3),
        row._replace(id="d", source="other", measured=0.3, dtype="another"),
        row._replace(id="e", source="third", measured=0.5),
    ]
    predicted = {"a": 0.2, "b": 0.2, "c": 0.205, "d": 0.2, "e": 0.4}
    errors = {c.key: predicted[c.id] - c.measured for c in rows}
    assert sorted(published_twice(rows, errors)) == pytest.approx([-0.1975, 0.1975])


def test_the_picture_has_a_point_for_each_row():
    errors = {kind: {c.key: 0.1 for c in some()} for kind in ("fitted", *LEFT_OUT)}
    drawn = ElementTree.fromstring(picture(some(), errors))  # noqa: S314 - our own
    points = [p for p in drawn.iter("{http://www.w3.org/2000/svg}path") if p.get("stroke-linecap")]
    assert sum(p.get("d").count("M") for p in points) == len(some())


def test_a_pair_says_what_is_not_its_stacks():
    """A factor of one is written where the stack has another, which would count instead."""
    assert _factors({"product": 1.0, "stream": 1.2}, {"product": 1.3, "stream": 1.2}) == {"product": 1.0}
    assert _factors({"product": 1.001, "launch": 0.9}, {}) == {"launch": 0.9}


def test_an_interval_knows_nothing_of_what_is_left_out_with_a_row():
    """A stack left out is judged by what others give, a pair by its stack's other pairs."""
    rows = some()
    errors = {c.key: (0.1 if c.stack == "gpt-fast" else 1.0) for c in rows}
    by = [errors] * 4
    for left_out in (lambda c: c.stack, lambda c: (c.stack, c.generation)):
        within = held(rows, errors, left_out, by)
        for out in {left_out(c) for c in rows}:
            more = {c.key: 5.0 if left_out(c) == out else errors[c.key] for c in rows}
            other = held(rows, errors, left_out, [more] * 4)
            assert all(other[c.key] == within[c.key] for c in rows if left_out(c) == out)
    apart = held(rows, errors, lambda c: c.stack, by)
    assert all(apart[c.key] == (c.stack == "gpt-fast") for c in rows)


def test_left_out_and_asked_by_a_user_a_pair_has_one_interval():
    """What the judge of pairs left out takes is what an answer of a file with these intervals says."""
    row = next(c for c in some() if c.stack == "gpt-fast" and c.quantity == "tpot_s")
    within = Widths(
        {("gpt-fast", "sm80"): 2.0, ("gpt-fast", "sm90"): 1.4}, {"gpt-fast": 1.5}, 3.0, Powers(2.0)
    )
    answer = budget.estimate("gpt2", mode="decode", seq=128, device="h100", stack="gpt-fast")
    stack = answer.stack._replace(intervals=within.on("gpt-fast"))
    for generation, width in (("sm80", 2.0), ("sm90", 1.4), ("of nobody's", 2.0)):
        device = answer.device._replace(generation=generation)
        shared = answer.profile._replace(prompt=within.powers.prompt)
        for mode, quantity, wide in (("decode", "tpot_s", width), ("prefill", "ttft_s", width**2)):
            asked = software.profile(shared, device, stack, "bfloat16", mode=mode)
            assert (asked.low, asked.high) == pytest.approx((1 / wide, wide))
            assert within.of(row._replace(generation=generation, quantity=quantity)) == wide
    assert within.of(row._replace(stack="nobody's")) == 3.0


def test_prompts_have_wider_intervals_by_as_much_as_they_are_further_off():
    """Nine in ten of either are held, where one width for both would hold few prompts and all tokens."""
    drawn = np.random.default_rng(0)
    rows = [c._replace(id=f"{c.id} {k}", source=str(k)) for k in range(9) for c in some()]
    errors = {c.key: drawn.normal(0, 0.3 if c.quantity == PROMPT else 0.1) for c in rows}
    within = intervals(rows, errors, errors, errors, errors)
    assert within.powers.prompt == pytest.approx(3, rel=0.2)
    for quantity in {c.quantity for c in rows}:
        inside = [abs(errors[c.key]) <= math.log(within.of(c)) for c in rows if c.quantity == quantity]
        assert np.mean(inside) == pytest.approx(COVERAGE, abs=0.05)


def test_the_longer_a_device_waits_for_its_host_the_wider_is_the_interval():
    """By as much as such rows are further off, and judged as it is answered: a model of a few small layers,
    eager, waits for most of a token, a large one for little of its prompt.
    """
    drawn = np.random.default_rng(0)
    rows = [c._replace(id=f"{c.id} {k}", source=str(k), host=k % 3 / 2) for k in range(36) for c in some()]
    errors = {c.key: drawn.normal(0, 0.1 * (1 + c.host)) for c in rows}
    within = intervals(rows, errors, errors, errors, errors)
    assert within.powers.host == pytest.approx(2, rel=0.25)
    for host in {c.host for c in rows}:
        inside = [abs(errors[c.key]) <= math.log(within.of(c)) for c in rows if c.host == host]
        assert np.mean(inside) == pytest.approx(COVERAGE, abs=0.05)
    asked = {"device": "h100", "stack": "transformers", "batch": 1}
    token = budget.estimate("gpt2", mode="decode", seq=128, **asked)
    prompt = budget.estimate("qwen3-8b", mode="prefill", seq=8192, **asked)
    for e in (token, prompt):
        row = rows[0]._replace(quantity="tpot_s", host=float(waiting(e.times)))
        assert e.interval[1] == pytest.approx(e.profile.high ** Powers(host=e.profile.host).of(row))
    assert token.times.overhead > 0.5 * token.times.step and token.interval[1] > prompt.interval[1]


def test_nine_of_ten_of_each_kind_are_held_of_what_trains_and_of_what_serves():
    drawn = np.random.default_rng(0)
    kinds = [[(bool(k % 3), x) for k, x in enumerate(drawn.exponential(by, 500))] for by in (1.0, 2.0)]
    for trains in (False, True):
        size = holding(trains, kinds)
        inside = [np.mean([x <= size for own, x in of if own == trains]) for of in kinds]
        assert min(inside) == pytest.approx(COVERAGE, abs=0.02)


def test_new_sources_that_are_far_off_widen_what_is_answered():
    rows = [c._replace(source=str(k % 3)) for k, c in enumerate(some())]
    near, far = ({c.key: math.log(1.1) * by for c in rows} for by in (1, 3))
    known, strange = (widths(rows, near, KNOWN, sources) for sources in (near, far))
    assert all(known[g] == pytest.approx(1.1) for g in known)
    assert np.mean([far[c.key] <= 1.1 * math.log(strange[KNOWN.of(c)]) for c in rows]) >= COVERAGE


@pytest.mark.parametrize("trains", [False, True])
def test_no_pair_that_trains_is_surer_than_nine_of_ten_of_all_that_train(trains):
    rows = [c._replace(source=str(k), trains=trains) for k, c in enumerate(some())]
    lucky = KNOWN.of(rows[0])
    errors = {c.key: math.log(1.01 if KNOWN.of(c) == lucky else 1.5) for c in rows}
    assert sum(KNOWN.of(c) != lucky for c in rows) > len(rows) / 5, "more than one in ten are off"
    here = intervals(rows, errors, errors, errors, errors).here
    assert (here[lucky] >= 1.5 * (1 - 1e-9)) == trains


@pytest.mark.parametrize(
    ("source", "publication"),
    [
        ("owner/name@1234567 docs/README.md, Table 2", "owner/name"),
        ("owner/name pull request 12, 2024-01-07", "owner/name 12"),
        ("owner/name issue 12 (transformers, PyTorch eager)", "owner/name 12"),
        ("arxiv.org/abs/2012.12877 Table 3", "arxiv.org/abs/2012.12877"),
        ("a blog on an RTX 4080 (build 8828)", "a blog on an RTX 4080"),
        ("Somebody et al. 2022 Fig 7, digitised", "Somebody et al. 2022"),
    ],
)
def test_a_publication_is_what_one_party_wrote(source, publication):
    assert measured.publication(source) == publication


@pytest.mark.parametrize("term", WITHOUT)
def test_a_term_can_be_left_out(term):
    """`--terms` prices all rows without it."""
    with ExitStack() as undone:
        for patched in WITHOUT[term]():
            undone.enter_context(patched)
        assert np.isfinite(predictions(batches(some()), start())).all()
