"""Weights of few bits outside of engines: what each format's own kernels do, by the number of rows.

Counted in the formats' code: bitsandbytes' MatMul8bitLt and matmul_4bit, exllamav2's MAX_Q_GEMM_ROWS (50),
fewer than ExLlama's matmul_recons_thd (8), AutoAWQ's FP16_MATMUL_HEURISTIC_CONDITION
(1,024 tokens), and since when it has that (v0.2.0).
"""

import os

import pytest

from budget import estimate, stack
from budget.device import load
from budget.device.profile import FOLDER
from budget.device.profile import load as load_profile
from budget.device.software import profile
from budget.fold.kernels import works

SHAPE = {"layers": 2, "d_model": 256, "heads": 4, "d_ff": 512, "vocab": 1000, "context": 4096}
WIDE, FEW = 2 * 512 * 256, 512 * 256 // 2  # bytes of a matrix of the MLP, in 16 and 4 bits


def kernels(form, rows, software="transformers", mode="prefill"):
    sizes = {"seq": rows} if mode == "prefill" else {"seq": 16, "batch": rows}
    answer = estimate(
        "transformer", config=SHAPE, mode=mode, quantize=form, stack=software, device="a100", **sizes
    )
    how = {"vllm": "graph", "autoawq": "fused"}.get(software, "eager")
    return answer, {w.op.removeprefix("layers."): w for w in works(answer.program.nodes, "bfloat16", how)}


@pytest.mark.parametrize(("form", "most"), [("nf4", 1), ("gptq-2023", 7), ("gptq", 50), ("awq", 1023)])
def test_more_rows_than_a_kernel_takes_are_multiplied_by_widened_weights(form, most):
    for rows in (most, most + 1):
        found = kernels(form, rows)[1]
        assert ("mlp.up.dequantize" in found) == (rows > most)
    widened = found["mlp.up.dequantize"]
    assert widened.bytes == pytest.approx(WIDE + FEW, rel=0.03)  # nf4 has its scales
    assert found["mlp.up"].weights == 2 * 512  # its bias: the product reads what was widened


def test_awq_s_first_kernel_widens_a_weight_for_each_16_rows_at_a_unit_s_own_rate():
    """AutoAWQ issues 276 and 645: Llama-2-13B, 512 tokens at 1,950.53 tokens/s on an A800, and 7B at 3,900.86
    on an A100, both of 108 units: two FLOPs a weight and row, a unit and second.
    """
    measured = [2 * weights * rate / 108 for weights, rate in ((12.69e9, 1950.53), (6.48e9, 3900.86))]
    for rows, tiles in ((1, 1), (16, 1), (17, 2), (1023, 64)):
        up = kernels("awq-2023", rows)[1]["mlp.up"]
        assert 2 * 16 * 512 * 256 * tiles / up.unit_s == pytest.approx(sum(measured) / 2, rel=0.05)
    assert "mlp.up.dequantize" not in kernels("awq-2023", 4096)[1]


@pytest.mark.parametrize("software", ["transformers", "autoawq"])
def test_a_second_kernel_adds_up_the_parts_of_awq_s_first(software):
    """AutoAWQ v0.1.6, gemm_cuda_gen.cu: `return _out_feats.sum(0)`, of eight parts."""
    assert kernels("awq", 8, software)[1]["mlp.up"].launches == 2


def test_a_unit_of_turing_widens_less_and_one_of_ada_more():
    """AutoAWQ's pull requests 92 and 313: Mistral-7B, 512 tokens at 416.6 and 5,239 tokens/s."""
    for device, rate in (("t4", 416.58), ("rtx-4090", 5239.46)):
        given = {"mode": "prefill", "seq": 512, "quantize": "awq-2023", "stack": "autoawq", "device": device}
        e = estimate("mistral-7b", **given, attention="eager")
        assert e.times.step == pytest.approx(512 / rate, rel=0.3)


def test_exllama_s_first_kernel_widens_a_weight_for_each_row():
    """optimum's benchmark of GPTQ, Llama-2-13B on an A100 of 108 units: 2 rows more take as long as to widen
    all weights twice, as published with AutoGPTQ 0.4.2 and 0.7.0.
    """
    more = [(54.14 - 37.25) * 1e-3 / 2, (55.15 - 37.00) * 1e-3 / 2]
    for rows in (1, 2, 7):
        up = kernels("gptq-2023", rows)[1]["mlp.up"]
        rate = 512 * 256 * rows / up.unit_s
        assert rate == pytest.approx(12.69e9 / (sum(more) / 2) / 108, rel=0.05)


def test_marlin_takes_any_number_of_rows_at_its_own_rate():
    """141 TFLOP/s of many rows on an A100, as its authors published, of a peak of 312."""
    assert "mlp.up.dequantize" not in kernels("w4a16", 4096)[1]
    base = load_profile(os.path.join(FOLDER, "datasheet.json"))
    form = profile(base, load("a100-80gb"), stack.load("transformers"), "fp16").forms["weight_only_matmul"]
    assert form.share * 312 == pytest.approx(141, rel=0.01)


def test_an_engine_may_have_a_format_s_own_kernels():
    def product(**settings):
        given = {"mode": "prefill", "seq": 512, "quantize": "awq", "stack": "vllm", "device": "a100"}
        e = estimate("transformer", config=SHAPE, **given, **settings)
        return next(w for w in works(e.program.nodes, "float16", "graph") if w.op == "layers.mlp.up")

    assert product().unit_s == 0
    assert product(quantize_own=True).unit_s > 0


@pytest.mark.parametrize("form", ["nf4", "gptq", "awq"])
def test_engines_widen_within_a_product(form):
    assert "mlp.up.dequantize" not in kernels(form, 2048, software="vllm")[1]


def test_a_widened_weight_takes_memory_only_where_there_is_one():
    narrow, wide = (kernels("gptq", rows)[0].memory.peak for rows in (50, 51))
    assert narrow < wide
    assert kernels("gptq", 4, mode="decode")[0].memory.peak < kernels("nf4", 4, mode="decode")[0].memory.peak


@pytest.mark.parametrize(("form", "launches"), [("int8", 20), ("int8-2024", 40), ("int8-whole", 3)])
def test_eight_bits_with_outliers_start_many_kernels(form, launches):
    """A product's own, those that quantize its rows, and those that find, cut out and multiply outliers."""
    for rows in (1, 700):
        up = kernels(form, rows)[1]["mlp.up"]
        assert up.launches == launches
        assert up.calls > 3
    assert kernels(form, 1, software="vllm")[1]["mlp.up"].launches == 1


def test_an_old_kernel_multiplies_few_rows_on_ordinary_units():
    few, plain = (kernels(form, 32)[1]["mlp.up"] for form in ("gptq", "none"))
    assert (few.contraction, few.pointwise) == (0, pytest.approx(1.5 * plain.contraction, rel=0.01))


def test_a_formats_stored_bytes_are_those_of_its_matrices():
    for form in ("int8", "int8-2024", "int8-whole"):
        assert kernels(form, 1)[0].memory.parameters == kernels("int8", 1)[0].memory.parameters
