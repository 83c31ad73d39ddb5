"""Presets recalled, or of another family: parameters as others state them, or as a class has."""

import pytest

from budget import estimate
from budget.read import preset


@pytest.mark.parametrize(
    ("name", "billions"),
    [("SOLAR-10.7B", 10.7), ("deepseek-ai/deepseek-llm-67b-chat", 67.4), ("bigcode/starcoder", 15.5),
     ("Qwen/Qwen1.5-7B-Chat", 7.72), ("Qwen1.5-14B", 14.2), ("Qwen1.5-32B", 32.5), ("Qwen1.5-72B", 72.3),
     ("codegen-2B-mono", 2.78), ("codegen-6B-multi", 7.07), ("stablelm-tuned-alpha-7b", 7.87),
     ("Cerebras-GPT-2.7B", 2.65), ("PaLM 8B", 8.63), ("PaLM 62B", 62.5), ("PaLM 540B", 540.35),
     ("Minitron-4B-Base", 4.19), ("Minitron-8B-Base", 8.27), ("Mistral-NeMo-Minitron-8B-Base", 8.41),
     ("granite-20b-code-instruct-8k", 20.1), ("granite-34b-code", 33.7), ("granite-8b-code", 8.05),
     ("granite-3.0-3b-a800m-instruct", 3.3), ("granite-3.0-1b-a400m-base", 1.33), ("galactica-30b", 30),
     ("openbmb/MiniCPM3-4B", 4.07), ("hunyuan-a13b", 80.4), ("Moonlight-16B-A3B-Instruct", 15.96),
     ("rednote-hilab/dots.llm1.inst", 142.8), ("Ling-flash-2.0", 103), ("GLM-4.7-Flash", 29.9),
     ("LGAI-EXAONE/EXAONE-4.0-1.2B", 1.28), ("THUDM/glm-130b", 130),
     ("google/flan-ul2", 19.46), ("amazon/chronos-t5-large", 0.709), ("amazon/chronos-t5-base", 0.201),
     ("Alibaba-NLP/gte-Qwen2-7B-instruct", 7.07), ("distil-whisper/distil-large-v3", 0.756),
     ("arcee-ai/AFM-4.5B", 4.62), ("ibm-granite/granite-4.0-micro", 3.4),
     ("utter-project/EuroLLM-9B-Instruct", 9.15), ("utter-project/EuroLLM-1.7B", 1.66),
     ("ByteDance-Seed/Seed-Coder-8B-Instruct", 8.25),
     ("speakleash/Bielik-11B-v2.6-Instruct", 11.17), ("facebook/xlm-roberta-xl", 3.48),
     ("mistralai/Voxtral-Mini-3B-2507", 4.68), ("microsoft/mdeberta-v3-base", 0.278),
     ("tiiuae/Falcon-H1-34B-Instruct", 33.6), ("inclusionAI/Ring-1T", 1000), ("jhu-clsp/mmBERT-base", 0.307),
     ("ibm-granite/granite-4.0-350m", 0.352), ("ibm-granite/granite-4.0-1b-base", 1.63),
     ("nvidia/Llama-3.1-Nemotron-Nano-4B-v1.1", 4.51)],
)  # fmt: skip
def test_a_recalled_config_has_the_parameters_that_its_page_states(name, billions):
    """GLM-130B states its size only."""
    near = 0.011 if name.endswith("130b") else 5e-3
    assert float(estimate(name, mode="forward").params.total) / 1e9 == pytest.approx(billions, rel=near)


