"""What the fields of configs with a Q-Former mean, as in hf_projectors.py for the others.

Source: transformers.
"""

from __future__ import annotations

from ..named import Any
from .hf_classes import UncoveredError, uncovered
from .hf_fields import Settings, _whole, activation
from .hf_projectors import _inside

USUAL = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "cross_attention_frequency": 2, "encoder_hidden_size": 1408, "use_qformer_text_input": False,
}  # fmt: skip


def blip_2(hf: Settings, _: Any) -> dict[str, Any]:
    """Learned queries attend to the tower's whole output; then one linear layer."""
    if hf["text"].embed_dim not in (0, hf["text_width"]):
        raise UncoveredError("text_config.word_embed_proj_dim", "allowed: hidden_size")
    asked = {"qformer_tokens": _whole(hf, "num_query_tokens"), "class_tokens": True}
    return {**_qformer(hf, "qformer_config"), **asked}


def instructblip(hf: Settings, tower: Any) -> dict[str, Any]:
    """As blip_2, with the instruction's tokens beside the queries."""
    own = _inside(hf, "qformer_config", USUAL)
    words = {
        "qformer_vocab": _whole(own, "vocab_size", 30522),
        "qformer_context": _whole(own, "max_position_embeddings", 512),
    }
    return {**blip_2(hf, tower), **words}


def granite_speech(hf: Settings, tower: Any) -> dict[str, Any]:
    """As blip_2 for each window of the tower's output."""
    name, window, rate = "projector_config", _whole(hf, "window_size"), _whole(hf, "downsample_rate")
    own = _inside(hf, name, USUAL)
    if own.get("model_type", "blip_2_qformer") != "blip_2_qformer":
        raise UncoveredError(f"{name}.model_type", "allowed: blip_2_qformer")
    if own["encoder_hidden_size"] != tower.d_model:  # the class cannot run otherwise
        raise UncoveredError(f"{name}.encoder_hidden_size", f"allowed: the tower's width, {tower.d_model}")
    if window % rate:
        raise uncovered("window_size", window, f"multiples of downsample_rate, {rate}")
    return {
        **_qformer(hf, name),
        "qformer_tokens": window // rate,
        "qformer_window": window,
        "loss_float32": False,
    }


def _qformer(hf: Settings, name: str) -> dict[str, Any]:
    """The fields of a Q-Former that sees no text."""
    own = _inside(hf, name, USUAL)
    if own["use_qformer_text_input"]:
        raise UncoveredError(f"{name}.use_qformer_text_input", "allowed: false")
    return {
        "qformer_layers": _whole(own, "num_hidden_layers"),
        "qformer_cross": _whole(own, "cross_attention_frequency"),
        "qformer_d_model": _whole(own, "hidden_size"),
        "qformer_heads": _whole(own, "num_attention_heads"),
        "qformer_d_ff": _whole(own, "intermediate_size"),
        "qformer_activation": activation(own, "hidden_act"),
        "qformer_dropout": own["hidden_dropout_prob"],
        "qformer_attention_dropout": own["attention_probs_dropout_prob"],
    }


RULES = {rule.__name__: rule for rule in (blip_2, instructblip, granite_speech)}
