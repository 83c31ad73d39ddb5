"""Inputs that a class of transformers may run on: text, images, sound, two of them. Without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from ..config import Workload
from ..named import Any
from ._inputs_asked import asked, beside, first, in_codebooks, packed, patched

TOKENS, SOUND, FRAMES = 512, 16_000, 3_000  # lengths of inputs where neither workload nor config has one
BANDS = (128, 80)  # of a spectrogram where no field has their number. Source: transformers
CLIP = 1_001  # frames of a spectrogram of 10 s that CLAP hears. Source: transformers


def inputs(module: Any, workload: Workload, where: str = "meta") -> list[dict[str, Any]]:
    """What a class may run on, the likeliest first: text, images, sound, two of them.

    where: on meta they have no data, on cpu they are all ones.
    """
    import torch

    likely: list[dict[str, Any]] = []
    with torch.device(where), suppress(Exception):  # whatever a config's own methods and values raise
        for given in _inputs(module, workload):  # on the device while these are made, and no longer
            likely.append(given)  # noqa: PERF402 - those before an error stay
    return likely


def _inputs(module: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    from inspect import signature

    import torch

    takes = signature(module.forward).parameters
    config = module.config
    text = _text(module, takes, workload)
    pixels = {"pixel_values": _pixels(config, workload)} if "pixel_values" in takes else {}
    main = getattr(module, "main_input_name", "")
    if workload.image and text and pixels:  # a picture among the tokens
        for picture in (pixels, *packed(config, takes, workload)):
            if among := _with_image(module, text, picture):
                yield among
        yield {**text, **pixels}
    elif not text:
        yield from packed(config, takes, workload)
        yield from patched(config, takes, workload)
    if "input_values" in takes:
        for shape in _sound(config, workload):
            heard = {"input_values": torch.ones(workload.batch, *shape)}
            yield heard
            if text:
                yield {**heard, **text}
    if "input_features" in takes:
        for given in _features(config, takes, workload):
            yield {**given, **text}
            yield given
    if "past_values" in takes:
        yield from _series(config, workload)
    if main == "pixel_values" and pixels:
        yield pixels
    if text:
        yield text
        yield {**text, **pixels}
    if "bbox" in text:  # as fractions of a page
        yield {**text, "bbox": text["bbox"].float()}
    if pixels:
        yield from _pictures(config, pixels, text)
    yield from asked(config, takes, main, workload)
    if "input_features" in takes:
        yield from _as_first_layer(module, workload)
    if text:
        yield from beside(config, takes, text, pixels)
        yield from ({**text, **picture} for picture in patched(config, takes, workload))
        yield from in_codebooks(config, takes, text)


def _pictures(config: Any, pixels: dict[str, Any], text: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A picture, alone or with words; a video, or its frames as pictures; two pictures, to be compared."""
    yield pixels
    yield {**pixels, **text}
    several = pixels["pixel_values"].unsqueeze(1)
    frames = first(config, "num_frames")
    if isinstance(frames, int):
        video = {"pixel_values": several.repeat(1, frames, 1, 1, 1)}
        yield from ({**video, **text}, video) if text else (video,)
        yield {"pixel_values": pixels["pixel_values"].repeat(frames, 1, 1, 1)}
    yield {"pixel_values": several.repeat(1, 2, 1, 1, 1)}


def _sound(config: Any, workload: Workload) -> Iterator[tuple[int, ...]]:
    """Samples, in channels where a codec hears those; a spectrogram of a length that the class fixes."""
    samples = workload.seq or SOUND
    yield (samples,)
    yield getattr(config, "audio_channels", None) or 1, samples
    bands, frames = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
    if isinstance(bands, int) and isinstance(frames, int):
        yield workload.seq or frames, bands


