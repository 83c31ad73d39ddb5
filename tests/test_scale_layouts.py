"""The devices of `budget scale`: how many, laid out how, and what they hold."""

from math import isclose

import pytest

import budget
from budget.estimate import plan as layouts
from budget.runs.failures import goodput
from budget.scaling.backwards import _best
from budget.scaling.chain import sizes
from budget.scaling.shape import shape
from budget.scaling.utilisation import laid_out, one_device


def test_devices_are_laid_out_as_a_small_search_finds_best():
    plan = budget.scale(params="8B", tokens="1T", devices=64, device="h100", global_batch="4M-tokens")
    of = shape(8e9)
    found = layouts(of.preset, 64, config=of.config, device="h100", dtype="bf16", global_batch="4M-tokens")
    assert plan.network.spread.layout == found.best.layout
    assert plan.network.times.step == found.best.estimate.times.step
    answer = plan.to_dict()
    assert (answer["devices"], answer["layout"]["dp"]) == (64, found.best.layout.dp)
    assert answer["micro_batch"] == found.best.batch
    assert "the best of a small search" in str(plan)
    given = budget.scale(params="8B", tokens="1T", layout=found.best.layout, device="h100", global_batch=4e6)
    assert given.mfu.value <= plan.mfu.value or not given.network.fits  # nothing is recomputed there


def test_where_nothing_joins_the_devices_whole_runs_say_what_is_lost():
    plan = budget.scale(compute=1e20, devices=100_000)
    assert plan.ask.layout is None
    assert "published runs" in plan.mfu.what


def test_a_layout_s_communication_is_in_the_mfu():
    asked = {"params": "8B", "tokens": "1T", "device": "h100"}
    laid = budget.scale(**asked, layout="tp=2,dp=32", global_batch="4M-tokens")
    step = laid.network
    assert (laid.devices, step.devices) == (64, 64)
    assert isclose(step.model.tokens, 4e6, rel_tol=0.1)
    assert laid.mfu.value < one_device(budget.scale(**asked, devices=1).network).value
    assert laid.mfu.value / laid.mfu.low == pytest.approx(laid.network.interval[1])  # links, too
    kept = goodput(64).fraction
    seconds = 1e12 / step.model.tokens * step.times.step / kept
    assert isclose(laid.days * 86400, seconds * 8e9 / step.params.total)
    assert laid.to_dict()["layout"]["tp"] == 2
    month = budget.scale(layout="tp=8,dp=64", days=30)
    assert isclose(month.device_hours, 512 * 720)


def test_devices_that_nobody_named_are_whole_nodes():
    plan = budget.scale(usd=1e6, device="h100")
    assert plan.devices % 8 == 0
    assert 29 < plan.days <= 30
    assert budget.scale(compute=1e18, device="h100").devices == 1
    few = budget.scale(compute=2e21, device="h100")
    assert few.devices in (2, 4, 8) and 15 < few.days <= 30
    assert budget.scale(device="2x h100", days=3).devices == 2


@pytest.mark.parametrize(("usd", "params"), [(2000, "13B"), (5000, "30B"), (300, "8B")])
def test_a_plan_is_on_devices_that_hold_its_network(usd, params):
    """The states take 16 bytes a parameter: float32 weights, gradients and AdamW's two moments."""
    plan = budget.scale(usd=usd, params=params, device="h100")
    assert plan.devices * plan.network.device.usable_bytes >= plan.network.params.total * 16
    assert plan.days < 30
    assert "what holds the network" in str(plan).replace("\n              ", " ")


def test_one_device_that_is_too_small_is_told():
    plan = budget.scale(usd=2000, params="13B", device="h100", devices=1)
    assert f"DOES NOT FIT: {plan.holding} devices" in str(plan).replace("\n              ", " ")
    assert plan.holding * 79.6 > plan.network.params.total * 16 / 2**30


@pytest.mark.slow
@pytest.mark.parametrize("device", ["h100", "a100"])
def test_one_search_of_layouts_is_enough_for_a_size_near_the_first_guess(device, monkeypatch):
    from budget.scaling import backwards

    searched, search = [], backwards.layouts
    monkeypatch.setattr(backwards, "layouts", lambda *a, **k: searched.append(a) or search(*a, **k))
    plan = budget.scale(days=30, devices=64, device=device)
    assert len(searched) == 1
    again = _best(plan.ask, plan.params, plan.tokens)
    assert again.layout == plan.ask.layout


@pytest.mark.slow
def test_a_layout_that_memory_binds_is_the_best_of_the_sizes_around():
    """The largest network that 16 data-parallel A100s hold without recomputation is a little smaller than
    what their rate buys: against each size's own best layout, at the tokens of that layout's rate.
    """
    plan = budget.scale(days=30, devices=16, device="a100")
    assert plan.network.fits
    assert plan.compute == pytest.approx(plan.rate(plan.mfu.value) * 16 * 30 * 86400)
    for share in (0.8, 0.9, 1.05, 1.15):
        params = plan.params * share
        best = _best(plan.ask, params, plan.tokens)
        assert best.fits
        bought = sizes(plan.ask._replace(most=params), laid_out(best.estimate).value)
        tokens = bought[0] * bought[1] / params
        assert plan.loss < plan.ask.law.loss(params, tokens) * 1.001


def test_what_a_layout_holds_bounds_parameters_and_not_the_budget():
    plan = budget.scale(days=30, devices=16, device="a100", layout="dp=16,zero=3")
    held = plan.ask._replace(most=plan.params / 2)
    assert sizes(held, plan.mfu.value) == pytest.approx((plan.params / 2, plan.tokens * 2))
    assert sizes(held, plan.mfu.value / 100)[0] < plan.params / 2
