"""Times of products whose weights, or both of whose operands, are in few bits, against what was measured."""

import pytest
from bare_stack import bare
from quantized import LLAMA, compressed

import budget


def spent(stack, device, mode="prefill", seq=8192, **settings):
    """Seconds of a layer's products of 8,192 rows: [8,192, 14,336] by [14,336, 4,096]; of one, decoding."""
    found = budget.estimate("llama-3-8b", mode=mode, seq=seq, device=device, stack=stack, **settings)
    (product,) = (o["time_s"] for o in found.to_dict()["ops"] if o["name"].endswith("mlp.down"))
    return product


@pytest.mark.parametrize(("device", "measured"), [("a100-80gb", 0.47), ("l40s", 0.37), ("h200", 0.71)])
def test_int8_by_int8_is_as_much_faster_as_smoothquant_s_plugin(device, measured):
    """TensorRT-LLM's latencies, sq over bfloat16, medians of 8,192 rows. Source: aiconfigurator."""
    few, wide = (spent("tensorrt-llm", device, quantize=q) for q in ("w8a8", "none"))
    assert few / wide == pytest.approx(measured, rel=0.05)


def test_marlin_s_products_of_many_rows_are_slower_than_the_library_s(tmp_path):
    """Its benchmark on an A100: 0.60 to 0.66 of the speed of torch's from 1,024 rows on. Source: marlin."""
    few, wide = (spent(bare("vllm", tmp_path), "a100-80gb", quantize=q) for q in ("gptq", "none"))
    assert 0.55 <= wide / few <= 0.7
    few, wide = spent("vllm", "h100", quantize="gptq"), spent("vllm", "h100")
    assert few == pytest.approx(wide, rel=0.01)  # which nobody measured


@pytest.mark.parametrize(
    ("device", "measured"), [("jetson-thor", 663.4), ("jetson-agx-orin", 1384.1), ("gb10", 386.4)]
)
def test_awq_s_kernel_reaches_a_sixth_of_a_thor_and_half_of_an_orin(device, measured):
    """A prompt of 2,048 tokens of Qwen3-8B in 4 bits, milliseconds. Source: tensorrt-edge-llm."""
    asked = {"mode": "prefill", "batch": 1, "seq": 2048, "quantize": "awq"}
    found = budget.estimate("qwen3-8b", device=device, stack="edge-llm", **asked)
    assert found.to_dict()["time_s"]["step"] == pytest.approx(measured / 1e3, rel=0.2)


def test_products_in_fp4_are_faster_than_in_fp8_where_a_stack_has_its_own(tmp_path):
    """CUTLASS on a GB10: 356 and 188 TFLOP/s. Source: gb10-products. Most engines' reach float8's rate."""
    fp4, fp8 = (spent(bare("tensorrt-edge-llm", tmp_path), "gb10", quantize=q) for q in ("nvfp4", "fp8"))
    assert fp8 / fp4 == pytest.approx(356 / 188, rel=0.1)
    fp4, fp8 = (spent(bare("vllm", tmp_path), "gb10", quantize=q) for q in ("nvfp4", "fp8"))
    assert fp8 / fp4 == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(("quantize", "measured"), [("gptq-8bit", 0.72), ("gptq", 0.52)])
def test_few_bits_start_later_on_hopper(quantize, measured, tmp_path):
    """One row by weights of [14,336, 4,096] on an H200, of bfloat16's time: TensorRT-LLM's latencies, between
    those of 12,288 and 16,384 inputs (30.0 and 35.9 us; int8 21.4 and 25.9; int4 15.3 and 19.2). Without a
    later start it is 0.59 and 0.38. Source: aiconfigurator.
    """
    token = {"mode": "decode", "seq": 512, "batch": 1}
    of = bare("tensorrt-llm", tmp_path)
    few, wide = (spent(of, "h200", quantize=q, **token) for q in (quantize, "none"))
    assert few / wide == pytest.approx(measured, rel=0.08)


