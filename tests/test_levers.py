"""`budget sensitivity`: each input at its ends, the one that moves most first."""

import csv
import json
import os
from math import isclose

import pytest

import budget
from budget import device
from budget.__main__ import main
from budget.errors import InputError
from budget.runs import cost
from budget.scaling.levers import sensitivity


def found(**asked):
    return {m.input: m for m in sensitivity(budget.scale(**asked)).moved}


def test_factors_by_hand():
    base = budget.scale(params=8e9, tokens=15e12, device="h100")
    moved = {m.input: m for m in sensitivity(base).moved}
    price = base.ask.terms.price
    low, high = moved["price"].factors("dollars", base)
    assert isclose(low, price.low / price.value) and isclose(high, price.high / price.value)
    assert moved["price"].factors("energy", base) == (1, 1)
    low, high = moved["MFU"].factors("energy", base)
    assert isclose(low, base.mfu.value / base.mfu.low) and isclose(high, base.mfu.value / base.mfu.high)
    low, high = moved["grid"].factors("carbon", base)
    assert isclose(high, 821.391 / 369.473)


def test_of_a_budget_in_dollars_the_price_moves_the_compute():
    base = budget.scale(usd=1e6, device="h100")
    moved = {m.input: m for m in sensitivity(base).moved}
    low, high = moved["price"].factors("compute", base)
    price = base.ask.terms.price
    assert isclose(low, price.value / price.low) and isclose(high, price.value / price.high)
    assert all(isclose(p.bill.usd, 1e6) for m in moved.values() for p in m.plans)


def test_what_is_stated_does_not_move():
    stated = {"mfu": 0.4, "price": 2, "pue": 1.1, "grid": 100, "power": 400}
    assert list(found(params=8e9, tokens=15e12, device="a100", **stated)) == []


def test_the_largest_comes_first():
    of = sensitivity(budget.scale(usd=1e6))
    sizes = [m.size(of.base) for m in of.moved]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown", "html"])
def test_every_format(capsys, form):
    assert main(["sensitivity", "--usd", "1e6", "--format", form]) == 0
    out = capsys.readouterr().out
    assert "MFU" in out
    assert form != "table" or max(map(len, out.splitlines())) <= 80
    if form == "json":
        answer = json.loads(out)
        assert answer["schema"] == "budget.sensitivity/1"
        assert {"input", "low", "high", "compute", "loss"} <= set(answer["inputs"][0])
    if form == "csv":  # a number a cell
        for row in csv.DictReader(out.splitlines()):
            assert all(float(value) for name, value in row.items() if name != "input")


def test_measured_power_is_the_driver_s(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 431.5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)  # no package
    assert cost.terms(device.load("h100"), power="measured").watts.value == 431.5
    program.write_text("#!/bin/sh\necho '[N/A]'\n")
    with pytest.raises(InputError, match="power: no NVIDIA GPU"):
        cost.terms(device.load("h100"), power="measured")
