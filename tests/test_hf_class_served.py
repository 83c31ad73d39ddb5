"""A captured class that serves: its cache and its FLOPs, against transformers itself on the CPU."""

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget import estimate
from budget.errors import InputError

pytestmark = pytest.mark.usefixtures("quiet")

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 12, "intermediate_size": 64, "vocab_size": 99,
         "max_position_embeddings": 64}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 8, "mamba_ngroups": 2, "mamba_d_state": 6,
         "mamba_expand": 2, "num_mem_blocks": 1, "adapter_rank": 4, "num_key_value_heads": 4}  # fmt: skip
LATENT = {"num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
          "v_head_dim": 12, "linear_num_heads": 4, "linear_head_dim": 12, "pad_token_id": 0,
          "layer_types": ["linear_attention", "full_attention"], "num_local_experts": 4}  # fmt: skip
WINDOW = 7
AFMOE = {**EXPERTS, "num_experts": 4, "num_dense_layers": 1, "sliding_window": WINDOW,
         "layer_types": ["sliding_attention", "full_attention"]}  # fmt: skip
CASES = [
    ("bitnet", {}),
    pytest.param("zamba2", MAMBA, marks=pytest.mark.slow),
    pytest.param("kimi_linear", {**EXPERTS, **LATENT}, marks=pytest.mark.slow),
]
BATCH, SEQ = 2, 21


def real(kind, fields):
    """The class of a config, and what a pass of so many tokens leaves and takes."""
    config = CONFIG_MAPPING[kind](**fields)
    cls = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    how = {} if kind == "bitnet" else {"experts_implementation": "eager"}  # whose products torch counts
    made = cls._from_config(config, attn_implementation="eager", dtype=torch.float32, **how).eval()

    def run(tokens, cache=None):
        ids = torch.ones(BATCH, tokens, dtype=torch.long)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = made(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.past_key_values, counter.get_total_flops()

    return run


def bytes_of(cache):
    """Bytes of keys, values and states."""
    states = ("conv_states", "recurrent_states")
    found = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    found += [t for layer in cache.layers for name in states for t in getattr(layer, name, {}).values()]
    return sum(t.numel() * t.itemsize for t in found if t is not None)


@pytest.mark.parametrize(("kind", "fields"), CASES)
def test_equals_transformers(kind, fields):
    table = {"model_type": kind, **SMALL, **fields}
    run = real(kind, {**SMALL, **fields})
    cache, flops = run(SEQ)
    found = estimate(table, mode="prefill", batch=BATCH, seq=SEQ, dtype="fp32")
    assert (found.flops.forward, found.memory.kv_cache) == (flops, bytes_of(cache))
    cache, _ = run(SEQ - 1)
    cache, flops = run(1, cache)
    found = estimate(table, mode="decode", batch=BATCH, seq=SEQ, dtype="fp32")
    assert (found.flops.forward, found.memory.kv_cache) == (flops, bytes_of(cache))
    assert (found.model.cached, found.model.tokens) == (SEQ, BATCH)


@pytest.mark.slow
def test_a_window_ends_its_cache():
    """A layer's cache has as many keys as the window; a token sees itself and all but one of them."""
    fields = {**SMALL, **AFMOE}
    found = estimate({"model_type": "afmoe", **fields}, mode="decode", batch=BATCH, seq=SEQ, dtype="fp32")
    row = 2 * BATCH * SMALL["num_key_value_heads"] * SMALL["head_dim"] * 4
    assert found.memory.kv_cache == row * (WINDOW + SEQ)
    cache, _ = real("afmoe", fields)(SEQ - 1)
    assert found.flops.forward == real("afmoe", fields)(1, cache)[1]


def test_a_built_in_family_is_captured_alike():
    """The same token of the same network by its family's file and by its class: time, memory and FLOPs."""
    from budget.read import hf_class
    from budget.read.hf_classes import UncoveredError

    table = {"model_type": "qwen3", **SMALL, "hidden_size": 512, "head_dim": 128, "tie_word_embeddings": True}
    why = UncoveredError("model_type", "none")
    for mode in ("prefill", "decode"):
        own = estimate(table, mode=mode, batch=BATCH, seq=SEQ)
        model = hf_class.program({**table, "dtype": "bfloat16"}, why, mode, "", batch=BATCH, seq=SEQ)
        found = estimate(model, mode=mode)
        assert found.memory.kv_cache == own.memory.kv_cache
        assert found.flops.forward == pytest.approx(own.flops.forward, rel=1e-3)
        assert found.times.step == pytest.approx(own.times.step, rel=0.2)


def test_what_does_not_generate_says_so():
    for kind in ("canine", "fnet"):
        with pytest.raises(InputError, match=r"mode: got decode; allowed for .*: train, forward"):
            estimate({"model_type": kind}, mode="decode", seq=SEQ)


def test_a_cache_has_a_dtype_of_its_own_and_is_copied():
    table = {"model_type": "bitnet", **SMALL, "dtype": "bfloat16"}
    sizes = {"mode": "decode", "batch": BATCH, "seq": 100_000}
    own = estimate(table, **sizes)
    assert estimate(table, **sizes, kv_dtype="fp8").memory.kv_cache * 2 == own.memory.kv_cache
    copied = estimate(table, **sizes, cache_implementation="dynamic")
    assert copied.memory.kv_cache == own.memory.kv_cache and copied.times.step > own.times.step
    with pytest.raises(InputError, match=r"kv_dtype: .* has no cache here"):
        estimate(table, mode="forward", seq=SEQ, kv_dtype="fp8")