def test_int8_and_its_inputs_are_read_as_fast_as_int8_alone():
    def token(form):
        found = budget.estimate("llama-3-8b", mode="decode", seq=512, device="a100-80gb", quantize=form)
        return found.to_dict()["time_s"]["step"]

    assert token("w8a8") == pytest.approx(token("gptq-8bit"), rel=0.02)


def test_a_checkpoint_says_whether_inputs_are_in_int8_too():
    def prompt(activations):
        table = compressed("int-quantized", num_bits=8, type="int", **activations)
        config = {**LLAMA, "quantization_config": table}
        found = budget.estimate(config, mode="prefill", seq=8192, device="a100-80gb")
        return found.to_dict()["time_s"]["step"]

    both = {"strategy": "channel", "activations": {"num_bits": 8, "type": "int", "dynamic": True}}
    assert prompt(both) < prompt({"strategy": "channel"})


@pytest.mark.parametrize(("device", "quantize", "rate"), [("p40", "q5_0", 831), ("4090", "q4_0", 10359)])
def test_few_bits_may_be_faster_than_the_peak_of_sixteen(device, quantize, rate):
    """Prompts of 512 tokens, in tokens a second: of a P40, which multiplies bytes four at a time, 13 TFLOP/s
    of 11.8; a GeForce board adds up in float16. Sources: llama-cpp-mmvq, llama-cpp-mmq.
    """
    settings = {"mode": "prefill", "seq": 512, "stack": "llama.cpp", "device": device, "quantize": quantize}
    found = budget.estimate("llama-3-8b", **settings).to_dict()
    assert found["time_s"]["step"] == pytest.approx(512 / rate, rel=0.15)


def test_few_bits_in_integers_gain_nothing_from_an_h100_s_wider_tensor_units():
    """llama-bench of Qwen3.5-9B in Q8_0, 2026-09: 8,106 prompt tokens/s of an H100, 8,355 of an L40S."""
    times = []
    for device in ("h100", "l40s"):
        found = budget.estimate(
            "llama-3-8b", mode="prefill", seq=512, stack="llama.cpp", device=device, quantize="q8_0"
        )
        times.append(found.to_dict()["time_s"]["step"])
    assert times[1] / times[0] == pytest.approx(8106 / 8355, rel=0.15)


@pytest.mark.parametrize(("quantize", "rate"), [("q6_k", 2535.8), ("q8_0", 4671.9)])
def test_rdna_4_multiplies_q6_k_at_half_the_rate_of_others(quantize, rate, tmp_path):
    """llama-bench of a Llama of 8B on RDNA 4, 2026-07: 4,698.4 prompt tokens/s in Q5_K_S, by micro-batches of
    512 (of 2,048 in Q8_0). Source: llama.cpp's pull request 25940, whose board is not named.
    """
    stack = bare("llama.cpp", tmp_path)

    def step(quantize):
        settings = {"mode": "prefill", "seq": 512, "stack": stack, "device": "r9700"}
        return budget.estimate("llama-3-8b", quantize=quantize, **settings).to_dict()["time_s"]["step"]

    assert step("q5_k_s") / step(quantize) == pytest.approx(rate / 4698.4, rel=0.12)


@pytest.mark.parametrize("stack", ["llama.cpp", "llama.cpp-2026-07"])
def test_rdna_4_multiplies_q2_k_at_half_the_rate_of_q5_k(stack):
    """Prompts of a Llama of 8B in micro-batches of 2,048, tokens/s. Source: llama-cpp-formats."""

    def step(quantize):
        settings = {"mode": "prefill", "seq": 2048, "stack": stack, "device": "r9700"}
        return budget.estimate("llama-3-8b", quantize=quantize, **settings).to_dict()["time_s"]["step"]

    assert step("q5_k_s") / step("q2_k_s") == pytest.approx(1930 / 3699, rel=0.12)


