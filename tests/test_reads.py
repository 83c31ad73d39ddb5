"""What a compiled program moves: nothing that only neighbours in one kernel hand to each other."""

from itertools import combinations, product

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


def test_experts_that_are_read_are_those_that_a_batch_chooses_on_average():
    """Of eight experts each token takes two: every choice of three tokens, one by one."""
    choices = [set(pair) for pair in combinations(range(8), 2)]
    sizes = [len(set().union(*chosen)) for chosen in product(choices, repeat=3)]
    e = estimate("mixtral-8x7b", mode="decode", batch=3, seq=64, execution="eager")
    [down] = [w for w in works(e.program.nodes, "bfloat16") if w.op.endswith("experts.down")]
    rows = 3 * 2 * (14336 + 4096) * 2
    assert down.bytes - rows == pytest.approx(sum(sizes) / len(sizes) * 14336 * 4096 * 2)


def test_experts_are_added_up_over_devices_once_weighed():
    """Two all-reduces of a layer's width, whatever number of experts a token takes."""
    e = estimate("mixtral-8x7b", device="h100", mode="prefill", batch=1, seq=64, layout={"tp": 2, "sp": 0})
    program = e.spread[0][0].program
    summed = [o.ins[0].dims for o, times in walk(program.nodes) if o.kind == "all_reduce" and times > 1]
    assert summed == [("b", "s", "d")] * 2
