"""A whole run of an estimated step: days, dollars, energy and carbon, by hand."""

import json
from math import isclose

import pytest

import budget
from budget.__main__ import main
from budget.errors import InputError


def test_a_run_of_tokens_by_hand():
    one = budget.estimate("gpt2", batch=8, device="a100")
    run = one.priced(tokens="10B", price=2, power=300, pue=1.2, grid=100)
    steps = 10e9 / (8 * 1024)
    hours = steps * one.times.step / 3600
    assert isclose(run.job.steps, steps)
    assert isclose(run.job.seconds, steps * one.times.step)
    assert isclose(run.job.low, run.job.seconds * one.interval[0])
    bill = run.job.bill
    assert isclose(bill.device_hours, hours)
    assert isclose(bill.usd, 2 * hours)
    assert isclose(bill.kwh, 0.3 * 1.2 * hours)
    assert isclose(bill.co2_kg, 0.1 * bill.kwh)
    assert isclose(run.cost()["usd_per_million"] * 10e9 / 1e6, bill.usd)
    assert one.job is None and run.times.step == one.times.step


def test_samples_and_epochs():
    images = budget.estimate("resnet50", batch=64, device="a100")
    assert isclose(images.priced(samples=1.28e6, epochs=90).job.work, 1.28e6 * 90)
    text = budget.estimate("gpt2", device="a100")
    assert isclose(text.priced(samples=1000).job.work, 1000 * 1024)
    assert isclose(text.priced(tokens=5, epochs=3).job.work, 15)


def test_inference_has_runs_too():
    step = budget.estimate("gpt2", mode="decode", batch=16, seq=512, device="a100")
    assert isclose(step.priced(tokens=1600).job.steps, 100)


BAD = [
    ({"tokens": 5, "samples": 5}, "tokens: got samples too"),
    ({"epochs": 5}, "epochs: of how much"),
    ({"tokens": 0}, "tokens: got 0"),
    ({"samples": "many"}, "samples: got 'many'"),
    ({"price": "free"}, "price: got 'free'; allowed: .*, or on-demand"),
    ({"grid": "Mars"}, "grid: unknown"),
]


@pytest.mark.parametrize(("given", "problem"), BAD, ids=[p for _, p in BAD])
def test_bad_runs_are_refused(given, problem, capsys):
    with pytest.raises(InputError, match=problem):
        budget.estimate("gpt2").priced(**given)
    assert main(["estimate", "gpt2", *(x for k, v in given.items() for x in (f"--{k}", str(v)))]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_network_of_images_has_no_tokens():
    with pytest.raises(InputError, match="works through images"):
        budget.estimate("resnet50").priced(tokens=5)


def test_the_command_line_says_it(capsys):
    flags = ["--device", "h100", "--tokens", "300B"]
    assert main(["estimate", "gpt2", *flags]) == 0
    out = capsys.readouterr().out
    assert "whole run   300.0 B tokens" in out and "CO2e" in out
    assert max(map(len, out.splitlines())) <= 80
    assert main(["estimate", "gpt2", *flags, "--format", "json"]) == 0
    job = json.loads(capsys.readouterr().out)["job"]
    assert {"tokens", "days", "usd", "kwh", "co2_kg", "devices"} <= set(job)
    assert main(["compare", "gpt2", "gpt2-xl", *flags]) == 0
    out = capsys.readouterr().out
    assert "dollars" in out and max(map(len, out.splitlines())) <= 80


def test_one_s_own_price_needs_no_run(capsys):
    assert main(["estimate", "gpt2", "--device", "h100", "--price", "1.25"]) == 0
    assert "at $1.25/h" in capsys.readouterr().out
