"""The search for a layout, against all layouts of small networks; what it says where none fits."""

import itertools
import json
from types import SimpleNamespace

import pytest

import budget
from budget.__main__ import main
from budget.errors import InputError
from budget.estimate import plan
from budget.layout import Alone, Layout, parse
from budget.plan import ranks
from budget.plan.divide import divide
from budget.search.best import search
from budget.search.bounds import Bounds, Stack
from budget.search.degrees import Facts, facts, layouts

SMALL = {"layers": 4, "d_model": 256, "heads": 8, "d_ff": 1024, "vocab": 8192, "context": 512}
TIGHT = "l4"


def small(**settings):
    return {"config": SMALL, "seq": 512, "device": "h100", "global_batch": 32, **settings}


def everything(model, devices, settings):
    """Samples a second of every layout that fits, tp, pp, dp, zero, recompute and micro-batch one by one."""
    degrees = [n for n in range(1, devices + 1) if devices % n == 0]
    for tp, pp, zero, micro in itertools.product(degrees, degrees, (1, 3), (1, 2, 4, 8)):
        if devices % (tp * pp) or (pp > 1 and zero == 3):
            continue
        for recompute in ("none", "selective", "full"):
            layout = {"tp": tp, "pp": pp, "dp": devices // (tp * pp), "zero": zero}
            try:
                e = budget.estimate(model, layout=layout, batch=micro, recompute=recompute, **settings)
                if e.fits:
                    yield float(e.model.samples / e.times.step)
            except InputError:
                continue


@pytest.mark.slow
def test_it_finds_about_the_best_of_all():
    settings, devices = small(), 8
    best = max(everything("transformer", devices, settings))
    found = plan("transformer", devices, **settings)
    assert found.best.fits
    assert found.best.rate >= 0.97 * best
    assert len(found.tried) < 80


def test_the_best_comes_first_and_all_have_the_devices():
    found = plan("transformer", 8, **small())
    fitting = [t for t in found.tried if t.fits]
    assert [t.rate for t in fitting] == sorted((t.rate for t in fitting), reverse=True)
    assert found.tried[: len(fitting)] == tuple(fitting)
    assert {t.layout.devices for t in found.tried} == {8}
    for t in found.tried:
        assert t.estimate.model.samples == 32


def test_a_stage_that_is_built_alone_is_that_of_its_pipeline():
    layout = {"tp": 2, "pp": 4, "dp": 2, "zero": 1}
    settings = small(config={**SMALL, "layers": 8}, recompute="full")
    whole = budget.estimate("transformer", layout=Layout(**layout), **settings).spread.ranks
    for stage in range(4):
        (alone,) = budget.estimate("transformer", layout=Alone(**layout, only=stage), **settings).spread.ranks
        assert alone in whole
        assert stage in alone.stages


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "config", "each"),
    [
        ("transformer", {**SMALL, "layers": 8}, 1),
        ("transformer", {**SMALL, "layers": 8, "experts": 8, "active_experts": 2, "expert_d_ff": 256}, 3),
        ("deepseek-v2-lite", {"layers": 9, "vocab": 8192}, 8),  # a dense layer comes first
        ("t5-small", {}, 2),  # two stacks
    ],
)
def test_no_layout_takes_less_than_its_bound(model, config, each):
    settings = small(config=config)

    def price(layout, batch, recompute):
        return budget.estimate(model, layout=layout, batch=batch, recompute=recompute, **settings)

    of = facts(budget.estimate(model, config=config, seq=512), 32, 1, "none")
    found = layouts(8, 8, of)
    bounds = Bounds(found, of.stack, 32, 1, price)
    for layout in found[::each]:
        for recompute in ("none", "full"):
            e = price(layout, 1, recompute)
            assert bounds.bytes(layout, 1, recompute) <= e.memory.peak, layout
            assert bounds.seconds(layout, 1, recompute) <= e.times.step, layout
    assert any(bounds.bytes(layout, 1, "none") for layout in found)