# Parameters of the checkpoints on the hub, recalled to the last digit before they were counted here.
RECALLED = {
    "baichuan-7b": 7_000_559_616,
    "baichuan-13b": 13_264_901_120,
    "baichuan2-7b": 7_505_973_248,
    "baichuan2-13b": 13_896_668_160,
    "chatglm-6b": 6_173_286_400,
    "chatglm2-6b": 6_243_584_000,
    "codegen-350m": 356_712_448,
    "codegen-16b": 16_032_155_648,
    "dbrx": 131_596_523_520,
    "deepseek-moe-16b": 16_375_728_128,
    "dolly-v2-3b": 2_775_086_080,
    "exaone-3.5-2.4b": 2_405_327_360,
    "exaone-3.5-7.8b": 7_818_448_896,
    "exaone-3.5-32b": 32_003_200_000,
    "glm-4-32b-0414": 32_566_081_536,
    "internlm2-1.8b": 1_889_110_016,
    "internlm2-7b": 7_737_708_544,
    "internlm2-20b": 19_861_149_696,
    "internlm3-8b": 8_804_241_408,
    "minicpm-2b": 2_724_880_896,
    "nemotron-nano-9b-v2": 8_888_227_328,
    "nemotron-nano-12b-v2": 12_310_001_152,
    "qwen-1.8b": 1_836_828_672,
    "qwen-7b": 7_721_324_544,
    "qwen-14b": 14_167_290_880,
    "qwen-72b": 72_287_920_128,
    "qwen1.5-110b": 111_209_914_368,
    "redpajama-incite-3b": 2_775_864_320,
    "redpajama-incite-7b": 6_857_302_016,
    "santacoder": 1_124_886_528,
    "starcoderbase-1b": 1_137_207_296,
    # of encoders and of encoders with decoders; BERT's small ones as KerasHub has them
    "bert-base-chinese": 102_267_648,
    "bert-base-multilingual-uncased": 167_356_416,
    "bert-large-cased": 333_579_264,
    "bert-medium": 41_373_184,
    "distilroberta-base": 82_118_400,
    "bert-small": 28_763_648,
    "bert-tiny": 4_385_920,
    "distilbart-12-6": 305_510_400,
    "embeddinggemma-300m": 302_863_104,
    "mbart-large-50": 610_879_488,
    "qwen2-audio-7b": 8_397_094_912,
    # with pictures; BLIP-2 as KerasHub has it
    "blip-2-opt-2.7b": 3_744_761_856,
    "idefics2-8b": 8_402_768_112,
    "internvl2-8b": 8_075_365_376,
    "internvl3-8b": 7_944_373_760,
    "llava-1.6-mistral-7b": 7_566_747_648,
    "smolvlm-256m": 256_484_928,
    "smolvlm-500m": 507_482_304,
    "smolvlm2-2.2b": 2_246_784_880,
    "tinybert-4l-312d": 14_350_248,
    "tinybert-6l-768d": 66_955_008,
}
# What is among theirs besides: each layer's bias of the router, a buffer; a head that transformers ties.
RECALLED_WITH_MORE = {
    "ling-mini-2.0": (16_255_643_392, 19 * 256),
    "mt5-small": (300_176_768, 250112 * 512),
    "mt5-base": (582_401_280, 250112 * 768),
    "mt5-large": (1_229_581_312, 250112 * 1024),
    "byt5-small": (299_637_760, 384 * 1472),
    "byt5-base": (581_653_248, 384 * 1536),
}


@pytest.mark.parametrize("name", [*RECALLED, *RECALLED_WITH_MORE])
def test_parameters_are_those_of_the_checkpoint_as_recalled(name):
    total, more = RECALLED_WITH_MORE.get(name) or (RECALLED[name], 0)
    assert estimate(name, mode="forward", batch=1, seq=16).params.total == total - more


# KerasHub's CLIP has the 197 numbers of the positions besides, its ESM-2 neither pooler nor head of contacts.
CAPTURED = {
    "clip-vit-b-16": 149_620_934 - 197,
    "deberta-base": 138_601_728,
    "esm2-t6-8m": 7_408_960 + (320 * 320 + 320) + (6 * 20 + 1),
    "longformer-base": 148_659_456,
    "mobilevit-small": 5_578_632,
    "sd-2.1-unet": 865_910_724,
}


