"""Inputs of a network of diffusers, by the names that its forward method gives them. Without data.

data/diffusers.json has, by class, what neither a config nor a method says: the order of a video's `latents`,
the `frames` and the pixels of a `side` that one latent stands for, the tokens of its `text`.
Sources: diffusers, diffusers-pipelines
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature

import torch

from .. import table
from ..config import Workload
from ..named import Any, NamedTuple

FRAMES, SIDE, TEXT, IMAGE = 4, 8, 512, 1024  # for a class that the table does not have
PACKED = ("img_ids", "img_shapes")  # with these a token is 2 x 2 latents
WIDTHS = (
    "joint_attention_dim",
    "caption_channels",
    "cross_attention_dim",
    "text_dim",
    "text_embed_dim",
    "cap_feat_dim",
)
FACTS = 6  # numbers for a picture: its size, the size that it shall have and where it was cut


class Asked(NamedTuple):
    """A class with the sizes of its latents, or of an autoencoder's pictures."""

    config: Mapping[str, Any]
    takes: Mapping[str, Parameter]
    dtype: torch.dtype
    batch: int
    text: int
    frames: int  # 0: no video
    height: int
    width: int

    def floats(self, *shape: int) -> torch.Tensor:
        """An input of the network's dtype."""
        return torch.zeros(self.batch, *shape, dtype=self.dtype)

    def ints(self, *shape: int) -> torch.Tensor:
        """An input of whole numbers."""
        return torch.zeros(self.batch, *shape, dtype=torch.int64)

    def mask(self, tokens: int) -> torch.Tensor:
        """A mask that hides nothing, with data, since some classes ask where it is true."""
        return torch.ones(self.batch, tokens, dtype=torch.int64, device="cpu")

    def first(self, *fields: str) -> Any:
        """The first of a config's fields that says something, of several numbers the first."""
        value = next((self.config[field] for field in fields if self.config.get(field)), None)
        return value[0] if isinstance(value, list | tuple) else value

    def needs(self, name: str) -> bool:
        """Whether an input has no default."""
        return self.takes[name].default is Parameter.empty

    def tokens(self) -> int:
        """Patches of all frames."""
        patch, through = self.first("patch_size") or 1, self.first("patch_size_t") or 1
        return (self.frames or 1) // through * (self.height // patch) * (self.width // patch)


def of(module: Any, w: Workload, dtype: Any, video: Any = None) -> dict[str, Any]:
    """What a class is called with. video: frames, height and width where the workload has no side."""
    a = _asked(module, w, dtype, video)
    layout = _about(module).get("latents", "b c t h w" if a.frames else "b c h w")
    given = {next(iter(a.takes)): _latents(a, layout)}
    for name in a.takes:
        value = INPUTS[name](a) if name in INPUTS else None
        if value is not None:
            given[name] = value
    return given


def _about(module: Any) -> Mapping[str, Any]:
    about: Mapping[str, Any] = table.load("diffusers.json")["classes"].get(type(module).__name__, {})
    return about


