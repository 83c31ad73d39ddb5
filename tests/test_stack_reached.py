"""What a stack's kernels and its host reach of a device."""

import json

import pytest
from bare_stack import bare

import budget
from budget import stack
from budget.device import load
from budget.device.profile import profile_for


def test_tensorflow_fuses_what_xla_compiles_alone():
    """What moves memory alone is several times less where neighbours are one kernel."""
    alone, fused = (
        sum(k.work.bytes * k.work.times for k in found.times.kernels if k.work.form == "pointwise")
        for found in (budget.estimate("bert-base", stack=name) for name in ("tensorflow", "tensorflow-xla"))
    )
    assert fused < alone / 2


@pytest.mark.parametrize(("device", "together"), [("a100-80gb", False), ("rtx-4090", False), ("h100", True)])
def test_torch_multiplies_experts_in_one_kernel_since_sm90(device, together):
    """Before, one product after the other, each as fast as a dense network's. Source: torch-grouped-mm."""
    for name in ("transformers", "torch-eager", "torch-compile", "torchtitan"):
        forms = budget.estimate("gpt2", device=device, stack=name).profile.forms
        assert (forms["grouped"].share < forms["matmul"].share) == together
        assert forms["grouped"].share <= forms["matmul"].share


def test_a_token_of_faster_transformer_reads_each_head_of_the_cache_once():
    """Its kernel for tokens repeats no keys for the queries that share them, as its prompts' products do."""
    asked = {"mode": "decode", "batch": 16, "seq": 1152, "dtype": "fp16", "stack": "faster-transformer"}
    e = budget.estimate("llama-2-70b", **asked)
    read = sum(k.work.bytes * k.work.times for k in e.times.kernels if k.work.kind == "attention")
    assert read == pytest.approx(e.memory.kv_cache, rel=0.1)


@pytest.mark.parametrize(
    ("quantize", "slower"), [("none", False), ("w4a16", True), ("q4_0", True), ("fp8", False)]
)
@pytest.mark.parametrize("network", ["llama-3-8b", "mixtral-8x7b"])
def test_weights_that_products_widen_have_a_bandwidth_of_their_own(network, quantize, slower, tmp_path):
    """Half of it: each product with such weights moves as many bytes in twice the time, and no other does."""

    def seconds(factor):
        about = {"about": "x", "source": "vllm", "serve": {"attention": "flash", "execution": "graph"}}
        about |= {"attention": {"": "fa3"}, "reached": {"": {"weight_only": factor}}}
        (path := tmp_path / "mine.json").write_text(json.dumps(about))
        settings = {"mode": "decode", "batch": 1, "seq": 64, "quantize": quantize}
        times = budget.estimate(network, stack=str(path), device="h100", **settings).times
        return [(k.work, k.seconds) for k in times.kernels], times.step

    (whole, step), (half, longer) = seconds(1.0), seconds(0.5)
    assert (longer > 1.2 * step) == slower
    changed = {w.op: slow / fast for (w, fast), (_, slow) in zip(whole, half, strict=True) if slow != fast}
    assert bool(changed) == slower
    assert all(1 < ratio <= 2 for ratio in changed.values())
    reads = {w.op: w.weights for w, _ in whole if w.weights and not w.narrow}
    assert changed.keys() <= reads.keys()


def test_a_stack_without_tensor_units_has_the_ordinary_ones_rate(tmp_path):
    device, table = load("3090"), {"about": "x", "source": "llama-cpp", "serve": {}}
    rates = []
    for flag in (True, False):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({**table, "tensor_units": flag}))
        forms = profile_for(device, "fp16", stack.load(str(path))).forms
        rates.append([forms[form].share * device.rate("fp16") for form in ("matmul", "attention")])
    (product, attention), (ordinary, slower) = rates
    assert 0.3 * device.rate("vector") < ordinary <= device.rate("vector") < product
    assert slower == pytest.approx(attention * device.rate("vector") / device.rate("fp16"))


def test_torch_multiplies_float16_as_float32_where_pairs_add_up_in_float16():
    """A P100: torch asks for sums in float32, so convolutions gain nothing from its packed float16."""
    device = load("p100")
    rates = {
        (name, dtype): profile_for(device, dtype, stack.load(name)).forms["conv"].share * device.rate(dtype)
        for name in ("diffusers", "tensorrt")
        for dtype in ("fp16", "fp32")
    }
    assert rates["diffusers", "fp16"] == pytest.approx(rates["diffusers", "fp32"])
    assert rates["tensorrt", "fp16"] > 1.5 * rates["tensorrt", "fp32"]


@pytest.mark.parametrize(
    ("network", "short", "long"), [("qwen3.5-27b", 974.38, 659.45), ("gemma-4-31b", 743.82, 467.26)]
)
def test_attention_on_ordinary_units_is_as_slow_as_published(network, short, long, tmp_path):
    """Prompts of 4,096 and 32,768 tokens on an AI PRO R9700 (ROCm 7.2.3, llama.cpp 8762), in tokens a second:
    what eight of the former take less than one of the latter, is attention.
    """
    mine = bare("llama.cpp-2026-07", tmp_path)
    settings = {"mode": "prefill", "stack": mine, "device": "r9700", "quantize": "q4_k_m"}
    seconds = [
        sum(k.seconds for k in found.times.kernels if k.work.form == "attention")
        for found in (budget.estimate(network, seq=seq, **settings) for seq in (4096, 32768))
    ]
    assert seconds[1] - 8 * seconds[0] == pytest.approx(32768 / long - 32768 / short, rel=0.25)


def test_what_a_stack_compiles_costs_its_host_less(tmp_path):
    """An optimizer's kernels are started as eager ones are."""
    table = {"about": "x", "source": "torch-compile", "train": {"optimizer": "sgd"}, "serve": {}}
    seconds = []
    for share in (1.0, 0.25):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({**table, "dispatch": share}))
        d = profile_for(load("h100"), "bf16", stack.load(str(path))).dispatch
        seconds.append((d.forward, d.backward, d.optimizer))
    (forward, backward, optimizer), compiled = seconds
    assert compiled == pytest.approx((forward / 4, backward / 4, optimizer))
