"""Presets: parameters that others publish, which tests/data/preset_params.csv has."""

import csv
from pathlib import Path

import pytest

from budget import estimate
from budget.read import preset, source

with (Path(__file__).parent / "data/preset_params.csv").open(encoding="utf-8", newline="") as _file:
    COUNTED = [
        pytest.param(row, id=row["preset"], marks=pytest.mark.slow if row["slow"] else ())
        for row in csv.DictReader(_file)
    ]


@pytest.mark.parametrize("row", COUNTED)
def test_parameters_are_those_that_others_count(row):
    """`beside`: numbers that we have, or have not, besides theirs."""
    theirs = int(row["params"]) + int(row["beside"] or 0)
    assert estimate(row["preset"], mode="forward", batch=1).params.total == theirs


def test_gemma_4_31b_has_the_size_that_vllm_loads():
    """58.25 GiB in bfloat16, the tower with it. Source: gemma-4-31b-tower."""
    total = estimate("gemma-4-31b", mode="decode", batch=1, seq=1024, device="h200").params.total
    assert 2 * total / 2**30 == pytest.approx(58.25, abs=0.005)


def test_smolvlm2_has_the_size_of_its_file():
    """2.03 GB in float32: https://huggingface.co/HuggingFaceTB/SmolVLM2-500M-Video-Instruct/tree/main."""
    total = estimate("smolvlm2-500m", mode="forward", batch=1, seq=16).params.total
    assert 4 * total == pytest.approx(2.03e9, abs=0.005e9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cls", "effective"),
    [
        ("m2m100-418m", "M2M100ForConditionalGeneration", None),
        ("gemma-3n-e2b", "Gemma3nForCausalLM", 1.91e9),
        ("gemma-3n-e4b", "Gemma3nForCausalLM", 3.98e9),
    ],
)
def test_parameters_are_those_of_the_class(name, cls, effective):
    """Gemma 3n's effective ones are without both tables of the vocabulary, and published to three digits.

    Source: https://huggingface.co/datasets/google/gemma3n-slicing-configs, read 2026-11-29.
    """
    import torch
    import transformers

    fields = {k: v for k, v in preset.find(name).items() if k not in ("source", "workload", "model_type")}
    config = transformers.AutoConfig.for_model(preset.find(name)["model_type"], **fields).get_text_config()
    with torch.device("meta"):
        module = getattr(transformers, cls)._from_config(config)
    module.tie_weights()
    sizes = {k: p.numel() for k, p in module.named_parameters()}
    assert estimate(name, mode="forward", batch=1, seq=16).params.total == sum(sizes.values())
    if effective:
        tables = sum(n for k, n in sizes.items() if "embed_tokens" in k)
        assert sum(sizes.values()) - tables == pytest.approx(effective, rel=0.015)


def test_a_model_type_of_code_elsewhere_is_its_class():
    """Kimi K2's config.json names DeepSeek's class, and a model_type that transformers has not."""
    own = {**preset.find("kimi-k2-fp8"), "architectures": ["DeepseekV3ForCausalLM"]}
    told = {k: v for k, v in own.items() if k not in preset.ABOUT}
    as_there, here = ({**told, "model_type": kind} for kind in ("kimi_k2", "deepseek_v3"))
    assert source.resolve(as_there, {})[1:] == source.resolve(here, {})[1:]


def test_beit_is_as_timm_counts_it():
    """timm's results: beit_base_patch16_224 has 86.53 M parameters and 17.58 GMACs."""
    found = estimate("microsoft/beit-base-patch16-224", mode="forward", batch=2)
    assert found.params.total / 1e6 == pytest.approx(86.53, abs=0.01)
    assert found.flops.forward / 4e9 == pytest.approx(17.58, rel=0.01)
