"""A network of a diffusers pipeline by its config.json, as its own class captured on the meta device.

`--image` is the picture's side in pixels (a network in latent space sees an eighth of it), `--seq` the text's
tokens. A preset of an autoencoder is the half from latents to a picture where it says `"part": "decode"`; one
for videos has their frames, height and width (`"video": [49, 480, 720]`). Only the installed diffusers' own
code runs. `--attention eager` is its AttnProcessor, which writes the scores, as diffusers did before torch
2.0.
Source: diffusers
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Workload, size
from ..errors import InputError, shown, wrong
from ..ir import Model
from ..named import Any
from ..size import once
from .hf_fields import buildable

NAME = "_class_name"
PART = "part"  # decode: the half of an autoencoder that a pipeline runs
ATTENTION = ("eager", "sdpa")
VIDEO, AXES = "video", ("frames", "height", "width")  # of a preset; in pixels


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
    model: Model = _program(text, mode, dtype, attention or "sdpa", given)
    return model


@once
def _program(text: str, mode: str, dtype: str, attention: str, sizes: tuple[tuple[str, Any], ...]) -> Model:
    import json

    values = json.loads(text)
    name = values[NAME]
    try:
        import diffusers
        import torch
    except ImportError:
        way = "answered where diffusers is installed: pip install 'compute-budget[hf]'"
        raise InputError("model", f"{shown(name)} is diffusers' own class; {way}") from None
    from ..dtype import of_class
    from . import _diffusers_inputs, torch_module

    cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, diffusers.ModelMixin)):
        raise InputError(NAME, f"got {shown(name)}, which is no network of diffusers {diffusers.__version__}")
    if mode not in torch_module.MODES:
        allowed = ", ".join(torch_module.MODES)
        raise InputError("mode", f"got {mode!r}; allowed for a captured class: {allowed}")
    video = values.get(VIDEO)
    if video is not None and (not isinstance(video, list) or len(video) != len(AXES)):
        raise wrong(VIDEO, video, f"{', '.join(AXES)}, as [49, 480, 720]")
    video = video and tuple(map(size, AXES, video))
    workload = Workload(mode, **dict(sizes))
    wanted = getattr(torch, of_class(dtype) if dtype else "bfloat16")
    try:
        with torch.device("meta"):
            config = {k: v for k, v in values.items() if k not in ("quantization_config", PART, VIDEO)}
            module = _made(cls, config, wanted)
            module.train(mode == "train")
            if attention != "sdpa":
                _write_out(module, attention)
            if values.get(PART) == "decode":
                module.forward = module.decode
            given = _diffusers_inputs.of(module, workload, wanted, video)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a config's values make a class raise
        problem = " ".join(str(error).split()) or type(error).__name__
        raise InputError("config", f"diffusers cannot build {name}: {problem[:200]}") from None
    model = torch_module.capture(module, given, mode)
    shapes = {name: list(x.shape) for name, x in given.items() if isinstance(x, torch.Tensor)}
    about = {"class": name, "library": "diffusers", "captured": True, "inputs": shapes}
    return model._replace(config={**model.config, **about}, samples=workload.batch)


def _write_out(module: Any, attention: str) -> None:
    """Let a network's attention write its scores. Raises InputError where it is not one of the usual callers
    of SDPA.
    """
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    if attention not in ATTENTION:
        allowed = ", ".join(ATTENTION)
        raise InputError("attention", f"got {attention!r}; allowed for a network of diffusers: {allowed}")
    if any(type(p) is not AttnProcessor2_0 for p in getattr(module, "attn_processors", {0: None}).values()):
        raise InputError("attention", f"{type(module).__name__} has its own; allowed: sdpa")
    module.set_attn_processor(AttnProcessor())


def _made(cls: Any, config: Mapping[str, Any], dtype: Any) -> Any:
    """A class without weights in a dtype, but for what it keeps in float32."""
    import torch

    module = cls.from_config(config)
    kept = getattr(cls, "_keep_in_fp32_modules", None) or ()
    for path, part in module.named_modules():
        if not any(name in path.split(".") for name in kept):
            for name, p in list(part.named_parameters(recurse=False)):
                narrow = p.dtype.is_floating_point and name not in kept
                setattr(part, name, torch.nn.Parameter(p.to(dtype)) if narrow else p)
            for name, t in list(part.named_buffers(recurse=False)):
                if t.dtype.is_floating_point:
                    setattr(part, name, t.to(dtype))
    return module
