"""Scaling laws hold what their papers print, and the fit what others fitted to the same runs."""

import csv
import json
from math import isclose, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import budget
from budget import law
from budget.__main__ import main
from budget.errors import InputError
from budget.law import _fit, _search, additive

RUNS = str(Path(__file__).parent / "data/chinchilla_runs.csv")
EPOCH_DROPPED = (2, 3, 4, 5, 6)  # the five highest losses
CHECKS = [(x.id, i) for x in law.every() for i, _ in enumerate(x.about["checks"])]


def misses(found, check):
    """How far each value of a law is from the printed one, where one is printed."""
    got, want = getattr(found.form, check["what"])(found.constants, **check["given"]), check["gives"]
    if isinstance(want, dict):
        got, want = [got[k] for k in want], list(want.values())
    if not isinstance(want, list):
        got, want = [got], [want]
    return [abs(g / w - 1) for g, w in zip(got, want, strict=True) if w is not None]


@pytest.mark.parametrize(("name", "which"), CHECKS)
def test_a_law_reproduces_its_own_printed_points_or_says_that_it_does_not(name, which):
    found = law.load(name)
    check = found.about["checks"][which]
    holds = max(misses(found, check)) <= check["within"]
    assert holds == found.about["reproduces"]


@pytest.mark.parametrize("name", law.names())
def test_a_law_s_file_is_complete(name):
    found = law.load(name)
    needed = {"name", "form", "constants", "params_are", "reproduces", "checks", "source"}
    assert needed <= set(found.about)
    assert set(found.form.CONSTANTS) <= set(found.constants)
    assert found.about["params_are"] in ("total", "active", "non-embedding", "FLOPs / 6")
    assert not found.has_loss or found.about["loss_is"].startswith("nats")


def test_llama_3_s_exponent_is_rounded():
    tokens = law.load("llama-3").optimum(3.8e25)[1]
    assert isclose(tokens, 10.46e12, rel_tol=1e-3)  # the paper: 16.55 T


def test_chinchilla_s_optimum_at_its_own_budget():
    chinchilla = law.load("chinchilla")
    params, tokens = chinchilla.optimum(5.76e23)
    low, high = chinchilla.interval(lambda x: x.optimum(5.76e23)[0])
    assert isclose(tokens / params, 17.9, rel_tol=0.03)
    # Of 1,000 samples: 55 to 106 billion. Source: the pages that this project started from.
    assert isclose(low, 55e9, rel_tol=0.05)
    assert isclose(high, 106e9, rel_tol=0.05)
    assert chinchilla.outside(params, tokens) == ["params", "tokens", "compute"]
    assert chinchilla.outside(1e9, 20e9) == []


def test_rounded_constants_predict_too_much_loss():
    runs = _fit.read(RUNS).without(EPOCH_DROPPED)
    printed = law.load("chinchilla-2022").constants
    off = np.log(additive.loss(printed, runs.params, runs.tokens)) - np.log(runs.loss)
    assert isclose(off.mean(), 0.0167, abs_tol=0.0005)


def test_inference_demand_makes_smaller_models_cheaper():
    """Sardana et al.: a 13 B model's quality over 2 T tokens of inference: 7 B, 1.7e22 FLOPs (17 %) less."""
    c = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.336, "beta": 0.283}
    tokens = (c["beta"] * c["B"] / (c["alpha"] * c["A"]) * 13e9 ** c["alpha"]) ** (1 / c["beta"])
    target = additive.loss(c, 13e9, tokens)

    def total(n):
        d = _search.crossing(lambda d: additive.loss(c, n, d), target, 1e9, 1e15)
        return 6 * n * d + 2 * n * 2e12 if d else 1e30

    best = _search.lowest(total, 4e9, 13e9)
    saved = 6 * 13e9 * tokens + 2 * 13e9 * 2e12 - total(best)
    assert isclose(best, 7e9, rel_tol=0.01)
    assert isclose(saved, 1.7e22, rel_tol=0.01)
    assert isclose(saved / (6 * 13e9 * tokens + 2 * 13e9 * 2e12), 0.17, abs_tol=0.005)


