"""`budget scale`: the chain from a budget to a model and back, its units, its money, and what it refuses."""

import json
import subprocess
import sys
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import budget
from budget import device, law, table
from budget.__main__ import main
from budget.errors import InputError
from budget.runs import cost

CONTRACT = {
    "schema", "params", "tokens", "compute_flops", "loss", "loss_low", "loss_high", "days", "devices",
    "device", "usd", "kwh", "co2_kg", "law", "extrapolated", "model",
}  # fmt: skip


BUDGETS = [
    {"compute": 1e22},
    {"usd": 1e6},
    {"kwh": 4e5},
    {"loss": 2.1},
    pytest.param({"devices": 512, "days": 30}, marks=pytest.mark.slow),
    {"params": 8e9},
    {"tokens": 15e12},
]


@pytest.mark.parametrize("asked", BUDGETS, ids=lambda a: next(iter(a)))
def test_every_budget_is_spent_and_the_chain_holds(asked):
    plan = budget.scale(**asked, device="h100")
    answer = plan.to_dict()
    assert set(answer) >= CONTRACT
    names = {"compute": "compute_flops"}
    for name, value in asked.items():
        assert isclose(answer[names.get(name, name)], value, rel_tol=1e-6), name
    assert isclose(answer["compute_flops"], 6 * answer["params"] * answer["tokens"])
    hours = answer["compute_flops"] / (989e12 * answer["mfu"]) / 3600
    assert isclose(answer["device_hours"], hours)
    assert isclose(answer["days"] * 24 * answer["devices"], hours)
    assert isclose(answer["usd"], hours * answer["inputs"]["usd_per_hour"]["value"])
    assert isclose(answer["kwh"], hours * 0.7 * 1.15)
    assert isclose(answer["co2_kg"], answer["kwh"] * 0.369473)
    if "loss" not in asked:
        assert answer["loss_low"] < answer["loss"] < answer["loss_high"]
    assert answer["mfu_low"] < answer["mfu"] < answer["mfu_high"]
    params, tokens = law.load("chinchilla").optimum(answer["compute_flops"])
    assert isclose(answer["params"], params, rel_tol=1e-6) and isclose(answer["tokens"], tokens, rel_tol=1e-6)


@given(exponent=st.floats(19, 25), share=st.floats(0.3, 1.5))
@settings(max_examples=15, deadline=None)
def test_a_side_that_is_fixed_stays_and_is_no_better_than_the_optimum(exponent, share):
    best = budget.scale(compute=10**exponent, mfu=0.4)
    own = budget.scale(compute=10**exponent, params=best.params * share, mfu=0.4)
    assert own.params == best.params * share
    assert isclose(own.compute, best.compute)
    assert own.loss >= best.loss * (1 - 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [{}, {"params": 1e9}, {"tokens": 5e11}], ids=str)
def test_the_way_back_from_a_loss(fixed):
    """By hand: at what the plan trains the law has the loss, and its samples' computes lie around it."""
    c = law.load("chinchilla").constants
    plan = budget.scale(loss=2.4, **fixed)
    at = c["E"] + c["A"] / plan.params ** c["alpha"] + c["B"] / plan.tokens ** c["beta"]
    assert isclose(at, 2.4, rel_tol=1e-9)
    again = budget.scale(compute=plan.compute, **fixed)
    assert isclose(again.loss, 2.4, rel_tol=1e-9) and isclose(again.params, plan.params, rel_tol=1e-4)
    low, high = plan.compute_ends
    assert low < plan.compute < high
    hours = plan.hours_ends
    assert (
        isclose(hours[0], low / plan.rate(plan.mfu.high) / 3600) and hours[0] < plan.device_hours < hours[1]
    )


def test_a_loss_that_some_of_the_law_s_samples_never_reach_has_no_upper_end():
    """E of Chinchilla's bootstrap samples goes up to 1.86."""
    plan = budget.scale(loss=1.85)
    assert plan.compute_ends is None and plan.ends("params") is None and plan.hours_ends is None
    assert plan.to_dict()["compute_flops_high"] is None


def test_a_step_is_a_power_of_two_near_what_its_law_says():
    plan = budget.scale(compute=8.456e22)  # DeepSeek LLM 7B's
    assert plan.batch == 2**23  # 9.4 M tokens
    assert isclose(plan.learning_rate, 4.2e-4, rel_tol=0.015)
    assert budget.scale(compute=1e22, global_batch="4M-tokens").batch == 488 * 8192
    laid = budget.scale(params="8B", tokens="1T", layout="tp=2,dp=96")
    assert laid.batch % (96 * 8192) == 0
    assert isclose(laid.batch, 2**23, rel_tol=0.1)


