"""Published parameters and FLOPs of vision transformers, encoder-decoders, speech and state spaces."""

import csv
from pathlib import Path

import pytest

from budget import arch as architectures
from budget.config import Workload, make
from budget.fold.count import flops, params
from budget.read import hf_config, preset

PUBLISHED = Path(__file__).parent / "data" / "params_flops.csv"
with PUBLISHED.open(encoding="utf-8") as file:
    ROWS = {row["model"]: row for row in csv.DictReader(file)}


def build(name, image=0):
    table = {k: v for k, v in preset.find(name).items() if k not in (*preset.ABOUT, "workload")}
    if "model_type" in table:
        arch, config = hf_config.read(table)
    else:
        arch = table.pop("arch")
        config = make(architectures.load(arch).Config, table)
    return architectures.load(arch).build(config, Workload("forward", image=image))


@pytest.mark.parametrize(
    ("row", "name"),
    {
        "T5-base": "t5-base", "T5-3B": "t5-3b", "Whisper-base": "whisper-base",
        "Whisper-medium": "whisper-medium", "Whisper-large-v3": "whisper-large-v3",
        "Mamba-370M": "mamba-370m",
        "Mamba-1.4B": "mamba-1.4b", "ViT_B_16": "vit-b-16", "ViT_B_32": "vit-b-32",
    }.items(),
)  # fmt: skip
def test_parameters(row, name):
    assert params(build(name)).total == int(ROWS[row]["params"])


@pytest.mark.parametrize(
    ("row", "name"), [("vit_tiny_patch16_224", "vit-ti-16"), ("vit_small_patch16_224", "vit-s-16")]
)
def test_parameters_in_millions(row, name):
    assert round(params(build(name)).total / 1e6, 2) == float(ROWS[row]["params_m"])


@pytest.mark.parametrize(
    ("row", "name", "image"),
    [
        ("ViT_B_16", "vit-b-16", 224),
        ("ViT_B_32", "vit-b-32", 224),
        ("ViT_L_16", "vit-l-16", 512),
        ("ViT_H_14", "vit-h-14", 518),
    ],
)
def test_torchvisions_multiply_adds(row, name, image):
    """torchvision counts attention's products too, and calls multiply-adds GFLOPS."""
    model = build(name, image)
    assert params(model).total == int(ROWS[row]["params"])
    assert flops(model).forward / 2e9 == pytest.approx(float(ROWS[row]["gmacs"]), abs=0.006)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("bart-large", 406), ("lstm-ptb-large", 66), ("vit-b-16", 86), ("vit-l-16", 307), ("vit-h-14", 632),
        ("vit_giant_patch14_224", 1012.6), ("vit_gigantic_patch14_224", 1844.4),
        ("dit-s-2", 33), ("dit-b-2", 130), ("dit-l-2", 458), ("dit-xl-2", 675), ("bamba-9b", 9780),
        ("t5-11b", 11_300), ("jamba-v0.1", 52_000), ("jamba-1.5-large", 398_000), ("gnmt-mlperf", 160),
        ("whisper-large-v2", 1550), ("mamba-2.8b", 2800), ("mamba2-2.7b", 2700),
    ],
)  # fmt: skip
def test_parameters_as_their_authors_round_them(name, millions):
    """Papers and model cards; recalled, and rounded there, so to one in a hundred."""
    assert params(build(name)).total / 1e6 == pytest.approx(millions, rel=0.012)
