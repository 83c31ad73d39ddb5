"""Configs of networks that see or hear: what their fields mean for the tower and its projector.

A family's `tower` lists the families of towers that its class takes, the usual one first, or is one itself;
`tower_usual` has defaults for fields of the tower that a config leaves out, and `further_towers` more towers,
each by its part of the architecture's Config. Source: transformers.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import arch as architectures
from ..config import make
from ..errors import InputError, some, wrong
from ..named import Any
from . import hf_any_size, hf_classes, hf_drawing, hf_families, hf_projectors, hf_qformer, hf_sound
from .hf_classes import uncovered
from .hf_fields import Settings, _flag, _list, _whole
from .hf_images import _side
from .hf_projectors import FIELD

RULES = {**hf_projectors.RULES, **hf_any_size.RULES, **hf_sound.RULES, **hf_qformer.RULES, **hf_drawing.RULES}
SEEING = {  # by a text model's architecture, the one with a tower for images
    "transformer": "vision_language",
    "hybrid": "vision_hybrid",
    "gemma4": "vision_gemma4",
    "mllama": "mllama",
}


def wholes(family: Mapping[str, Any]) -> Mapping[str, str]:
    """By a text model's architecture, the one with the kind of tower that a family has."""
    around: Mapping[str, str] = family.get("around", SEEING)
    return around


def field(family: Mapping[str, Any]) -> str:
    """The field of a family's config that has its tower."""
    return str(family.get("tower_field", FIELD))


def read(hf: Settings, family: Mapping[str, Any], arch: str, text: Any) -> tuple[str, Any]:
    """(architecture, Config) of a text model with its tower and projector. Raises InputError."""
    given, tower = _tower(hf, family) if field(family) else ({}, None)
    tables, towers = {field(family): given}, {} if tower is None else {"tower": tower}
    for part, changes in family.get("further_towers", {}).items():
        own = {**family, "tower_usual": {}, **changes}
        tables[field(own)], towers[part] = _tower(hf, own)
    rule = RULES[family.get("rule", hf["model_type"])]
    name = wholes(family)[arch]
    sees = architectures.load(name).Config
    parts = {f"{part}_{name}": value for part, one in towers.items() for name, value in vars(one).items()}
    inside = {name: value for name, value in parts.items() if name in sees.fields}
    settings = {
        **vars(text),
        **inside,
        **rule({**hf, **tables, "text_width": text.d_model, "text": text}, tower),
    }
    return name, make(sees, settings)


def _tower(hf: Settings, family: Mapping[str, Any]) -> tuple[Settings, Any]:
    """The tower's fields and its own Config; errors name the table that a field stands in.

    Where a family has only one tower, the tower's model_type does not count, unless the family is
    `tower_typed`.
    """
    where = field(family)
    given = hf.get(where)
    given = family.get("tower_usual", {}) if given is None else given
    if not isinstance(given, Mapping):
        raise InputError(where, "allowed: a table of settings")
    own, kind = _towers(family["tower"]), hf["model_type"]
    names = [own.get("named", kind)] if isinstance(own, Mapping) else own
    kind = names[0]
    if len(names) > 1 or family.get("tower_typed"):
        kind = given.get("model_type", kind)
    if kind not in names:
        raise uncovered(f"{where}.model_type", kind, some(names))
    own = own if isinstance(own, Mapping) else hf_families.load(kind)
    head = hf_classes.head({}, kind, own)
    try:
        complete = hf_families.complete(given, own)
        return complete, hf_families.read(complete, own, kind, head)[1]
    except InputError as error:
        problem = str(error).removeprefix(f"{error.field}: ")
        raise type(error)(f"{where}.{error.field}", problem) from None


def _towers(family: Any) -> Any:
    """The families of towers, or one itself; a family may have another one's, with changes."""
    if isinstance(family, str):
        return hf_families.load(family)["tower"]
    if not isinstance(family, Mapping) or "as" not in family:
        return family
    other = hf_families.load(family["as"])
    other = other.get("tower", other)
    parts = {name: {**other.get(name, {}), **family.get(name, {})} for name in ("defaults", "fields", "set")}
    return {"rule": family["as"], **other, **family, **parts}


def qwen2_vl_tower(hf: Settings) -> dict[str, Any]:
    """The MLP's width is a multiple of the model's."""
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


def kimi_k25_tower(hf: Settings) -> dict[str, Any]:
    """The table of positions is a grid."""
    rows = _whole(hf, "pos_emb_height") * _whole(hf, "pos_emb_width")
    return {"blended": rows, "resampled": True, **qwen3_vl_tower(hf)}


def glm4v_tower(hf: Settings) -> dict[str, Any]:
    """The table of positions is that of a square image."""
    across = _side(hf, "image_size") // _side(hf, "patch_size")
    if not across:
        raise wrong("patch_size", hf["patch_size"], "up to image_size")
    return {"blended": across**2, "resampled": True, **qwen3_vl_tower(hf)}


def glm_ocr_tower(hf: Settings) -> dict[str, Any]:
    """No table of positions; all layers have biases or none."""
    return {"linear_bias": _flag(hf, "attention_bias", True), **qwen3_vl_tower(hf)}