def test_the_bytes_bound_holds_where_weights_are_cast_and_gradients_come_late():
    """Of several samples a layer's casts are there once, of divided weights never."""

    def price(layout, batch, recompute):
        return budget.estimate(
            "llama-2-7b", layout=layout, batch=batch, recompute=recompute, device="h100", **given
        )

    for given in ({}, {"global_batch": 128}):
        of = facts(budget.estimate("llama-2-7b", device="h100"), given.get("global_batch", 0), 1, "none")
        bounds = Bounds(layouts(32, 8, of), of.stack, of.samples, 1, price)
        for degrees, batch in (
            ({"dp": 32, "zero": 3}, 4),
            ({"dp": 32, "zero": 1}, 4),
            ({"tp": 4, "dp": 8, "zero": 1}, 1),
        ):
            layout = Layout(**degrees)
            peak = price(layout, batch, "none").memory.peak
            assert 0.8 * peak < bounds.bytes(layout, batch, "none") <= peak, layout


@pytest.mark.slow
def test_without_a_global_batch_layouts_are_compared_by_samples_a_second():
    best = plan("llama-2-7b", 32, device="h100").best
    given = plan("llama-2-7b", 32, device="h100", global_batch=64).best
    assert best.rate >= given.rate
    assert best.layout.zero == 3
    assert best.layout.dp == 32
    assert best.recompute == "none"


def test_more_is_tried_with_the_recomputation_that_less_needed_until_it_does_not_fit():
    asked = []

    def price(layout, batch, recompute):
        asked.append((layout, batch, recompute))
        needed = batch * {"none": 10, "full": 3}[recompute]
        seconds = 1 / (batch * layout.vpp)
        return SimpleNamespace(
            fits=needed <= 8,
            needed=needed,
            device=SimpleNamespace(usable_bytes=8),
            model=SimpleNamespace(samples=32),
            times=SimpleNamespace(step=seconds),
        )

    choices = {"batches": (1, 2, 4, 8), "recomputed": ("none", "full"), "memory": 8}
    of = Facts(Stack(4, 0, 4, 1), heads=2, experts=0, seq=512, samples=32, trains=True, **choices)
    found = search(2, 2, of, price)
    least = [(1, "none"), (1, "full"), (2, "full"), (4, "full")]
    for layout in {layout for layout, *_ in asked if layout.vpp == 1}:
        assert [(batch, how) for known, batch, how in asked if known == layout] == least
    assert [(batch, how) for layout, batch, how in asked if layout.vpp > 1] == [(2, "full")]
    assert (found.best.layout.vpp, found.best.batch) == (2, 2)


def test_what_divides_a_network_alike_divides_it_once(monkeypatch):
    divided = []
    monkeypatch.setattr(ranks, "divide", lambda *given: divided.append(given) or divide(*given))
    settings = small(
        config={**SMALL, "vocab": 8190}, global_batch=None, optimizer="adamw", precision="master"
    )
    for more in ({}, {"recompute": "full"}, {"accumulate": 4}):
        for dp in (2, 4):
            budget.estimate("transformer", layout={"tp": 2, "dp": dp, "zero": 1}, **settings, **more)
    assert len(divided) == 1
    budget.estimate("transformer", layout={"tp": 4, "dp": 2, "zero": 1}, **settings)
    assert len(divided) == 2


@pytest.mark.slow
def test_where_nothing_fits_the_nearest_comes_first():
    found = plan("llama-3-70b", 2, device=TIGHT, seq=128, global_batch=2)
    assert not any(t.fits for t in found.tried)
    assert found.best.lacks == min(t.lacks for t in found.tried) > 0
    assert len({t[:3] for t in found.tried}) == len(found.tried)


def test_a_network_without_layers_is_laid_out_too():
    assert plan("mlp", 4, device="h100", global_batch=64).best.layout.dp == 4


@pytest.mark.slow
def test_an_estimate_of_devices_without_a_layout_has_the_best_and_says_so():
    e = budget.estimate("transformer", devices=8, **small())
    best = plan("transformer", 8, **small()).best
    assert e.spread.layout == best.layout
    assert e.searched > 1
    assert e.devices == 8
    assert e.to_dict()["layout"] is not None