# Billions as their pages state them, with as many digits.
DENOISERS = {
    "THUDM/CogVideoX-2b": "2", "tencent/HunyuanVideo": "13", "genmo/mochi-1-preview": "10",
    "HunyuanDiT-v1.2": "1.5", "PixArt-XL-2-1024-MS": "0.6", "Tongyi-MAI/Z-Image-Turbo": "6",
    "THUDM/CogView4-6B": "6", "THUDM/CogView3-Plus-3B": "3", "Alpha-VLLM/Lumina-Image-2.0": "2.6",
    "lodestones/Chroma1-HD": "8.9", "svd-xt": "1.5",
}  # fmt: skip


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", DENOISERS)
def test_a_denoiser_has_the_parameters_that_its_page_states(name):
    import torch

    diffusers = pytest.importorskip("diffusers")
    about = {k: v for k, v in preset.find(name).items() if k not in (*preset.ABOUT, "video")}
    with torch.device("meta"):
        made = getattr(diffusers, about["_class_name"]).from_config(about)
    total = sum(p.numel() for p in made.parameters())
    digits = len(DENOISERS[name].partition(".")[2])
    assert f"{total / 1e9:.{digits}f}" == DENOISERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURED)
def test_parameters_of_a_captured_class_are_those_of_the_checkpoint(name):
    sizes = {} if "vit" in name or "unet" in name else {"seq": 16}
    assert estimate(name, mode="forward", batch=1, **sizes).params.total == CAPTURED[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "billions"), [("Kimi-Linear-48B-A3B-Instruct", 49.1), ("MiMo-V2-Flash", 309)]
)
def test_a_captured_network_generates_a_token(name, billions):
    """Its parameters as its page has them."""
    found = estimate(name, mode="decode", batch=1, seq=16)
    assert found.params.total / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.slow
def test_an_audio_spectrogram_transformer_is_a_vit_b_whose_patches_overlap():
    """Patches of 16 x 16 at strides of 10, from 128 bands and 1,024 frames; its page says 86.6 million."""
    d, patches = 768, ((128 - 16) // 10 + 1) * ((1024 - 16) // 10 + 1)
    layer = 4 * (d * d + d) + (2 * d * 3072 + 3072 + d) + 2 * 2 * d
    stem, head = (16 * 16 * d + d) + 2 * d + (patches + 2) * d, 2 * 2 * d + (d + 1) * 527
    name = "MIT/ast-finetuned-audioset-10-10-0.4593"
    assert estimate(name, mode="forward", batch=1).params.total == stem + 12 * layer + head
    assert f"{(stem + 12 * layer + head) / 1e6:.1f}" == "86.6"


@pytest.mark.parametrize(
    "told",
    ["FLUX.2-dev", "stabilityai/stable-diffusion-2", "InternVL3-78B", "SmolVLM2-256M",
     "levit_384", "apple/mobilevit-x-small", "microsoft/deberta-large", "wav2vec2-large-robust",
     "mbart-large-cc25", "byt5-xl", "phi3-small", "palm2", "grok-2", "Qwen-VL-Chat",
     "deepseek-r1:8b", "deepseek-vl2", "Nemotron-Nano-4B", "Qwen2-14B", "codegen2-7b",
     "StableLM-3B", "MiniLM"],
)  # fmt: skip
def test_a_neighbour_is_no_preset(told):
    """Other sizes and versions than those that are here, or one of several networks."""
    assert preset.known(told) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model_type"),
    [("glm-4.7-flash", "glm4_moe_lite"), ("hunyuan-a13b", "hunyuan_v1_moe"), ("dbrx", "dbrx")],
)
def test_a_preset_of_another_family_has_its_own_class_s_parameters(name, model_type):
    """transformers' own class, which a stack of ours need not know."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(model_type, **OWN[model_type])
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    module.tie_weights()
    assert estimate(name, mode="forward", batch=1, seq=16).params.total == sum(
        p.numel() for p in module.parameters()
    )


# Fields of the classes' own configs; absent: the defaults, which their docstrings give to a checkpoint.
OWN = {
    "glm4_moe_lite": {},
    "hunyuan_v1_moe": {
        "vocab_size": 128167, "hidden_size": 4096, "intermediate_size": 3072, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "num_experts": 64,
        "moe_topk": 8, "tie_word_embeddings": True,
    },
    "dbrx": {
        "d_model": 6144, "n_heads": 48, "n_layers": 40, "max_seq_len": 32768, "vocab_size": 100352,
        "attn_config": {"kv_n_heads": 8, "clip_qkv": 8, "rope_theta": 500000.0}, "tie_word_embeddings": False,
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4, "hidden_size": 6144},
    },
}  # fmt: skip
