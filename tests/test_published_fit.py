"""What stacks reach, fitted: the same minimum whatever the order of the rows, and what is known is found."""

import math
import os
from contextlib import ExitStack
from xml.etree import ElementTree

import numpy as np
import pytest
from budget.bench.published import fit as fitting
from budget.bench.published import inference, measured
from budget.bench.published._terms import WITHOUT
from budget.bench.published.fit import NORMS, fit, predictions, start
from budget.bench.published.kernels import batches, seconds
from budget.bench.published.measured import cases
from budget.bench.published.names import likely
from budget.bench.published.networks import captured
from budget.bench.published.picture import picture
from budget.bench.published.predict import predict
from budget.bench.published.scoreboard import _factors
from budget.bench.published.table import read
from budget.bench.published.targets import ASKED, LEFT_OUT, published_twice
from published_tables import few_cases, inference_row, some, written

import budget
from budget import stack as stacks
from budget.device import software
from budget.device.profile import FOLDER, load


def test_the_order_of_rows_changes_nothing():
    forth, back = (fit(rows, start(), norms=NORMS[-1:]) for rows in (few_cases(), few_cases()[::-1]))
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
    made = predictions(batches(few_cases()), true)
    rows = [c._replace(measured=m) for c, m in zip(few_cases(), made, strict=True)]
    found = predictions(batches(rows), fit(rows, start()))
    assert np.max(np.abs(found - made)) < 0.03


def test_a_row_is_the_sum_of_its_own_kernels():
    """Rows predicted together take what each takes alone."""
    each = [predictions(batches([c]), start())[0] for c in few_cases()]
    assert list(predictions(batches(few_cases()), start())) == pytest.approx(each, rel=1e-12)


def test_rows_of_one_batch_have_their_own_formats(tmp_path):
    """A row is predicted the same beside others, whose weights are in other formats."""
    row = inference_row(source="b", model="llama-3.1-8b", gpu="Radeon AI PRO R9700", input_len="2048")
    row |= {"engine": "llama.cpp (2026-05, fa 1)", "prefill_tok_s": "1000"}
    words = ("Q4_0", "Q6_K", "Q4_K_M")
    rows = [{**row, "id": word, "weight_precision": word} for word in words]
    several = list(cases([written(tmp_path / "rows.csv", rows)]))
    alone = [predictions(batches([case]), start())[0] for case in several]
    assert len({round(seconds, 6) for seconds in alone}) == len(words)
    assert predictions(batches(several), start()) == pytest.approx(alone, abs=1e-9)


def test_a_prompt_whose_host_starts_its_kernels_is_fitted_beside_tokens_of_a_graph(tmp_path):
    """Of one row's parts each runs in its own way, and together they take what their estimates say."""
    row = inference_row(id="a", source="b", model="qwen2.5-0.5b", gpu="A100-80GB", weight_precision="fp16")
    row |= {"engine": "vLLM 0.7.3", "input_len": "64", "output_len": "99", "e2e_latency_ms": "500"}
    (one,) = cases([written(tmp_path / "one.csv", [row])])
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
    row = inference_row(id="a", source="b", model="llama-3.1-8b", gpu=gpu, engine=engine, input_len="8192")
    path = written(tmp_path / "one.csv", [row | {"weight_precision": "Q4_K_M", "prefill_tok_s": "1000"}])
    (one,) = cases([path])
    assert one.version == version
    profile = load(os.path.join(FOLDER, "datasheet.json"))
    monkeypatch.setattr(fitting, "base", lambda numbers: profile)
    known = stacks.load(one.stack).reached_on(one.generation)
    found = predictions(batches([one]), {(one.stack, kind): share for kind, share in known.items()})
    (expected,) = predict(inference, read(path)[1][0])
    assert math.exp(found[0]) == pytest.approx(expected.predicted, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "every", "classes"),
    [
        ("inference.csv", 60, False),
        pytest.param("inference.csv", 16, True, marks=pytest.mark.slow),  # seconds a class
        ("training_throughput.csv", 40, False),
        ("serving.csv", 60, False),
    ],
)
def test_a_fit_predicts_rows_as_their_table_is_predicted(name, every, classes, tmp_path, monkeypatch):
    """By the shipped numbers: what a fit takes for the kernels of a row is what an answer takes."""
    rows = [row for row in some(name, 1) if captured(likely(row["model"].strip())) == classes]
    named = [row for row in rows if "flash" in row.get("notes", "").lower()]  # in place of SDPA's
    path = written(tmp_path / name, [*rows[::every], *named[::10]])
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
    first, drawn = fit(few_cases(), start()), np.random.default_rng(0)
    other = fit(few_cases(), start(), {n: v * math.exp(drawn.normal(0, 0.5)) for n, v in first.items()})
    apart = np.abs(predictions(batches(few_cases()), first) - predictions(batches(few_cases()), other))
    assert np.median(apart) < 0.005
    assert np.max(apart) < 0.05


def test_two_publications_of_the_same_say_how_far_they_are_apart():
    """Once either way for each two; what is predicted otherwise, or published once, says nothing."""
    row = few_cases()[0]
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
    errors = {kind: {c.key: 0.1 for c in few_cases()} for kind in ("fitted", *LEFT_OUT)}
    drawn = ElementTree.fromstring(picture(few_cases(), errors))  # noqa: S314 - our own
    points = [p for p in drawn.iter("{http://www.w3.org/2000/svg}path") if p.get("stroke-linecap")]
    assert sum(p.get("d").count("M") for p in points) == len(few_cases())


def test_a_pair_says_what_is_not_its_stacks():
    """A factor of one is written where the stack has another, which would count instead."""
    assert _factors({"product": 1.0, "stream": 1.2}, {"product": 1.3, "stream": 1.2}) == {"product": 1.0}
    assert _factors({"product": 1.001, "launch": 0.9}, {}) == {"launch": 0.9}


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
        assert np.isfinite(predictions(batches(few_cases()), start())).all()
