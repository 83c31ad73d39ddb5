"""Projectors behind towers that take pictures of any size, with all patches in a row: what the fields of
vision-language configs mean, as in hf_projectors.py. Source: transformers.
"""

from __future__ import annotations

from ..named import Any
from .hf_classes import UncoveredError, uncovered
from .hf_fields import Settings, _list, _whole, activation
from .hf_images import _side
from .hf_projectors import FIELD, _as_wide


def qwen2_vl(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches become one token, by two linear layers; patches are sorted by these squares."""
    merge = _whole(hf[FIELD], "spatial_merge_size")
    _as_wide(hf, hf[FIELD], "hidden_size")
    return {"merge": merge, "projector_width": tower.d_model * merge**2}


def qwen2_5_vl(hf: Settings, tower: Any) -> dict[str, Any]:
    """As qwen2_vl, but for the name of the width."""
    vision = hf[FIELD]
    return qwen2_vl({**hf, FIELD: {**vision, "hidden_size": vision["out_hidden_size"]}}, tower)


def qwen3_vl(hf: Settings, tower: Any) -> dict[str, Any]:
    """As qwen2_vl; the outputs of listed layers are projected, too."""
    listed = hf[FIELD].get("deepstack_visual_indexes", [8, 16, 24])
    layers = _list({"deepstack_visual_indexes": listed}, "deepstack_visual_indexes")
    if sorted({*layers}) != layers or not all(isinstance(i, int) and 0 <= i < tower.layers for i in layers):
        raise uncovered("deepstack_visual_indexes", listed, "layers in their order")
    return {**qwen2_5_vl(hf, tower), "deep_layers": tuple(i + 1 for i in layers) or (0,)}


def cosmos3_omni(hf: Settings, tower: Any) -> dict[str, Any]:
    """As qwen3_vl, before a text model that takes earlier layers' features."""
    kind = hf["text_config"].get("model_type", "qwen3_vl_text")
    if kind != "qwen3_vl_text":
        raise uncovered("text_config.model_type", kind, "qwen3_vl_text")
    return qwen3_vl(hf, tower)


def video_llama_3(hf: Settings, _: Any) -> dict[str, Any]:
    """An MLP as wide as the text; unlike a video's, a picture's patches are not merged."""
    return {"merge_copies": True, "projector_width": hf["text_width"]}


def qwen3_5(hf: Settings, tower: Any) -> dict[str, Any]:
    """As qwen2_5_vl; no earlier layer is projected."""
    return qwen2_5_vl(hf, tower)


def kimi_k25(hf: Settings, tower: Any) -> dict[str, Any]:
    """Patches are normed; squares of them become one token, by two linear layers."""
    width = hf[FIELD].get("mm_hidden_size", hf["projection_hidden_size"])
    if width != tower.d_model:  # the norm's
        raise uncovered("projection_hidden_size", width, str(tower.d_model))
    merge = _side(hf[FIELD], "merge_kernel_size")
    wide = {"projector_width": tower.d_model * merge**2}
    return {"merge": merge, "merge_copies": True, "merge_norm": "layer_norm", **wide}


def glm4v(hf: Settings, _: Any) -> dict[str, Any]:
    """A convolution makes one token of a square; a layer, a norm and GELU; a gated MLP."""
    vision = hf[FIELD]
    _as_wide(hf, vision, "out_hidden_size")
    return {
        "merge": _whole(vision, "spatial_merge_size"),
        "merge_layer": True,
        "merge_width": hf["text_width"],
        "projector_input": True,
        "projector_width": _whole(vision, "intermediate_size"),
        "projector_activation": activation(vision, "hidden_act"),
        "projector_gated": True,
        "projector_bias": False,
    }


def glm_ocr(hf: Settings, tower: Any) -> dict[str, Any]:
    """As glm4v; the MLP's width is a multiple of the model's."""
    vision = hf[FIELD]
    wide = _whole(vision, "out_hidden_size") * _whole(vision, "in_channels")
    return glm4v({**hf, FIELD: {**vision, "intermediate_size": wide}}, tower)


def gemma4(hf: Settings, _: Any) -> dict[str, Any]:
    """Squares of patches are averaged, normed and projected; sound has no tower here."""
    if hf.get("audio_config") is not None:
        raise UncoveredError("audio_config", "allowed: null")
    if hf.get(FIELD) is None or not hf[FIELD]:
        raise UncoveredError(FIELD, "allowed: a table of settings")
    return {
        "pool": _whole(hf[FIELD], "pooling_kernel_size"),
        "pool_product": True,
        "projector_norm": "rms_norm_plain",
        "projector_bias": False,
    }


def fuyu(hf: Settings, _: Any) -> dict[str, Any]:
    """Patches are projected to the text's width."""
    patch, channels = _whole(hf, "patch_size"), _whole(hf, "num_channels")
    return {**_as_wide(hf, hf, "hidden_size"), "patch": patch, "channels": channels}


RULES = {
    rule.__name__: rule
    for rule in (
        qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5, cosmos3_omni, kimi_k25, video_llama_3, glm4v, glm_ocr,
        gemma4, fuyu,
    )
}  # fmt: skip
