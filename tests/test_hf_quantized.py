"""Checkpoints in few bits, to the byte: against transformers' own layers, and by hand."""

import json

import pytest
import torch
from quantized import ATTENTION, LLAMA, MATRICES, REST, compressed, of_transformers, stored
from transformers import AutoConfig
from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear
from transformers.integrations.mxfp4 import Mxfp4GptOssExperts
from transformers.utils.quantization_config import FineGrainedFP8Config

from budget import estimate
from budget.errors import InputError
from budget.read import preset


@pytest.mark.parametrize("block", [[128, 128], [64, 32]])
def test_fp8_in_blocks_equals_transformers(block):
    how = {"modules_to_not_convert": ["lm_head"],
           "quantization_config": FineGrainedFP8Config(weight_block_size=block)}  # fmt: skip
    expected = of_transformers(LLAMA, replace_with_fp8_linear, **how)
    assert stored(LLAMA, quant_method="fp8", weight_block_size=block) == expected


def test_layers_that_are_no_linear_layers_of_torch_are_not_packed_by_formats_of_those():
    with pytest.raises(InputError, match="got fp8; allowed for gpt2: gptq, bitsandbytes"):
        stored({"model_type": "gpt2"}, quant_method="fp8")


OSS = {"model_type": "gpt_oss", "hidden_size": 256, "intermediate_size": 192, "num_hidden_layers": 2,
       "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
       "num_local_experts": 4,
       "num_experts_per_tok": 2, "dtype": "bfloat16"}  # fmt: skip
KEPT = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]


def test_mxfp4_equals_transformers():
    fields = {k: v for k, v in OSS.items() if k not in ("model_type", "dtype")}
    with torch.device("meta"):
        experts = Mxfp4GptOssExperts(AutoConfig.for_model("gpt_oss", **fields))
    matrices = sum(t.numel() for name, t in experts.named_parameters() if "bias" not in name)
    plain = estimate(OSS, mode="forward", seq=16).memory.parameters - 2 * 2 * 4 * 3 * 192 * 256
    blocks = matrices + matrices // 16  # 16 bytes of blocks have one of scales
    assert stored(OSS, quant_method="mxfp4", modules_to_not_convert=KEPT) == plain + 2 * blocks


def test_gpt_oss_20b_as_it_is_published():
    """The sum that its model.safetensors.index.json tells."""
    table = {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32}
    assert stored(table, quant_method="mxfp4", modules_to_not_convert=KEPT) == 13_761_264_768