@pytest.mark.parametrize("name", [x.id for x in law.every() if x.has_loss])
@given(flops=st.floats(1e18, 1e26))
@settings(max_examples=10, deadline=None)
def test_an_optimum_in_closed_form_is_where_a_search_finds_it(name, flops):
    found = law.load(name)
    params, tokens = found.optimum(flops)
    assert isclose(6 * params * tokens, flops)
    searched = _search.lowest(lambda n: found.loss(n, flops / 6 / n), params / 1e3, params * 1e3)
    assert isclose(params, searched, rel_tol=1e-3)


@pytest.mark.slow
@given(flops=st.floats(1e19, 1e24), unique=st.floats(1e8, 1e12))
@settings(max_examples=30, deadline=None)
def test_repeating_data_is_worth_less_than_fresh_data_and_more_than_none(flops, unique):
    found = law.load("muennighoff")
    fresh = found.loss(*found.optimum(flops))
    params, tokens = found.optimum(flops, unique=unique)
    repeated = found.loss(params, tokens, unique=unique)
    assert fresh <= repeated * (1 + 1e-9)
    nearby = min(found.loss(params * f, tokens / f, unique=unique) for f in (0.9, 1.1))
    assert repeated <= nearby * (1 + 1e-9)
    assert unique <= tokens * 1.000001 or isclose(fresh, repeated)


FITTED = {"E": 1.81722, "A": 477.87, "B": 2142.96, "alpha": 0.34732, "beta": 0.36716}  # Huber, delta 1e-3
ABSOLUTE = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}  # Epoch, as printed
ERRORS = {"E": 0.026, "A": 116, "B": 1426, "alpha": 0.0147, "beta": 0.0208}  # of another implementation


@pytest.fixture(scope="module")
def epoch():
    return _fit.fit(_fit.read(RUNS).without(EPOCH_DROPPED), 300)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTED)
def test_the_fit_of_chinchilla_s_runs(epoch, name):
    assert isclose(epoch.constants[name], FITTED[name], rel_tol=5e-4)
    assert isclose(epoch.absolute[name], ABSOLUTE[name], rel_tol=5e-4)
    # Of 300 samples an error is known to 4 %; A and B have long tails.
    assert isclose(epoch.errors()[name], ERRORS[name], rel_tol=0.35 if name in "AB" else 0.15)
    low, high = epoch.intervals()[name]
    assert low < FITTED[name] < high


def test_outliers_are_named_by_row():
    rows = [o.row for o in _fit.fit(_fit.read(RUNS), 1).outliers]
    assert set(EPOCH_DROPPED) <= set(rows)
    assert len(rows) <= 8


def test_of_few_runs_the_curve_through_five_makes_no_outlier_of_a_sixth():
    params, tokens = [1e7, 2e7, 4e7, 8e7, 16e7, 32e7, 64e7], [1e9, 1e9, 2e9, 2e9, 4e9, 8e9, 1e10]
    runs = _fit.runs({"params": params, "tokens": tokens, "loss": [3.2, 3.0, 2.8, 2.7, 2.5, 2.3, 2.2]})
    assert _fit.fit(runs, 1).outliers == ()


@pytest.mark.every(3)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("c", [(1.7, 400.0, 2000.0, 0.34, 0.36), (0.1, 30.0, 8.0, 0.6, 0.25)])
def test_constants_come_back_from_synthetic_noise(c, seed):
    true = dict(zip(additive.CONSTANTS, c, strict=True))
    random = np.random.default_rng(seed)
    params, tokens = np.exp(random.uniform(log(1e4), log(1e9), (2, 200)))
    loss = additive.loss(true, params, tokens) * np.exp(random.normal(0, 0.003, 200))
    loss[:3] *= 1.5  # and three runs that diverged
    found = _fit.fit(_fit.runs({"params": params, "tokens": tokens, "loss": loss}), 100)
    assert {2, 3, 4} <= {o.row for o in found.outliers}
    for name, value in true.items():
        assert abs(found.constants[name] - value) < 4.5 * found.errors()[name]
    assert isclose(found.constants["alpha"], true["alpha"], rel_tol=0.05)


