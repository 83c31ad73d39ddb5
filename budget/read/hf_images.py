"""What the fields of Hugging Face's networks for images mean, as in hf_rules.py for the others.

Source: transformers.
"""

from __future__ import annotations

from ..config import HUGE
from ..errors import InputError, shown, wrong
from ..named import Any
from ..size import divisible
from .hf_classes import UncoveredError, count
from .hf_fields import Settings, _flag, _list, _whole


def resnet(hf: Settings) -> dict[str, Any]:
    """The first stage has a stride where a flag says so."""
    return {"first_stage_stride": 2 if _flag(hf, "downsample_in_first_stage", False) else 1, **_labels(hf)}


def regnet(hf: Settings) -> dict[str, Any]:
    """Layers of type y squeeze and excite."""
    if hf["layer_type"] not in ("x", "y"):
        raise wrong("layer_type", hf["layer_type"], "x, y")
    if hf["layer_type"] == "y":  # hidden units: a quarter of a block's input channels, rounded
        for name, widths in (
            ("embedding_size", [hf["embedding_size"]]),
            ("hidden_sizes", _list(hf, "hidden_sizes")),
        ):
            if min((_whole({name: width}, name) for width in widths), default=0) < 3:
                raise InputError(name, f"got {shown(hf[name])}; allowed with layer_type y: 3 or more")
    stride = 2 if _flag(hf, "downsample_in_first_stage", True) else 1
    return {"squeeze": 0.25 * (hf["layer_type"] == "y"), "first_stage_stride": stride, **_labels(hf)}


def convnext(hf: Settings) -> dict[str, Any]:
    """A block's output is scaled where its scale has an initial value."""
    return {"layer_scale": _number(hf, "layer_scale_init_value") > 0, **convnextv2(hf)}


def convnextv2(hf: Settings) -> dict[str, Any]:
    """The number of stages is also the length of a list: both must agree."""
    stages = len(_list(hf, "depths"))
    if _whole(hf, "num_stages", 4) != stages:
        raise InputError("num_stages", f"allowed: as many as depths has, {stages}")
    return {"patch": _side(hf, "patch_size"), **_image(hf), **_labels(hf)}


def mobilenet_v2(hf: Settings) -> dict[str, Any]:
    """The stages are the family's own, scaled; beyond an output stride they are dilated, not strided."""
    scale, ratio = _number(hf, "depth_multiplier"), _whole(hf, "expand_ratio")
    if hf["hidden_act"] not in ("relu", "relu6"):
        raise wrong("hidden_act", hf["hidden_act"], "relu, relu6")
    if not 0 < scale <= HUGE:
        raise wrong("depth_multiplier", scale, "more than 0")
    keeps = scale < 1 and _flag(hf, "finegrained_output", True)
    strides, reached = [1], 2
    for stride in (2, 2, 2, 1, 2, 1):
        strides.append(1 if reached == _whole(hf, "output_stride") else stride)
        reached *= strides[-1]
    return {
        "channels": tuple(divisible(round(f * scale)) for f in (16, 24, 32, 64, 96, 160, 320)),
        "stem": divisible(round(32 * scale)),
        "head": 1280 if keeps else divisible(round(1280 * scale)),
        "strides": tuple(strides),
        "expand": (1, *(ratio,) * 6),
        "always_expand": True,
        "activation": hf["hidden_act"],
        **_image(hf),
        **_labels(hf),
    }


def efficientnet(hf: Settings) -> dict[str, Any]:
    """A stage's input channels are the output channels of the one before."""
    before = [32, *_list(hf, "out_channels")[:-1]]
    if _list(hf, "in_channels") != before:
        raise InputError("in_channels", f"got {shown(hf['in_channels'])}; allowed, by out_channels: {before}")
    spared = _list(hf, "depthwise_padding")
    width, ratio = _number(hf, "width_coefficient"), _number(hf, "squeeze_expansion_ratio")
    if _whole(hf, "hidden_dim") != divisible(1280 * width):
        raise InputError(
            "hidden_dim", f"got {hf['hidden_dim']}; allowed: {divisible(1280 * width)}, by width_coefficient"
        )
    # Even a ratio of 0 leaves one channel.
    return {
        "squeeze": ratio or 1e-9,
        **({"even_blocks": spared} if spared else {}),
        **_image(hf),
        **_labels(hf),
    }


def swin(hf: Settings) -> dict[str, Any]:
    """Images, patches and windows are squares."""
    return {"patch": _side(hf, "patch_size"), "floored": True, **_image(hf), **_labels(hf)}


def swinv2(hf: Settings) -> dict[str, Any]:
    """The table of positions has one row more than positions."""
    return {**swin(hf), "spare_positions": 1}


def segformer(hf: Settings) -> dict[str, Any]:
    """Several lists have an entry for each stage; the class reads as many entries as there are stages."""
    stages = _whole(hf, "num_encoder_blocks")
    by_stage = (
        "depths", "hidden_sizes", "num_attention_heads", "patch_sizes", "strides", "sr_ratios", "mlp_ratios",
    )  # fmt: skip
    for name in by_stage:
        if len(_list(hf, name)) != stages:
            raise wrong(name, hf[name], f"num_encoder_blocks entries, {stages}")
    widths = [_whole({"hidden_sizes": width}, "hidden_sizes") for width in hf["hidden_sizes"]]
    ratios = [_number({"mlp_ratios": ratio}, "mlp_ratios") for ratio in hf["mlp_ratios"]]
    if not _flag(hf, "reshape_last_stage", True):
        raise UncoveredError("reshape_last_stage", "got false; allowed: true")
    d_ff = tuple(int(width * ratio) for width, ratio in zip(widths, ratios, strict=True))
    return {"d_ff": d_ff, **_labels(hf)}


def _number(hf: Settings, name: str) -> float:
    value = hf.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= HUGE:
        raise wrong(name, value, "a number")
    return value


def _image(hf: Settings) -> dict[str, Any]:
    return {"image": _side(hf, "image_size")}


def _side(hf: Settings, name: str) -> int:
    """A side of a square, given once or twice."""
    match hf[name]:
        case [a, b] if a == b:
            return _whole({name: a}, name)
        case list() | tuple():
            raise wrong(name, hf[name], "squares")
    return _whole(hf, name)


def _labels(hf: Settings) -> dict[str, Any]:
    """The classifier's outputs; none where there are no labels."""
    return {"classes": count(hf)}


def sam_vision_model(hf: Settings) -> dict[str, Any]:
    """Layers that attend to everything are listed; the MLP's width is a multiple where no field has it."""
    field = "global_attn_indexes"
    listed = [_whole({field: i}, field, least=0) for i in _list(hf, field)]
    wide = hf["mlp_dim"]
    if wide is None:
        wide = int(_whole(hf, "hidden_size") * _number(hf, "mlp_ratio"))
    return {
        "patch": _side(hf, "patch_size"),
        "image": _side(hf, "image_size"),
        "d_ff": _whole({"mlp_dim": wide}, "mlp_dim"),
        "full_layers": tuple(listed) or (_whole(hf, "num_hidden_layers"),),
    }
