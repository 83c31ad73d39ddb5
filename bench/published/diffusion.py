"""Pictures by diffusion: passes of the denoiser, then one of the autoencoder, from latents to pixels.

With guidance a pass has each picture twice, with the text and without it; a network that takes its guidance
as an input has it once. Not counted: the text's encoder, the steps between the passes, and that SDXL's
autoencoder runs in float32 where the denoiser is in float16. Source: diffusers.
"""

from __future__ import annotations

import re

from budget.errors import InputError
from budget.named import Any
from budget.read import preset

from ._attention import written_out
from .rows import NotCoveredError, Part
from .table import Row, text_of

LATENT = 8  # pixels of a latent's side
DECODERS = {  # by the denoiser's class
    "UNet2DConditionModel": "sd-vae",
    "PixArtTransformer2DModel": "sd-vae",
    "FluxTransformer2DModel": "flux-vae",
    "SD3Transformer2DModel": "flux-vae",
    "ZImageTransformer2DModel": "flux-vae",
}


def denoiser(model: Any) -> bool:
    """Whether a model is a preset of a network of diffusers, and no autoencoder."""
    try:
        network = preset.find(model).get("_class_name", "") if isinstance(model, str) else ""
        return bool(network) and not network.startswith("Autoencoder")
    except InputError:
        return False


def parts(row: Row, model: str, settings: dict[str, Any]) -> tuple[Part, ...]:
    """What a batch of pictures takes, by a row's column `steps` or its notes. Raises NotCoveredError.

    `50 steps` end with pictures, `50 steps of the denoiser` with latents; `one pass of the denoiser` has no
    guidance, nor have steps that say so.
    """
    text, config = text_of(row, "notes"), preset.find(model)
    batch = settings["batch"]
    of_side = re.search(r"of side (\d+)", text)
    shared = {**settings, "mode": "forward"}
    if written_out(row, settings["stack"], "forward"):
        shared["attention"] = "eager"
    if of_side or "video" not in config:  # whose usual frames have a height and a width
        shared["image"] = int(of_side[1]) if of_side else config.get("sample_size", 1024 // LATENT) * LATENT
    del shared["config"]
    if "one pass of the denoiser" in text:
        return (Part(model, shared),)
    counted = re.search(r"\b(\d+) steps\b", f"{row.get('steps', '')} steps, {text}")
    if not counted:
        raise NotCoveredError("how many steps a picture takes is not stated")
    samples = batch if "guidance_embeds" in config or "no guidance" in text else 2 * batch
    passes = Part(model, {**shared, "batch": samples}, int(counted[1]))
    if "of the denoiser" in text:
        return (passes,)
    name = config["_class_name"]
    if name not in DECODERS:
        raise NotCoveredError(f"no autoencoder is known for {name}")
    return passes, Part(DECODERS[name], shared)