BY_HAND = {
    "gptq": ({"bits": 4, "group_size": 64},
             lambda n, k: k // 8 * n * 4 + k // 64 * n * 2 + k // 64 * (n // 8) * 4 + 4 * k),
    "gptq 8": ({"quant_method": "gptq", "bits": 8, "group_size": -1},
               lambda n, k: k // 4 * n * 4 + n * 2 + n // 4 * 4 + 4 * k),
    "awq": ({"bits": 4, "group_size": 64}, lambda n, k: k * n // 2 + k // 64 * n * 2 + k // 64 * n // 8 * 4),
    "fbgemm_fp8": ({}, lambda n, k: n * k + 4 * n + 4),
    "bitsandbytes": ({"load_in_8bit": True}, lambda n, k: n * k + 4 * n),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            lambda n, k: n * k // 2 + n * k // 64 * 4 + 64),
    "nf4, twice": ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
                   lambda n, k: n * k // 2 + n * k // 64 + -(-n * k // 16384) * 4 + 64 + 1024 + 4),
    "modelopt": ({"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}},
                 lambda n, k: n * k // 2 + n * k // 16 + 4 + 4),
    "modelopt w4a16": ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4", "ignore": ["lm_head"]},
                       lambda n, k: n * k // 2 + n * k // 16 + 4),
    "modelopt fp8": ({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head*"]},
                     lambda n, k: n * k + 4 + 4),
    "modelopt rows": ({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN",
                       "ignore": ["lm_head"]}, lambda n, k: n * k + 4 * n),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_stored_for_a_matrix(name):
    table, each = BY_HAND[name]
    table = {"quant_method": name, **table} if "load_in_4bit" not in table else table
    assert stored(LLAMA, **table) == REST + 3 * sum(each(n, k) for n, k in MATRICES)


def test_gptq_of_some_modules_leaves_the_others():
    each = BY_HAND["gptq"][1]
    table = {"quant_method": "gptq", "bits": 4, "group_size": 64, "modules_in_block_to_quantize": [ATTENTION]}
    plain = 2 * sum(n * k for n, k in MATRICES[4:])
    assert stored(LLAMA, **table) == REST + 3 * (sum(each(n, k) for n, k in MATRICES[:4]) + plain)


def test_a_cache_in_few_bits_has_scales():
    """ModelOpt's: `k_scale` and `v_scale` of each layer."""
    table = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}
    assert stored(LLAMA, **table, kv_cache_scheme={"num_bits": 8}) == stored(LLAMA, **table) + 3 * 8


COMPRESSED = [
    (compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=64),
     lambda n, k: n * k // 2 + n * k // 64 * 2 + 16),
    (compressed("pack-quantized", num_bits=4, type="int", strategy="channel", symmetric=False),
     lambda n, k: n * k // 2 + n * 2 + 16 + n // 8 * 4),
    (compressed("int-quantized", num_bits=8, type="int", strategy="channel"), lambda n, k: n * k + 2 * n),
    (compressed("float-quantized", num_bits=8, type="float", strategy="tensor",
                activations={"dynamic": False}),
     lambda n, k: n * k + 2 + 2),
    (compressed("nvfp4-pack-quantized", num_bits=4, type="float", activations={"dynamic": False}),
     lambda n, k: n * k // 2 + n * k // 16 + 4 + 4),
]  # fmt: skip


@pytest.mark.parametrize(("table", "each"), COMPRESSED, ids=[t["format"] for t, _ in COMPRESSED])
def test_compressed_tensors(table, each):
    assert stored(LLAMA, **table) == REST + 3 * sum(each(n, k) for n, k in MATRICES)


def test_adapters_train_beside_weights_of_few_bits():
    table = {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64}}
    found = estimate(table, seq=16, lora_rank=4)
    assert found.params.trainable < found.params.total / 10
    assert found.memory.parameters < estimate(LLAMA, seq=16, lora_rank=4).memory.parameters
    whole = estimate(table, seq=16)
    assert whole.memory.parameters == estimate(LLAMA, seq=16).memory.parameters
    assert whole.model.uncounted == ("gptq 4 bits: widened to train",)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"quant_method": "hqq"}, "quantization_config.quant_method"),
        ({"quant_method": ["gptq"]}, "quantization_config.quant_method"),
        ({"quant_method": "gptq", "bits": 5}, "quantization_config.bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "a"}, "group_size"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*": {}}}, "quantization_config.dynamic"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "quantization_config.weight_block_size"),
        ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"},
         "quantization_config.modules_to_not_convert"),
        ({"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp"]}, "quantization_config"),
        ({"quant_method": "compressed-tensors"}, "quantization_config.config_groups"),
        (compressed("odd"), "quantization_config.format"),
        (compressed("int-quantized", num_bits=8, strategy="odd"), "quantization_config.strategy"),
        ([1], "quantization_config"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(table, field):
    with pytest.raises(InputError) as error:
        estimate({**LLAMA, "quantization_config": table}, mode="forward", seq=16)
    assert error.value.field == field
    assert len(str(error.value)) <= 300


# What a tool writes for a format without further settings. Sources: transformers' quantization configs and
# compressed-tensors' PRESET_SCHEMES.
ASKED = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "gptq-8bit": {"quant_method": "gptq", "bits": 8, "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "fp8-row": {"quant_method": "fbgemm_fp8"},
    "nvfp4": compressed("nvfp4-pack-quantized", num_bits=4, type="float", activations={"dynamic": "local"}),
    "w4a16": compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=128),
    "w8a8": compressed("int-quantized", num_bits=8, type="int", strategy="channel"),
    "fp8-dynamic": compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
    **{f"mlx-{bits}bit": {"bits": bits, "group_size": 64} for bits in (3, 4, 5, 6, 8)},
}


@pytest.mark.parametrize("name", ASKED)
def test_a_format_can_be_asked_for(name):
    """The same bytes as a checkpoint that is in it; and beside adapters, in training."""
    asked = estimate(LLAMA, mode="forward", seq=16, quantize=name)
    assert asked.memory.parameters == stored(LLAMA, **ASKED[name])
    table = {**LLAMA, "quantization_config": ASKED[name]}
    held = [estimate(table, seq=16, lora_rank=4), estimate(LLAMA, seq=16, lora_rank=4, quantize=name)]
    assert held[0].memory == held[1].memory
    with pytest.raises(InputError, match=rf"^quantize: got {name}, whose weights do not train"):
        estimate(LLAMA, seq=16, quantize=name)


def test_mxfp4_is_of_experts():
    asked = estimate(OSS, mode="forward", seq=16, quantize="mxfp4")
    assert asked.memory.parameters == stored(OSS, quant_method="mxfp4", modules_to_not_convert=KEPT)
    with pytest.raises(InputError, match=r"^quantize: llama has no weights that mxfp4 packs"):
        estimate(LLAMA, mode="forward", seq=16, quantize="mxfp4")


def test_without_a_threshold_no_outliers_are_multiplied_apart():
    def asked(**told):
        table = {"quant_method": "bitsandbytes", "load_in_8bit": True, **told}
        return estimate({**LLAMA, "quantization_config": table}, mode="decode", seq=16, device="a100-80gb",
                        stack="transformers")  # fmt: skip

    usual, whole = asked(), asked(llm_int8_threshold=0.0)
    assert usual.memory.parameters == whole.memory.parameters
    assert whole.times.step < asked(llm_int8_threshold=6).times.step == usual.times.step
    with pytest.raises(InputError, match=r"llm_int8_threshold: got '0'; allowed: a number, 0 or more"):
        asked(llm_int8_threshold="0")


def test_a_checkpoint_is_not_quantized_again():
    with pytest.raises(InputError, match=r"^quantize: got int8, and the checkpoint is in awq"):
        estimate({**LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}}, mode="forward",
                 quantize="int8")  # fmt: skip


