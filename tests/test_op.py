"""One line an operator: what is derived from it, against brute force and by hand."""

import itertools
import math

import numpy
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from budget.ir import contraction_flops, elements, gemm, link, op
from budget.size import power_of_two


def linked(spec, **sizes):
    """One operator whose first operand is made by another."""
    nodes, _ = link([op("o", spec, **sizes)], {})
    return nodes[0]


SPECS = ["!x: b s d, *d f -> y: b s f", "!q: b h s k, !kk: b h t k -> w: b h s t", "!x: b c, *c f -> y: b f"]


@pytest.mark.parametrize("spec", SPECS)
@given(data=st.data())
def test_flops_are_two_for_each_step_of_the_loops_that_einsum_would_run(spec, data):
    dims = sorted(
        {
            d
            for part in spec.replace("->", ",").split(",")
            for d in part.rpartition(":")[2].strip("*! ").split()
        }
    )
    sizes = {d: data.draw(st.integers(1, 4)) for d in dims}
    steps = sum(1 for _ in itertools.product(*(range(sizes[d]) for d in dims)))
    assert contraction_flops(linked(spec, **sizes)) == 2 * steps


@given(
    b=st.integers(1, 3),
    c=st.integers(1, 3),
    f=st.integers(1, 3),
    side=st.integers(3, 9),
    i=st.integers(1, 3),
    stride=st.integers(1, 3),
)
def test_a_strided_convolution_counts_as_torch_counts_it(b, c, f, side, i, stride):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    out = (side - i) // stride + 1
    o = linked(
        "!x: b c y+i x+j, *f c i j -> b f y x",
        b=b, c=c, f=f, y=out, x=out, i=i, j=i, **{"y+i": side, "x+j": side},
    )  # fmt: skip
    module = torch.nn.Conv2d(c, f, i, stride, bias=False, device="meta")
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(b, c, side, side, device="meta"))
    assert contraction_flops(o) == counter.get_total_flops()
    assert elements(o.ins[1], o.sizes) == module.weight.numel()
    assert elements(o.ins[0], o.sizes) == b * c * side * side


def test_the_gemm_that_a_device_sees():
    linear = linked("!x: b s d, *d f -> y: b s f", b=2, s=3, d=5, f=7)
    assert gemm(linear) == (6, 7, 5, 1)
    scores = linked("!q: b s h r k, !kk: b t h k -> w: b h r s t", b=2, s=3, t=4, h=5, r=2, k=8)
    assert gemm(scores) == (2 * 3, 4, 8, 2 * 5)
    experts = linked("!x: b s d, *~e d f -> y: b s a f", b=2, s=3, d=5, e=8, a=2, f=7)
    assert contraction_flops(experts) == 2 * (2 * 3 * 2) * 5 * 7, (
        "each token is worked on by a of the e experts"
    )
    assert elements(experts.ins[1], experts.sizes) == 8 * 5 * 7


@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=5))
def test_arrays_of_sizes_give_what_each_size_gives(batches):
    spec = SPECS[0]
    rest = dict(s=7, d=11, f=13)
    many = contraction_flops(linked(spec, b=numpy.array(batches, dtype="float64"), **rest))
    assert many.tolist() == [contraction_flops(linked(spec, b=b, **rest)) for b in batches]


def test_symbols_give_the_closed_form():
    b, s, d, f = sympy.symbols("b s d f", positive=True, integer=True)
    flops = contraction_flops(linked(SPECS[0], b=b, s=s, d=d, f=f))
    assert sympy.simplify(flops - 2 * b * s * d * f) == 0


def test_exact_where_floats_are_not():
    flops = contraction_flops(linked(SPECS[0], b=10**9, s=10**9, d=10**9, f=10**9 + 1))
    assert flops == 2 * 10**27 * (10**9 + 1) and math.log2(flops) > 64


@pytest.mark.parametrize(
    ("spec", "says"),
    [("x: b", "no '->'"), ("!x: b c, *c f -> y: b g", "'g'"), ("x: b c -> y: b c", "nothing makes it")],
)
def test_a_wrong_line_says_what_is_wrong(spec, says):
    with pytest.raises(ValueError, match=says):
        linked(spec, b=1, c=2, f=3, g=4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"sofmax.*line"):
        op("o", "!x: b -> y: b", "sofmax")


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=5), st.integers(1, 40))
def test_powers_of_two_of_arrays_and_symbols_are_those_of_numbers(sizes, k):
    sizes += [1, 2**k - 1, 2**k, 2**k + 1]
    found = [power_of_two(n) for n in sizes]
    assert all(p // 2 < n <= p and p.bit_count() == 1 for n, p in zip(sizes, found, strict=True))
    numpy.testing.assert_array_equal(power_of_two(numpy.array(sizes)), found)
    n = sympy.Symbol("n", positive=True, integer=True)
    assert power_of_two(n).subs(n, sizes[0]) == found[0]
