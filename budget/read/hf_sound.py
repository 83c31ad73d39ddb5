"""What the fields of Hugging Face's networks for sound mean, as hf_rules.py has it for the others.

Source: transformers.
"""

from __future__ import annotations

from ..errors import InputError, shown
from ..named import Any
from .hf_fields import Settings, _list, _whole, activation
from .hf_images import _number


def wav2vec2(hf: Settings) -> dict[str, Any]:
    """The convolutions are listed; a vector stands for masked positions where some can be masked."""
    layers = len(_list(hf, "conv_dim"))
    if _whole(hf, "num_feat_extract_layers", layers) != layers:
        told = f"got {shown(hf['num_feat_extract_layers'])}; allowed: as many as conv_dim has, {layers}"
        raise InputError("num_feat_extract_layers", told)
    masked = _number(hf, "mask_time_prob") > 0 or _number(hf, "mask_feature_prob") > 0
    return {"mask_token": masked, "conv_activation": activation(hf, "feat_extract_activation")}


hubert = unispeech = wav2vec2


def unispeech_sat(hf: Settings) -> dict[str, Any]:
    """There is always one."""
    return {**wav2vec2(hf), "mask_token": True}
