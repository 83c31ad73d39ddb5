"""What rows of training runs say of layouts, recomputation, adapters, optimizers and fused kernels."""

import pytest
from budget.bench.published.layouts import layout, recomputed
from budget.bench.published.rows import NotCoveredError
from budget.bench.published.techniques import adapters, fused, optimizer


@pytest.mark.parametrize(
    ("notes", "shard"),
    [("FSDP=128", 128), ("4x v5e-256; full remat", 256), ("2x TPU v5p-1024", 512), ("", 8)],
)
def test_hsdp_divides_in_a_slice_a_node_or_as_stated(notes, shard):
    row = {"zero_stage": "hsdp", "tp": "1", "pp": "1", "notes": notes}
    assert layout(row, 1024, "maxtext")["shard"] == shard


def test_software_that_interleaves_no_stages_has_one_on_a_device():
    row = {"pp": "2", "tp": "1"}
    assert layout(row, 2, "transformers")["vpp"] == 1
    with pytest.raises(NotCoveredError, match="vpp is not stated"):
        layout(row, 2, "megatron")


def test_so_many_layers_are_computed_again():
    assert recomputed({"recompute": "full, 5 layers"}, 256) == {"recompute": "full", "recompute_layers": 5}
    assert recomputed({"recompute": "full"}, 256) == {"recompute": "full"}


def test_maxtext_s_words_for_what_a_layer_keeps():
    assert recomputed({"recompute": "minimal_flash"}, 64) == {"recompute": "keep_products"}
    assert "mlp" in recomputed({"recompute": "save_dot_except_mlp"}, 64)["recompute_modules"]
    with pytest.raises(NotCoveredError):
        recomputed({"recompute": "minimal_offloaded"}, 64)
    with pytest.raises(NotCoveredError):  # on few devices, too
        recomputed({"recompute": "custom (layer inputs kept on the host)"}, 8)


@pytest.mark.parametrize(
    ("kind", "notes", "found"),
    [
        ("llm_train", "weights in bf16", {}),
        ("llm_lora", "packed", {"lora_rank": 16}),
        (
            "llm_lora",
            "LoRA, rank 64 on q k v gate up down; 1024 samples",
            {"lora_rank": 64, "lora_targets": "attn.q,attn.k,attn.v,mlp.gate,mlp.up,mlp.down"},
        ),
        (
            "llm_lora",
            "LoRA, rank 16 on q_proj, k_proj, v_proj/o_proj, dropout 0",
            {"lora_rank": 16, "lora_targets": "attn.q,attn.k,attn.v,attn.o"},
        ),
        ("llm_lora", "LoRA, rank 4 on query and value", {"lora_rank": 4, "lora_targets": "attn.q,attn.v"}),
        (
            "llm_lora",
            "QLoRA (nf4, double quantization), rank 8 on all linear layers, dropout 0.05",
            {"lora_rank": 8, "lora_targets": "all-linear", "lora_dropout": 0.05, "quantize": "nf4-dq"},
        ),
        ("llm_lora", "LoRA; peft 0.13", {"lora_rank": 16, "lora_dtype": "fp32"}),
        ("llm_lora", "LoRA; peft 0.8", {"lora_rank": 16}),
        ("llm_lora", "LoRA, rank 8 on v; DoRA", {"lora_rank": 8, "lora_targets": "attn.v", "use_dora": True}),
        ("llm_lora", "QLoRA (GPTQ int4)", {"lora_rank": 16, "quantize": "gptq"}),
    ],
)
def test_a_row_s_adapters_have_its_rank_layers_and_frozen_format(kind, notes, found):
    assert adapters({"kind": kind, "notes": notes}) == found


@pytest.mark.parametrize(
    ("source", "software", "name"),
    [
        ("perf_train_gpu_one.mdx (Trainer, 2022-01)", "transformers", "adamw_loop"),
        ("gpu_test.md (transformers 4.49)", "transformers", "adamw"),
        ("fine-tuning (transformers, DeepSpeed)", "transformers", "adamw_fused"),
        ("nanoGPT README.md", "torch-compile", "adamw_fused"),
        ("nanoGPT, Muon", "torch-compile", "muon"),
        ("Trainer, Adafactor", "transformers", "adafactor"),
        ("PyTorch eager, AdamW in a loop of its own", "torch-eager", "adamw_loop"),
    ],
)
def test_weights_are_updated_as_a_row_s_software_does(source, software, name):
    assert optimizer({"source": source}, software) == {"optimizer": name}


@pytest.mark.parametrize(
    ("notes", "parts"),
    [
        ("LoRA, rank 16; unsloth's kernels", "norm,mlp,adapters,loss"),
        ("LoRA, rank 16 on q k v o; unsloth's kernels", "norm,loss"),
        ("LoRA, rank 16 on all linear layers; unsloth's kernels", "norm,mlp,adapters,loss"),
        ("LoRA, rank 16 on all linear layers, dropout 0.1; unsloth's kernels", "norm,gate,loss"),
        (
            "LoRA, rank 8 on all linear layers; fused LoRA kernels, Liger",
            "norm,mlp,adapters,chunked_cross_entropy",
        ),
        ("unsloth's norms, liger's loss", "norm,chunked_cross_entropy"),
        ("refs/liger.csv; unsloth's norms, unsloth's loss", "norm,loss"),
        ("Liger-Kernel", "norm,gate,chunked_cross_entropy"),
        ("packed; Cut Cross Entropy", "cross_entropy"),
        ("packed", None),
    ],
)
def test_kernels_that_a_row_names_are_fused(notes, parts):
    assert fused({"notes": notes}, "transformers").get("fuse") == parts
    assert fused({"notes": notes}, "megatron") == {}
