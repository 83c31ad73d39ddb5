"""What the fields of Hugging Face's encoder-decoders, vision transformers and state spaces mean.

As in hf_rules.py for the others. Source: transformers.
"""

from __future__ import annotations

from ..errors import InputError, wrong
from ..named import Any
from .hf_classes import UncoveredError, uncovered
from .hf_fields import Settings, _flag, _list, _short, _whole
from .hf_fields import activation as _activation
from .hf_images import _image, _labels, _number, _side

T5_ACTIVATIONS = {
    "relu": ("relu", False), "gelu": ("gelu", False), "gated-gelu": ("gelu_new", True),
    "gated-relu": ("relu", True), "gated-silu": ("silu", True),
}  # fmt: skip


def t5(hf: Settings) -> dict[str, Any]:
    """One field has the MLPs' form. The head is always the embedding; `tie` says whether it is scaled."""
    word = hf["feed_forward_proj"]
    if not isinstance(word, str) or word not in T5_ACTIVATIONS:
        raise wrong("feed_forward_proj", word, ", ".join(T5_ACTIVATIONS))
    activation, gated = T5_ACTIVATIONS[word]
    gated = _flag(hf, "is_gated_act", gated)
    if hf.get("dense_act_fn") is not None:
        activation = _activation(hf, "dense_act_fn")
    return {"activation": activation, "gated": gated, "head_scale": _flag(hf, "tie_word_embeddings", True)}


mt5 = t5


