"""Rows of published tables of pictures by diffusion: what each asks of `estimate`."""

import pytest
from budget.bench.published import inference
from budget.bench.published.rows import NotCoveredError
from published_tables import inference_row


@pytest.mark.parametrize(
    ("told", "parts"),
    [
        ({"notes": "50 steps, images/s"}, [("sd-1.5-unet", 8, 50), ("sd-vae", 4, 1)]),
        ({"steps": "30", "model": "SDXL"}, [("sdxl-unet", 8, 30), ("sd-vae", 4, 1)]),
        ({"notes": "50 steps of the denoiser"}, [("sd-1.5-unet", 8, 50)]),
        ({"notes": "28 steps of the denoiser", "model": "FLUX.1-dev"}, [("flux.1-dev", 4, 28)]),
        ({"notes": "one pass of the denoiser"}, [("sd-1.5-unet", 4, 1)]),
        ({"notes": "4 steps of the denoiser, no guidance"}, [("sd-1.5-unet", 4, 4)]),
        ({"notes": "8 steps, no guidance", "model": "z-image"}, [("z-image", 4, 8), ("flux-vae", 4, 1)]),
        ({"notes": "50 steps of the denoiser", "model": "Wan2.1 T2V 1.3B"}, [("wan2.1-t2v-1.3b", 8, 50)]),
        ({"notes": "28 steps", "model": "FLUX.1-dev"}, [("flux.1-dev", 4, 28), ("flux-vae", 4, 1)]),
        ({"notes": "images/s"}, "how many steps a picture takes is not stated"),
    ],
)
def test_a_picture_by_diffusion_is_passes_with_guidance_and_one_decode(told, parts):
    """StableDiffusionPipeline concatenates latents with themselves; FluxPipeline has guidance embedded."""
    row = inference_row(batch="4")
    row |= {"model": "Stable Diffusion 1.5", "engine": "diffusers", "weight_precision": "fp16"} | told
    if isinstance(parts, str):
        with pytest.raises(NotCoveredError, match=parts):
            list(inference.asked(row))
        return
    (asked,) = inference.asked(row)
    assert [(p.model, p.settings["batch"], p.times) for p in asked.parts] == parts
    side = {"Stable Diffusion 1.5": 512, "Wan2.1 T2V 1.3B": None}.get(row["model"], 1024)
    assert {p.settings.get("image") for p in asked.parts} == {side}
    assert asked.work == 4


@pytest.mark.parametrize(
    ("engine", "attention"),
    [
        ("diffusers 0.11.0, torch 1.13, no xformers", "eager"),
        ("diffusers 0.12", "eager"),
        ("diffusers, torch 1.12, xformers", None),
        ("diffusers 0.17, torch 2.0", None),
        ("diffusers", None),
    ],
)
def test_diffusers_wrote_attention_s_scores_before_sdpa(engine, attention):
    """diffusers 0.13 has AttnProcessor2_0, for torch 2.0."""
    row = inference_row(batch="4")
    row |= {"model": "Stable Diffusion 1.5", "weight_precision": "fp16", "notes": "30 steps"}
    (asked,) = inference.asked(row | {"engine": engine})
    assert {p.settings.get("attention") for p in asked.parts} == {attention}
