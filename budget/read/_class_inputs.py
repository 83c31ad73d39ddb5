"""Inputs that a class of transformers may run on: text, images, sound, two of them. Without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from ..config import Workload
from ..named import Any

TOKENS, SOUND, FRAMES = 512, 16_000, 3_000  # lengths of inputs where neither workload nor config has one
CLIP = 1_001  # frames of a spectrogram of 10 s that CLAP hears. Source: transformers


def inputs(made: Any, workload: Workload) -> list[dict[str, Any]]:
    """What a class may run on, the likeliest first: text, images, sound, two of them."""
    import torch

    with torch.device("meta"):  # while these are made, and no longer
        return list(_inputs(made, workload))


def _inputs(made: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    from inspect import signature

    import torch

    takes = signature(made.forward).parameters
    config = made.config
    text = _text(made, takes, workload)
    pixels = {"pixel_values": _pixels(config, workload)} if "pixel_values" in takes else {}
    main = getattr(made, "main_input_name", "")
    if workload.image and text and pixels:  # a picture among the words
        yield {**_with_image(made, text, pixels["pixel_values"]), **pixels}
    if "input_values" in takes:
        for shape in _sound(config, workload):
            yield {"input_values": torch.zeros(workload.batch, *shape)}
    if "input_features" in takes:
        for given in _features(config, workload):
            yield {**given, **text}
            yield given
    if main == "pixel_values" and pixels:
        yield pixels
    if text:
        yield text
        yield {**text, **pixels}
    if pixels:
        yield pixels
        yield {**pixels, **text}
        frames = getattr(config, "num_frames", None)
        if isinstance(frames, int):  # a video
            yield {"pixel_values": pixels["pixel_values"].unsqueeze(1).repeat(1, frames, 1, 1, 1)}


def _sound(config: Any, workload: Workload) -> Iterator[tuple[int, ...]]:
    """Samples, in channels where a codec hears those; a spectrogram of a length that the class fixes."""
    samples = workload.seq or SOUND
    yield (samples,)
    yield getattr(config, "audio_channels", None) or 1, samples
    bands, frames = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
    if isinstance(bands, int) and isinstance(frames, int):
        yield workload.seq or frames, bands


def _with_image(made: Any, text: dict[str, Any], pixels: Any) -> dict[str, Any]:
    """The text behind as many image tokens as the tower makes of a picture, with data: classes read it."""
    import torch

    token = getattr(made.config, "image_token_id", None)
    tower = getattr(made, "get_image_features", None)
    if token is None or tower is None:
        return text
    with torch.no_grad(), suppress(Exception):  # whatever a tower needs besides: then the text stands alone
        found = tower(pixel_values=pixels.to(made.dtype))
        found = getattr(found, "pooler_output", found)
        parts = found if isinstance(found, list | tuple) else [found]
        tokens = sum(part.shape[:-1].numel() for part in parts) // pixels.shape[0]
        words = torch.ones(text["input_ids"].shape, dtype=torch.int64, device="cpu")
        image = torch.full((pixels.shape[0], tokens), token, device="cpu")
        ids = torch.cat([image, words], dim=1)
        return dict.fromkeys(text, ids)
    return text


def _text(made: Any, takes: Mapping[str, Any], workload: Workload) -> dict[str, Any]:
    import torch

    if "input_ids" not in takes and "decoder_input_ids" not in takes:
        return {}
    limit = getattr(made.config.get_text_config(), "max_position_embeddings", None)
    usual = min(TOKENS, limit) if isinstance(limit, int) and limit > 0 else TOKENS
    ids = torch.zeros(workload.batch, workload.seq or usual, dtype=torch.int64)
    given = {"input_ids": ids} if "input_ids" in takes else {}
    if "decoder_input_ids" in takes:
        given["decoder_input_ids"] = ids
    head = getattr(made, "get_output_embeddings", lambda: None)()
    if workload.mode == "train" and head is not None and "labels" in takes:
        given["labels"] = ids
    return given


def _pixels(config: Any, workload: Workload) -> Any:
    import torch

    vision = getattr(config, "vision_config", config)
    side = workload.image or getattr(vision, "image_size", None) or 224
    height, width = (side, side) if isinstance(side, int) else tuple(side)[:2]
    return torch.zeros(workload.batch, getattr(vision, "num_channels", None) or 3, height, width)


def _features(config: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    """Spectrograms: channels first or last, or an image of one channel."""
    import torch

    config = getattr(config, "audio_config", config)

    for name in ("num_mel_bins", "feature_size", "input_feat_per_channel", "feature_projection_input_dim"):
        channels = getattr(config, name, None)
        if channels:
            positions = getattr(config, "max_source_positions", None)
            frames = 2 * positions if positions else workload.seq or FRAMES
            with suppress(TypeError):
                yield {"input_features": torch.zeros(workload.batch, channels, frames)}
                yield {"input_features": torch.zeros(workload.batch, frames, channels)}
                yield {"input_features": torch.zeros(workload.batch, 1, workload.seq or CLIP, channels)}
