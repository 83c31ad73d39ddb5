"""Software stacks: which units of a device multiply which formats, and how fast that makes them."""

import os

import pytest

import budget
from budget import estimate, stack
from budget.device import load, peaks, software
from budget.device.profile import FOLDER
from budget.device.profile import load as load_profile


@pytest.mark.parametrize(
    ("device", "faster"),
    [("rtx-4090", 2), ("rtx-3090", 2), ("rtx-a6000", 1), ("a100-80gb", 1), ("m2-ultra", 1), ("mi300x", 1)],
)
def test_products_that_add_up_in_float16_are_twice_as_fast_on_geforce(device, faster):
    """As measured on an RTX 4090: 165.6 and 325.7 TFLOP/s; boards for workstations have one rate for both."""
    assert peaks.accumulated(load(device), "fp16") == pytest.approx(faster, rel=0.01)
    assert peaks.accumulated(load(device), "fp32") == 1


@pytest.mark.parametrize(("device", "faster"), [("a100", True), ("v100", False), ("mi300x", False)])
def test_torch_multiplies_convolutions_of_float32_in_tf32_where_nvidia_has_it(device, faster):
    """But matrices only where it is told to: torch.backends.cuda.matmul.allow_tf32."""
    torch, other = (stack.load("torch-eager")._replace(tf32=kinds) for kinds in (("conv",), ()))
    reached = [_forms(device, of, "float32") for of in (torch, other)]
    assert (reached[0]["conv"].share > 3 * reached[1]["conv"].share) == faster
    assert reached[0]["matmul"] == reached[1]["matmul"]
    assert stack.load("torch-eager").tf32 == ("conv",)


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-xla", "onnxruntime", "tensorrt"])
def test_those_that_multiply_all_of_float32_in_tf32_are_as_fast_as_in_tf32(name):
    """TensorFlow's enable_tensor_float_32_execution, ONNX Runtime's use_tf32 and TensorRT's kTF32 are on."""
    asked = {"device": "a100", "stack": name, "mode": "forward", "batch": 64}
    full, fast = (budget.estimate("vit-b-16", dtype=dtype, **asked) for dtype in ("fp32", "tf32"))
    assert full.times.step == pytest.approx(fast.times.step)
    assert full.throughput.mfu == pytest.approx(fast.throughput.mfu)


@pytest.mark.parametrize("batch", [1, 64])
def test_mfu_of_pictures_in_float32_is_of_the_units_that_multiply_them(batch):
    """FLOPs over the seconds that each format's units take at their peak: an A100's 156 and 19.5 TFLOP/s."""
    asked = {"device": "a100", "stack": "torch-eager", "mode": "forward", "dtype": "fp32", "batch": batch}
    e = budget.estimate("resnet50", **asked)
    work = [k.work for k in e.times.kernels]
    conv, others = (
        sum(w.contraction * w.times for w in work if (w.kind == "conv") == is_conv)
        for is_conv in (True, False)
    )
    assert others == 2 * 2048 * 1000 * batch
    best = conv / 156e12 + others / 19.5e12
    assert e.throughput.mfu == pytest.approx(best / e.times.step)
    assert e.throughput.mfu < 1


def _forms(device, of, dtype):
    base = load_profile(os.path.join(FOLDER, "datasheet.json"))
    return software.profile(base, load(device), of, dtype).forms


def test_bytes_are_multiplied_four_at_a_time_where_there_are_no_tensor_units():
    """A P40's datasheet: 47 TOPS of int8. llama.cpp's prompts in eight bits and less reach about a quarter of
    them, 12 to 13 TFLOP/s (its pull requests 4682, 4766 and 7716), as they do of an RTX 4090's 660; float16
    goes by float32's rate."""
    prompt = {"mode": "prefill", "seq": 512, "stack": "llama.cpp", "device": "p40"}
    e = estimate("llama-2-7b", quantize="q8_0", **prompt)
    assert e.flops.forward / e.times.step == pytest.approx(47e12 / 4, rel=0.3)
    p40, common = load("p40"), load_profile(os.path.join(FOLDER, "datasheet.json"))
    forms = software.profile(common, p40, stack.load("llama.cpp"), "fp16").forms
    assert forms["matmul"].share * p40.rate("fp16") < p40.rate("fp32") * 1.05
    for name in ("transformers", "llama.cpp-vulkan-2024"):  # which widen weights, or multiply float16
        forms = software.profile(common, p40, stack.load(name), "fp16").forms
        assert forms["weight_only_matmul"].share == forms["matmul"].share