def test_what_nvidia_s_quantizer_writes_beside_a_config(tmp_path):
    """Its own file has the table that newer checkpoints have in their config.json."""
    table = {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": table}))
    for path in (tmp_path, tmp_path / "config.json"):
        assert estimate(path, mode="forward", seq=16).memory.parameters == stored(LLAMA, **table)


# As moonshotai/Kimi-K2.5's config.json has it, beside its text_config.
KIMI_VISION = {
    "patch_size": 14, "init_pos_emb_height": 64, "init_pos_emb_width": 64, "init_pos_emb_time": 4,
    "pos_emb_type": "divided_fixed", "vt_num_attention_heads": 16, "vt_num_hidden_layers": 27,
    "vt_hidden_size": 1152, "vt_intermediate_size": 4304, "merge_kernel_size": [2, 2],
    "video_attn_type": "spatial_temporal", "merge_type": "sd2_tpool", "mm_projector_type": "patchmerger",
    "mm_hidden_size": 1152, "projector_hidden_act": "gelu", "projector_ln_eps": 1e-05,
    "text_hidden_size": 7168,
}  # fmt: skip


def test_kimi_k25_as_it_is_published():
    """Its 64 files hold 170,738,182,128 numbers in 595,148,192,736 bytes, by the shapes of all tensors.

    Among them the shapes of matrices, which compressed-tensors writes in 64 bits and these files in 32, and
    a float32 for each expert that is no parameter. The tower stays as it is: the format is of the text.
    """
    experts = 60 * 384
    config = {key: told for key, told in preset.find("kimi-k2.5-int4").items() if key not in preset.ABOUT}
    hub = {**config, "architectures": ["KimiK25ForConditionalGeneration"], "vision_config": KIMI_VISION}
    for told in (config, hub):
        found = estimate(told, mode="forward", seq=16)
        assert found.memory.parameters == 595_148_192_736 + experts * (3 * 2 * 4 - 4)
        packed, scales, shapes = (experts * 3 * 7168 * 2048 // n for n in (8, 32, 7168 * 2048 // 2))
        wide = 170_738_182_128 - packed - scales - shapes - experts
        assert found.params.total == wide + 8 * packed


def test_a_tower_s_fields_on_the_hub_are_those_of_its_class():
    """Each, changed, changes the tower as its name in transformers does."""
    usual = {"model_type": "kimi_k25", "text_config": {"num_hidden_layers": 2, "n_routed_experts": 8}}
    odd = {"num_hidden_layers": 3, "intermediate_size": 640, "num_attention_heads": 8, "pos_emb_height": 32}
    names = {"pos_emb_height": "init_pos_emb_height"}
    hub = {names.get(name, f"vt_{name}"): value for name, value in odd.items()}
    here, there = (estimate({**usual, "vision_config": told}, mode="forward", seq=512, image=224)
                   for told in (odd, hub))  # fmt: skip
    assert (here.params, here.flops, here.memory) == (there.params, there.flops, there.memory)


@pytest.mark.parametrize(
    ("name", "bits", "published"),
    [("qwen3-14b", 4, 8_307_783_680), ("qwen2.5-14b", 3, 6_463_203_328)],  # total_size of files of MLX's
)
def test_mlx_as_it_is_published(name, bits, published):
    config = {k: v for k, v in preset.look_up(name)[1].items() if k not in preset.ABOUT}
    setting = {"group_size": 64, "bits": bits}
    for table in ({"quantization": setting}, {"quantization": setting, "quantization_config": setting}):
        found = estimate({**config, **table}, mode="forward", seq=16)
        assert found.memory.parameters == published
    matrices = 3 * sum(n * m for n, m in MATRICES) + 1000 * 256  # a tied table is packed, once
    tied = {**LLAMA, "tie_word_embeddings": True}
    assert stored(tied, group_size=32, bits=4) == matrices * 5 // 8 + 2 * 7 * 256
    for wrong in ({"mode": "fp"}, {"bits": 7}, {"model.layers.0.mlp.down_proj": False}):
        with pytest.raises(InputError, match="quantization_config"):
            stored(tied, **{"group_size": 32, "bits": 4, **wrong})


@pytest.mark.parametrize(
    ("quantize", "each"), [("w4a16", 0), ("nf4", 0), ("fp8", 0), ("gptq", 32 * 5 * 4096 * 4)]
)
def test_scales_are_divided_as_their_weights(quantize, each):
    """Of tp devices each holds its part of all but the norms, which are some hundred thousand numbers, and a
    number for each input of products whose outputs are divided, which each has.
    """
    whole, part = (
        estimate(
            "llama-3-8b", mode="decode", seq=16, device="h100", quantize=quantize, layout=f"tp={tp}"
        ).to_dict()["memory_bytes"]["parameters"]
        for tp in (1, 8)
    )
    assert part - each == pytest.approx((whole - each) / 8, rel=2e-3)
