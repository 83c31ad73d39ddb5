"""What the fields of Hugging Face's mixtures of experts mean, as in hf_rules.py for the others.

Source: transformers.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError, wrong
from ..named import Any
from .hf_classes import UncoveredError, uncovered
from .hf_fields import Settings, _flag, _list, _short, _whole
from .hf_rules import _late_windows, _layer_types, _period, _rotary, _windows


def qwen2_moe(hf: Settings) -> dict[str, Any]:
    """Every other layer below some depth has a window, if any do."""
    windows: tuple[int, ...] = (0,)
    if _flag(hf, "use_sliding_window", False):
        last = _whole(hf, "max_window_layers", least=0)
        layers = _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")
        kinds = ["full_attention" if i % 2 or i >= last else "sliding_attention" for i in range(layers)]
        windows = _layer_types(hf, kinds)
    return {"windows": windows, **_sparse(hf)}


def qwen3_moe(hf: Settings) -> dict[str, Any]:
    """Every layer has a window, or none does."""
    slides = _flag(hf, "use_sliding_window", False)
    return {"windows": (_whole(hf, "sliding_window", 0, least=0) if slides else 0,), **_sparse(hf)}


def qwen3_vl_moe_text(hf: Settings) -> dict[str, Any]:
    """No layer has a window."""
    return _sparse(hf)


def deepseek_v3(hf: Settings) -> dict[str, Any]:
    """A head's width is the sum of its two parts; shared experts are one wide one."""
    width = _whole(hf, "qk_nope_head_dim") + _whole(hf, "qk_rope_head_dim")
    return {"head_dim": width, **_shared(hf)}


deepseek_v2 = deepseek_v3


def glm4_moe_lite(hf: Settings) -> dict[str, Any]:
    """Which layers have experts may be listed: all but the first."""
    if hf.get("mlp_layer_types") is None:
        return deepseek_v3(hf)
    kinds, layers = _list(hf, "mlp_layer_types"), _whole(hf, "num_hidden_layers")
    dense = kinds.count("dense")
    if kinds != ["dense"] * dense + ["sparse"] * (layers - dense):
        raise UncoveredError("mlp_layer_types", f"allowed: dense, then sparse, for each of {layers} layers")
    return deepseek_v3({**hf, "first_k_dense_replace": dense})


def deepseek_v32(hf: Settings) -> dict[str, Any]:
    """Every layer has an indexer that picks the positions to which it attends."""
    if hf.get("indexer_types") is not None and set(_list(hf, "indexer_types")) != {"full"}:
        raise UncoveredError("indexer_types", "allowed: full for each layer")
    return glm4_moe_lite(hf)


glm_moe_dsa = deepseek_v32


def llama4_text(hf: Settings) -> dict[str, Any]:
    """Every fourth layer rotates nothing and sees all, the others a chunk; every n-th layer has experts."""
    layers = _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")
    every = _whole(hf, "interleave_moe_layer_step")
    listed = hf.get("moe_layers")
    if listed is not None and list(_list(hf, "moe_layers")) != list(range(every - 1, layers, every)):
        raise UncoveredError(
            "moe_layers", "allowed: every so many layers, as interleave_moe_layer_step has it"
        )
    period = _short(_whole(hf, "no_rope_layer_interval"), "no_rope_layer_interval")
    rotated = [int((i + 1) % period > 0) for i in range(layers)]
    if hf.get("no_rope_layers"):
        rotated = _list(hf, "no_rope_layers")
        if len(rotated) < layers or any(one not in (0, 1) for one in rotated):
            raise InputError("no_rope_layers", "allowed: 0 or 1 for each of num_hidden_layers")
        rotated = [int(one) for one in rotated[:layers]]
    kinds = ["chunked_attention" if one else "full_attention" for one in rotated]
    if hf.get("layer_types") is not None:
        kinds = _list(hf, "layer_types")
    chunk = "attention_chunk_size" if hf.get("attention_chunk_size") is not None else ""
    names = "chunked_attention", "full_attention", chunk, "num_hidden_layers"
    windows = _windows(hf, kinds, "layer_types", *names)
    tuned = hf.get("attn_temperature_tuning")  # 4 in the first files of Scout: its truth counts
    tuned = bool(tuned) if isinstance(tuned, int) else tuned
    return {"rotated": _period(rotated), "windows": windows, "sparse_every": every, "temperature": tuned}


def gemma4_text(hf: Settings) -> dict[str, Any]:
    """Every sixth layer sees everything, and the last one always; experts are there if they are enabled."""
    if hf.get("use_bidirectional_attention") not in (None, "vision"):  # vision: tokens of one picture alone
        name = "use_bidirectional_attention"
        raise uncovered(name, hf[name], "null, vision")
    layers = _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")
    kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)]
    if hf.get("layer_types") is not None:
        kinds = _list(hf, "layer_types")
    names = "sliding_attention", "full_attention", "sliding_window", "num_hidden_layers"
    _windows(hf, kinds, "layer_types", *names)
    full = (*(i for i, kind in enumerate(kinds[:-1]) if kind == "full_attention"), layers - 1)
    settings: dict[str, Any] = {"full_layers": full, "experts": 0}
    if hf.get("per_layer_config") is not None:
        settings |= _full_heads(hf, full)
    elif _flag(hf, "attention_k_eq_v", False):
        settings["full_kv_heads"] = _whole(hf, "num_global_key_value_heads", 0)
    if _flag(hf, "enable_moe_block", False):
        settings["experts"] = _whole(hf, "num_experts")
        settings["active_experts"] = _whole(hf, "top_k_experts")
        settings["expert_d_ff"] = _whole(hf, "moe_intermediate_size")
    return settings


