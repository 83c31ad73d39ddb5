"""Inputs by the names that a forward method gives them: patches with their grid, states, frames of sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..config import Workload
from ..named import Any

SIDE, LONG = 224, 512  # of a picture and a sequence where neither workload nor config says it
REGIONS = 36  # of a picture in which a detector found objects. Source: LXMERT, arXiv:1908.07490
# By an input's name: the shapes behind the batch that it may have, as fields of the config or numbers.
SHAPES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "hidden_states": (("seq", "hidden_size"), ("seq", "input_dim"), ("seq", "input_size"),
                      ("num_channels", "image", "image"), ("hidden_size", "seq"), ("channels", "seq")),
    "spectrogram": (("seq", "model_in_dim"),),
    "mel_spectrogram": (("mel_dim", "seq"),),
    "audio_mel": (("seq", "input_feat_size"),),
    "inputs": (("seq", "d_model"),),
    "inputs_embeds": (("seq", "hidden_size"),),
    "flattened_patches": (("seq_len", "patch"),),
    "pixel_values_videos": (("frames", "num_channels", "image", "image"),),
    "query_embeds": (("num_query_tokens", "hidden_size"), ("seq", "hidden_size")),
    "image": (("num_channels", "image", "image"),),
    "pixel_values": (("num_channels", "image", "image"),
                     (1, "max_num_tiles", "num_channels", "image", "image")),
    "aspect_ratio_ids": ((1,),),
    "aspect_ratio_mask": ((1, "max_num_tiles"),),
    "states": (("seq", "state_dim"),),
    "actions": (("seq", "act_dim"),),
    "rewards": (("seq", 1),),
    "returns_to_go": (("seq", 1),),
    "timesteps": (("seq",),),
    "past_values": (("past",), ("past", "input_size")),
    "past_time_features": (("past", "num_time_features"),),
    "past_observed_mask": (("past",), ("past", "input_size")),
    "past_values_padding": (("past",),),
    "freq": ((1,),),
    "task_inputs": (("task_seq_len",),),
    "decoder_input_ids": (("seq", "codebooks"),),
    "input_ids": (("seq", "codebooks"), ("seq",)),
}  # fmt: skip
WHOLE = (
    "timesteps",
    "aspect_ratio_ids",
    "past_values_padding",
    "freq",
    "task_inputs",
    "decoder_input_ids",
    "input_ids",
)  # numbers of things
MASKS = ("mask", "audio_mel_mask", "input_features_mask", "attention_mask")  # that hide nothing


def first(config: Any, *names: str) -> Any:
    """The value of the first of these fields that a config, or one of its parts, has; None where none has
    any.
    """
    if config is None or isinstance(config, dict):  # a part that transformers has no class of configs for
        return next((config[name] for name in names if config.get(name)), None) if config else None
    parts = (config, *(getattr(config, part, None) for part in config.sub_configs))
    values = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in values if value), None)


def packed(config: Any, takes: Mapping[str, Any], workload: Workload) -> Iterator[dict[str, Any]]:
    """All patches of all pictures in one sequence, flat or square, and the grid of each picture."""
    import torch

    grid = next((name for name in ("grid_thw", "image_grid_thw") if name in takes), "")
    if not grid:
        return
    patch, temporal = first(config, "patch_size"), first(config, "temporal_patch_size", "patch_temporal") or 1
    merge = first(config, "spatial_merge_size", "merge_size", "merge_kernel_size") or 1
    merge = merge if isinstance(merge, int) else merge[0]
    channels = first(config, "in_channels", "in_chans", "num_channels") or 3
    if not isinstance(patch, int):
        return
    side = max(1, _side(config, workload) // patch // merge) * merge
    sizes = torch.tensor([[1, side, side]] * workload.batch, device="cpu")  # classes read them
    more = {}
    if "merge_sizes" in takes:
        more = {"merge_sizes": torch.full((workload.batch,), merge, device="cpu")}
    main = "pixel_values" if "pixel_values" in takes else "hidden_states"
    square, patches = (channels, patch, patch), workload.batch * side**2
    flat = ((patches, channels * temporal * patch**2), (patches, channels * patch**2))
    for shape in (*flat, (patches, *square), (1, patches, *square)):
        yield {main: torch.ones(*shape), grid: sizes, **more}


def patched(config: Any, takes: Mapping[str, Any], workload: Workload) -> Iterator[dict[str, Any]]:
    """The patches of each picture, and beside them where each lies or how many there are."""
    import torch

    patch, channels = first(config, "patch_size"), first(config, "num_channels") or 3
    if "pixel_values" not in takes or not isinstance(patch, int):
        return
    side = max(1, _side(config, workload) // patch)
    merge = first(config, "pooling_kernel_size") or 1
    side = max(1, side // merge) * merge if isinstance(merge, int) else side
    pixels = torch.ones(workload.batch, side**2, channels * patch**2)
    if "pixel_position_ids" in takes:
        place = torch.arange(side**2, device="cpu")
        places = torch.stack((place % side, place // side), -1).repeat(workload.batch, 1, 1)
        yield {"pixel_values": pixels, "pixel_position_ids": places}
    if "spatial_shapes" in takes:
        mask = torch.ones(workload.batch, side**2, dtype=torch.int64, device="cpu")
        shapes = torch.full((workload.batch, 2), side, device="cpu")
        yield {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": shapes}


def beside(
    config: Any, takes: Mapping[str, Any], text: Mapping[str, Any], pixels: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Words and a picture, and a mask that says where it stands among them, or which of them see it.

    For classes that read a detector's output: the features of each region, and where it lies.
    """
    import torch

    words = next(iter(text.values())).shape
    width, place = first(config, "visual_feat_dim"), first(config, "visual_pos_dim")
    if "visual_feats" in takes and width and place:
        regions = torch.ones(words[0], REGIONS, width + place).split((width, place), dim=-1)
        yield {**text, "visual_feats": regions[0], "visual_pos": regions[1]}
    tokens = first(config, "latent_query_num")
    if "image_embeds_position_mask" in takes and tokens:
        mask = (torch.arange(words[1], device="cpu") < tokens).long().repeat(words[0], 1)
        picture = pixels or next(_flattened(config, takes, words[0]), {})
        yield {**text, **picture, "image_embeds_position_mask": mask}
    yield from ({**text, **picture} for picture in _flattened(config, takes, words[0]))
    if "image_attention_mask" in takes and pixels:
        mask = torch.ones(*words, 1, dtype=torch.int64, device="cpu")
        several = pixels["pixel_values"].unsqueeze(1)
        yield {**text, "pixel_values": several, "image_attention_mask": mask}