def _asked(module: Any, w: Workload, dtype: Any, video: Any) -> Asked:
    c, about, name = module.config, _about(module), type(module).__name__
    takes = signature(module.forward).parameters
    side, square = about.get("side", SIDE), c.get("sample_size")
    if name.startswith("Autoencoder"):  # whose config has pixels
        side = SIDE if "z" in takes else 1
        square = square // side if isinstance(square, int) else square
    frames, height, width = 1, 0, 0
    if "sample_height" in c:
        frames, height, width = c["sample_frames"], side * c["sample_height"], side * c["sample_width"]
    frames, height, width = video or (frames, height, width)
    if w.image or not height:
        height = width = w.image or (square if isinstance(square, int) else IMAGE // side) * side
    through = c.get("patch_size_t") or 1
    latents = -(-((frames - 1) // about.get("frames", FRAMES) + 1) // through) * through
    text = c.get("max_text_seq_length") or c.get("max_sequence_length") or about.get("text", TEXT)
    moves = "frames" in about or "3D" in name
    return Asked(
        c, takes, dtype, w.batch, w.seq or text, latents if moves else 0, height // side, width // side
    )


def _latents(a: Asked, layout: str) -> Any:
    channels = a.config.get("latent_channels" if "z" in a.takes else "in_channels") or 4
    if {*PACKED} & {*a.takes} or "num_frames" in a.takes:
        packed = 4 if {*PACKED} & {*a.takes} else 1
        return a.floats((a.frames or 1) * a.height * a.width // packed, channels)
    if "cap_feats" in a.takes:  # one tensor for each picture, of one frame
        return list(a.floats(channels, 1, a.height, a.width))
    sizes = {"c": channels, "t": a.frames, "h": a.height, "w": a.width}
    return a.floats(*(sizes[axis] for axis in layout.split()[1:]))


def _timestep(a: Asked) -> torch.Tensor:
    """The timestep; a float for classes that divide it or cast other inputs to its dtype."""
    return a.floats() if {"img_ids", "image_meta_size", "cap_feats"} & {*a.takes} else a.ints()


def _states(a: Asked) -> torch.Tensor | None:
    width = a.first(*WIDTHS)
    tokens = a.first("text_len") or a.text
    return a.floats(tokens, width) if width else None


def _rotations(a: Asked) -> Any:
    """Cosines and sines of a head, in float32, for a class that takes them as inputs."""
    if not a.config.get("use_rotary_positional_embeddings", "style" in a.takes):
        return None
    shape = (a.tokens(), a.config["attention_head_dim"])
    return torch.zeros(shape), torch.zeros(shape)


def _added(a: Asked) -> Any:
    """The further conditions on a picture that SDXL and PixArt take."""
    if a.config.get("addition_embed_type") == "text_time":
        facts = FACTS * a.config["addition_time_embed_dim"]
        pooled = a.config["projection_class_embeddings_input_dim"] - facts
        return {"text_embeds": a.floats(pooled), "time_ids": a.floats(FACTS)}
    if a.config.get("use_additional_conditions"):
        return {"resolution": a.floats(2), "aspect_ratio": a.floats(1)}
    return None


def _labels(a: Asked) -> torch.Tensor | None:
    classes = a.first("num_embeds_ada_norm", "num_class_embeds")
    return a.ints() if classes else None


INPUTS: dict[str, Callable[[Asked], Any]] = {
    "timestep": _timestep,
    "t": _timestep,
    "encoder_hidden_states": _states,
    "encoder_hidden_states_t5": lambda a: a.floats(
        a.config["text_len_t5"], a.config["cross_attention_dim_t5"]
    ),
    "cap_feats": lambda a: list(a.floats(a.text, a.config["cap_feat_dim"])),
    "pooled_projections": lambda a: a.floats(a.config["pooled_projection_dim"]),
    "encoder_attention_mask": lambda a: a.mask(a.text) if a.needs("encoder_attention_mask") else None,
    "text_embedding_mask": lambda a: a.mask(a.config["text_len"]),
    "text_embedding_mask_t5": lambda a: a.mask(a.config["text_len_t5"]),
    "img_ids": lambda a: torch.zeros(a.height * a.width // 4, 3, dtype=a.dtype),
    "txt_ids": lambda a: torch.zeros(a.text, 3, dtype=a.dtype),
    "img_shapes": lambda a: [[(1, a.height // 2, a.width // 2)]] * a.batch,
    "num_frames": lambda a: a.frames,
    "height": lambda a: a.height,
    "width": lambda a: a.width,
    "guidance": lambda a: a.floats() if a.config.get("guidance_embeds") else None,
    "class_labels": _labels,
    "added_cond_kwargs": _added,
    "added_time_ids": lambda a: a.floats(3),
    "image_rotary_emb": _rotations,
    "image_meta_size": lambda a: a.floats(FACTS),
    "style": lambda a: a.ints(),
    "original_size": lambda a: a.floats(2),
    "target_size": lambda a: a.floats(2),
    "crop_coords": lambda a: a.floats(2),
}
