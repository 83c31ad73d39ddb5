"""Transformers of presets: torch's counts, and the parameters that their makers print."""

import csv
from pathlib import Path

import pytest

from budget.arch.transformer import Config, build
from budget.config import Workload, make
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import hf_config, preset

ROWS = {
    row["model"]: row
    for row in csv.DictReader(
        (Path(__file__).parent / "data/params_flops.csv").read_text("utf-8").splitlines()
    )
}


def ours(config, seq):
    model = backward(build(config, Workload("train", 1, seq)))
    return params(model).total, *flops(model)[:2]


def of_preset(name):
    table = {k: v for k, v in preset.find(name).items() if k not in preset.ABOUT}
    if "model_type" in table:
        return hf_config.read(table)[1]
    table.pop("arch")
    return make(Config, table)


GOLDEN = [  # preset, seq, parameters, forward, step: FlopCounterMode on the meta device, eager attention
    ("gpt2", 1024, 124_439_808, 291_648_307_200, 874_944_921_600),
    ("llama-2-7b", 4096, 6_738_415_616, 62_921_270_886_400, 188_763_812_659_200),
    ("llama-3-70b", 8192, 70_553_706_496, 1_314_637_949_698_048, 3_943_913_849_094_144),
    ("mixtral-8x7b", 4096, 46_702_792_704, 113_232_517_791_744, 339_697_553_375_232),
    ("bert-base", 512, 109_482_240, 96_637_943_808, 289_911_472_128),
]


@pytest.mark.parametrize(("name", "seq", "total", "forward", "step"), GOLDEN)
def test_golden(name, seq, total, forward, step):
    counted = ours(of_preset(name), seq)
    assert (counted[0], counted[1], counted[1] + counted[2]) == (total, forward, step)


def test_default_is_gpt2():
    assert ours(Config(), 0) == (124_439_808, 291_648_307_200, 874_944_921_600 - 291_648_307_200)


PUBLISHED = {  # a row of params_flops.csv: the preset that it is of
    "GPT-2 124M": "gpt2", "GPT-2 large": "gpt2-large", "BERT-base-uncased": "bert-base",
    "RoBERTa-large": "roberta-large", "ALBERT-base-v2": "albert-base-v2",
    "LLaMA-7B / Llama-2-7B": "llama-2-7b",
    "LLaMA-33B": "llama-33b", "Llama-2-70B": "llama-2-70b", "Llama-3-70B": "llama-3-70b",
    "CodeLlama-34B": "codellama-34b", "SmolLM2-1.7B (untied? tied)": "smollm2-1.7b",
    "Llama-3.2-3B": "llama-3.2-3b", "Mixtral-8x7B": "mixtral-8x7b", "Phi-2": "phi-2", "Gemma-2B": "gemma-2b",
    "Gemma-2-9B": "gemma-2-9b", "Qwen2.5-0.5B": "qwen2.5-0.5b", "Qwen2.5-3B": "qwen2.5-3b",
    "Qwen2.5-14B": "qwen2.5-14b", "Qwen2.5-72B": "qwen2.5-72b", "Qwen3-30B-A3B": "qwen3-30b-a3b",
    "DeepSeek-V3 (main, no MTP)": "deepseek-v3", "GPT-OSS-20B": "gpt-oss-20b", "OPT-125M": "opt-125m",
    "OPT-6.7B": "opt-6.7b", "OPT-30B": "opt-30b", "BLOOM-560M": "bloom-560m", "BLOOM-7b1": "bloom-7b1",
    "Pythia-70M": "pythia-70m", "Pythia-410M": "pythia-410m", "Pythia-1.4B": "pythia-1.4b",
    "Pythia-6.9B": "pythia-6.9b", "GPT-NeoX-20B": "gpt-neox-20b", "GPT-Neo-125M": "gpt-neo-125m",
    "MPT-7B": "mpt-7b", "MPT-125m": "llm-foundry-125m", "MPT-350m": "llm-foundry-350m",
    "MPT-760m": "llm-foundry-760m", "MPT-1b": "llm-foundry-1b", "MPT-3b": "llm-foundry-3b",
    "MPT-7b": "llm-foundry-7b", "MPT-13b": "llm-foundry-13b", "MPT-30b": "llm-foundry-30b",
    "MPT-70b": "llm-foundry-70b",
}  # fmt: skip


@pytest.mark.parametrize(("row", "name"), PUBLISHED.items())
def test_published_parameters(row, name):
    model = build(of_preset(name), Workload("forward"))
    assert params(model).total == int(ROWS[row]["params"])


def test_published_parameters_of_a_masked_bert():
    _, config = hf_config.read({"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    assert params(build(config, Workload("forward"))).total == int(ROWS["BERT-base ForMaskedLM"]["params"])


ROUNDED = [
    ("gpt3-175b", 174.6),
    ("llama-3-405b", 405.9),
    ("opt-175b", 174.6),
    ("bloom-176b", 176.2),
    ("mixtral-8x22b", 140.6),
]


@pytest.mark.parametrize(("name", "billions"), ROUNDED)
def test_parameters_as_the_papers_round_them(name, billions):
    assert round(params(build(of_preset(name), Workload("forward"))).total / 1e9, 1) == billions


@pytest.mark.parametrize(
    ("name", "billions"), [("mixtral-8x7b", 12.9), ("deepseek-v3", 37.6), ("qwen3-235b-a22b", 22.2)]
)
def test_active_parameters(name, billions):
    assert round(params(build(of_preset(name), Workload("forward"))).active / 1e9, 1) == billions