def _flattened(config: Any, takes: Mapping[str, Any], batch: int) -> Iterator[dict[str, Any]]:
    """A picture's patches in a row, each behind the numbers of its row and its column."""
    import torch

    patches, size = first(config, "max_num_patches", "seq_len"), first(config, "patch_size")
    width = first(config, "patch_embed_hidden_size")
    if not width and isinstance(size, int):
        width = (first(config, "num_channels") or 3) * size**2
    if "flattened_patches" in takes and width:
        yield {"flattened_patches": torch.ones(batch, patches or 4_096, 2 + width)}


def in_codebooks(config: Any, takes: Mapping[str, Any], text: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Tokens of sound, a row for each codebook of each sequence, behind words where there are any."""
    books = first(config, "num_codebooks") or first(getattr(config, "decoder", None), "num_codebooks")
    name = "decoder_input_ids" if "decoder_input_ids" in takes else "input_ids"
    if books and name in text:
        yield {**text, name: text[name].repeat(books, 1)}


def asked(config: Any, takes: Mapping[str, Any], main: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    """The inputs that forward requires, and its main input, in each of the shapes that they may have."""
    import torch

    required = [n for n, p in takes.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    mains = [main] if isinstance(main, str) else list(main)
    names = dict.fromkeys([*required, *(name for name in mains if name in takes)])
    if "states" in names:  # what was done and seen before belongs to them
        names.update(dict.fromkeys(name for name in SHAPES if name in takes))
    if "input_ids" in names and "decoder_input_ids" in takes:
        names["decoder_input_ids"] = None
    for turn in range(max((len(SHAPES.get(name, ())) for name in names), default=0)):
        shapes = {name: _shape(config, name, turn, workload) for name in names if name not in MASKS}
        if any(None in shape for shape in shapes.values()):
            continue
        kinds = {name: torch.int64 if name in WHOLE else torch.float32 for name in shapes}
        given = {name: torch.ones(workload.batch, *shapes[name], dtype=kinds[name]) for name in shapes}
        masked = next(iter(given.values())).shape[:2]
        masks = {n: torch.ones(masked, dtype=torch.bool, device="cpu") for n in names if n in MASKS}
        yield {**given, **masks}


def _shape(config: Any, name: str, turn: int, workload: Workload) -> list[Any]:
    """An input's shape after the batch, of those that it may have; None where a length is unknown."""
    shapes = SHAPES.get(name, ((None,),))
    return [x and _length(config, x, workload) for x in shapes[min(turn, len(shapes) - 1)]]


def _side(config: Any, workload: Workload) -> int:
    """A picture's side: the workload's, else the config's."""
    side = workload.image or first(config, "image_size", "crop_size") or SIDE
    return side if isinstance(side, int) else int(side[0])


def _length(config: Any, size: Any, workload: Workload) -> Any:
    """One length of a shape of SHAPES; None where the config does not say it."""
    if isinstance(size, int):
        return size
    if size == "seq":
        limit = first(config, "max_position_embeddings", "max_ep_len")
        return workload.seq or (min(LONG, limit) if isinstance(limit, int) and limit > 0 else LONG)
    if size == "image":
        return _side(config, workload)
    if size == "frames":
        return first(config, "num_frames", "frames_per_clip")
    if size == "num_channels":
        return first(config, "num_channels", "in_channels", "in_chans") or 3
    if size == "codebooks":
        return first(config, "num_codebooks") or first(
            getattr(config, "decoder_config", config), "num_channels"
        )
    if size == "past":
        steps, lags = first(config, "context_length", "prediction_length"), first(config, "lags_sequence")
        return steps + max(lags) if steps and lags else steps
    if size == "patch":  # and the row and the column of each
        patch = first(config, "patch_embed_hidden_size")
        return patch + 2 if patch else None
    length = first(config, size) or getattr(config, size, None)  # it may be 0
    return length if isinstance(length, int) else None
