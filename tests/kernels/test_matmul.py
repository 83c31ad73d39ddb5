import pytest
import torch
import torch.nn.functional as F
from budget.kernels.activations import NAMES
from budget.kernels.matmul import matmul
from budget.kernels.matmul_kernel import choose
from budget.kernels.settings import compiling_for, find
from cases import (
    DEVICE,
    assert_close,
    dtypes,
    examples,
    generator,
    gradients,
    layouts,
    leaves,
    random,
    route,
    routes,
    seeds,
)
from hypothesis import example, given
from hypothesis import strategies as st

sizes = st.integers(1, 100)
sizes_of_products = st.integers(1, 20) | st.integers(1, 20_000)
activations = st.sampled_from(NAMES)


def eager(a, b, bias, gate, residual, activation):
    """The same in torch's own operators, in the dtype of the operands."""
    act = {
        "none": lambda x: x,
        "relu": F.relu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
    }[activation]
    out = a @ b
    if bias is not None:
        out = out + bias
    out = act(out) if gate is None else out * act(a @ gate)
    return out if residual is None else out + residual


def check(tensors, activation, where, seed):
    """Output and gradients of matmul against float64."""
    a, b, bias, gate, residual = leaves(tensors)
    with route(where):
        ours = matmul(a, b, bias, activation=activation, gate=gate, residual=residual)
        grad = random(ours.shape, ours.dtype, generator=generator(seed + 1))
        ours_grads = gradients(ours, (a, b, bias, gate, residual), grad)
    own_inputs, oracle_inputs = leaves(tensors), leaves(tensors, torch.float64)
    own, oracle = eager(*own_inputs, activation), eager(*oracle_inputs, activation)
    assert ours.dtype == a.dtype
    assert_close("out", ours, own, oracle)
    own_grads = gradients(own, own_inputs, grad)
    oracle_grads = gradients(oracle, oracle_inputs, grad)
    names = [n for n, t in zip(("a", "b", "bias", "gate", "residual"), tensors, strict=True) if t is not None]
    terms = gradient_terms(*oracle_inputs[:4], grad.double(), a.dtype)
    for name, *triple in zip(names, ours_grads, own_grads, oracle_grads, strict=True):
        assert_close(f"gradient of {name}", *triple, terms=terms.get(name, 0.0))


def gradient_terms(a, b, bias, gate, grad, dtype):
    """The size of what the gradients add up, times the roundings that it is known to.

    Terms that cancel leave the roundings of the large ones: a few in float32 (a derivative has some), and
    where the epilogue's gradient is a tensor, one in its dtype, whose errors add up as a norm does.
    """
    with torch.no_grad():
        a, b, grad = a.abs(), b.abs(), grad.abs()
        linear = a @ b + (0 if bias is None else bias.abs())
        gated = 1.0 if gate is None else a @ gate.abs()
        through = {"a": grad * gated, "b": grad * gated, "bias": grad * gated, "gate": grad * linear}
        sums = {
            "a": lambda g, power: g**power @ b.mT**power,
            "b": lambda g, power: a.mT**power @ g**power,
            "bias": lambda g, power: (g**power).sum(-2),
        }
        sums["gate"] = sums["b"]
        unit = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
        size = lambda t: t.max().item() if t.numel() else 0.0  # noqa: E731 - twice
        return {
            name: 4 * size(sums[name](g, 1)) + unit * size(sums[name](g, 2)) ** 0.5
            for name, g in through.items()
        }


@examples(30)
@given(
    m=sizes, k=sizes, n=sizes, dtype=dtypes, layout_a=layouts, layout_b=layouts,
    activation=activations, has_bias=st.booleans(), has_gate=st.booleans(),
    has_residual=st.booleans(), where=routes, seed=seeds,
)  # fmt: skip
@example(1, 1, 1, torch.bfloat16, "contiguous", "contiguous", "none", True, False, True, "triton", 0)
@example(64, 64, 128, torch.float16, "contiguous", "transposed", "silu", False, True, False, "triton", 1)
@example(130, 72, 136, torch.bfloat16, "transposed", "contiguous", "gelu", True, False, False, "triton", 2)
def test_linear(
    m, k, n, dtype, layout_a, layout_b, activation, has_bias, has_gate, has_residual, where, seed
):
    g = generator(seed)
    tensors = (
        random((m, k), dtype, layout_a, generator=g),
        random((k, n), dtype, layout_b, generator=g, scale=k**-0.5),
        random((n,), dtype, generator=g) if has_bias else None,
        random((k, n), dtype, layout_b, generator=g, scale=k**-0.5) if has_gate else None,
        random((m, n), dtype, layout_a, generator=g) if has_residual else None,
    )
    check(tensors, activation, where, seed)


@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("activation", NAMES)
def test_activations(activation, has_gate):
    g = generator(0)
    a, b, gate = (random(s, torch.float32, generator=g) for s in ((9, 12), (12, 20), (12, 20)))
    bias = random((20,), torch.float32, generator=g)
    check((a, b, bias, gate if has_gate else None, None), activation, "triton", 0)


@examples(12)
@given(
    batches=st.sampled_from([((2,), (2,)), ((3,), ()), ((2, 1), (2, 3)), ((1,), (2,)), ((2, 3), (3,))]),
    m=st.integers(1, 40), k=st.integers(1, 40), n=st.integers(1, 40),
    dtype=dtypes, layout=layouts, has_gate=st.booleans(), where=routes, seed=seeds,
)  # fmt: skip
def test_batches_broadcast(batches, m, k, n, dtype, layout, has_gate, where, seed):
    g = generator(seed)
    a = random((*batches[0], m, k), dtype, layout, generator=g)
    b, gate = (random((*batches[1], k, n), dtype, layout, generator=g) for _ in range(2))
    residual = random((m, n), dtype, generator=g)
    tensors = (a, b, random((n,), dtype, generator=g), gate if has_gate else None, residual)
    check(tensors, "silu", where, seed)