def test_a_version_says_which_formats_are_slow():
    """llama-bench of a Llama of 8B on an MI50 by micro-batches of 512, before August 2026 and since: Q5_0 547
    and 882 tokens/s, Q4_0 1,008 and 1,083. Source: llama-cpp-formats.
    """
    for stack, ratio in (("llama.cpp-2026-07", 547 / 1008), ("llama.cpp", 882 / 1083)):
        settings = {"mode": "prefill", "seq": 512, "stack": stack, "device": "mi50"}
        times = [
            budget.estimate("llama-3-8b", quantize=q, **settings).to_dict()["time_s"]["step"]
            for q in ("q4_0", "q5_0")
        ]
        assert times[0] / times[1] == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize(("tokens", "before", "since"), [(512, 10561, 13305), (2048, 10801, 13715)])
def test_blackwell_multiplies_mxfp4_by_its_own_units(tokens, before, since):
    """Prompts of gpt-oss-20b, tokens/s before and since January 2026. Source: llama-cpp-mxfp4."""

    def step(stack):
        settings = {"mode": "prefill", "seq": tokens, "stack": stack, "device": "rtx-5090"}
        return budget.estimate("gpt-oss-20b", quantize="mxfp4_moe", **settings).to_dict()["time_s"]["step"]

    assert step("llama.cpp-2025") / step("llama.cpp") == pytest.approx(since / before, rel=0.1)


def test_q2_k_takes_longer_than_q4_k():
    """Prompts of a Llama of 8B on an RTX 4090 in pieces of 512, tokens/s. Source: llama-cpp-q2-k."""

    def step(quantize):
        settings = {"mode": "prefill", "seq": 512, "stack": "llama.cpp-2024-07", "device": "rtx-4090"}
        return budget.estimate("llama-3-8b", quantize=quantize, **settings).to_dict()["time_s"]["step"]

    assert step("q4_k_s") / step("q2_k") == pytest.approx(7527 / 9267, rel=0.05)


@pytest.mark.parametrize(
    ("model", "device", "quantize", "kept", "depth", "first", "then"),
    [
        ("qwen3.6-27b", "rtx-4090", "q4_k_m", "q8_0", 32768, 44.07, 36.91),
        ("qwen3.6-35b-a3b", "rtx-5060-ti-16gb", "q4_k_m", "q4_0", 65536, 97.51, 56.5),
    ],
)
def test_a_cache_in_few_bits_is_unpacked_for_each_query(model, device, quantize, kept, depth, first, then):
    """llama-bench's tokens/s without and behind a context. Source: llama-cpp-cache."""

    def rate(seq):
        settings = {"mode": "decode", "seq": seq, "stack": "llama.cpp", "device": device, "kv_dtype": kept}
        return 1 / budget.estimate(model, quantize=quantize, **settings).to_dict()["time_s"]["step"]

    assert rate(depth) / rate(64) == pytest.approx(then / first, rel=0.2)


def test_a_cache_in_few_bits_makes_prompts_no_slower():
    """Rows of a prompt share what is unpacked."""
    settings = {
        "mode": "prefill",
        "seq": 4096,
        "stack": "llama.cpp",
        "device": "rtx-4090",
        "quantize": "q4_k_m",
    }
    wide, few = (
        budget.estimate("llama-3-8b", kv_dtype=kept, **settings).to_dict()["time_s"]["step"]
        for kept in ("fp16", "q8_0")
    )
    assert few == pytest.approx(wide, rel=0.01)


@pytest.mark.parametrize(("model", "measured"), [("ministral-3-3b", 65), ("qwen3.5-9b", 32)])
def test_a_p100_multiplies_bytes_one_by_one(model, measured):
    """tokens/s of one request. Source: llama-cpp-dp4a."""
    settings = {"mode": "decode", "seq": 256, "stack": "llama.cpp", "device": "p100-pcie"}
    seconds = budget.estimate(model, quantize="q4_k_m", **settings).to_dict()["time_s"]["step"]
    assert 1 / seconds == pytest.approx(measured, rel=0.15)
