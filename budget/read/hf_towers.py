"""What the fields of vision-language configs mean: the tower of images and the projector of its output.

A family's `tower` names the families of towers that its class takes, the usual one first, or is one
itself; `tower_usual` has the fields of a tower that the config leaves out. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..arch import vision_language
from ..config import make
from ..errors import InputError, shown, some
from ..named import Any
from .hf_classes import UncoveredError
from .hf_fields import Settings, _flag, _list, _whole, activation
from .hf_images import _side

FIELD = "vision_config"


def read(hf: Settings, family: Mapping[str, Any], text: Any) -> tuple[str, Any]:
    """(architecture, Config) of a text model with its tower and projector. Raises InputError."""
    tower = _tower(hf, family)
    rule = RULES[family.get("rule", hf["model_type"])]
    inside = {f"tower_{name}": value for name, value in vars(tower).items()}
    settings = {**vars(text), **inside, **rule({**hf, "text_width": text.d_model}, tower)}
    return "vision_language", make(vision_language.Config, settings)


def _tower(hf: Settings, family: Mapping[str, Any]) -> Any:
    """The tower's own Config; its fields are named with the table that they stand in."""
    from . import hf_classes, hf_config

    given = hf.get(FIELD)
    given = family.get("tower_usual", {}) if given is None else given
    if not isinstance(given, Mapping):
        raise InputError(FIELD, "allowed: a table of settings")
    own, kind = family["tower"], hf["model_type"]
    if not isinstance(own, Mapping):
        kind = given.get("model_type", own[0]) if len(own) > 1 else own[0]
        if kind not in own:
            raise UncoveredError(f"{FIELD}.model_type", f"got {shown(kind)}; allowed: {some(own)}")
        own = hf_config._family(kind)  # noqa: SLF001 - the two are one reader
    head = hf_classes.head({}, kind, own)
    try:
        return hf_config._read(given, own, kind, head)[1]  # noqa: SLF001
    except InputError as error:
        told = str(error).removeprefix(f"{error.field}: ")
        raise type(error)(f"{FIELD}.{error.field}", told) from None


def gemma3(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches are averaged to so many tokens, normed and projected."""
    side = int(_whole(hf, "mm_tokens_per_image") ** 0.5)
    across = tower.image // tower.patch
    if side > across:
        raise UncoveredError("mm_tokens_per_image", f"got {side**2}; allowed: up to the patches, {across**2}")
    return {"pool": across // side, "projector_norm": "rms_norm_plus_one", "projector_bias": False}


def paligemma(hf: Settings, _: Any) -> dict[str, Any]:
    """One linear layer."""
    return _as_wide(hf, hf, "projection_dim")


def llava(hf: Settings, tower: Any) -> dict[str, Any]:
    """A layer before the last is projected by an MLP as wide as the text, the class token left out."""
    layer, how = hf["vision_feature_layer"], hf["vision_feature_select_strategy"]
    if isinstance(layer, bool) or not isinstance(layer, int) or not -tower.layers <= layer <= -1:
        raise UncoveredError("vision_feature_layer", f"got {shown(layer)}; allowed: -{tower.layers} to -1")
    if how not in ("default", "full"):
        raise InputError("vision_feature_select_strategy", f"got {shown(how)}; allowed: default, full")
    if how == "default" and not tower.extra_tokens:  # it would leave out a patch
        raise UncoveredError("vision_feature_select_strategy", "got default; allowed for this tower: full")
    return {
        "unread_layers": -1 - layer,
        "class_tokens": how == "full",
        "projector_width": hf["text_width"],
        "projector_activation": activation(hf, "projector_hidden_act"),
        "projector_bias": _flag(hf, "multimodal_projector_bias", True),
    }


def idefics3(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches are one token, of one linear layer."""
    merge = _whole(hf, "scale_factor")
    if (tower.image // tower.patch) % merge:
        raise UncoveredError("scale_factor", f"got {merge}; allowed: divisors of the patches along a side")
    return {"merge": merge, "merge_copies": True, "projector_bias": False}


def qwen2_vl(hf: Settings, tower: Any) -> dict[str, Any]:
    """Squares of patches are one token, of two linear layers; patches come in this order."""
    vision = hf.get(FIELD) or {}
    merge = _whole(vision, "spatial_merge_size", 2)
    _as_wide(hf, {"hidden_size": 3584, **vision}, "hidden_size")
    return {"merge": merge, "projector_width": tower.d_model * merge**2}


def qwen2_5_vl(hf: Settings, tower: Any) -> dict[str, Any]:
    """The same, but for the name of the width."""
    vision = {"out_hidden_size": 3584, **(hf.get(FIELD) or {})}
    return qwen2_vl({**hf, FIELD: {**vision, "hidden_size": vision["out_hidden_size"]}}, tower)


def qwen3_vl(hf: Settings, tower: Any) -> dict[str, Any]:
    """The same; what listed layers make is projected, too."""
    listed = (hf.get(FIELD) or {}).get("deepstack_visual_indexes", [8, 16, 24])
    layers = _list({"deepstack_visual_indexes": listed}, "deepstack_visual_indexes")
    if sorted({*layers}) != layers or not all(isinstance(i, int) and 0 <= i < tower.layers for i in layers):
        raise UncoveredError(
            "deepstack_visual_indexes", f"got {shown(listed)}; allowed: layers in their order"
        )
    return {**qwen2_5_vl(hf, tower), "deep_layers": tuple(i + 1 for i in layers) or (0,)}


def qwen2_vl_tower(hf: Settings) -> dict[str, Any]:
    """The MLP's width is a multiple."""
    wide = {"d_ff": _whole(hf, "mlp_ratio") * _whole(hf, "embed_dim")}
    return {**wide, "patch": _side(hf, "patch_size"), "classes": 0}


def qwen2_5_vl_tower(hf: Settings) -> dict[str, Any]:
    """All layers but the listed ones attend within windows, given in pixels."""
    patch, merge = _side(hf, "patch_size"), _whole(hf, "spatial_merge_size")
    window = _whole(hf, "window_size", least=patch * merge)
    return {
        "patch": patch,
        "classes": 0,
        "window": window // (patch * merge) * merge,
        "full_layers": tuple(_list(hf, "fullatt_block_indexes")) or (_whole(hf, "depth"),),
    }


def qwen3_vl_tower(hf: Settings) -> dict[str, Any]:
    """Positions are rotated, and looked up, too."""
    return {"patch": _side(hf, "patch_size"), "classes": 0}


def _as_wide(hf: Settings, where: Settings, name: str) -> dict[str, Any]:
    """Raise an error for a projector whose output is not as wide as the text's tokens: it cannot run."""
    if _whole(where, name) != hf["text_width"]:
        raise UncoveredError(name, f"got {shown(where[name])}; allowed: the text's width, {hf['text_width']}")
    return {}


RULES = {rule.__name__: rule for rule in (gemma3, paligemma, llava, idefics3, qwen2_vl, qwen2_5_vl, qwen3_vl)}
