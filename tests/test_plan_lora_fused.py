"""Layers that are one function with their adapters, against peaks that others measured."""

import pytest

from budget import estimate
from budget.errors import InputError
from budget.ir.verify import verify
from budget.launch import read

HOW = {"batch": 1, "recompute": "full", "lora_rank": 16, "lora_targets": "all-linear", "attention": "flash"}
HOW |= {
    "device": "b200",
    "stack": "transformers",
    "optimizer": "adamw",
    "dtype": "bf16",
    "lora_dtype": "fp32",
}
FUSED = "norm,mlp,adapters,chunked_cross_entropy"
# GiB allocated at most, of one sequence of 32k and of 64k tokens. Source: axolotl's pull request 3800.
PEAKS = {
    "qwen3-0.6b": (4.70, 8.16),
    "llama-3.2-1b": (6.90, 11.35),
    "qwen3-1.7b": (9.26, 15.09),
    "qwen3-4b": (17.04, 26.24),
    "gemma-3-4b": (17.43, 26.52),
}


@pytest.mark.parametrize("name", PEAKS)
def test_peaks_are_those_that_axolotl_s_kernels_had(name):
    for seq, measured in zip((32768, 65536), PEAKS[name], strict=True):
        e = estimate(name, seq=seq, fuse=FUSED, **HOW)
        assert e.memory.peak / 2**30 == pytest.approx(measured, rel=0.09)


def test_trained_weights_and_flops_are_those_of_adapters_that_are_not_fused():
    fused, apart = (
        estimate("qwen3-0.6b", seq=512, fuse=f, **HOW) for f in (FUSED, FUSED.replace(",adapters", ""))
    )
    assert fused.params == apart.params
    assert fused.flops.forward == apart.flops.forward
    assert fused.flops.backward == apart.flops.backward
    assert fused.memory.optimizer == apart.memory.optimizer  # float32, as they are held


@pytest.mark.parametrize("more", [{}, {"precision": "autocast"}, {"lora_dropout": 0.1}, {"quantize": "nf4"}])
def test_programs_with_fused_adapters_fit_together(more):
    verify(estimate("gemma-3-4b", seq=64, fuse=FUSED, **{**HOW, **more}).program)


def test_axolotl_s_fields_say_it(tmp_path):
    path = tmp_path / "a.yaml"
    fields = ("lora_mlp_kernel", "lora_qkv_kernel", "liger_glu_activation", "lora_target_linear", "bf16")
    lines = ["base_model: Qwen/Qwen3-0.6B", "adapter: lora", "sequence_len: 64", "micro_batch_size: 1"]
    path.write_text("\n".join([*lines, *(f"{field}: true" for field in fields)]))
    assert read(str(path)).settings["fuse"] == "mlp,adapters"


def test_adapters_are_fused_where_there_are_some():
    with pytest.raises(InputError, match="allowed: with lora_rank"):
        estimate("qwen3-0.6b", batch=1, fuse="adapters")
