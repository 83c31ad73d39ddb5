"""What the fields of some Hugging Face families mean, where that takes a computation.

A function named after a model_type turns the family's completed settings into settings of ours.
Source: transformers.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError, wrong
from ..named import Any
from .hf_fields import Settings, _flag, _list, _short, _whole, activation


def opt(hf: Settings) -> dict[str, Any]:
    """Some sizes have their norms behind the residual additions, and a narrower embedding."""
    pre = _flag(hf, "do_layer_norm_before", True)
    width, embed = _whole(hf, "hidden_size"), _whole(hf, "word_embed_proj_dim", 0)
    return {
        "residual": "pre" if pre else "post",
        "final_norm": pre and not _flag(hf, "_remove_final_layer_norm", False),
        "embed_dim": 0 if embed == width else embed,
        "norm": "layer_norm" if _flag(hf, "layer_norm_elementwise_affine", True) else "layer_norm_plain",
    }


def gpt_neo(hf: Settings) -> dict[str, Any]:
    """Layers attend to everything or to a window, by a list of patterns and counts."""
    if "attention_layers" in hf:
        kinds = hf["attention_layers"]
    else:
        kinds = []
        for entry in _list(hf, "attention_types"):
            match entry:
                case [[*pattern], count]:
                    times = _whole({"attention_types": count}, "attention_types")
                    _short(len(pattern) * times, "attention_types")
                    kinds += pattern * times
                case _:
                    raise InputError("attention_types", "allowed: pairs of a list of kinds and a count")
    return {"windows": _windows(hf, kinds, "attention_types", "local", "global", "window_size", "num_layers")}


def gpt_neox(hf: Settings) -> dict[str, Any]:
    """Attention and MLP in parallel, each after its own norm, or one after the other."""
    parallel = _flag(hf, "use_parallel_residual", True)
    return {"residual": "parallel_two_norms" if parallel else "pre", **_rotary(hf, "rotary_pct", 0.25)}


def gptj(hf: Settings) -> dict[str, Any]:
    """The rotated part of a head is given as a width."""
    head_dim = _whole(hf, "n_embd") // _whole(hf, "n_head")
    rotated = head_dim if hf.get("rotary_dim") is None else _whole(hf, "rotary_dim")
    if head_dim and rotated > head_dim:
        raise wrong("rotary_dim", rotated, f"at most the width of a head, {head_dim}")
    return {"rotary_fraction": rotated / max(head_dim, 1)}


codegen = gptj


def falcon(hf: Settings) -> dict[str, Any]:
    """Three generations with key-value heads, norms and positions of their own."""
    new, parallel = _flag(hf, "new_decoder_architecture", False), _flag(hf, "parallel_attn", True)
    heads = _whole(hf, "num_attention_heads")
    if new:
        if not parallel:
            raise InputError("parallel_attn", "got false; allowed with new_decoder_architecture: true")
        two = hf.get("num_ln_in_parallel_attn") is None or _whole(hf, "num_ln_in_parallel_attn") == 2
        kv_heads, residual = _whole(hf, "num_kv_heads", heads), "parallel_two_norms" if two else "parallel"
    else:
        if hf.get("num_ln_in_parallel_attn") == 2:
            raise InputError("num_ln_in_parallel_attn", "got 2; allowed without new_decoder_architecture: 1")
        kv_heads, residual = 1 if _flag(hf, "multi_query", True) else heads, "parallel" if parallel else "pre"
    positions = "alibi" if _flag(hf, "alibi", False) else "rotary"
    shared = not new and kv_heads == 1
    return {"kv_heads": kv_heads, "broadcast_keys": shared, "residual": residual, "positions": positions}


def glm(hf: Settings) -> dict[str, Any]:
    """Half of a head is rotated."""
    return _rotary(hf, "partial_rotary_factor", 0.5)


glm4 = nemotron = persimmon = glm


def glm4v_text(hf: Settings) -> dict[str, Any]:
    """All of a head is rotated by default; a head's width follows from the model's."""
    width = _whole(hf, "hidden_size") // _whole(hf, "num_attention_heads")
    if hf.get("head_dim") not in (None, width):  # the class rotates heads of the one, and makes the other
        raise wrong("head_dim", hf["head_dim"], str(width))
    return {"head_dim": width, **glm_ocr_text(hf)}


def glm_ocr_text(hf: Settings) -> dict[str, Any]:
    """All of a head is rotated by default."""
    return _rotary(hf, "partial_rotary_factor", 1.0)


def phi(hf: Settings) -> dict[str, Any]:
    """As glm; where queries and keys have norms, heads must have their default width."""
    heads, width = _whole(hf, "num_attention_heads"), _whole(hf, "hidden_size")
    if hf.get("head_dim") is not None and hf.get("qk_layernorm") and hf["head_dim"] != width // heads:
        raise InputError("head_dim", "allowed with qk_layernorm: hidden_size / num_attention_heads")
    return glm(hf)


def mllama_text_model(hf: Settings) -> dict[str, Any]:
    """Listed layers attend to the picture; listed numbers beyond the last layer do not count."""
    usual = [3, 8, 13, 18, 23, 28, 33, 38]
    field = "cross_attention_layers"
    listed = _list({field: usual if hf[field] is None else hf[field]}, field)
    layers = _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")
    return {"cross_layers": tuple(i for i in range(layers) if i in listed) or (layers,)}


def helium(hf: Settings) -> dict[str, Any]:
    """Heads times their width must be the model's width: the class uses one for the other."""
    heads, width = _whole(hf, "num_attention_heads"), _whole(hf, "hidden_size")
    if hf.get("head_dim") is not None and _whole(hf, "head_dim") * heads != width:
        raise wrong("head_dim", hf["head_dim"], "hidden_size / num_attention_heads")
    return {}


