"""Jamba and Bamba against transformers."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from transformers import BambaConfig, BambaForCausalLM, JambaConfig, JambaForCausalLM

from budget.arch.hybrid import Config, build
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.ir import Block
from budget.plan.backward import backward

SMALL = {
    "hidden_size": 48,
    "vocab_size": 99,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
}
OURS = {"d_model": 48, "vocab": 99, "heads": 6, "kv_heads": 2, "d_ff": 40}


def against(real, config, batch, seq):
    """Jamba's mask makers ask for values, which the meta device has not: hand the masks in."""
    mask = {"full_attention": torch.empty(batch, 1, seq, seq, device="meta"), "linear_attention": None}
    ids = torch.empty(batch, seq, dtype=torch.long, device="meta")
    forward, back = count_flops(real, ids, labels=ids, use_cache=False, attention_mask=mask)
    ours = backward(build(Config(**config), Workload(batch=batch, seq=seq)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == (forward, back)


@pytest.mark.parametrize(
    ("hf", "ours", "batch", "seq"),
    [
        (
            {"num_hidden_layers": 8, "num_experts": 5},
            {"layers": 8, "experts": 5, "attention_layers": (4,), "expert_layers": (1, 3, 5, 7)},
            2,
            7,
        ),
        (
            {
                "num_hidden_layers": 3,
                "num_experts": 3,
                "num_experts_per_tok": 1,
                "attn_layer_period": 2,
                "attn_layer_offset": 0,
                "expert_layer_period": 3,
                "expert_layer_offset": 2,
                "mamba_d_state": 3,
                "mamba_proj_bias": True,
                "mamba_conv_bias": False,
                "mamba_dt_rank": 5,
                "tie_word_embeddings": True,
            },
            {
                "layers": 3,
                "experts": 3,
                "active_experts": 1,
                "attention_layers": (0, 2),
                "expert_layers": (2,),
                "state_size": 3,
                "mamba_bias": True,
                "conv_bias": False,
                "dt_rank": 5,
                "tied": True,
            },
            1,
            5,
        ),
    ],
)
def test_jamba_equals_transformers(hf, ours, batch, seq):
    with torch.device("meta"):
        real = JambaForCausalLM(JambaConfig(**SMALL, **hf, attn_implementation="eager")).eval()
        real.set_experts_implementation("batched_mm")
    against(real, {**OURS, **ours}, batch, seq)


@pytest.mark.parametrize(
    ("hf", "ours", "batch", "seq"),
    [
        (
            {"num_hidden_layers": 5, "attn_layer_indices": [1, 4]},
            {"layers": 5, "attention_layers": (1, 4)},
            2,
            7,
        ),
        (
            {"num_hidden_layers": 2, "attn_layer_indices": [1], "attention_bias": True, "mlp_bias": True},
            {"layers": 2, "attention_layers": (1,), "attention_bias": True, "mlp_bias": True},
            1,
            4,
        ),
    ],
)
def test_bamba_equals_transformers(hf, ours, batch, seq):
    sizes = {"mamba_n_heads": 6, "mamba_n_groups": 2, "mamba_d_state": 5, "mamba_chunk_size": 4}
    with torch.device("meta"):
        real = BambaForCausalLM(BambaConfig(**SMALL, **sizes, **hf, attn_implementation="eager")).eval()
    mixer = {"mamba_version": 2, "mamba_heads": 6, "groups": 2, "state_size": 5, "chunk": 4}
    against(real, {**OURS, **mixer, **ours, "expert_layers": (99,), "rotary_fraction": 0.5}, batch, seq)


def test_default_is_jamba():
    ours = build(Config(), Workload())
    assert params(ours).total == 51_570_323_328
    period = next(node for node in ours.nodes if isinstance(node, Block))
    assert period.count == 4  # groups of eight layers, each stored once


def test_bad_input_names_the_field():
    with pytest.raises(InputError, match="mamba_heads"):
        Config(mamba_version=2, mamba_heads=7)
    with pytest.raises(InputError, match="active_experts"):
        Config(active_experts=17)
