"""Weights that transformers keeps in float32: against a checkpoint as it loads, and torch's MemTracker."""

import pytest
import torch
import transformers as hf
from oracles.memory import peak

from budget import estimate

FIELDS = {"vocab_size": 1000, "d_model": 256, "d_kv": 32, "d_ff": 512, "num_layers": 4, "num_heads": 8,
          "dropout_rate": 0.0}  # fmt: skip
SMALL = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
LATENT = {
    **SMALL,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
FAMILIES = {
    "t5": {**FIELDS, "vocab_size": 50, "d_model": 32, "d_ff": 40, "num_layers": 2},
    "umt5": {**FIELDS, "vocab_size": 50, "d_model": 32, "d_ff": 40, "num_layers": 2},
    "gpt_oss": {**SMALL, "num_local_experts": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "ernie4_5_moe": {**SMALL, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 12},
    "llama": SMALL,
    "afmoe": SMALL,  # captured
    "deepseek_v3": LATENT,
    "deepseek_v32": {**LATENT, "index_n_heads": 3, "index_head_dim": 10},
}


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_parameters_are_what_a_checkpoint_loads(kind, dtype, tmp_path):
    config = hf.AutoConfig.for_model(kind, **FAMILIES[kind])
    auto = hf.AutoModelForSeq2SeqLM if "t5" in kind else hf.AutoModelForCausalLM
    auto.from_config(config).save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path, dtype=getattr(torch, dtype))
    found = estimate({"model_type": kind, **FAMILIES[kind]}, mode="forward", seq=8, dtype=dtype)
    assert found.memory.parameters == sum(p.nbytes for p in loaded.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_residual_stream_is_float32_too(feed_forward):
    """The peak of a training step, within 1.5 %."""
    fields = {**FIELDS, "feed_forward_proj": feed_forward}

    def build():
        model = hf.T5ForConditionalGeneration._from_config(
            hf.T5Config(**fields, use_cache=False), attn_implementation="eager"
        )
        for name, module in model.named_modules():
            if name.endswith(".wo"):
                module.weight = torch.nn.Parameter(module.weight.detach().float())
        ids = torch.zeros(2, 128, dtype=torch.long)
        return model, {"input_ids": ids, "decoder_input_ids": ids, "labels": ids}

    found = peak(build, torch.float16)
    how = {"attention": "eager", "execution": "eager", "precision": "pure"}
    ours = estimate({"model_type": "t5", **fields}, batch=2, seq=128, dtype="fp16", **how).memory
    assert ours.parameters == found["Weights"]
    assert ours.gradients == found["Trained"]
    assert ours.peak == pytest.approx(found["Total"], rel=0.015)


def test_no_format_of_few_bits_holds_them():
    """bitsandbytes leaves them out in int8, since transformers names them among the modules to skip."""
    table = {"model_type": "t5", **FIELDS, "quantization_config": {"load_in_8bit": True}}
    down = 8 * 256 * 512
    other = 16 * 4 * 256 * 256 - 4 * 4 * 256 * 256 + 8 * 256 * 512  # attention's, of 4 + 8; and wi
    found = estimate(table, mode="forward", seq=8, dtype="fp16").memory.parameters
    scales = 4 * (12 * 4 * 256 + 8 * 512)
    rest = 2 * (1000 * 256 + 2 * 32 * 8 + 22 * 256)
    assert found == 4 * down + other + scales + rest
    asked = estimate({"model_type": "t5", **FIELDS}, mode="forward", seq=8, dtype="fp16", quantize="int8")
    assert asked.memory.parameters == found
