"""Weights of few bits outside of engines: what each format's own kernels do, by the number of rows.

Counted in the formats' code: bitsandbytes' MatMul8bitLt and matmul_4bit, exllamav2's MAX_Q_GEMM_ROWS (50),
AutoAWQ's FP16_MATMUL_HEURISTIC_CONDITION (1,024 tokens).
"""

import pytest

from budget import estimate
from budget.fold.kernels import works

SHAPE = {"layers": 2, "d_model": 256, "heads": 4, "d_ff": 512, "vocab": 1000, "context": 4096}
WIDE, FEW = 2 * 512 * 256, 512 * 256 // 2  # bytes of a matrix of the MLP, in 16 and 4 bits


def kernels(form, rows, stack="transformers", mode="prefill"):
    sizes = {"seq": rows} if mode == "prefill" else {"seq": 16, "batch": rows}
    answer = estimate(
        "transformer", config=SHAPE, mode=mode, quantize=form, stack=stack, device="a100", **sizes
    )
    how = "graph" if stack == "vllm" else "eager"
    return answer, {w.op.removeprefix("layers."): w for w in works(answer.program.nodes, "bfloat16", how)}


@pytest.mark.parametrize(("form", "most"), [("nf4", 1), ("gptq", 50), ("awq", 1023)])
def test_more_rows_than_a_kernel_takes_are_multiplied_by_widened_weights(form, most):
    for rows in (most, most + 1):
        found = kernels(form, rows)[1]
        assert ("mlp.up.dequantize" in found) == (rows > most)
    widened = found["mlp.up.dequantize"]
    assert widened.bytes == pytest.approx(WIDE + FEW, rel=0.03)  # nf4 has its scales
    assert found["mlp.up"].weights == 2 * 512  # its bias: the product reads what was widened


@pytest.mark.parametrize("form", ["nf4", "gptq", "awq"])
def test_engines_widen_within_a_product(form):
    assert "mlp.up.dequantize" not in kernels(form, 2048, stack="vllm")[1]


def test_a_widened_weight_takes_memory_only_where_there_is_one():
    narrow, wide = (kernels("gptq", rows)[0].memory.peak for rows in (50, 51))
    assert narrow < wide
    assert kernels("gptq", 4, mode="decode")[0].memory.peak < kernels("nf4", 4, mode="decode")[0].memory.peak


@pytest.mark.parametrize(("form", "launches"), [("int8", 20), ("int8-2024", 40)])
def test_eight_bits_with_outliers_start_many_kernels(form, launches):
    """A product's own, those that quantize its rows, and those that find, cut out and multiply outliers."""
    for rows in (1, 700):
        up = kernels(form, rows)[1]["mlp.up"]
        assert up.launches == launches
        assert up.calls > 3
    assert kernels(form, 1, stack="vllm")[1]["mlp.up"].launches == 1


def test_an_old_kernel_multiplies_few_rows_on_ordinary_units():
    few, plain = (kernels(form, 32)[1]["mlp.up"] for form in ("gptq", "none"))
    assert (few.contraction, few.pointwise) == (0, pytest.approx(1.5 * plain.contraction, rel=0.01))


def test_a_formats_stored_bytes_are_those_of_its_matrices():
    for form in ("int8", "int8-2024"):
        assert kernels(form, 1)[0].memory.parameters == kernels("int8", 1)[0].memory.parameters
