"""What fields mean in families whose class is code on the hub alone, as in hf_rules.py for the others.

The code is read there, never run: a family's `code` names the repositories.
Source: hub-code.
"""

from __future__ import annotations

from ..named import Any
from .hf_fields import Settings, _flag, _whole
from .hf_mixtures import _shared
from .hf_rules import _rotary


def baichuan(hf: Settings) -> dict[str, Any]:
    """Networks of 13 billion parameters have ALiBi, and no max_position_embeddings."""
    rotated = hf.get("max_position_embeddings") is not None or hf.get("model_max_length") is None
    name = "max_position_embeddings" if rotated else "model_max_length"
    return {"positions": "rotary" if rotated else "alibi", "context": _whole(hf, name, 4096)}


def minicpm(hf: Settings) -> dict[str, Any]:
    """A mixture has a field for its experts; each is as wide as the MLP of a network without experts."""
    experts = _whole(hf, "num_experts", 0, least=0)
    return {"experts": experts, "active_experts": _whole(hf, "num_experts_per_tok", 2)} if experts else {}


def chatglm(hf: Settings) -> dict[str, Any]:
    """The first generation has other names, and GPT's MLP; later ones rotate half of a head."""
    if hf.get("inner_hidden_size") is not None:
        return {
            "d_ff": _whole(hf, "inner_hidden_size"),
            "vocab": _whole(hf, "vocab_size", 150528),
            "context": _whole(hf, "max_sequence_length", 2048),
            "norm": "layer_norm",
            "activation": "gelu",
            "tied": _flag(hf, "tie_word_embeddings", True),
        }
    grouped, bias = _flag(hf, "multi_query_attention", False), _flag(hf, "add_bias_linear", False)
    return {
        "d_ff": _whole(hf, "ffn_hidden_size"),
        "vocab": _whole(hf, "padded_vocab_size"),
        "context": _whole(hf, "seq_length"),
        "head_dim": _whole(hf, "kv_channels"),
        "kv_heads": _whole(hf, "multi_query_group_num") if grouped else _whole(hf, "num_attention_heads"),
        "norm": "rms_norm",
        "activation": "silu",
        "gated": True,
        "fused_gate": True,
        "rotary_fraction": 0.5,
        "qkv_bias": bias or _flag(hf, "add_qkv_bias", False),
        "out_bias": bias,
        "mlp_bias": bias,
        "tied": _flag(hf, "tie_word_embeddings", False),
    }


def qwen(hf: Settings) -> dict[str, Any]:
    """The width in the config is that of the MLP's two projections together."""
    bias = not _flag(hf, "no_bias", True)
    return {"d_ff": _whole(hf, "intermediate_size", least=2) // 2, "out_bias": bias, "mlp_bias": bias}


def exaone(hf: Settings) -> dict[str, Any]:
    """The MLP is four times as wide as the model where its width is not given."""
    return {"d_ff": _whole(hf, "intermediate_size", 4 * _whole(hf, "hidden_size"))}


def deepseek(hf: Settings) -> dict[str, Any]:
    """A network without routed experts is LLaMA's; shared experts are one wide one."""
    experts, width = _whole(hf, "n_routed_experts", 0, least=0), _whole(hf, "moe_intermediate_size")
    if not experts:
        return {}
    return {
        "experts": experts,
        "active_experts": _whole(hf, "num_experts_per_tok"),
        "expert_d_ff": width,
        **_shared(hf, _whole(hf, "n_shared_experts", 0, least=0)),
    }


def bailing_moe(hf: Settings) -> dict[str, Any]:
    """All of a head is rotated unless a part is named; shared experts are one wide one."""
    shared = _whole(hf, "num_shared_experts", 0, least=0)
    return {**_rotary(hf, "partial_rotary_factor", 1.0), **_shared(hf, shared)}