def _series(config: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    """The observed part of a time series, of one variable or of several."""
    import torch

    steps, variables = workload.seq or first(config, "context_length"), first(config, "num_input_channels")
    if isinstance(steps, int):
        several = (variables,) if isinstance(variables, int) else ()
        yield {"past_values": torch.ones(workload.batch, steps, *several)}


def _with_image(module: Any, text: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
    """A picture, and the text behind as many image tokens as the tower makes of it.

    With data, since classes read it. Empty where there is no such tower, or it does not take this.
    """
    import torch

    token = getattr(module.config, "image_token_id", None)
    tower = getattr(module, "get_image_features", None)
    if token is None or tower is None:
        return {}
    with torch.no_grad(), suppress(Exception):  # whatever a tower needs besides
        seen = {k: t.to(module.dtype) if t.is_floating_point() else t for k, t in picture.items()}
        features = tower(**seen)
        features = getattr(features, "pooler_output", features)
        parts = features if isinstance(features, list | tuple) else [features]
        batch = text["input_ids"].shape[0]
        tokens = sum(part.shape[:-1].numel() for part in parts) // batch
        words = torch.ones(text["input_ids"].shape, dtype=torch.int64, device="cpu")
        image = torch.full((batch, tokens), token, device="cpu")
        return {**picture, **dict.fromkeys(text, torch.cat([image, words], dim=1))}
    return {}


def _text(module: Any, takes: Mapping[str, Any], workload: Workload) -> dict[str, Any]:
    """Words, for an encoder, a decoder, or both; where the class wants it, the place of each on a page."""
    import torch

    words = ("input_ids", "decoder_input_ids", "qformer_input_ids")
    if not any(name in takes for name in words[:2]):
        return {}
    limit = None
    with suppress(ValueError):  # of several texts
        limit = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    limit = getattr(module.config, "max_text_len", None) or limit  # of a text that is compared with a picture
    usual = min(TOKENS, limit) if isinstance(limit, int) and limit > 0 else TOKENS
    ids = torch.ones(workload.batch, workload.seq or usual, dtype=torch.int64)
    given = {name: ids for name in words if name in takes}
    if "bbox" in takes:
        given["bbox"] = ids.unsqueeze(-1).repeat(1, 1, 4)
    head = getattr(module, "get_output_embeddings", lambda: None)()
    if workload.mode == "train" and head is not None and "labels" in takes:
        given["labels"] = ids
    return given


def _pixels(config: Any, workload: Workload) -> Any:
    import torch

    side = workload.image or first(config, "image_size") or 224
    if not workload.image and isinstance(side, int) and (ratios := first(config, "scaled_images_ratios")):
        side = round(side / min(ratios))  # the smallest of several copies is as large as the tower wants
    height, width = (side, side) if isinstance(side, int) else tuple(side)[:2]
    return torch.ones(workload.batch, first(config, "num_channels") or 3, height, width)


def _features(config: Any, takes: Mapping[str, Any], workload: Workload) -> Iterator[dict[str, Any]]:
    """Spectrograms: channels first or last, or an image of one channel; a mask that hides no frame."""
    import torch

    for name in ("num_mel_bins", "feature_size", "input_feat_per_channel", "feature_projection_input_dim"):
        channels = first(config, name)
        if channels:
            positions = first(config, "max_source_positions")
            frames = 2 * positions if positions else workload.seq or FRAMES
            with suppress(TypeError):
                for shape in ((channels, frames), (frames, channels), (1, workload.seq or CLIP, channels)):
                    given = {"input_features": torch.ones(workload.batch, *shape)}
                    if "input_features_mask" in takes:
                        mask = torch.ones(workload.batch, frames, dtype=torch.int64, device="cpu")
                        given["input_features_mask"] = mask
                    yield given


def _as_first_layer(module: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    """Frames as wide as the first layer takes them, where a processor joins several; else the usual bands."""
    import torch

    linear = next((m.in_features for m in module.modules() if isinstance(m, torch.nn.Linear)), None)
    for width in (linear, *BANDS):
        if width:
            yield {"input_features": torch.ones(workload.batch, workload.seq or FRAMES, width)}
