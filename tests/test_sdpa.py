"""Which attentions SDPA has a kernel for, and what is kept where it has none."""

import pytest

from budget import estimate
from budget.ir import walk

T5 = {"model_type": "t5", "num_layers": 2, "d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128}
FALCON = {"model_type": "falcon", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
         "intermediate_size": 128, "num_key_value_heads": 2}  # fmt: skip


def kernels(model, attention="fused", **settings):
    """The attentions that run as one kernel."""
    program = estimate(model, batch=2, seq=16, attention=attention, **settings).program
    scores = {
        o.name
        for o, _ in walk(program.nodes)
        if o.phase == "forward" and o.name.endswith(".scores") and o.kernel
    }
    return {name.removesuffix(".scores") for name in scores}


def test_a_mask_that_needs_a_gradient_has_none():
    assert kernels(T5) == {"decoder.layers.cross"}
    assert len(kernels(T5, freeze="encoder.relative,decoder.relative")) == 3
    assert len(kernels(T5, "flash")) == 3


def test_neither_have_keys_that_are_broadcast():
    assert kernels(FALCON) == set()
    assert kernels({**FALCON, "multi_query": False}) == kernels(LLAMA) == {"layers.attn"}


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_written_out_it_keeps_both_products_operands_in_float32(dtype):
    found = estimate(T5, batch=2, seq=16, dtype=dtype, attention="fused", precision="pure").program
    reads = {t for o, _ in walk(found.nodes) if o.name == "encoder.layers.attn.mix" for t in o.ins}
    assert {t.dtype for t in reads} == {"float32"} and not any(t.on_chip for t in reads)


def test_queries_laid_out_heads_first_cost_a_copy_of_the_output():
    half, whole = (
        estimate(
            {"model_type": "phi", "partial_rotary_factor": part, "num_hidden_layers": 2}, batch=1, seq=64
        )
        for part in (0.5, 1.0)
    )
    assert half.memory.activations - whole.memory.activations == pytest.approx(2 * 64 * 2048 * 2, rel=0.05)


@pytest.mark.parametrize("choice", ["flash", "causal"])
@pytest.mark.parametrize("mode", ["train", "prefill"])
@pytest.mark.parametrize(
    "name", ["gpt2", "llama-3-8b", "mistral-7b", "bloom-560m", "deepseek-v3", "jamba-v0.1"]
)
def test_a_kernel_that_masks_by_itself_has_nothing_of_every_pair(name, mode, choice):
    """Neither scores nor a mask reach device memory: nothing there has queries and keys as its axes."""
    program = estimate(name, mode=mode, seq=512, attention=choice).program
    pairs = {
        t.name for o, _ in walk(program.nodes) for t in o.outs if {"s", "t"} <= set(t.dims) and not t.on_chip
    }
    assert pairs == set()


@pytest.mark.parametrize(
    ("family", "stack", "asked", "runs"),
    [
        ("gpt_neo", "transformers", None, "eager"),
        ("gpt_neo", "torch-compile", None, "eager"),
        ("gpt_neo", "transformers", "flash", "flash"),
        ("gpt_neo", "torchtitan", None, "sdpa"),  # whose networks are its own
        ("gpt2", "transformers", None, "sdpa"),
    ],
)
def test_a_class_without_sdpa_runs_no_kernel_unless_one_is_asked_for(family, stack, asked, runs):
    small = {"model_type": family, "vocab_size": 64}
    found = estimate(small, stack=stack, attention=asked, batch=1, seq=16)
    assert found.task.attention == runs
