"""What the fields of Janus' config mean, as in hf_projectors.py for the others. Source: transformers."""

from __future__ import annotations

from ..named import Any
from .hf_classes import UncoveredError
from .hf_fields import Settings, _flag, _list, _whole, activation
from .hf_projectors import FIELD, _inside

USUAL = {
    "embed_dim": 8, "num_embeddings": 16384, "double_latent": False, "latent_channels": 256, "in_channels": 3,
    "base_channels": 128, "channel_multiplier": [1, 1, 2, 2, 4], "num_res_blocks": 2, "out_channels": 3,
    "projection_dim": 2048, "num_hidden_layers": 2, "image_token_embed_dim": 2048,
}  # fmt: skip


def janus(hf: Settings, _: Any) -> dict[str, Any]:
    """Linear layers as wide as the text, with activations between; its part that draws has its own table."""
    vision, own = hf[FIELD], _inside(hf, "vq_config", USUAL)
    width, depth = _whole(vision, "projection_dim"), _whole(vision, "depth", least=0)
    if width != hf["text_width"]:  # the class cannot run otherwise
        raise UncoveredError(f"{FIELD}.projection_dim", f"allowed: the text's width, {hf['text_width']}")
    return {
        "projector_width": width if depth > 1 else 0,
        "projector_depth": max(depth - 1, 1),
        "projector_activation": activation(vision, "hidden_act"),
        "draw_channels": _whole(own, "base_channels"),
        "draw_levels": tuple(_whole({"channel_multiplier": n}, "channel_multiplier") for n in
                             _list(own, "channel_multiplier")),
        "draw_blocks": _whole(own, "num_res_blocks"),
        "draw_latent": _whole(own, "latent_channels"),
        "draw_doubled": _flag(own, "double_latent", False),
        "draw_codes": _whole(own, "num_embeddings"),
        "draw_code": _whole(own, "embed_dim"),
        "draw_inputs": _whole(own, "in_channels"),
        "draw_outputs": _whole(own, "out_channels"),
        "draw_width": _whole(own, "projection_dim"),
        "draw_layers": _whole(own, "num_hidden_layers"),
        "draw_read": _whole(own, "image_token_embed_dim"),
    }  # fmt: skip


RULES = {"janus": janus}
