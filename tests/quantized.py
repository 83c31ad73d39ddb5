"""Checkpoints in few bits: a small network, its matrices, and what is stored of it, here and there."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from budget import estimate

LLAMA = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
         "dtype": "bfloat16"}  # fmt: skip
MATRICES = [(256, 256), (128, 256), (128, 256), (256, 256), (384, 256), (384, 256), (256, 384)]
ATTENTION = [f"self_attn.{x}_proj" for x in "qkvo"]
REST = 2 * (2 * 1000 * 256 + (2 * 3 + 1) * 256)  # tables and norms, in 16 bits


def stored(table, **quantization):
    found = estimate({**table, "quantization_config": quantization}, mode="forward", seq=16)
    plain = estimate(table, mode="forward", seq=16)
    assert found.params.total == plain.params.total
    assert found.flops == plain.flops
    return found.memory.parameters


def of_transformers(table, replace, **how):
    fields = {k: v for k, v in table.items() if k not in ("model_type", "dtype")}
    with torch.device("meta"):
        config = AutoConfig.for_model(table["model_type"], **fields)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model = replace(model, **how)
        own = ("inv_freq", "embed_scale", "e_score_correction_bias")  # of the network as it was
        quantizing = {id(b): b for n, b in model.named_buffers() if not n.endswith(own)}
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *quantizing.values()))


def compressed(form, ignore=("lm_head",), activations=None, **weights):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group},
            "ignore": list(ignore)}  # fmt: skip
