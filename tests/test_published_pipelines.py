"""Memory of a pipeline of diffusers: which networks it has, and what is on the device at once."""

from types import SimpleNamespace

import pytest
from budget.bench.published import memory, pipelines
from budget.bench.published.rows import NotCoveredError
from published_tables import memory_asked


def asked(**more):
    """What a row of a page of diffusers asks."""
    row = {"scenario": "inference", "source": "a page (diffusers)", "measured_gb": "1", "metric": "GB"}
    return memory_asked(**{**row, "micro_batch": "4", "precision": "fp16", **more})


@pytest.mark.parametrize(
    ("told", "parts", "beside"),
    [
        # CLIP's two encoders have 123 and 695 million parameters.
        ({"model": "SDXL"}, [("sdxl-unet", 8, "fp16"), ("sd-vae", 4, "fp32")], 1.635e9),
        (
            {"model": "SDXL", "precision": "bf16"},
            [("sdxl-unet", 8, "bf16"), ("sd-vae", 4, "bf16")],
            1.635e9,
        ),
        (
            {"model": "SDXL", "precision": "fp32", "notes": "enable_vae_slicing"},
            [("sdxl-unet", 8, "fp32"), ("sd-vae", 1, "fp32")],
            3.271e9,
        ),
        ({"model": "FLUX.1-dev"}, [("flux.1-dev", 4, "fp16"), ("flux-vae", 4, "fp16")], 9.771e9),
        ({"model": "FLUX.1-dev", "notes": "the transformer alone"}, [("flux.1-dev", 4, "fp16")], None),
    ],
)
def test_a_pipeline_is_its_denoiser_its_autoencoder_and_the_text_s_encoders(told, parts, beside):
    found = asked(**told)
    assert [(p.model, p.settings["batch"], p.settings["dtype"]) for p in found.parts] == parts
    assert found.size == "peak"
    if beside is None:
        assert found.of is memory.peak
    else:
        assert sum(found.of.beside) == pytest.approx(beside, rel=1e-3)


def test_what_is_not_read_of_a_pipeline_is_no_guess():
    for told in ({"quant": "fp8"}, {"notes": "sequential offload"}, {"notes": "Tiny Autoencoder"}):
        with pytest.raises(NotCoveredError):
            asked(model="SDXL", **told)
    with pytest.raises(NotCoveredError, match="which networks the pipeline of cogvideox-5b has"):
        asked(model="cogvideox-5b", notes="a pipeline")


def test_the_largest_pass_has_all_other_weights_beside_it_or_none():
    """Weights of 10 and 1, text's of 3 and 5: passes of 12 and 9 bytes are 21 and 27, or 12 and 9 alone."""
    found = [SimpleNamespace(memory=SimpleNamespace(parameters=n, peak=p)) for n, p in ((10, 12), (1, 9))]
    together = pipelines.Together(memory.peak, (3, 5))
    assert together(found) == 27
    assert together._replace(offload=True)(found) == 12
    assert together._replace(beside=(3, 20), offload=True)(found) == 20
