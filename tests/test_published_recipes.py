"""What a published row leaves out: the recipes of its software."""

import pytest
from budget.bench.published.layouts import layout, recomputed
from budget.bench.published.rows import precision, stack
from budget.bench.published.usual import FORMATS, WHICH, filled, recipes

from budget import device
from budget.read import preset

SETTINGS = {
    "tp", "pp", "cp", "ep", "vpp", "zero_stage", "recompute", "dropout", "tp_overlap", "ep_kind",
    "ep_overlap",
}  # fmt: skip
BRIDGE = "NVIDIA-NeMo/Megatron-Bridge docs/performance-summary.md"


@pytest.mark.parametrize(
    ("model", "gpu", "word", "source", "modules"),
    [  # recompute_modules in scripts/performance/configs at the release's tag
        ("DeepSeekV3", "gb200", "mxfp8", f"{BRIDGE} (26.02)", "mla_up_proj"),
        ("DeepSeekV3", "gb200", "FP8-MX", f"{BRIDGE} (26.04.01)", "mlp"),
        ("DeepSeekV3", "gb300", "mxfp8", f"{BRIDGE} § 26.06.01", ""),
        ("Kimi_K2", "h100-sxm", "fp8", BRIDGE, "mla_up_proj,mlp"),
        ("GPT OSS 120B", "b200", "bf16", BRIDGE, "layernorm,moe_act"),
        ("LLAMA3_70B", "b200", "fp8", BRIDGE, ""),
        ("LLAMA2-70B", "h100-sxm", "fp8", "NVIDIA/NeMo@fe98ad77 performance_summary.md (24.07)", ""),
    ],
)
def test_what_a_page_leaves_out_is_its_software_s_recipe(model, gpu, word, source, modules):
    row = {
        "model": model,
        "precision": word,
        "source": source,
        "recompute": "",
        "kind": "llm_train",
        "vpp": "n/a",
        "tp": "1",
        "pp": "4",
    }
    row = filled(row, stack(row), gpu)
    assert recomputed(row, 64).get("recompute_modules", "") == modules
    found = layout(row, 64, stack(row))
    assert (found["zero"], found["dp"], found["vpp"]) == (1, 16, 20 if "NeMo@" in source else 1)
    assert precision(word)[0] == "bf16"


def test_what_a_row_states_is_kept():
    row = {"model": "DeepSeekV3", "precision": "mxfp8", "source": BRIDGE, "recompute": "full", "vpp": "4"}
    assert filled(row, stack(row), "gb200") | row == filled(row, stack(row), "gb200")
    unknown = row | {"recompute": "", "source": "MegaScale (arXiv 2402.15627)"}
    assert filled(unknown, stack(unknown), "gb200")["recompute"] == ""


@pytest.mark.parametrize("recipe", [recipe for known in recipes().values() for recipe in known], ids=str)
def test_a_recipe_is_for_networks_and_devices_that_there_are(recipe):
    assert set(recipe.get("models", ())) <= set(preset.names())
    assert [device.load(name).id for name in recipe.get("devices", ())] == recipe.get("devices", [])
    assert set(recipe.get("formats", ())) <= set(FORMATS)
    assert set(recipe) - set(WHICH) <= SETTINGS
    assert all(isinstance(text, str) for column, text in recipe.items() if column not in WHICH[:4])


@pytest.mark.parametrize(
    ("source", "again"),
    [
        ("a page (transformers 5.5, trl 0.29.1)", "full"),
        ("a page (transformers 4.51, trl 0.18)", ""),
        ("a page of 2026-01 (transformers, trl)", "full"),
        ("a page of 2024-01 (transformers 4.36, trl, peft)", ""),
        ("a page of 2024-01 (LLaMA Factory)", "full"),
        ("a page (transformers, ms-swift)", "full"),
        ("a page (transformers)", ""),
    ],
)
def test_programs_over_transformers_recompute_by_themselves(source, again):
    row = {"model": "llama-3-8b", "precision": "bf16", "source": source, "recompute": ""}
    by_engine = {**row, "engine": source, "source": ""}
    assert filled(by_engine, "transformers", "h100-sxm")["recompute"] == again
    assert filled(row, "transformers", "h100-sxm")["recompute"] == again
    assert filled({**row, "recompute": "none"}, "transformers", "h100-sxm")["recompute"] == "none"