def _full_heads(hf: Settings, full: tuple[int, ...]) -> dict[str, Any]:
    """The heads of layers without a window, which configs of transformers 5.17 list by layer."""
    name, table = "per_layer_config", hf["per_layer_config"]
    layers = list(table.values()) if isinstance(table, Mapping) else []
    same = all(one == layers[0] and isinstance(one, Mapping) for one in layers)
    written = {str(i).lstrip("0") or "0" for i in table}  # of ten layers and more as "05"
    if not layers or not same or written != {str(i) for i in full}:
        raise UncoveredError(name, "allowed: the same heads for each layer of full_attention, and no others")
    usual = {"head_dim": _whole(hf, "head_dim"), "num_key_value_heads": _whole(hf, "num_key_value_heads")}
    if set(layers[0]) - set(usual):
        raise UncoveredError(name, f"allowed: {', '.join(usual)}")
    heads = {**usual, **layers[0]}
    return {
        "full_head_dim": _whole(heads, "head_dim"),
        "full_kv_heads": _whole(heads, "num_key_value_heads"),
    }


def youtu(hf: Settings) -> dict[str, Any]:
    """Latent attention and plain MLPs."""
    return {"head_dim": _whole(hf, "qk_nope_head_dim") + _whole(hf, "qk_rope_head_dim")}


def glm4_moe(hf: Settings) -> dict[str, Any]:
    """Half of a head is rotated; a head's width is rounded down where it is not given."""
    width = _whole(hf, "head_dim", _whole(hf, "hidden_size") // _whole(hf, "num_attention_heads"))
    return {"head_dim": width, **_rotary(hf, "partial_rotary_factor", 0.5), **_shared(hf)}


def solar_open(hf: Settings) -> dict[str, Any]:
    """All of a head is rotated unless a part is named; every layer has experts."""
    return {**_rotary(hf, "partial_rotary_factor", 1.0), **_shared({**hf, "first_k_dense_replace": 0})}


def hunyuan_v1_moe(hf: Settings) -> dict[str, Any]:
    """Fields that may be lists by layer must be the same in each; the shared expert is as wide as the
    others.
    """
    one = {name: _alike(hf, name) for name in ("num_experts", "moe_topk")}
    width = _whole(hf, "intermediate_size")
    return {"experts": one["num_experts"], "active_experts": one["moe_topk"], "shared_d_ff": width}


def _alike(hf: Settings, name: str) -> int:
    """A number, or a list that has it for each layer."""
    listed = _list(hf, name) if isinstance(hf[name], list | tuple) else [hf[name]]
    if any(one != listed[0] for one in listed):
        raise uncovered(name, hf[name], "the same for each layer")
    return _whole({name: listed[0]}, name)


def dots1(hf: Settings) -> dict[str, Any]:
    """Layers from some depth on have a window, if there is one."""
    slides = hf["sliding_window"] is not None
    return {"windows": _late_windows(hf) if slides else (0,), **_shared(hf)}


def ernie4_5_moe(hf: Settings) -> dict[str, Any]:
    """Every n-th layer from a first one on has experts; shared experts are one wide one."""
    last = _whole(hf, "num_hidden_layers") - 1
    if hf["moe_layer_end_index"] not in (-1, last):
        raise wrong("moe_layer_end_index", hf["moe_layer_end_index"], f"-1, {last}")
    return {
        "shared_d_ff": _whole(hf, "moe_num_shared_experts", least=0) * _whole(hf, "moe_intermediate_size"),
        "dense_layers": min(_whole(hf, "moe_layer_start_index", least=0), last + 1),
    }


def _shared(hf: Settings, count: int | None = None) -> dict[str, Any]:
    """Shared experts are one wide one, the config's number of them unless `count` is given; the first layers
    have none.
    """
    dense = _whole(hf, "first_k_dense_replace", least=0)
    shared = _whole(hf, "n_shared_experts") if count is None else count
    return {
        "shared_d_ff": shared * _whole(hf, "moe_intermediate_size"),
        "dense_layers": min(dense, _whole(hf, "num_hidden_layers")),
    }


def _sparse(hf: Settings) -> dict[str, Any]:
    """Which layers have experts: every n-th, except the listed ones, which must be the first."""
    listed = hf.get("mlp_only_layers") or []
    if not isinstance(listed, list | tuple) or list(listed) != list(range(len(listed))):
        raise InputError("mlp_only_layers", "allowed: the first layers, as in [0, 1, 2]")
    return {"sparse_every": _whole(hf, "decoder_sparse_step"), "dense_layers": len(listed)}