@pytest.mark.slow
def test_intervals_hold_what_they_are_of():
    plan = budget.scale(usd=1e6, device="h100")
    answer = plan.to_dict()
    for name in ("params", "tokens", "compute_flops", "days", "device_hours", "kwh", "co2_kg"):
        assert answer[f"{name}_low"] < answer[name] < answer[f"{name}_high"], name
    price, watts = answer["inputs"]["usd_per_hour"], answer["inputs"]["watts"]
    assert isclose(answer["device_hours_high"], 1e6 / price["low"])
    assert isclose(answer["compute_flops_low"] / answer["compute_flops"], answer["mfu_low"] / answer["mfu"])
    fewest = answer["device_hours_low"] / answer["device_hours"]
    assert isclose(answer["kwh_low"] / answer["kwh"], 0.85 * fewest) and isclose(watts["high"], 8400 / 8)
    assert answer["usd_low"] == answer["usd"] == answer["usd_high"]
    fixed = budget.scale(params="8B", tokens="1T", device="h100")
    assert (fixed.ends("params"), fixed.ends("tokens"), fixed.compute_ends) == (None, None, None)
    assert isclose(fixed.hours_ends[1] / fixed.device_hours, fixed.mfu.value / fixed.mfu.low)
    dear = fixed.ask.terms.price.high
    assert isclose(fixed.bill.usd_high, fixed.hours_ends[1] * dear)
    given = budget.scale(kwh=1e6, device="h100").bill
    assert given.kwh_low == given.kwh and given.co2_kg_high == given.co2_kg and given.usd_low < given.usd
    exact = budget.scale(params="8B", tokens="1T", device="h100", mfu="40%", price=2, power=700)
    assert exact.hours_ends is None and exact.bill.kwh_low == exact.bill.kwh
    months = budget.scale(devices=512, days=30).to_dict()
    assert months["days_low"] is None and months["params_low"] < months["params"]


def test_more_money_buys_a_lower_loss():
    plans = [budget.scale(usd=usd, device="h100") for usd in (1e4, 1e5, 1e6, 1e7)]
    assert sorted((p.loss for p in plans), reverse=True) == [p.loss for p in plans]
    assert sorted(p.params for p in plans) == [p.params for p in plans]


BAD = [
    ({}, "plan: got no budget"),
    ({"compute": 1e20, "usd": 5}, "plan: got compute and usd"),
    ({"devices": 8}, "plan: got no budget"),
    ({"devices": 8, "days": 30, "usd": 5}, "plan: got usd, and devices with days"),
    ({"devices": 1.5, "days": 30}, "devices: got 1.5"),
    ({"compute": 0}, "compute: got 0"),
    ({"compute": float("nan")}, "compute: got nan"),
    ({"usd": -5}, "usd: got -5"),
    ({"usd": 1e6, "device": "cpu"}, "price: none of"),
    ({"kwh": 1e6, "device": "cpu"}, "power: none of"),
    ({"compute": 1e20, "mfu": 1.5}, "mfu: got 1.5"),
    ({"compute": 1e20, "law": "pearce-song"}, "law: pearce-song says nothing"),
    ({"compute": 1e20, "law": "murphy"}, "law: unknown name"),
    ({"compute": 1e20, "price": "reserved", "device": "rtx-4090"}, "price: no reserved price"),
    ({"loss": 1.8}, "loss: got 1.8; allowed: above 1.817"),
    ({"loss": 5e6}, "loss: got 5e.06; allowed: below"),
    ({"loss": 2, "params": 1e9}, "loss: got 2; allowed: above 2.17"),
    ({"loss": 2, "law": "kaplan"}, "law: kaplan says nothing of a loss"),
    ({"loss": 2, "usd": 1e6}, "plan: got usd and loss"),
    ({"compute": 1e20, "pue": 0.5}, "pue: got 0.5"),
    ({"compute": 1e20, "grid": "Atlantis"}, "grid: unknown name"),
    ({"compute": 1e20, "dtype": "fp3"}, "dtype"),
    ({"compute": 1e20, "experts": 0.5}, "experts: got"),
    ({"compute": 1e20, "layout": "xp=3"}, "layout"),
    ({"compute": 1e20, "layout": "tp=8", "devices": 3}, "devices: got"),
    ({"compute": 1e20, "layout": "tp=8", "global_batch": 0}, "global_batch: got"),
]


