"""Inputs of transformers' classes, at one small size, for tests/differential.py."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from budget.arch.audio_encoder import FRAMES
from budget.read import hf_families, hf_towers

BATCH, SEQ, SIDE = 2, 9, 32
SAMPLES = 700  # of sound
SECONDS = 3  # of sound before words
SIZE = 15  # of a picture that is cut into tiles, in eighths of a tile's side
GRID = 5  # tokens along a side of a picture of any size


def towered(kind: str) -> bool:
    """Whether a family is a text model behind a tower."""
    return "tower" in hf_families.load(kind)


def tower_field(kind: str) -> str:
    """The field of a tower, of a text model that has one in its config."""
    return hf_towers.field(hf_families.load(kind)) if towered(kind) else ""


def tower_fields(kind: str) -> list[str]:
    """The fields of all towers of a text model."""
    further = hf_families.load(kind).get("further_towers", {}).values()
    return [name for name in (tower_field(kind), *(told["tower_field"] for told in further)) if name]


def hears(kind: str) -> bool:
    """Whether a family is a text model with a tower of sound."""
    return tower_field(kind) in ("audio_config", "encoder_config")


def sounds(kind: str) -> bool:
    """Whether one of its towers is of sound."""
    return not {"audio_config", "encoder_config"}.isdisjoint(tower_fields(kind))


def sees(kind: str) -> bool:
    """Whether it is one with a tower of images, or their patches."""
    return towered(kind) and not hears(kind)


def image_field(kind: str) -> str:
    """The field that says how large images are, if one does."""
    return "image_size" if "image_size" in hf_families.load(kind).get("defaults", {}) else ""


def inputs(kind: str, name: str, config: Any) -> dict[str, Any]:
    """The inputs on which a class runs."""
    ids = torch.zeros(BATCH, SEQ, dtype=torch.long)
    arch = hf_families.load(kind)["arch"]
    if arch == "encoder_decoder":
        alone = hf_families.load(kind)["classes"].get(name, "")
        return {"input_ids": ids} if "encoder" in str(alone) else {"input_ids": ids, "decoder_input_ids": ids}
    if arch == "whisper":
        mel = torch.empty(BATCH, config.num_mel_bins, 2 * config.max_source_positions)
        return {"input_features": mel, **({} if "Audio" in name else {"decoder_input_ids": ids})}
    if arch == "audio_encoder":
        frames = 2 * getattr(config, "max_source_positions", 1500)
        mel = torch.empty(BATCH, config.num_mel_bins, frames)
        return {
            "input_features": mel,
            **(
                {"input_features_mask": torch.ones(BATCH, frames)} if name.startswith("AudioFlamingo") else {}
            ),
        }
    if arch == "wav2vec2":
        return {"input_values": torch.empty(BATCH, SAMPLES)}
    if arch in ("transformer", "hybrid", "gemma4", "mamba", "deberta"):
        return {"input_ids": ids.unsqueeze(1) if name.endswith("MultipleChoice") else ids}
    side = config.image_size if image_field(kind) else SIDE
    side = side if isinstance(side, int) else side[0]
    return {"pixel_values": torch.empty(BATCH, getattr(config, "num_channels", 3), side, side)}


def patches_in_a_row(kind: str, vision: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """A picture for each text, of a size that the classes leave open."""
    merge = getattr(vision, "spatial_merge_size", getattr(vision, "merge_kernel_size", [1])[0])
    channels = getattr(vision, "in_channels", getattr(vision, "num_channels", 3))
    grid, side = GRID * merge, vision.patch_size
    if grid > 8 * GRID:
        raise ValueError("too large to run here")
    each = getattr(vision, "temporal_patch_size", 1) * channels * side**2
    shown = torch.ones(BATCH * grid**2, *((3, side, side) if kind == "kimi_k25" else (each,)))
    more = {"image_grid_thw": torch.tensor([[1, grid, grid]] * BATCH)}
    if kind == "video_llama_3":
        more["image_merge_sizes"] = torch.ones(BATCH, dtype=torch.long)
    return shown, more


def patches_with_places(vision: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """Patches in a row, each with its column and row (Gemma 4)."""
    across = GRID * vision.pooling_kernel_size
    places = torch.cartesian_prod(torch.arange(across), torch.arange(across)).repeat(BATCH, 1, 1)
    return torch.ones(BATCH, across**2, 3 * vision.patch_size**2), {"image_position_ids": places}


def beside_words(vision: Any) -> dict[str, Any]:
    """Words, and the tiles of a picture that no tokens stand for (Llama 3.2)."""
    tiles, side = vision.max_num_tiles, vision.image_size
    return {
        "input_ids": torch.ones(BATCH, SEQ, dtype=torch.long),
        "pixel_values": torch.ones(BATCH, 1, tiles, vision.num_channels, side, side),
        "aspect_ratio_ids": torch.ones(BATCH, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(BATCH, 1, tiles, dtype=torch.long),
        "cross_attention_mask": torch.ones(BATCH, SEQ, 1, tiles, dtype=torch.long),
    }


def among_words(made: Any) -> dict[str, Any]:
    """A picture and as many image tokens as the class itself makes of it, before the words."""
    config = made.config
    if config.model_type == "fuyu":
        patches = torch.ones(BATCH, GRID**2, config.num_channels * config.patch_size**2)
        ids = torch.tensor([[config.image_token_id] * GRID**2 + [1] * SEQ] * BATCH)
        return {"image_patches": patches, "input_ids": ids}
    vision = config.vision_config
    if config.model_type == "mllama":
        return beside_words(vision)
    if config.model_type == "gemma4":
        shown, more = patches_with_places(vision)
    elif config.model_type in ("kimi_k25", "video_llama_3") or hasattr(vision, "spatial_merge_size"):
        shown, more = patches_in_a_row(config.model_type, vision)
    else:
        listed = ("idefics2_vision", "idefics3_vision", "smolvlm_vision")  # take several for each text
        several = (1,) if vision.model_type in listed else ()
        side = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
        channels = getattr(vision, "num_channels", 3)
        shown, more = torch.ones(BATCH, *several, channels, side, side), {}
    if hasattr(config, "image_grid_pinpoints"):  # tiles beside the whole
        side = SIZE * shown.shape[-1] // 8
        more["image_sizes"] = torch.tensor([(side, side)] * BATCH)
        tiles = image_size_to_num_patches((side, side), config.image_grid_pinpoints, vision.image_size)
        shown = torch.ones(BATCH, tiles, *shown.shape[1:])
    if vision.model_type == "pixtral":
        more["image_sizes"] = torch.tensor([shown.shape[-2:]] * BATCH)
    if hasattr(config, "high_res_vision_config"):
        side = config.high_res_vision_config.image_size
        more["high_res_pixel_values"] = torch.ones(BATCH, channels, side, side)
    if config.model_type == "instructblip":
        more["qformer_input_ids"] = torch.ones(BATCH, SEQ, dtype=torch.long)
    tower = made if hasattr(made, "get_image_features") else made.model
    how = {"vision_feature_select_strategy": "default"} if config.model_type == "llama4" else {}
    field = "pixel_values_images" if config.model_type == "video_llava" else "pixel_values"
    with torch.no_grad():
        features = tower.get_image_features(**{field: shown}, **more, **how)
    features = features.last_hidden_state if features.pooler_output is None else features.pooler_output
    n = sum(part.shape[:-1].numel() for part in features) // BATCH
    token = getattr(config, "image_token_id", None) or config.image_token_index
    sound = _beside(made) if sounds(config.model_type) else {}
    heard = [config.audio_token_id] * sound.pop("tokens") if sound else []
    ids = torch.tensor([heard + [token] * n + [1] * SEQ] * BATCH)
    kinds = {"token_type_ids", "mm_token_type_ids"} & set(signature(made.forward).parameters)
    return {field: shown, "input_ids": ids, **more, **sound, **{k: (ids == token).long() for k in kinds}}


def with_sound(made: Any) -> dict[str, Any]:
    """A second of sound in clips, the last one padded, and as many tokens as the class makes of it."""
    config = made.config
    if config.model_type == "granite_speech":
        return _among(
            made,
            {"input_features": torch.ones(BATCH, SECONDS * FRAMES // 2, config.encoder_config.input_dim)},
        )
    tower = config.audio_config
    chunked = hasattr(tower, "n_window")
    length = 2 * (tower.n_window if chunked else getattr(tower, "max_source_positions", 1500))
    clips, frames = -(-SECONDS * FRAMES // length), SECONDS * FRAMES
    heard = torch.arange(clips * length).reshape(clips, length) < frames
    mask = heard.repeat(BATCH, 1).long()
    if chunked:  # in a row, not apart
        mask = mask.reshape(BATCH, -1)
    features = torch.ones(len(mask), tower.num_mel_bins, mask.shape[1])
    masks = {"input_features_mask", "feature_attention_mask"} & set(signature(made.forward).parameters)
    given = {"input_features": features, **dict.fromkeys(masks, mask)}
    if config.model_type != "qwen2_audio":
        return _among(made, given)
    whole = getattr(made, "model", made)
    n = int(whole.audio_tower._get_feat_extract_output_lengths(mask.sum(-1))[1].sum()) // BATCH
    return _behind(config, n, given)


def _beside(made: Any) -> dict[str, Any]:
    """Sound beside a picture, and how many tokens a class makes of it."""
    frames = SECONDS * FRAMES
    mask = torch.ones(BATCH, frames, dtype=torch.long)
    given = {
        "input_features": torch.ones(BATCH, made.config.audio_config.num_mel_bins, frames),
        "feature_attention_mask": mask,
    }
    with torch.no_grad():
        found = made.get_audio_features(**given).last_hidden_state
    return {**given, "tokens": len(found) // BATCH}


def _among(made: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What is heard, and as many tokens as the class makes of it, before the words."""
    whole = made if hasattr(made, "get_audio_features") else made.model
    with torch.no_grad():
        n = whole.get_audio_features(**given).pooler_output.shape[:-1].numel() // BATCH
    return _behind(made.config, n, given)


def _behind(config: Any, n: int, given: dict[str, Any]) -> dict[str, Any]:
    token = getattr(config, "audio_token_id", None) or config.audio_token_index
    ids = torch.tensor([[token] * n + [1] * SEQ] * BATCH)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **given}