olmoe = helium


def stablelm(hf: Settings) -> dict[str, Any]:
    """Attention and MLP in parallel after one norm, or one after the other."""
    parallel = _flag(hf, "use_parallel_residual", False)
    return {"residual": "parallel" if parallel else "pre", **_rotary(hf, "partial_rotary_factor", 0.25)}


def gpt_bigcode(hf: Settings) -> dict[str, Any]:
    """All query heads share one key-value head, or none do."""
    return {"kv_heads": 1 if _flag(hf, "multi_query", True) else 0}


def roberta(hf: Settings) -> dict[str, Any]:
    """The first position is numbered behind the padding token's number; earlier rows are unused."""
    unused = _whole(hf, "pad_token_id", 1, least=0) + 1
    rows = _whole(hf, "max_position_embeddings")
    if rows <= unused:
        raise wrong("max_position_embeddings", rows, f"{unused + 1} or more")
    return {"context": rows - unused, "position_offset": unused}


xlm_roberta = roberta


def electra(hf: Settings) -> dict[str, Any]:
    """The embedding is projected where it is narrower."""
    embed = _whole(hf, "embedding_size")
    return {"embed_dim": 0 if embed == _whole(hf, "hidden_size") else embed}


def mistral(hf: Settings) -> dict[str, Any]:
    """Every layer has the same window."""
    return {"windows": (_whole(hf, "sliding_window", 0, least=0),)}


ministral3 = mixtral = phi3 = phimoe = starcoder2 = mistral


def ministral(hf: Settings) -> dict[str, Any]:
    """Every layer has the same window, unless layers are listed."""
    return {"windows": _layer_types(hf, ["sliding_attention"])}


def cwm(hf: Settings) -> dict[str, Any]:
    """Every fourth layer, from the first on, attends to everything."""
    return {"windows": _layer_types(hf, ["full_attention"] + ["sliding_attention"] * 3)}


def qwen2(hf: Settings) -> dict[str, Any]:
    """Layers from some depth on have a window, if any do."""
    return {"windows": _late_windows(hf) if _flag(hf, "use_sliding_window", False) else (0,)}


qwen2_vl_text = qwen2_5_vl_text = qwen3 = qwen2


def smollm3(hf: Settings) -> dict[str, Any]:
    """Every fourth layer rotates nothing, unless layers are listed."""
    every = _short(_whole(hf, "no_rope_layer_interval", 4), "no_rope_layer_interval")
    rotated = [1] * (every - 1) + [0]
    if hf.get("no_rope_layers"):
        rotated = _list(hf, "no_rope_layers")
        if len(rotated) != _whole(hf, "num_hidden_layers") or any(one not in (0, 1) for one in rotated):
            raise InputError("no_rope_layers", "allowed: 0 or 1 for each of num_hidden_layers")
    return {**qwen2(hf), "rotated": _period([int(one) for one in rotated])}


