"""Dividing a dimension over devices: who has to talk to whom follows from the operators."""

from collections import Counter

import pytest

from budget import arch
from budget.config import Workload, make
from budget.fold.communication import collectives
from budget.ir import elements, walk, weights
from budget.plan.backward import backward
from budget.plan.fuse import fuse


def gpt(layers=3, **settings):
    module = arch.load("transformer")
    config = make(
        module.Config, {"layers": layers, "d_model": 64, "heads": 4, "vocab": 96, "context": 32, **settings}
    )
    return module.build(config, Workload("train", 2, 32))


@pytest.fixture(scope="module")
def trained():
    return backward(fuse(gpt(), {"attention"}))


def test_data_parallelism_is_one_all_reduce_of_every_weight_gradient_and_nothing_else(trained):
    said = collectives(trained, "b")
    assert {c.name for c in said} == {"all_reduce"}
    assert sorted(c.tensor for c in said) == sorted(f"d:{t.name}" for t, _, _ in weights(trained.nodes))
    total = sum(elements(t, o.sizes) * copies for t, o, copies in weights(trained.nodes))
    assert sum(c.elements * c.times for c in said) == total


def test_dividing_heads_and_d_ff_is_megatron_s_two_all_reduces_forward_and_two_backward(trained):
    said = collectives(trained, "hf")
    layer = [c for c in said if c.op.split(":")[-1].startswith("layers.")]
    assert layer == said
    assert Counter(c.phase for c in layer) == {"forward": 2, "backward": 2}
    assert {c.elements for c in layer} == {2 * 32 * 64} and {c.times for c in layer} == {3}
    assert {c.dims for c in layer} == {("h",), ("f",)}


def test_dividing_the_vocabulary_talks_about_the_embedding_and_the_loss_only(trained):
    said = collectives(trained, "v")
    assert Counter((c.phase, c.elements) for c in said) == {
        ("forward", 2 * 32 * 64): 1,  # the embedding's rows, each on one device
        ("forward", 2 * 32): 2,  # the loss's maximum and sum for each token
        ("backward", 2 * 32 * 64): 1,  # the gradient of the last layer's output
    }


def test_dividing_nothing_says_nothing(trained):
    assert collectives(trained, "") == []


def test_a_forward_pass_in_parts_of_the_batch_says_nothing():
    assert collectives(gpt(), "b") == []


def test_every_operator_is_walked_as_often_as_it_runs(trained):
    times = {c.op: c.times for c in collectives(trained, "b")}
    ran = {o.name: n for o, n in walk(trained.nodes)}
    assert all(times[name] == ran[name] for name in times)
