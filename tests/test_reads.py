"""What a compiled program moves: nothing that only neighbours in one kernel hand to each other."""

import math
from itertools import combinations, product

import numpy
import pytest

from budget import estimate
from budget.fold.kernels import works
from budget.fold.traffic import reads
from budget.ir import walk


def kernels(e, execution):
    return [*works(e.program.nodes, "bfloat16", execution, read=reads(e.program))]


def test_a_gate_reads_two_tensors_and_writes_one():
    e = estimate("llama-3-8b", mode="prefill", batch=1, seq=512, execution="graph")
    [gate] = [w for w in kernels(e, "graph") if w.op.endswith("mlp.act")]
    assert gate.bytes == 3 * 512 * 14336 * 2


def test_what_others_read_is_written():
    """A sum and its norm: two terms and a weight are read; its end reads the sum, the MLP the norm."""
    e = estimate("llama-3-8b", mode="prefill", batch=1, seq=512, execution="compiled")
    [both] = [w for w in kernels(e, "compiled") if w.op.endswith("residual1")]
    assert both.bytes == (4 * 512 + 1) * 4096 * 2


@pytest.mark.parametrize(("dtype", "size"), [("bf16", 2), ("fp8", 1)])
def test_a_latent_cache_is_read_once_in_its_own_dtype(dtype, size):
    """A token more costs its 512 latent numbers and 64 with its position, and is not copied."""
    moved = []
    for tokens in (2048, 4096):
        settings = {"mode": "decode", "batch": 4, "seq": tokens, "kv_dtype": dtype, "attention": "flash"}
        e = estimate("deepseek-v3", **settings, execution="graph")
        moved.append(sum(w.bytes * w.times for w in kernels(e, "graph")))
    assert moved[1] - moved[0] == pytest.approx(4 * 2048 * 61 * (512 + 64) * size, rel=1e-3)


def read(batch):
    """How many of Mixtral's eight experts a batch reads, of which each token takes two."""
    e = estimate("mixtral-8x7b", mode="decode", batch=batch, seq=64, execution="eager")
    [down] = [w for w in works(e.program.nodes, "bfloat16") if w.op.endswith("experts.down")]
    rows = batch * 2 * (14336 + 4096) * 2
    return (down.bytes - rows) / (14336 * 4096 * 2)


def test_experts_that_are_read_are_those_that_a_batch_chooses_on_average():
    """Experts whose shares are drawn from a gamma distribution, token by token; one has its own two."""
    shares = numpy.random.default_rng(0).gamma(0.5, size=(200_000, 1)) * ((1 - 2 / 8) ** -2 - 1)
    left = numpy.exp(-shares * numpy.array([1, 3, 16])).mean(0)
    assert [read(n) for n in (1, 3, 16)] == pytest.approx(8 * (1 - left), rel=0.01)
    assert read(1) == pytest.approx(2)


def test_fewer_experts_are_read_than_by_even_choices():
    """Of eight each token takes two: every choice of three tokens, one by one."""
    choices = [set(pair) for pair in combinations(range(8), 2)]
    sizes = [len(set().union(*chosen)) for chosen in product(choices, repeat=3)]
    assert 2 < read(3) < sum(sizes) / len(sizes)


def test_experts_are_added_up_over_devices_once_weighed():
    """Two all-reduces of a layer's width, whatever number of experts a token takes."""
    e = estimate("mixtral-8x7b", device="h100", mode="prefill", batch=1, seq=64, layout={"tp": 2, "sp": 0})
    program = e.spread[0][0].program
    summed = [o.ins[0].dims for o, times in walk(program.nodes) if o.kind == "all_reduce" and times > 1]
    assert summed == [("b", "s", "d")] * 2


def again(name, mode, op):
    """Bytes that kernels of an operator read once more, by phase."""
    e = estimate(name, mode=mode, batch=2, dtype="fp16", precision="pure", device="v100")
    return {w.phase: w.again for w in works(e.program.nodes, "float16") if w.op == op}


def test_a_batch_norm_that_is_trained_reads_pictures_for_its_statistics_first():
    """What it scales, and of the gradient both that it is made of."""
    picture = 2 * 64 * 112 * 112 * 2
    assert again("resnet18", "train", "stem.norm") == {"forward": picture, "backward": 2 * picture}
    assert again("resnet18", "forward", "stem.norm") == {"forward": 0}


def test_a_group_norm_always_makes_its_statistics():
    e = estimate("wav2vec2", mode="forward", batch=2, dtype="fp16", precision="pure", device="v100")
    [norm] = [o for o, _ in walk(e.program.nodes) if o.kind == "group_norm"]
    [found] = [w.again for w in works(e.program.nodes, "float16") if w.op == norm.name]
    assert found == 2 * norm.sizes["b"] * math.prod(norm.sizes[d] for d in norm.out.dims[1:])


def test_the_gradient_of_a_depthwise_weight_reads_its_channel_for_each_tap():
    """Nine taps of a convolution that halves the sides: from a cache, but for the first time."""
    small, large = 2 * 144 * 28 * 28 * 2, 2 * 144 * 56 * 56 * 2
    e = estimate("mobilenet-v2", batch=2, dtype="fp16", precision="pure")
    backward = [w for w in works(e.program.nodes, "float16") if w.phase == "backward"]
    found = [w.again for w in backward if w.op == "stage2.0.depthwise.conv"]
    assert sorted(found) == [0, pytest.approx(8 * 750 / 2155 * (small + large))]