def test_what_is_given_is_not_searched():
    found = plan("transformer", 8, batch=2, recompute="full", **small())
    assert {t.batch for t in found.tried} == {2}
    assert {t.recompute for t in found.tried} == {"full"}


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "by"), [("llama.cpp", "pp"), ("transformers", "pp"), ("vllm", "tp")])
def test_devices_serve_one_sequence_as_their_software_divides_it(stack, by):
    settings = {"mode": "decode", "seq": 512, "stack": stack}
    one = budget.estimate("llama-3-8b", device="a100", **settings)
    two = budget.estimate("llama-3-8b", device="2x a100", **settings)
    assert two.model.samples == 1
    assert {axis: getattr(two.spread.layout, axis) for axis in ("tp", "pp", "dp")} == {
        **dict.fromkeys(("tp", "pp", "dp"), 1), by: 2,
    }  # fmt: skip
    # By layers, a token passes through one device after the other, as through the one that has all of them.
    times = two.times.step / one.times.step
    assert (0.8 < times < 1.1) if by == "pp" else (0.5 < times < 0.8)


def test_what_nothing_else_divides_is_divided_by_layers():
    settings = {"mode": "decode", "seq": 512, "device": "a100"}
    assert plan("llama-3-8b", 3, **settings).best.layout.pp == 3  # of 32 heads
    with pytest.raises(InputError, match="got 64; no layout of so many"):  # of 32 layers
        plan("llama-3-8b", 64, **settings, stack="llama.cpp")


def test_an_engine_on_several_nodes_divides_heads_within_them_and_layers_over_them():
    """As vLLM's documentation advises, for whom one sequence of Kimi K2 on two nodes is tp 8 x pp 2."""
    layout = plan("kimi-k2", 16, mode="decode", device="h200", stack="vllm", seq=4096).best.layout
    assert (layout.tp, layout.pp, layout.dp) == (8, 2, 1)


def test_experts_are_spread():
    moe = {**SMALL, "experts": 8, "active_experts": 2, "expert_d_ff": 256}
    found = plan("transformer", 8, **small(config=moe))
    assert {t.layout.ep for t in found.tried} >= {1, 8}


@pytest.mark.parametrize(
    ("settings", "devices", "message"),
    [
        (small(), 0, "devices: got 0"),
        (small(global_batch=3), 7, "devices: got 7; "),
        (small(cluster="jean-zay-a100", device="a100"), 1024, "devices: got 1,024; allowed: up to 416"),
        (small(layout="tp=2,dp=1"), 4, "devices: got 4; allowed: the layout's 2"),
    ],
)
def test_errors(settings, devices, message):
    with pytest.raises(InputError, match=message):
        budget.estimate("transformer", devices=devices, **settings)


def test_the_devices_that_a_layout_leaves_are_dp():
    asked = small(layout="tp=2,zero=1")
    assert budget.estimate("transformer", devices=8, **asked).task.layout == parse("tp=2,zero=1,dp=4")
    with pytest.raises(InputError, match=r"^devices: got 7; allowed: the layout's 2"):
        budget.estimate("transformer", devices=7, **small(layout="tp=2"))


def test_what_divides_over_dp_alone_needs_one():
    with pytest.raises(InputError, match=r"^layout.zero: got 3; allowed: with dp"):
        budget.estimate("transformer", **small(layout="zero=3"))


def test_the_command(capsys):
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()]
    asked = [
        "plan",
        "--arch",
        "transformer",
        *flags,
        "--devices",
        "4",
        "--global-batch",
        "16",
        "--device",
        "h100",
    ]
    assert main([*asked, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "budget.plan/1"
    assert answer["evaluated"] == len(answer["layouts"])
    assert {"layout", "step_s", "mfu", "memory_bytes_peak"} <= answer["layouts"][0].keys()
    assert main(asked) == 0
    assert "layouts" in capsys.readouterr().out
    assert main(["plan", "gpt2"]) == 2
    assert "--devices" in capsys.readouterr().err


def test_a_cluster_brings_its_device(capsys):
    asked = ["estimate", "gpt2", "--cluster", "dgx-a100", "--layout", "dp=2", "--format", "json"]
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["device"]["id"] == "a100-80gb"
    assert main([*asked, "--device", "t4"]) == 2
    assert "dgx-a100 joins" in capsys.readouterr().err