def deberta_v2(hf: Settings) -> dict[str, Any]:
    """Distances between tokens, in both directions, have embeddings, one each or one for a bucket."""
    width = _whole(hf, "hidden_size")
    for name in ("embedding_size", "pooler_hidden_size"):
        if hf.get(name) not in (None, width):
            raise uncovered(name, hf[name], f"hidden_size, {width}")
    if hf.get("attention_head_size") not in (None, width // _whole(hf, "num_attention_heads")):
        raise UncoveredError("attention_head_size", "allowed: hidden_size / num_attention_heads")
    normed = "layer_norm" in str(hf.get("norm_rel_ebd", "none")).lower()
    settings = {"pooler_activation": _activation(hf, "pooler_hidden_act"), "distance_norm": normed}
    if not _flag(hf, "relative_attention", False):
        if normed:
            raise UncoveredError("norm_rel_ebd", "allowed without relative_attention: none")
        return {**settings, "distances": 0}
    kinds = hf["pos_att_type"] or ()
    kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
    if {str(kind).strip() for kind in kinds} != {"c2p", "p2c"}:
        raise uncovered("pos_att_type", hf["pos_att_type"], "c2p|p2c")
    longest = hf["max_relative_positions"]
    reach = hf.get("position_buckets")
    if not isinstance(reach, int) or reach < 1:
        reach = longest if isinstance(longest, int) and longest > 0 else _whole(hf, "max_position_embeddings")
    shared = _flag(hf, "share_att_key", False)
    return {**settings, "distances": 2 * reach, "shared_projections": shared}


def vit(hf: Settings) -> dict[str, Any]:
    """Squares."""
    return {"patch": _side(hf, "patch_size"), **_image(hf), **_labels(hf)}


deit = clip_vision_model = vit


def pixtral(hf: Settings) -> dict[str, Any]:
    """The class derives a head's width, but rotates a head of the width in the config."""
    width = _whole(hf, "hidden_size") // _whole(hf, "num_attention_heads")
    if hf.get("head_dim") not in (None, width):
        raise uncovered("head_dim", hf["head_dim"], str(width))
    return vit(hf)


def internvl_vision(hf: Settings) -> dict[str, Any]:
    """Positions are optional; unless patches are averaged, there is a last norm, a layer norm."""
    final = not _flag(hf, "use_mean_pooling", True)
    if hf["norm_type"] not in ("layer_norm", "rms_norm"):
        raise wrong("norm_type", hf["norm_type"], "layer_norm, rms_norm")
    if final and hf["norm_type"] != "layer_norm":
        raise UncoveredError("norm_type", "got rms_norm; allowed without use_mean_pooling: layer_norm")
    for name in ("hidden_dropout_prob", "projection_dropout"):
        if hf[name]:
            raise uncovered(name, hf[name], "0")
    placed = _flag(hf, "use_absolute_position_embeddings", True)
    return {**vit(hf), "final_norm": final, "positions": "learned" if placed else "none"}


def janus_vision(hf: Settings) -> dict[str, Any]:
    """The MLP's width is a multiple."""
    return {**vit(hf), "d_ff": int(_whole(hf, "hidden_size") * _number(hf, "mlp_ratio"))}


def siglip_vision_model(hf: Settings) -> dict[str, Any]:
    """A learned query attends to all patches, unless the tower has no head."""
    return {**vit(hf), "pooling": "attention" if _flag(hf, "vision_use_head", True) else ""}


def whisper(hf: Settings) -> dict[str, Any]:
    """A position of the encoder is two frames of the spectrogram."""
    return {"frames": 2 * _whole(hf, "max_source_positions")}


def bart(hf: Settings) -> dict[str, Any]:
    """Without a tied head, the tables of encoder and decoder are not tied either."""
    return {"tables": 1 if _flag(hf, "tie_word_embeddings", True) else 3}


mbart = bart


def dinov2(hf: Settings) -> dict[str, Any]:
    """The MLP's width is a multiple, two thirds of it where it is gated."""
    gated = _flag(hf, "use_swiglu_ffn", False)
    width = _whole(hf, "mlp_ratio") * _whole(hf, "hidden_size")
    swiglu = {"activation": "silu", "d_ff": (2 * width // 3 + 7) // 8 * 8}
    return {**vit(hf), **(swiglu if gated else {"d_ff": width})}


def mamba(hf: Settings) -> dict[str, Any]:
    """The rank of the step size may follow from the width."""
    return {"dt_rank": _rank(hf, "time_step_rank")}


def mamba2(hf: Settings) -> dict[str, Any]:
    """Heads times their width must be the inner width."""
    _head_width(hf, "head_dim", "expand", "num_heads")
    return {}


def jamba(hf: Settings) -> dict[str, Any]:
    """Every n-th layer attends, and every m-th has experts, if there are several."""
    layers = _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")
    several = _whole(hf, "num_experts") > 1
    return {
        "attention_layers": _every(hf, "attn_layer", layers),
        "expert_layers": _every(hf, "expert_layer", layers) if several else (layers,),
        **({} if several else {"active_experts": 1}),
        "dt_rank": _rank(hf, "mamba_dt_rank"),
    }


def bamba(hf: Settings) -> dict[str, Any]:
    """Listed layers attend; none has experts."""
    layers = _short(_whole(hf, "num_hidden_layers"), "num_hidden_layers")
    listed = _list(hf, "attn_layer_indices") if hf.get("attn_layer_indices") is not None else []
    known = [i for i in listed if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < layers]
    if len(known) < len(listed):
        raise InputError("attn_layer_indices", f"allowed: a list of numbers from 0 to {layers - 1}")
    if hf["mamba_d_head"] != "auto":
        _head_width(hf, "mamba_d_head", "mamba_expand", "mamba_n_heads")
    return {
        "attention_layers": tuple(known) or (layers,),
        "expert_layers": (layers,),
        "kv_heads": _whole(hf, "num_key_value_heads", _whole(hf, "num_attention_heads")),
    }


def _every(hf: Settings, name: str, layers: int) -> tuple[int, ...]:
    """Layers by a period and an offset; where there is no such layer, one behind the last stands for none."""
    period, offset = _whole(hf, f"{name}_period"), _whole(hf, f"{name}_offset", least=0)
    if offset >= period:
        raise wrong(f"{name}_offset", offset, f"less than {name}_period, {period}")
    return tuple(range(offset, layers, period)) or (layers,)


def _rank(hf: Settings, name: str) -> int:
    return 0 if hf[name] == "auto" else _whole(hf, name)


def _head_width(hf: Settings, width: str, expand: str, heads: str) -> None:
    inner, per_head = _whole(hf, expand) * _whole(hf, "hidden_size"), _whole(hf, width)
    if per_head * _whole(hf, heads) != inner:
        raise wrong(width, per_head, f"{expand} x hidden_size / {heads}")