def test_units_change_nothing_but_the_coefficients():
    runs = _fit.read(RUNS).without(EPOCH_DROPPED)
    one = _fit.fit(runs, 1).constants
    other = _fit.fit(runs._replace(tokens=runs.tokens / 1e9, loss=runs.loss / log(2)), 1).constants
    assert isclose(other["beta"], one["beta"], rel_tol=1e-5)
    assert isclose(other["E"], one["E"] / log(2), rel_tol=1e-5)
    assert isclose(other["B"], one["B"] / log(2) / 1e9 ** one["beta"], rel_tol=1e-4)


def test_a_fitted_law_is_a_law(tmp_path, capsys):
    path = tmp_path / "mine.json"
    flags = ["--drop", "2,3,4,5,6", "--bootstrap", "50", "--output", str(path), "--format", "json"]
    assert main(["fit-law", RUNS, *flags]) == 0
    answer = json.loads(path.read_text("utf-8"))
    assert answer["schema"] == "budget.law/1"
    assert (answer["points"], answer["dropped"]) == (240, [2, 3, 4, 5, 6])
    assert {"outliers", "constants", "intervals", "warnings"} <= set(answer)
    found = law.load(str(path))
    assert isclose(found.optimum(5.76e23)[0], 73.2e9, rel_tol=0.002)
    low, high = found.interval(lambda x: x.optimum(5.76e23)[0])
    assert low < 73.2e9 < high


def test_a_plan_by_a_fitted_law(tmp_path, capsys):
    """By its file and by what Python found, of the same runs: the same plan, at the law's own optimum."""
    path = tmp_path / "mine.json"
    assert main(["fit-law", RUNS, "--drop", "2,3,4,5,6", "--bootstrap", "50", "--output", str(path)]) == 0
    found = budget.fit_law(RUNS, drop=[2, 3, 4, 5, 6], bootstrap=50)
    assert found.to_dict() == json.loads(path.read_text("utf-8"))
    assert found.intervals.keys() == found.constants.keys() and "240 runs" in str(found)
    plan = budget.scale(compute=5.76e23, law=found)
    assert isclose(plan.params, 73.2e9, rel_tol=0.002)
    assert (plan.params, plan.loss) == (
        found.law.optimum(5.76e23)[0],
        found.law.loss(plan.params, plan.tokens),
    )
    capsys.readouterr()
    assert main(["scale", "--compute", "5.76e23", "--law", str(path)]) == 0
    assert "as in your runs" in " ".join(capsys.readouterr().out.split())
    assert str(plan).splitlines()[2:4] == str(budget.scale(compute=5.76e23, law=str(path))).splitlines()[2:4]


def test_runs_of_python():
    rows = list(csv.DictReader(Path(RUNS).read_text("utf-8").splitlines()))[5:]
    table = {k: [float(r[k]) for r in rows] for k in ("params", "tokens", "loss")}
    of_the_file = budget.fit_law(RUNS, drop=EPOCH_DROPPED, bootstrap=5)
    assert budget.fit_law(table, bootstrap=5).constants == of_the_file.constants


@pytest.mark.parametrize(("runs", "more", "says"), [
    (5, {}, "got int"),
    ({}, {}, "got dict; allowed: a CSV file, or a table"),
    ({key: [3] for key in ("params", "tokens", "loss")}, {}, "got 1 runs"),
    ({"params": [1] * 7, "tokens": [2] * 6, "loss": [3] * 7}, {}, "as many each"),
    ({"params": [1] * 6 + [-1], "tokens": [2] * 7, "loss": [3] * 7}, {}, "row 8, params: got -1"),
    (RUNS, {"drop": [1]}, "drop: got 1; allowed: rows from 2"),
    (RUNS, {"bootstrap": 0}, "bootstrap: got 0"),
])  # fmt: skip
def test_what_is_wrong_with_runs_of_python_is_said(runs, more, says):
    with pytest.raises(InputError, match=says):
        budget.fit_law(runs, **more)