@pytest.mark.parametrize(("asked", "problem"), BAD, ids=[p for _, p in BAD])
def test_bad_budgets_are_one_line(asked, problem, capsys):
    with pytest.raises(InputError, match=problem):
        budget.scale(**asked)
    flags = [x for k, v in asked.items() for x in (f"--{k.replace('_', '-')}", str(v))]
    assert main(["scale", *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize(("typed", "meant"), [("--energy", "--kwh"), ("--target-loss", "--loss")])
def test_other_words_for_a_budget_are_told_the_flag(typed, meant, capsys):
    assert main(["scale", typed, "2"]) == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def test_prices_are_medians_of_what_was_read():
    h100 = device.load("h100")
    listed = cost.usd_per_hour(h100)
    assert listed.low < listed.value < listed.high
    assert listed.what.startswith("on-demand, median of")
    assert cost.usd_per_hour(h100, "spot").value < listed.value
    assert cost.usd_per_hour(h100, "2.5").value == 2.5
    recalled = cost.usd_per_hour(device.load("rtx-4090"))
    assert "recalled" in recalled.what
    assert cost.usd_per_hour(device.load("h20")) is None


def test_a_bill_by_hand():
    terms = cost.terms(device.load("a100"), price=2, power=400, pue=1.1, grid=385)
    found = cost.bill(terms, 1_022_362)  # LLaMA-65B's device-hours
    assert found.usd == 2_044_724
    assert isclose(found.kwh, 449_839.28)
    assert isclose(found.co2_kg, 173_188.1228)
    assert (found.usd_low, found.usd_high) == (found.usd, found.usd)
    unsure = cost.bill(terms, 1_022_362, (1e6, 1.1e6))
    assert (unsure.usd_low, unsure.usd, unsure.usd_high) == (2e6, found.usd, 2.2e6)


def test_a_law_of_one_s_own(tmp_path, capsys):
    about = {
        "name": "mine", "form": "additive", "range": {"params": [1e3, 1e6]},
        "constants": {"E": 0.1, "A": 30.0, "B": 8.0, "alpha": 0.6, "beta": 0.25},
        "draws": {"E": [0.1], "A": [30.0], "B": [8.0], "alpha": [0.6], "beta": [0.25]},
    }  # fmt: skip
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(about))
    assert main(["scale", "--compute", "1e15", "--law", str(path), "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = law.load("chinchilla")._replace(constants=about["constants"]).optimum(1e15)[0]
    assert isclose(answer["params"], expected)


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown", "html"])
def test_a_plan_has_every_format_but_the_picture(capsys, form):
    flags = ["--inference-tokens", "1T", "--unique-tokens", "10B", "--experts", "8", "--format", form]
    assert main(["scale", "--usd", "1e5", *flags]) == 0
    out = capsys.readouterr().out
    assert "mfu" in out
    assert form != "table" or max(map(len, out.splitlines())) <= 80
    assert form != "table" or "EXTRAPOLATED" in out


SPREAD = (
    "estimate llama-3-8b --device h100 --layout dp=256,zero=3 --tokens 1T --recompute full --loss-chunk 8"
)


@pytest.mark.parametrize("command", ["scale --usd 1e6 --device h100", SPREAD])
def test_every_word_of_an_answer_is_explained(capsys, command):
    terms = table.load("explain.json")
    assert main(command.split()) == 0
    summary = capsys.readouterr().out.partition("same loss from")[0].splitlines()
    said = {line.split()[0] for line in summary if line and line[0] != " "}
    assert said - set(terms) <= {"llama-3-8b:", "training:"}
    assert "extrapolated" in terms and "whole" in terms


def test_laws_are_listed(capsys):
    assert main(["list", "laws", "--format", "json"]) == 0
    assert [x["law"] for x in json.loads(capsys.readouterr().out)] == list(law.names())
    assert main(["list", "laws", "llama-3"]) == 0
    assert "the exponent is rounded" in capsys.readouterr().out


def test_planning_needs_no_numpy():
    code = "import budget, sys; budget.scale(usd=1e6); budget.scale(usd=1e6); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
