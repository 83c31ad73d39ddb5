"""What the fields of Hugging Face's hybrids mean, whose layers are listed by name.

As in hf_rules.py for the others. Source: transformers.
"""

from __future__ import annotations

from ..errors import InputError, wrong
from ..named import Any
from .hf_fields import Settings, _flag, _list, _short, _whole
from .hf_rules import _rotary
from .hf_stacks import _head_width

ATTENTION, OTHERS = ("full_attention", "attention"), ("linear_attention", "mamba", "conv")


def granitemoehybrid(hf: Settings) -> dict[str, Any]:
    """All layers have experts and a shared one, or the shared one is their MLP."""
    if hf["mamba_d_head"] != "auto":
        _head_width(hf, "mamba_d_head", "mamba_expand", "mamba_n_heads")
    layers, shared = _layers(hf), _whole(hf, "shared_intermediate_size", least=0)
    experts = _whole(hf, "num_local_experts", least=0)
    mlp: dict[str, Any] = {"expert_layers": (layers,), "d_ff": shared, "active_experts": 1}
    if experts:
        active = _whole(hf, "num_experts_per_tok")
        mlp = {"experts": experts, "active_experts": active, "shared_d_ff": shared}
        mlp["expert_layers"] = tuple(range(layers))
    rotates = hf.get("position_embedding_type") == "rope"
    return {**mlp, "attention_layers": _attention(hf, layers), "rotary_fraction": float(rotates)}


def lfm2(hf: Settings) -> dict[str, Any]:
    """The MLP's width is two thirds of what the config says, rounded up, if it is adjusted."""
    width, layers = _whole(hf, "block_ff_dim", _whole(hf, "intermediate_size")), _layers(hf)
    if _flag(hf, "block_auto_adjust_ff_dim", True):
        width = 2 * width // 3
        factor = hf.get("block_ffn_dim_multiplier")
        if factor is not None:
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1000:
                name = "block_ffn_dim_multiplier"
                raise wrong(name, factor, "numbers up to 1,000")
            multiple = _whole(hf, "block_multiple_of")
            width = multiple * -(-int(factor * width) // multiple)
    if not width:
        raise InputError("intermediate_size", "two thirds of it are no whole number above 0; allowed: from 2")
    known = _attention(hf, layers)
    if hf.get("layer_types") is None:
        named = range(layers) if hf.get("full_attn_idxs") is None else _list(hf, "full_attn_idxs")
        known = tuple(i for i in range(layers) if i in named) or (layers,)
    return {
        "d_ff": width,
        "attention_layers": known,
        "expert_layers": (layers,),
        "tied": _flag(hf, "tie_embedding", _flag(hf, "tie_word_embeddings", True)),
    }


def qwen3_5(hf: Settings) -> dict[str, Any]:
    """Every fourth layer attends, a quarter of its heads' widths rotated; all have MLPs."""
    layers = _layers(hf)
    if hf.get("layer_types") is None:
        every = _whole(hf, "full_attention_interval", 4)
        attention = tuple(range(every - 1, layers, every)) or (layers,)
    else:
        attention = _attention(hf, layers)
    rotated = _rotary(hf, "partial_rotary_factor", 0.25)
    return {"attention_layers": attention, "expert_layers": (layers,), **rotated}


def qwen3_5_moe(hf: Settings) -> dict[str, Any]:
    """As qwen3_5, with experts in all layers."""
    settings = qwen3_5(hf)
    return {**settings, "expert_layers": tuple(range(_layers(hf)))}


def qwen3_next(hf: Settings) -> dict[str, Any]:
    """As qwen3_5, with experts in every n-th layer, except listed ones."""
    every, listed, layers = _whole(hf, "decoder_sparse_step"), hf.get("mlp_only_layers") or (), _layers(hf)
    if not isinstance(listed, list | tuple):
        raise wrong("mlp_only_layers", listed, "a list of layers")
    sparse = tuple(i for i in range(every - 1, layers, every) if i not in listed)
    experts = _whole(hf, "num_experts", least=0)
    return {
        **qwen3_5(hf),
        "expert_layers": sparse if experts and sparse else (layers,),
        "experts": max(experts, 1),
        **({} if experts else {"active_experts": 1}),
    }


def falcon_h1(hf: Settings) -> dict[str, Any]:
    """A mixer's inner width is a field, or a multiple of the model's."""
    heads = _whole(hf, "mamba_n_heads")
    inner = _whole(hf, "mamba_d_ssm", _whole(hf, "mamba_expand") * _whole(hf, "hidden_size"))
    if inner % heads:
        raise wrong("mamba_n_heads", heads, f"divisors of the mixer's width, {inner}")
    if hf["mamba_d_head"] != "auto" and _whole(hf, "mamba_d_head") != inner // heads:
        raise wrong("mamba_d_head", hf["mamba_d_head"], str(inner // heads))
    return {
        "expert_layers": (_layers(hf),),
        "mamba_head_dim": inner // heads,
        "kv_heads": _whole(hf, "num_key_value_heads", _whole(hf, "num_attention_heads")),
    }


PATTERN = {
    "linear_attention": "M",
    "mamba": "M",
    "full_attention": "*",
    "attention": "*",
    "mlp": "-",
    "moe": "E",
}


def nemotron_h(hf: Settings) -> dict[str, Any]:
    """Each layer has a letter or a name; they also give the number of layers."""
    if hf.get("layers_block_type") is not None:
        names = _list(hf, "layers_block_type")
        if not names or not all(isinstance(name, str) and name in PATTERN for name in names):
            raise InputError("layers_block_type", f"allowed: a list of {', '.join(PATTERN)}")
        pattern: Any = "".join(PATTERN[name] for name in names)
    else:
        pattern = hf.get("hybrid_override_pattern", "ME*-")
    if not isinstance(pattern, str) or not pattern or set(pattern) - set(PATTERN.values()):
        raise wrong("hybrid_override_pattern", pattern, "a text of the letters M, *, - and E")
    _short(len(pattern), "hybrid_override_pattern")
    settings = {
        "pattern": pattern,
        "layers": len(pattern),
        "kv_heads": _whole(hf, "num_key_value_heads", _whole(hf, "num_attention_heads")),
    }
    if "E" not in pattern:
        return settings
    latent = hf.get("moe_latent_size")
    return {
        **settings,
        "experts": _whole(hf, "n_routed_experts"),
        "active_experts": _whole(hf, "num_experts_per_tok"),
        "expert_d_ff": _whole(hf, "moe_intermediate_size"),
        "shared_d_ff": _whole(hf, "moe_shared_expert_intermediate_size"),
        "normalize_experts": _flag(hf, "norm_topk_prob", True),
        "expert_latent": 0 if latent is None else _whole(hf, "moe_latent_size"),
    }


def _layers(hf: Settings) -> int:
    return _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")


def _attention(hf: Settings, layers: int) -> tuple[int, ...]:
    """The layers that attend, by their names; where there are no names, none does."""
    kinds = [OTHERS[0]] * layers if hf.get("layer_types") is None else _list(hf, "layer_types")
    if len(kinds) != layers or any(kind not in (*ATTENTION, *OTHERS) for kind in kinds):
        names = ", ".join((*ATTENTION, *OTHERS))
        raise InputError("layer_types", f"allowed, for each of {layers} layers: {names}")
    return tuple(i for i, kind in enumerate(kinds) if kind in ATTENTION) or (layers,)
