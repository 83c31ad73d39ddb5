"""What the fields of vision-language configs mean for the projector between the tower and the text.

The function with a family's name, or with another name that the family's file has, takes the whole config
(its text model under `text` and `text_width`) and the tower, and returns fields of arch/_sight.py. Source:
transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import InputError, wrong
from ..named import Any
from .hf_classes import UncoveredError, uncovered
from .hf_fields import Settings, _flag, _list, _whole, activation

FIELD = "vision_config"


def gemma3(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches are averaged to so many tokens, normed and projected."""
    side = int(_whole(hf, "mm_tokens_per_image") ** 0.5)
    across = tower.image // tower.patch
    if side > across:
        raise uncovered("mm_tokens_per_image", side**2, f"up to the patches, {across**2}")
    return {"pool": across // side, "projector_norm": "rms_norm_plus_one", "projector_bias": False}


def paligemma(hf: Settings, _: Any) -> dict[str, Any]:
    """One linear layer."""
    return _as_wide(hf, hf, "projection_dim")


def llava(hf: Settings, tower: Any) -> dict[str, Any]:
    """A layer before the last is projected by an MLP as wide as the text, the class token left out."""
    return {
        **_selected(hf, tower, several=True),
        "projector_width": hf["text_width"],
        "projector_activation": activation(hf, "projector_hidden_act"),
        "projector_bias": _flag(hf, "multimodal_projector_bias", True),
    }


def llava_next(hf: Settings, tower: Any) -> dict[str, Any]:
    """As llava for every tile of a picture, with a newline token behind each row."""
    field = "image_grid_pinpoints"
    pairs = [_list({field: pair}, field) for pair in _list(hf, field)]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise InputError(field, "allowed: pairs of a height and a width")
    sides = tuple(_whole({field: side}, field) for pair in pairs for side in pair)
    if any(side % tower.image for side in sides):
        raise UncoveredError(field, f"allowed: multiples of the tower's image, {tower.image}")
    settings = llava(hf, tower)
    if tower.extra_tokens and settings["class_tokens"]:  # it is no patch of a tile
        raise UncoveredError("vision_feature_select_strategy", "got full; allowed for this tower: default")
    return {**settings, "resolutions": sides, "newline": True}


def llava_onevision(hf: Settings, tower: Any) -> dict[str, Any]:
    """As llava_next; the tokens of many tiles are scaled down."""
    field = "vision_aspect_ratio"
    most = re.fullmatch(r"anyres_max_([0-9]{1,9})", str(hf[field]))
    if most is None:
        raise uncovered(field, hf[field], "anyres_max_ and a number")
    return {**llava_next(hf, tower), "most_tiles": _whole({field: int(most[1])}, field)}


def video_llava(hf: Settings, tower: Any) -> dict[str, Any]:
    """As llava; another tower takes videos."""
    return {**llava(hf, tower), "stored_towers": 1}


def vipllava(hf: Settings, tower: Any) -> dict[str, Any]:
    """Several layers' outputs are normed, side by side, and projected by an MLP as wide as the text."""
    layers = {
        "vision_feature_layer": hf["vision_feature_layers"],
        "vision_feature_select_strategy": "default",
    }
    return {**llava({**hf, **layers}, tower), "projector_norm": "layer_norm"}


def _selected(hf: Settings, tower: Any, *, several: bool = False) -> dict[str, Any]:
    """The layer whose output is projected, or `several`, with the class token or without it."""
    field, how = "vision_feature_layer", hf["vision_feature_select_strategy"]
    listed = several and isinstance(hf[field], list | tuple)
    behind = tuple(_behind(field, layer, tower.layers) for layer in (hf[field] if listed else [hf[field]]))
    if not behind:
        raise UncoveredError(field, "got no layers; allowed: a layer, or several")
    if how not in ("default", "full"):
        raise wrong("vision_feature_select_strategy", how, "default, full")
    if how == "default" and not tower.extra_tokens:  # it would leave out a patch
        raise UncoveredError("vision_feature_select_strategy", "got default; allowed for this tower: full")
    read = {"read_layers": behind} if len(behind) > 1 else {"unread_layers": tower.layers - behind[0]}
    return {**read, "class_tokens": how == "full"}


def _behind(field: str, layer: Any, layers: int) -> int:
    """After how many layers the features are read; layers count from either end."""
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 < abs(layer) <= layers:
        raise uncovered(field, layer, f"1 to {layers}, or -{layers} to -1")
    return layer if layer > 0 else layers + 1 + layer


def deepseek_vl(hf: Settings, _: Any) -> dict[str, Any]:
    """An MLP as wide as the text."""
    return {"projector_width": hf["text_width"]}


def deepseek_vl_hybrid(hf: Settings, _: Any) -> dict[str, Any]:
    """Each tower's output becomes half as wide as the text."""
    if hf["text_width"] % 2:
        raise uncovered("text_config.hidden_size", hf["text_width"], "even numbers")
    return {}


def got_ocr2(_: Settings, __: Any) -> dict[str, Any]:
    """Two convolutions and a linear layer."""
    return {}


def mistral3(hf: Settings, tower: Any) -> dict[str, Any]:
    """A norm, squares of patches projected to one token, an MLP as wide as the text."""
    if hf["vision_feature_layer"] != -1:
        raise uncovered("vision_feature_layer", hf["vision_feature_layer"], "-1")
    return {
        **_merged(hf, "spatial_merge_size", _whole(hf, "spatial_merge_size"), tower),
        "merge_layer": True,
        "tower_final_norm": True,
        "projector_width": hf["text_width"],
        "projector_activation": activation(hf, "projector_hidden_act"),
        "projector_bias": _flag(hf, "multimodal_projector_bias", False),
    }


def idefics3(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches become one token, by one linear layer."""
    return {**_merged(hf, "scale_factor", _whole(hf, "scale_factor"), tower), "projector_bias": False}


def idefics2(hf: Settings, _: Any) -> dict[str, Any]:
    """A gated MLP as wide as the text's, and a resampler."""
    usual = {
        "hidden_act": "silu", "resampler_n_latents": 64, "resampler_depth": 3, "resampler_n_heads": 16,
        "resampler_head_dim": 96, "num_key_value_heads": 4,
    }  # fmt: skip
    own = _inside(hf, "perceiver_config", usual)
    heads, kv_heads = _whole(own, "resampler_n_heads"), _whole(own, "num_key_value_heads")
    if heads % kv_heads:
        problem = f"got {kv_heads}; allowed: what divides resampler_n_heads, {heads}"
        raise InputError("perceiver_config.num_key_value_heads", problem)
    if own.get("attention_dropout"):
        raise UncoveredError("perceiver_config.attention_dropout", "allowed: 0")
    return {
        "projector_width": hf["text"].d_ff,
        "projector_activation": hf["text"].activation,
        "projector_gated": True,
        "projector_bias": False,
        "resampler_layers": _whole(own, "resampler_depth"),
        "resampler_tokens": _whole(own, "resampler_n_latents"),
        "resampler_heads": heads,
        "resampler_kv_heads": kv_heads,
        "resampler_head_dim": _whole(own, "resampler_head_dim"),
        "resampler_activation": activation(own, "hidden_act"),
    }


def internvl(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches become one token, by a norm and an MLP as wide as the text."""
    if hf["vision_feature_select_strategy"] != "default":  # the class token is no patch of a square
        raise UncoveredError("vision_feature_select_strategy", "allowed: default")
    return {
        **_selected(hf, tower),
        **_merged(hf, "downsample_ratio", _times(hf, "downsample_ratio"), tower),
        "projector_norm": "layer_norm",
        "projector_width": hf["text_width"],
        "projector_activation": activation(hf, "projector_hidden_act"),
    }


def cohere2_vision(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches become one token, by a gated MLP."""
    width = _whole(hf, "alignment_intermediate_size", hf["text_width"])
    if width % 2:
        raise uncovered("alignment_intermediate_size", width, "even numbers")
    return {
        **_merged(hf, "downsample_factor", _whole(hf, "downsample_factor"), tower),
        "projector_width": width // 2,
        "projector_activation": "silu",
        "projector_gated": True,
    }


def aya_vision(hf: Settings, tower: Any) -> dict[str, Any]:
    """As cohere2_vision, behind a norm."""
    selected = _selected(hf, tower)
    if tower.extra_tokens and selected["class_tokens"]:
        raise UncoveredError("vision_feature_select_strategy", "got full; allowed for this tower: default")
    return {**selected, **cohere2_vision(hf, tower), "projector_norm": "layer_norm"}


def llama4(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches become one token, by three linear layers, two of them with an activation."""
    vision = hf[FIELD]
    merge = _times(vision, "pixel_shuffle_ratio")
    width = _whole(vision, "projector_output_dim")
    same = {"projector_input_dim": width, "vision_output_dim": width}
    same["intermediate_size"] = tower.d_model * merge**2
    for name, allowed in same.items():
        if _whole(vision, name) != allowed:  # the class cannot run otherwise
            raise UncoveredError(f"{FIELD}.{name}", f"got {vision[name]}; allowed: {allowed}")
    if vision["projector_dropout"]:
        raise UncoveredError(f"{FIELD}.projector_dropout", "allowed: 0")
    return {
        **_merged(vision, "pixel_shuffle_ratio", merge, tower),
        "projector_width": width,
        "projector_depth": 2,
        "projector_bias": False,
    }


def mllama(hf: Settings, tower: Any) -> dict[str, Any]:
    """The outputs of several layers besides the last; the number of tiles, and of the ways to cut them."""
    vision, field = hf[FIELD], "intermediate_layers_indices"
    listed = _list({field: [3, 7, 15, 23, 30] if vision[field] is None else vision[field]}, field)
    if not listed or not all(isinstance(i, int) and 0 <= i < tower.layers for i in listed):
        raise uncovered(f"{FIELD}.{field}", listed, "layers, from 0")
    wide = tower.d_model * (1 + len(listed))
    if _whole(vision, "vision_output_dim") != wide:  # the class cannot run otherwise
        raise UncoveredError(f"{FIELD}.vision_output_dim", f"allowed: {wide}")
    ratios = vision["supported_aspect_ratios"]
    tiles = _whole(vision, "max_num_tiles")
    if ratios is None and tiles != 4:
        raise InputError(f"{FIELD}.max_num_tiles", f"got {tiles}; allowed with the usual aspect ratios: 4")
    return {
        "read_layers": tuple(i + 1 for i in listed),
        "tiles": tiles,
        "aspect_ratios": 8 if ratios is None else len(_list(vision, "supported_aspect_ratios")),
        "global_layers": _whole(vision, "num_global_layers"),
    }


def _inside(hf: Settings, name: str, usual: Settings) -> dict[str, Any]:
    """A nested config with its defaults filled in."""
    given = hf.get(name)
    if given is not None and not isinstance(given, Mapping):
        raise InputError(name, "allowed: a table of settings")
    return {**usual, **(given or {})}


def _times(hf: Settings, name: str) -> int:
    """The whole number n of a ratio 1 / n: 2 for 0.5."""
    ratio = hf[name]
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1 or 1 % ratio:
        raise uncovered(name, ratio, "1, 0.5, 0.25, ...")
    return int(1 / ratio)


def _merged(hf: Settings, name: str, merge: int, tower: Any) -> dict[str, Any]:
    """Fields for squares of so many patches along a side, which are copied to one token."""
    if tower.positions != "rotary" and (tower.image // tower.patch) % merge:
        raise uncovered(name, hf[name], "what divides the patches along a side")
    return {"merge": merge, "merge_copies": True}


def _as_wide(hf: Settings, where: Settings, name: str) -> dict[str, Any]:
    """Raise an error for a projector whose output is not as wide as the text's tokens: it cannot run."""
    if _whole(where, name) != hf["text_width"]:
        raise uncovered(name, where[name], f"the text's width, {hf['text_width']}")
    return {}


RULES = {
    rule.__name__: rule
    for rule in (
        gemma3, paligemma, llava, video_llava, llava_next, llava_onevision, vipllava, deepseek_vl,
        deepseek_vl_hybrid, got_ocr2, mistral3, idefics2, idefics3, internvl, cohere2_vision, aya_vision,
        llama4, mllama,
    )
}  # fmt: skip