def gemma2(hf: Settings) -> dict[str, Any]:
    """Every other layer has a window."""
    return {"windows": _layer_types(hf, ["sliding_attention", "full_attention"])}


gpt_oss = gemma2


def gemma3_text(hf: Settings) -> dict[str, Any]:
    """Every sixth layer attends to everything."""
    return {"windows": _full_every(hf, 6)}


def olmo3(hf: Settings) -> dict[str, Any]:
    """Every fourth layer attends to everything."""
    return {"windows": _layer_types(hf, ["sliding_attention"] * 3 + ["full_attention"])}


def cohere2(hf: Settings) -> dict[str, Any]:
    """Every fourth layer attends to everything, and rotates nothing."""
    windows = _full_every(hf, 4)
    return {"windows": windows, "rotated": tuple(int(window > 0) for window in windows)}


def exaone4(hf: Settings) -> dict[str, Any]:
    """As cohere2, but where no layer has a window, all of them rotate."""
    return {"windows": _full_every(hf, 4), "rotated": (1,)} if hf["sliding_window"] is None else cohere2(hf)


def modernbert(hf: Settings) -> dict[str, Any]:
    """All but every third layer see half a window to each side, and the token itself."""
    every = _short(_whole(hf, "global_attn_every_n_layers", 3), "global_attn_every_n_layers")
    sides = {**hf, "sliding_window": _whole(hf, "local_attention", least=0) // 2 + 1}
    kinds = ["full_attention"] + ["sliding_attention"] * (every - 1)
    return {
        "windows": _layer_types(sides, kinds),
        "head_activation": activation(hf, "classifier_activation"),
    }


def _late_windows(hf: Settings) -> tuple[int, ...]:
    """The windows of layers, the first of which attend in full."""
    full = _whole(hf, "max_window_layers", least=0)
    layers = _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")
    kinds = ["full_attention" if i < full else "sliding_attention" for i in range(layers)]
    return _layer_types(hf, kinds)


def _full_every(hf: Settings, usual: int) -> tuple[int, ...]:
    """The windows of layers, every n-th of which attends in full."""
    listed = hf.get("layer_types") is not None
    period = usual if listed else _whole(hf, "sliding_window_pattern", usual)
    period = _short(period, "sliding_window_pattern")
    return _layer_types(hf, ["sliding_attention"] * (period - 1) + ["full_attention"])


def _layer_types(hf: Settings, usual: list[str]) -> tuple[int, ...]:
    kinds = usual if hf.get("layer_types") is None else hf["layer_types"]
    listed = hf.get("layer_types") is not None
    return _windows(
        hf, kinds, "layer_types", "sliding_attention", "full_attention", "sliding_window",
        "num_hidden_layers" if listed else "",
    )  # fmt: skip


def _windows(
    hf: Settings, kinds: Any, name: str, local: str, everywhere: str, window: str, layers: str
) -> tuple[int, ...]:
    """Each layer's window, from the names of the layers' kinds; shortened to one period."""
    known = isinstance(kinds, list | tuple) and all(kind in (local, everywhere) for kind in kinds)
    if not known or not kinds:
        raise InputError(name, f"allowed: a list of {local} and {everywhere}")
    _short(len(kinds), name)
    if layers and len(kinds) != _whole(hf, layers):
        raise InputError(name, f"has {len(kinds)} entries; allowed: one for each of {hf[layers]} layers")
    size = _whole(hf, window) if window and local in kinds else 0
    return _period([size if kind == local else 0 for kind in kinds])


def _period(values: list[int]) -> tuple[int, ...]:
    """A sequence of layers' values, shortened to one period."""
    for period in range(1, min(len(values), 16)):
        if all(value == values[i % period] for i, value in enumerate(values)):
            return tuple(values[:period])
    return tuple(values)


def _rotary(hf: Settings, name: str, usual: float) -> dict[str, Any]:
    """The part of a head that is rotated: newer configs keep it with the other rotary parameters."""
    table = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    value = table.get("partial_rotary_factor") if isinstance(table, Mapping) else None
    value = hf.get(name, hf.get("partial_rotary_factor", usual)) if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise wrong(name, value, "0 to 1")
    return {"rotary_fraction": value}