# Few tiles and a long K: the product is split over K, and the epilogue comes with the sum of the parts.
SPLIT_K = 300 if DEVICE == "cpu" else 5000


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_split_over_k(dtype, gated):
    g = generator(0)
    m, k, n = 29, SPLIT_K, 24
    choice = choose(torch.device(DEVICE), dtype, 1, m, n, k, gated)
    assert choice.splits > 1
    a, residual = random((m, k), dtype, generator=g), random((m, n), dtype, generator=g)
    b, gate = (random((k, n), dtype, "transposed", generator=g, scale=k**-0.5) for _ in range(2))
    bias = random((n,), dtype, generator=g)
    check((a, b, bias, gate if gated else None, residual), "silu", "triton", 0)
    first, second = (matmul(a, b, bias, activation="gelu") for _ in range(2))
    assert torch.equal(first, second)


@given(
    batches=st.integers(1, 3), rows=sizes_of_products, columns=sizes_of_products, inner=sizes_of_products,
    dtype=dtypes, gated=st.booleans(), architecture=st.sampled_from(["sm90", "generic", "interpreter"]),
)  # fmt: skip
def test_parts_cover_k_once(batches, rows, columns, inner, dtype, gated, architecture):
    with compiling_for(architecture):
        device = torch.device("cpu")
        choice = choose(device, dtype, batches, rows, columns, inner, gated)
        chosen = find("matmul", device, choice.shape_class)
    steps = -(-inner // chosen["BLOCK_K"])
    assert (choice.splits - 1) * choice.split_steps < steps <= choice.splits * choice.split_steps
    if choice.splits > 1:
        assert choice.split_steps >= chosen["SPLIT_STEPS"]


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
def test_empty(shape, where):
    m, k, n = shape
    g = generator(0)
    tensors = [random(s, torch.float32, generator=g) for s in ((m, k), (k, n), (n,))]
    check((*tensors, None, None), "gelu", where, 0)


@examples(10)
@given(
    m=sizes, k=sizes, n=sizes, per_row=st.booleans(), per_column=st.booleans(),
    out_dtype=st.sampled_from([None, torch.float32, torch.float16]), where=routes, seed=seeds,
)  # fmt: skip
def test_float8_with_scales(m, k, n, per_row, per_column, out_dtype, where, seed):
    g = generator(seed)
    a = random((m, k), torch.float32, generator=g).to(torch.float8_e4m3fn)
    b = random((n, k), torch.float32, generator=g).to(torch.float8_e4m3fn).mT
    scale_a = (torch.rand(m if per_row else 1, generator=g) + 0.5).to(DEVICE)
    scale_b = (torch.rand(n if per_column else 1, generator=g) + 0.5).to(DEVICE)
    bias = random((n,), out_dtype or torch.bfloat16, generator=g)
    with route(where):
        ours = matmul(a, b, bias, activation="relu", scale_a=scale_a, scale_b=scale_b, out_dtype=out_dtype)

    def computed(dtype):
        product = (a.to(dtype) @ b.to(dtype)) * scale_a.to(dtype)[:, None] * scale_b.to(dtype)
        return F.relu(product + bias.to(dtype))

    assert ours.dtype == (out_dtype or torch.bfloat16)
    assert_close("out", ours, computed(torch.float32).to(ours.dtype), computed(torch.float64))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_scales_per_row_repeat_over_leading_dimensions(leading):
    g = generator(0)
    a = random((*leading, 5, 16), torch.float32, generator=g).to(torch.float8_e4m3fn)
    b = random((16, 8), torch.float32, generator=g).to(torch.float8_e4m3fn)
    scale = torch.arange(1.0, 6.0, device=DEVICE)
    ours = matmul(a, b, scale_a=scale, out_dtype=torch.float32)
    expected = (a.double() @ b.double()) * scale[:, None]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("out_dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_output_dtype_keeps_float32_sums(out_dtype):
    g = generator(0)
    a, b = (random(s, torch.bfloat16, generator=g) for s in ((33, 40), (40, 24)))
    ours = matmul(a, b, out_dtype=out_dtype)
    assert ours.dtype == out_dtype
    oracle = a.double() @ b.double()
    assert_close("out", ours, (a.float() @ b.float()).to(out_dtype), oracle)


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_nan_and_infinity_reach_their_rows_only(where):
    a = random((40, 40), torch.float32, generator=generator(0))
    a[3, 7], a[35, 2] = float("nan"), float("inf")
    b = torch.ones(40, 20, device=DEVICE)
    with route(where):
        ours = matmul(a, b, activation="relu")
    assert ours[3].isnan().all()
    assert (ours[35] == float("inf")).all()
    assert ours.isfinite().sum() == 38 * 20


def test_nothing_is_saved_where_no_gradient_is_needed():
    op = torch.ops.budget.matmul
    a = torch.ones(4, 8, device=DEVICE)
    with torch.no_grad():
        matmul(a, a.mT, activation="gelu")
    arguments = (a[None], a.mT[None], None, None, None, None, None, "gelu", torch.float32, False)
    assert op(*arguments, False)[1].numel() == 0
    assert op(*arguments, True)[1].numel() == 16
