"""A network of a diffusers pipeline by its config.json, as its own class captured on the meta device.

`--image` is the picture's side in pixels, an eighth of which a network in latent space sees; `--seq` the
text's tokens. A preset of an autoencoder says that it is the way from latents to a picture (`"part":
"decode"`). Only diffusers' own code runs, which is installed here. `--attention eager` is its
AttnProcessor, which writes the scores, as diffusers did before torch 2.0. Source: diffusers
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature

from ..config import Workload, size
from ..errors import InputError, shown
from ..ir import Model
from ..named import Any
from ..size import once
from .hf_fields import buildable

NAME = "_class_name"
PART = "part"  # decode: what a pipeline runs of an autoencoder
LATENT = 8  # pixels of a latent's side, and two of a token's where a transformer takes them packed
VIDEO_LATENT = 32  # of the autoencoder whose latents LTX takes, each a token
TEXT = {"UNet2DConditionModel": 77, "SD3Transformer2DModel": 333}  # CLIP's tokens, and T5's beside them
USUAL_TEXT, USUAL_IMAGE = 512, 1024
ATTENTION = ("eager", "sdpa")
WIDTHS = ("joint_attention_dim", "caption_channels", "cross_attention_dim", "text_dim", "text_embed_dim")


def program(
    values: Mapping[str, Any], mode: str, dtype: str, attention: str | None = None, **sizes: Any
) -> Model:
    """The program of a config's class, captured once in a process. Raises InputError."""
    import json

    buildable(values)
    try:
        text = json.dumps(dict(values), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError("config", f"is no JSON: {error}") from None
    given = tuple((field, size(field, x)) for field, x in sizes.items() if x is not None)
    found: Model = _program(text, mode, dtype, attention or "sdpa", given)
    return found


@once
def _program(text: str, mode: str, dtype: str, attention: str, sizes: tuple[tuple[str, Any], ...]) -> Model:
    import json

    values = json.loads(text)
    name = values[NAME]
    try:
        import diffusers
        import torch
    except ImportError:
        way = "pip install 'compute-budget[hf]' answers what diffusers can build"
        raise InputError(NAME, f"got {shown(name)}; {way}") from None
    from ..dtype import of_class
    from . import torch_module

    cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, diffusers.ModelMixin)):
        raise InputError(NAME, f"got {shown(name)}, which is no network of diffusers {diffusers.__version__}")
    if mode not in torch_module.MODES:
        allowed = ", ".join(torch_module.MODES)
        raise InputError("mode", f"got {mode!r}; allowed for a captured class: {allowed}")
    workload = Workload(mode, **dict(sizes))
    wanted = getattr(torch, of_class(dtype) if dtype else "bfloat16")
    try:
        with torch.device("meta"):
            config = {k: v for k, v in values.items() if k not in ("quantization_config", PART)}
            made = _made(cls, config, wanted)
            made.train(mode == "train")
            if attention != "sdpa":
                _write_out(made, attention)
            if values.get(PART) == "decode":
                made.forward = made.decode
            given = _inputs(made, workload, wanted)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a config's values make a class raise
        problem = " ".join(str(error).split()) or type(error).__name__
        raise InputError("config", f"diffusers cannot build {name}: {problem[:200]}") from None
    model = torch_module.capture(made, given, mode)
    return model._replace(config={**model.config, "class": name, "library": "diffusers", "captured": True})


def _write_out(made: Any, attention: str) -> None:
    """Have a network's attention write its scores. Raises InputError for others than SDPA's usual callers."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    if attention not in ATTENTION:
        allowed = ", ".join(ATTENTION)
        raise InputError("attention", f"got {attention!r}; allowed for a network of diffusers: {allowed}")
    if any(type(p) is not AttnProcessor2_0 for p in getattr(made, "attn_processors", {0: None}).values()):
        raise InputError("attention", f"{type(made).__name__} has its own; allowed: sdpa")
    made.set_attn_processor(AttnProcessor())


def _made(cls: Any, config: Mapping[str, Any], dtype: Any) -> Any:
    """A class without weights in a dtype, but for what it keeps in float32."""
    import torch

    made = cls.from_config(config)
    kept = getattr(cls, "_keep_in_fp32_modules", None) or ()
    for path, part in made.named_modules():
        if not any(name in path.split(".") for name in kept):
            for name, p in list(part.named_parameters(recurse=False)):
                narrow = p.dtype.is_floating_point and name not in kept
                setattr(part, name, torch.nn.Parameter(p.to(dtype)) if narrow else p)
            for name, t in list(part.named_buffers(recurse=False)):
                if t.dtype.is_floating_point:
                    setattr(part, name, t.to(dtype))
    return made


def _inputs(made: Any, w: Workload, dtype: Any) -> dict[str, Any]:
    """Latents, the time, the text, and what else a class takes, on the device of the context."""
    import torch

    c, takes = made.config, signature(made.forward).parameters
    name, b = type(made).__name__, w.batch
    square = c.get("sample_size")
    side = w.image // LATENT if w.image else square if isinstance(square, int) else USUAL_IMAGE // LATENT
    if name.startswith("Autoencoder"):
        side = w.image or (square if isinstance(square, int) else USUAL_IMAGE)
    if "z" in takes:  # latents of a picture
        side //= LATENT
    text = w.seq or TEXT.get(name, USUAL_TEXT)

    def floats(*shape: int) -> Any:
        return torch.zeros(shape, dtype=dtype)

    latents = floats(b, c.get("latent_channels" if "z" in takes else "in_channels", 4), side, side)
    video = {"num_frames", "height", "width"} <= set(takes)
    packed = side * LATENT // VIDEO_LATENT if video else side // 2  # tokens along a side
    if video or "img_ids" in takes or "img_shapes" in takes:
        latents = floats(b, packed**2, c["in_channels"])
    elif len(c.get("patch_size") or ()) == 3 if not isinstance(c.get("patch_size"), int) else False:
        latents = latents.unsqueeze(2)  # one frame
    given: dict[str, Any] = {next(iter(takes)): latents}
    if "timestep" in takes:
        given["timestep"] = floats(b) if "img_ids" in takes else torch.zeros(b, dtype=torch.int64)
    width = next((c[field] for field in WIDTHS if c.get(field)), None)
    width = width[0] if isinstance(width, list | tuple) else width
    if "encoder_hidden_states" in takes and width:
        given["encoder_hidden_states"] = floats(b, text, width)
    if "pooled_projections" in takes:
        given["pooled_projections"] = floats(b, c["pooled_projection_dim"])
    if "encoder_attention_mask" in takes and takes["encoder_attention_mask"].default is Parameter.empty:
        given["encoder_attention_mask"] = floats(b, text)
    if "img_ids" in takes:
        given["img_ids"], given["txt_ids"] = floats(packed**2, 3), floats(text, 3)
    if "img_shapes" in takes:
        given["img_shapes"] = [[(1, packed, packed)]] * b
    if video:
        given |= {"num_frames": 1, "height": packed, "width": packed}
    if c.get("guidance_embeds") and "guidance" in takes:
        given["guidance"] = floats(b)
    if "class_labels" in takes and (c.get("num_embeds_ada_norm") or c.get("num_class_embeds")):
        given["class_labels"] = torch.zeros(b, dtype=torch.int64)
    if c.get("addition_embed_type") == "text_time":  # SDXL
        pooled = c["projection_class_embeddings_input_dim"] - 6 * c["addition_time_embed_dim"]
        given["added_cond_kwargs"] = {"text_embeds": floats(b, pooled), "time_ids": floats(b, 6)}
    return given
