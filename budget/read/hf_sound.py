"""What the fields of Hugging Face's networks for sound mean, as in hf_rules.py for the others.

Source: transformers.
"""

from __future__ import annotations

from ..errors import wrong
from ..named import Any
from .hf_any_size import qwen2_5_vl, qwen3_vl
from .hf_classes import UncoveredError, uncovered
from .hf_fields import Settings, _flag, _list, _whole, activation
from .hf_images import _number


def wav2vec2(hf: Settings) -> dict[str, Any]:
    """The convolutions are listed; a learned vector replaces masked positions where some can be masked."""
    layers = len(_list(hf, "conv_dim"))
    if _whole(hf, "num_feat_extract_layers", layers) != layers:
        field = "num_feat_extract_layers"
        raise wrong(field, hf[field], f"as many as conv_dim has, {layers}")
    masked = _number(hf, "mask_time_prob") > 0 or _number(hf, "mask_feature_prob") > 0
    return {"mask_token": masked, "conv_activation": activation(hf, "feat_extract_activation")}


hubert = unispeech = wav2vec2


def unispeech_sat(hf: Settings) -> dict[str, Any]:
    """As wav2vec2, but there is always such a vector."""
    return {**wav2vec2(hf), "mask_token": True}


def audioflamingo3(hf: Settings, _: Any) -> dict[str, Any]:
    """Positions are averaged in pairs; an MLP as wide as the text."""
    return {
        "merge": 1,
        "projector_width": hf["text_width"],
        "projector_activation": activation(hf, "projector_hidden_act"),
        "projector_bias": _flag(hf, "projector_bias", True),
    }


def qwen2_audio(_: Settings, __: Any) -> dict[str, Any]:
    """As audioflamingo3, but with one linear layer; the loss reads 16-bit logits."""
    return {"merge": 1, "loss_float32": False}


def voxtral(hf: Settings, tower: Any) -> dict[str, Any]:
    """Positions whose widths add up to the MLP's become one token, by two linear layers as wide as the
    text.
    """
    return {
        "merge": _merged(tower),
        "padding": True,
        "projector_width": hf["text_width"],
        "projector_activation": activation(hf, "projector_hidden_act"),
        "projector_bias": False,
    }


def glmasr(hf: Settings, tower: Any) -> dict[str, Any]:
    """As voxtral, twice as wide as the text, with biases."""
    return {
        "merge": _merged(tower, 4),
        "projector_width": 2 * hf["text_width"],
        "projector_activation": activation(hf, "projector_hidden_act"),
    }


def granite_speech_tower(hf: Settings) -> dict[str, Any]:
    """Widths are multiples."""
    width = _whole(hf, "hidden_dim")
    return {
        "d_ff": width * _whole(hf, "feedforward_mult"),
        "inner": width * _whole(hf, "conv_expansion_factor"),
    }


def qwen3_asr_tower(hf: Settings) -> dict[str, Any]:
    """A chunk is two windows; its class assumes 13 positions for one chunk."""
    from ..arch.chunk_encoder import strided

    chunk = 2 * _whole(hf, "n_window")
    if strided(chunk) != 13:
        raise uncovered("n_window", chunk // 2, "50, or as many positions")
    if _whole(hf, "max_position_embeddings") < 13:
        raise UncoveredError("max_position_embeddings", "allowed: 13 or more")
    several = _whole(hf, "n_window_infer") // chunk
    if not several:
        raise UncoveredError("n_window_infer", f"allowed: a chunk or more, {chunk}")
    return {"chunk": chunk, "chunks": several}


def qwen3_asr(hf: Settings, tower: Any) -> dict[str, Any]:
    """An MLP as wide as the tower."""
    return {**_heard(hf), "projector_width": tower.d_model, "projector_activation": tower.activation}


def qwen2_5_omni_tower(hf: Settings) -> dict[str, Any]:
    """A chunk is two windows, and a window of its own."""
    return {"chunk": 2 * _whole(hf, "n_window"), "chunks": 1}


def qwen2_5_omni(hf: Settings, tower: Any) -> dict[str, Any]:
    """One linear layer; two learned vectors mark the ends of the sound."""
    return {**qwen2_5_vl(hf, tower), **_heard(hf), "sound_ends": 2}


def qwen3_omni_moe(hf: Settings, tower: Any) -> dict[str, Any]:
    """An MLP as wide as the tower of sound."""
    own = hf["audio_config"]
    return {
        **qwen3_vl(hf, tower),
        **_heard(hf),
        "sound_projector_width": _whole(own, "d_model"),
        "sound_projector_activation": activation(own, "activation_function"),
    }


def _heard(hf: Settings) -> dict[str, Any]:
    """Raise an error where the sound's tokens are not as wide as the text's: the class cannot run."""
    wide = _whole(hf["audio_config"], "output_dim")
    if wide != hf["text_width"]:
        raise uncovered("audio_config.output_dim", wide, str(hf["text_width"]))
    return {}


def _merged(tower: Any, only: int = 0) -> int:
    """Positions of the tower whose widths make that of its MLPs."""
    merge: int = tower.d_ff // tower.d_model
    if (
        merge * tower.d_model != tower.d_ff
        or not merge
        or tower.frames // 2 % merge
        or (only and merge != only)
    ):
        problem = (
            f"got {tower.d_ff}; allowed: {only or 'some'} times the width, which positions are multiples of"
        )
        raise UncoveredError("audio_config.intermediate_size", problem)
    return merge


RULES = {
    rule.__name__: rule
    for rule in (qwen2_audio, audioflamingo3, voxtral, glmasr, qwen3_asr, qwen2_5_omni, qwen3_omni_moe)
}
