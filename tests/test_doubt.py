"""Intervals on several devices: the kernels' own, and what links may carry."""

import math

import numpy as np
import pytest
from budget.bench.published.together import publications

import budget
from budget import table
from budget.answer.unsaid import unsure
from budget.device.generation import together
from budget.fold.doubt import WITHIN, both, carrying

ON = {"batch": 4, "seq": 512, "precision": "autocast"}


def width(found):
    t = found.seconds()
    return t["high"] / t["step"], t["step"] / t["low"]


def test_one_device_has_its_kernels_own():
    e = budget.estimate("gpt2", device="h100", **ON)
    assert e.interval == tuple(end ** unsure(e) for end in (e.profile.low, e.profile.high))


def test_links_between_boards_of_a_desktop_are_less_sure_than_nvlink():
    asked = {**ON, "layout": "tp=2", "stack": "torch-compile", "mode": "prefill"}
    own, desk = (budget.estimate("gpt2", device=device, **asked) for device in ("h100", "4090"))
    assert width(own)[0] < 1.1 * own.profile.high ** unsure(own)
    assert width(desk)[0] > 1.5 * desk.profile.high ** unsure(desk)


@pytest.mark.parametrize("layout", ["dp=2", "dp=2,zero=3", "tp=2", "pp=2"])
def test_it_is_what_slower_and_faster_links_take(layout):
    e = budget.estimate("gpt2", device="4090", layout=layout, global_batch=8, **ON)
    besides = math.log(together(e.stack.name, e.device.generation))
    for sign, end, own in ((-1, e.interval[1], e.profile.high), (1, 1 / e.interval[0], 1 / e.profile.low)):
        moved = budget.estimate(
            "gpt2", device="4090", layout=layout, global_batch=8, cluster=carrying(e.cluster, sign), **ON
        )
        other = abs(math.log(moved.times.step / e.times.step))
        assert math.log(end) == pytest.approx(math.hypot(math.log(own) * unsure(e), other, besides))


def test_independent_factors():
    assert both(1.0, 1.5) == pytest.approx(1.5)
    assert both(2.0, 2.0) == pytest.approx(2 ** math.sqrt(2))
    assert both(1.3, np.array([1.0, 2.0]))[0] == pytest.approx(1.3)


def test_an_array_of_batches_has_an_interval_each():
    e = budget.estimate("gpt2", device="4090", layout="dp=2", batch=np.array([1, 64]), seq=512)
    low, high = e.interval
    assert high[0] > high[1]
    assert low[0] <= low[1]


def test_every_kind_of_link_is_known():
    from budget.cluster import KINDS

    assert set(WITHIN) == set(KINDS)


def test_the_fewer_publications_the_less_sure_is_training_on_several_and_serving_is_sure():
    def known(**asked):
        e = budget.estimate("gpt2", layout="dp=8", batch=8, seq=512, **asked)
        return together(e.stack.name, e.device.generation), e.interval[1] / e.profile.high ** unsure(e)

    for stack, device, factor, least in (
        ("torch-compile", "h100", 1.25, 1.0),
        ("torch-eager", "h100", 2.25, 1.5),
        ("torch-eager", "b300", 3.0, 1.5),
    ):
        found, wider = known(stack=stack, device=device)
        assert found == factor
        assert least < wider < factor
    assert known(stack="torch-eager", device="b300", mode="prefill")[1] < 1.2


def test_a_stack_that_shares_another_one_s_rows_is_as_sure():
    asked = {"device": "a100", "layout": "dp=8", "batch": 64}
    shared, own = (budget.estimate("resnet50", stack=name, **asked) for name in ("timm", "torch-eager"))
    assert shared.stack.same == own.stack.name
    assert shared.interval == pytest.approx(own.interval)


def test_a_repository_s_threads_are_one_publication(tmp_path):
    head = "source,id,model,seq,global_batch,micro_batch,gpu,n_gpus,precision,tokens_per_s_per_gpu,notes\n"
    rows = (
        f"{source} (PyTorch eager),{n},GPT-2,1024,64,8,A100,8,bf16,9000,\n"
        for n, source in enumerate(("own/name issue 1", "own/name@1234567 README.md", "a blog on A100s"))
    )
    path = tmp_path / "rows.csv"
    path.write_text(head + "".join(rows))
    assert publications([str(path)]) == {"torch-eager": {"sm80": 2}}


def test_the_publications_are_those_of_the_table():
    assert publications(["tests/data/training_throughput.csv"]) == table.load("together.json")["publications"]