# 104 models of three data sets, and the losses that they reached on four validation sets.
# Source: mlfoundations/scaling at a003c49, exp_data/models (hyperparameters) and exp_data/evals (losses)
GADRE = (Path(__file__).parent / "data/gadre_runs.csv").read_text("utf-8").splitlines()
SEEN = dict.fromkeys(("c4", "refinedweb", "open_lm"), (-0.08, 0.03)) | {"redpajama": (-0.05, 0.11)}


@pytest.mark.slow
@pytest.mark.parametrize("data", ["c4", "rpj", "rw"])
@pytest.mark.parametrize("loss", SEEN)
def test_thirty_small_runs_tell_of_those_with_up_to_49_times_the_compute(data, loss):
    """What docs/scaling.md quotes for the word EXTRAPOLATED."""
    rows = [r for r in csv.DictReader(GADRE) if r["data"] == data]  # the largest compute last
    columns = {k: [float(r[c]) for r in rows] for k, c in (("params",) * 2, ("tokens",) * 2, ("loss", loss))}
    runs = _fit.runs(columns)
    compute = runs.params * runs.tokens
    assert (np.diff(compute) >= 0).all()
    assert 30 < compute[-1] / compute[29] < 50
    fitted = _fit.fit(runs.without(runs.rows[30:]), 1).constants
    off = additive.loss(fitted, runs.params[30:], runs.tokens[30:]) / runs.loss[30:] - 1
    low, high = SEEN[loss]
    assert len(off) in (4, 5)
    assert low < off.min() <= off.max() < high


BAD = [
    ("params,tokens\n1,2\n", "no column loss"),
    ("", "no column params, tokens, loss"),
    ("params,tokens,loss\n" + "1e6,1e8,3\n" * 5, "got 5 runs"),
    ("params,tokens,loss\n" + "1e6,1e8,3\n" * 9, "params: fewer than 3"),
    ("params,tokens,loss\n" + "1e6,1e8,3\n" * 7 + "1e6,1e8,0\n", "row 9, loss: got '0'"),
    ("params,tokens,loss\n" + "1M,0.1B,3\n" * 7 + "1M,1 lot,2\n", "row 9, tokens: got '1 lot'"),
    ("params,tokens,loss\n", "got 0 runs"),
    ("params,tokens,loss\n" + "1e6,1e8,3\n" * 7 + "1e6,nan,2\n", "row 9, tokens: got 'nan'"),
    ("params,tokens,loss\n" + "1e6,1e8,3\n" * 7 + "-5,1e8,2\n", "row 9, params: got '-5'"),
    ("params,tokens,loss\n" + "1e6,1e8,3\n" * 7 + "1e6,1e8\n", "row 9, loss: got None"),
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[p for _, p in BAD])
def test_bad_runs_are_refused_by_row_and_column(tmp_path, text, problem):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=problem):
        _fit.read(str(path))


NO_LAWS = ["{}", "[]", "nonsense", '{"form": "os"}', '{"form": "additive", "constants": 3}']


@pytest.mark.parametrize("text", NO_LAWS)
def test_a_file_that_is_no_law_is_refused(tmp_path, text):
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no law"):
        law.load(str(path))


def test_few_runs_are_warned_of(tmp_path, capsys):
    rows = Path(RUNS).read_text("utf-8").splitlines()
    path = tmp_path / "few.csv"
    path.write_text("\n".join([rows[0], *rows[40::20]]))
    assert main(["fit-law", str(path), "--bootstrap", "20"]) == 0
    assert "11 runs are few" in capsys.readouterr().out
