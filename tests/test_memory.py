"""The walk over lifetimes: against the same program written out, and by its properties."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import arch, estimate
from budget.config import Workload, make
from budget.fold.curve import MOST, over_time, unrolled
from budget.fold.memory import memory
from budget.ir import Block, Model, block, link, op
from budget.plan.backward import backward
from budget.plan.optimizer import optimizer
from budget.plan.recompute import CHOICES, recompute


def program(nodes, sizes, choice="none"):
    linked, ends = link(nodes, sizes)
    return optimizer(recompute(backward(Model("t", "t", linked, {}, ends)), choice), "adamw")


def layer(i=""):
    """A residual layer; with a number, one of several with names of their own."""
    return (
        op(f"norm{i}", "x:, *d, +*d -> n:", "layer_norm"),
        op(f"up{i}", "n: b d, *d f, +*f -> u: b f"),
        op(f"act{i}", "u: -> g:", "gelu"),
        op(f"down{i}", "g:, *f d, +*d -> m: b d"),
        op(f"add{i}", "x:, m: -> x:", "add"),
    )


START = op("in", "!raw: b c, *c d -> x: b d")


@pytest.mark.parametrize("within", [False, True])
def test_a_block_that_never_runs_is_not_there(within):
    sizes, never = dict(b=3, c=3, d=5, f=7, e=9), block("never", layer(), 0)
    head = op("head", "x: b d, *d e -> y: b e")
    some = (
        (block("outer", (*layer(), never), 4), head) if within else (block("layers", layer(), 4), never, head)
    )
    without = (block("outer", layer(), 4), head) if within else (block("layers", layer(), 4), head)
    assert program((START, *some), sizes) == program((START, *without), sizes)


def test_networks_without_some_of_their_layers():
    layers = {"layers": 4, "experts": 4, "d_ff": 64}
    dense, all_dense = ({"experts": 0}, {"dense_layers": 4})
    a, b = (estimate("transformer", config={**layers, **c}).memory.peak for c in (dense, all_dense))
    assert a == b
    assert estimate("deepspeech2", config={"layers": 1}, freeze="conv,rnn0").memory.peak > 0


@given(n=st.integers(1, 12), b=st.integers(1, 50), d=st.integers(1, 50), f=st.integers(1, 50))
def test_a_block_is_its_layers_written_out(n, b, d, f):
    sizes = dict(b=b, c=3, d=d, f=f)
    stored = memory(program((START, block("layers", layer(), n)), sizes), "float32")
    written = memory(program((START, *(o for i in range(n) for o in layer(i))), sizes), "float32")
    for field in ("parameters", "gradients", "optimizer", "activations", "peak"):
        assert getattr(stored, field) == getattr(written, field), field


@given(outer=st.integers(1, 7), inner=st.integers(1, 7))
def test_blocks_within_blocks(outer, inner):
    sizes = dict(b=5, c=3, d=7, f=11)
    nested = block(
        "stages", (block("layers", layer(), inner), op("mid", "x: b d, *d e -> x: b d", e=7)), outer
    )
    nodes = [START]
    for i in range(outer):
        nodes += [o for j in range(inner) for o in layer(f"{i}.{j}")]
        nodes.append(op(f"mid{i}", "x: b d, *d e -> x: b d", e=7))
    ours, written = (memory(program(p, sizes), "float32") for p in ((START, nested), nodes))
    assert (ours.peak, ours.activations, ours.gradients) == (
        written.peak,
        written.activations,
        written.gradients,
    )


@given(outer=st.integers(1, 6), inner=st.integers(1, 6))
def test_the_curve_of_a_block_is_that_of_its_layers_written_out(outer, inner):
    sizes = dict(b=5, c=3, d=7, f=11)
    nested = block("stages", (block("layers", layer(), inner),), outer)
    nodes = [o for i in range(outer) for j in range(inner) for o in layer(f"{i}.{j}")]
    ours, written = (
        memory(backward(program_of(p, sizes)), "float32") for p in ((START, nested), (START, *nodes))
    )
    assert [m.total for m in unrolled(ours)] == [m.total for m in written.curve]


def program_of(nodes, sizes):
    linked, ends = link(nodes, sizes)
    return Model("t", "t", linked, {}, ends)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gpt2", {}),
        ("lstm-ptb-medium", {}),
        ("gpt2", {"batch": 8, "accumulate": 4}),
        ("resnet50", {"mode": "forward"}),
    ],
)
def test_the_curve_takes_the_step_s_time_and_reaches_its_peak(name, settings):
    e = estimate(name, **settings)
    points = over_time(e.memory, e.times)
    assert max(p.total for p in points) == e.memory.peak
    assert sum(p.seconds for p in points) == pytest.approx(e.times.step)


def test_of_many_repetitions_some_stand_for_all():
    few = estimate("rnn", seq=100_000, config={"layers": 1, "hidden_size": 8, "input_size": 8})
    found = unrolled(few.memory)
    assert len(found) < 10 * MOST
    assert max(m.total for m in found) == pytest.approx(few.memory.peak, rel=1e-3)


def gpt(batch, **settings):
    module = arch.load("transformer")
    values = {"layers": 6, "d_model": 64, "heads": 4, "vocab": 200, "context": 32, **settings}
    return optimizer(
        backward(module.build(make(module.Config, values), Workload("train", batch, 32))), "adamw"
    )


@pytest.mark.parametrize("choice", CHOICES)
def test_doubling_the_batch_doubles_the_activations(choice):
    one, two = (memory(recompute(gpt(b), choice), "float32") for b in (4, 8))
    fixed = 32 * 4 * 64 + 32 * 32 * 4 * 2  # the positions' embedding and the mask have no batch
    assert 0 <= 2 * one.activations - two.activations <= fixed
    assert (one.parameters, one.gradients, one.optimizer) == (two.parameters, two.gradients, two.optimizer)


def test_the_peak_is_made_of_what_is_alive_at_it():
    m = memory(gpt(3), "bfloat16")
    assert sum(m.at_peak.values()) == m.peak == max(x.total for x in m.curve)
    assert m.at in {x.op for x in m.curve}


def test_recomputation_never_needs_more():
    peaks = [memory(recompute(gpt(64), choice), "bfloat16").peak for choice in ("none", "selective", "full")]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > peaks[2]


@pytest.mark.slow
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6))
def test_arrays_of_batches_give_what_each_batch_gives(batches):
    many = memory(gpt(numpy.array(batches, dtype="float64")), "bfloat16")
    assert many.peak.tolist() == [memory(gpt(b), "bfloat16").peak for b in batches]


def test_nothing_is_left_over_when_a_step_ends():
    trained = gpt(2)
    m = memory(trained, "float32")
    assert m.curve[-1].live["activations"] < m.activations / 10
    assert isinstance(trained.nodes[-1], Block) is False and trained.nodes[-1].phase == "optimizer"


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma2-9b", "deepseek-v2-lite", "mamba2-1.3b", "jamba-v0.1"])
def test_a_cache_is_resident_while_a_token_is_decoded(name):
    memory = estimate(name, mode="decode", batch=4, seq=2048, device="h200").memory
    held = {moment.live["kv_cache"] for moment in memory.curve}
    assert held == {memory.kv_cache}
    assert memory.kv_cache > 0


@pytest.mark.parametrize("name", ["llama-3-8b", "mamba2-1.3b", "jamba-v0.1"])
def test_a_prefill_makes_the_logits_of_the_last_token(name):
    short, long = (estimate(name, mode="prefill", batch=8, seq=s, device="h200") for s in (1024, 2048))
    whole = estimate(name, mode="forward", batch=8, seq=2048, device="h200")
    vocab = whole.model.config["vocab"]
    width = whole.model.config["d_model"]
    assert whole.flops.forward - long.flops.forward == 2 * 8 * 2047 * vocab * width
    logits = (row for e in (short, long) for row in e.rows() if row["name"].startswith("head"))
    assert len({row["forward_flops"] for row in logits if row["forward_flops"]}) == 1  # whatever the length
