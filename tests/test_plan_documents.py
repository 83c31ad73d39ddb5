"""Packed documents: the pairs that a kernel of attention computes, against a mask written out."""

import numpy
import pytest

import budget
from budget.errors import InputError
from budget.fold.forms import computed
from budget.ir import walk

ASKED = {
    "batch": 2,
    "device": "h100",
    "attention": "flash",
    "config": {"layers": 2, "d_model": 64, "heads": 4, "vocab": 300, "context": 4096},
}


def estimate(**changes):
    return budget.estimate("transformer", **{**ASKED, "seq": 4096, **changes})


def pairs(seq, tokens):
    """Pairs of a causal mask within documents, as a part of all."""
    query, key = numpy.indices((seq, seq))
    return ((query >= key) & (query // tokens == key // tokens)).mean()


@pytest.mark.parametrize("tokens", [64, 512, 1024, 2048, 4096])
def test_kernels_compute_the_pairs_of_a_mask_of_documents(tokens):
    program = estimate(documents=tokens).program
    products = [o for o, _ in walk(program.nodes) if o.kernel and o.causal and o.kind == "contract"]
    assert {o.phase for o in products} == {"forward", "backward"}
    assert [computed(o) for o in products] == pytest.approx([pairs(4096, tokens)] * len(products), rel=0.02)


def test_the_smaller_of_a_window_and_documents_counts():
    windows = {**ASKED["config"], "windows": (256,)}
    one, two = (estimate(config=windows, documents=d).times.forward for d in (4096, 64))
    assert one == estimate(config=windows).times.forward
    assert two == pytest.approx(estimate(documents=64).times.forward, rel=1e-6)


def test_documents_leave_counts_and_memory_as_they_are_and_cost_less_time():
    packed, whole = estimate(documents=128), estimate()
    assert packed.flops == whole.flops
    assert packed.memory.peak == whole.memory.peak
    assert packed.times.backward < whole.times.backward
    assert estimate(documents=5000).times.backward == whole.times.backward


def test_a_kernel_of_all_pairs_is_refused():
    with pytest.raises(InputError, match=r"documents: attention sdpa computes all pairs.* flash"):
        estimate(documents=128, attention="sdpa")
    with pytest.raises(InputError, match="documents"):
        estimate(documents=128, mode="prefill")
