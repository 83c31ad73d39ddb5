"""Presets: parameters that others publish, and the names that people call them by."""

import pytest

from budget import estimate, table
from budget.errors import InputError
from budget.read import preset, source

# KerasHub's counts of the same networks, keras_hub/src/models/*/*_presets.py, read 2026-11-28.
KERAS = {
    "albert-base-v2": 11_683_584,
    "bert-base": 109_482_240,
    "bert-base-cased": 108_310_272,
    "bert-base-multilingual-cased": 177_853_440,
    "bert-large": 335_141_888,
    "deberta-v3-base": 183_831_552,
    "deberta-v3-large": 434_012_160,
    "deberta-v3-small": 141_304_320,
    "deberta-v3-xsmall": 70_682_112,
    "distilbert-base": 66_362_880,
    "gemma-2b": 2_506_172_416,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952,
    "gemma-3-270m": 268_098_176,
    "minilm-l6": 22_713_216,
    "minilm-l12": 33_360_000,
    "minilm-l12-multilingual": 117_653_760,
    "t5-base": 222_903_552,
    "whisper-medium": 763_857_920,
    "whisper-medium.en": 763_856_896,
    "whisper-small.en": 241_734_144,
}


@pytest.mark.parametrize("name", KERAS)
def test_parameters_are_those_of_keras_hub(name):
    assert estimate(name, mode="forward").params.total == KERAS[name]


# Parameters of the checkpoints on the Hugging Face hub, as public repositories quote them, read 2026-11-28.
CHECKPOINTS = {
    "baichuan-7b": 7_000_559_616,
    "chatglm-6b": 6_173_286_400,
    "chatglm2-6b": 6_243_584_000,
    "ernie-4.5-0.3b": 360_748_032,
    "falcon-h1-0.5b": 521_411_104,
    "falcon-h1-1.5b": 1_554_863_488,
    "falcon-h1-7b": 7_585_648_736,
    "gemma-3-27b": 27_432_406_640,
    "granite-3.3-2b": 2_533_539_840,
    "granite-3.3-8b": 8_170_864_640,
    "granite-4.0-h-micro": 3_191_396_096,
    "granite-4.0-h-small": 32_207_337_984,
    "internlm2-1.8b": 1_889_110_016,
    "internlm2-7b": 7_737_708_544,
    "internlm2-20b": 19_861_149_696,
    "lfm2-350m": 354_483_968,
    "lfm2-700m": 742_489_344,
    "lfm2-1.2b": 1_170_340_608,
    "lfm2-2.6b": 2_569_272_320,
    "ministral-3-3b": 3_849_090_048,
    "ministral-8b": 8_019_808_256,
    "mistral-small-3.1-24b": 24_011_361_280,
    "nemotron-3-nano-30b-a3b": 31_577_937_344,
    "nllb-200-1.3b": 1_370_638_336,
    "nllb-200-distilled-600m": 615_073_792,
    "olmo-3-7b": 7_298_011_136,
    "olmo-3-32b": 32_233_522_176,
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2-vl-7b": 8_291_375_616,
    "qwen2-vl-72b": 73_405_560_320,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen2.5-vl-32b": 33_452_718_336,
    "qwen3-embedding-0.6b": 595_776_512,
    "qwen3-embedding-4b": 4_021_774_336,
    "qwen3-embedding-8b": 7_567_295_488,
    "qwen3-vl-8b": 8_767_123_696,
    "qwen3-vl-30b-a3b": 31_070_754_032,
    "mistral-nemo-12b": 12_247_782_400,
}
# Seconds each. LFM2's has 704 numbers besides that are not trained.
CAPTURED = {"llama-3.2-11b-vision": 10_670_220_835, "nomic-embed-v1.5": 136_731_648,
            "lfm2-8b-a1b": 8_339_929_856}  # fmt: skip


@pytest.mark.parametrize("name", [*CHECKPOINTS, *(pytest.param(n, marks=pytest.mark.slow) for n in CAPTURED)])
def test_parameters_are_those_of_the_checkpoint(name):
    published = {**CHECKPOINTS, **CAPTURED}[name]
    assert estimate(name, mode="forward", batch=1, seq=16).params.total == published


@pytest.mark.slow
def test_parameters_of_clip_are_those_of_keras_hub():
    """Whose count has the 577 numbers of the positions besides."""
    assert estimate("clip-vit-l-14-336", mode="forward", batch=1).params.total == 427_944_770 - 577


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "counted"), [("base", 93_735_728), ("large", 312_343_088), ("huge", 641_090_864)]
)
def test_parameters_of_sam_are_those_of_keras_hub(size, counted):
    """Whose table has those of the large one and the huge one exchanged."""
    assert estimate(f"sam-vit-{size}", mode="forward", batch=1).params.total == counted


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


@pytest.mark.parametrize(
    ("name", "counted", "width"),
    [
        ("paligemma-3b-224", 2_923_335_408, 2048),
        ("paligemma-2-3b-224", 3_032_094_960, 2304),
        ("paligemma-2-10b-224", 9_662_409_456, 3584),
        ("paligemma-2-28b-224", 27_650_192_112, 4608),
    ],
)
def test_paligemma_is_that_of_keras_hub(name, counted, width):
    """Whose counts are without 64 rows of the vocabulary."""
    assert estimate(name, mode="forward").params.total == counted + 64 * width


@pytest.mark.parametrize("size", ["4b", "12b", "27b"])
def test_gemma_3_has_its_tower(size):
    """KerasHub's count is without 64 rows of padding in the vocabulary."""
    counted = {"4b": 4_299_915_632, "12b": 12_187_079_280, "27b": 27_432_062_576}[size]
    width = {"4b": 2560, "12b": 3840, "27b": 5376}[size]
    assert estimate(f"gemma-3-{size}", mode="forward").params.total == counted + 64 * width


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("unsloth/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "qwen3-30b-a3b"),
        ("Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b"),
        ("Qwen/Qwen3-8B-Base", "qwen3-8b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3"),
        ("allenai/OLMo-2-1124-7B-SFT", "olmo-2-7b"),
        ("google-bert/bert-base-uncased", "bert-base"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3-fp8"),
        ("BAAI/bge-large-en-v1.5", "bert-large"),
        ("timm/resnet50.a1_in1k", "resnet50"),
        ("openai/whisper-tiny.en", "whisper-tiny.en"),
        ("facebook/opt-1.3b", "opt-1.3b"),
        ("tiiuae/Falcon-H1-7B-Instruct", "falcon-h1-7b"),
        ("mistralai/Ministral-8B-Instruct-2410", "ministral-8b"),
        ("google/paligemma-3b-pt-224", "paligemma-3b-224"),
        ("mistralai/Pixtral-12B-2409", "pixtral-12b"),
        ("CohereLabs/c4ai-command-a-03-2025", "command-a-111b"),
        ("nvidia/segformer-b0-finetuned-ade-512-512", "segformer-b0"),
        ("facebook/opt-13b", "opt-13b"),
        ("llama3.1:8b", "llama-3.1-8b"),  # ollama's
        ("deepseek-r1:7b", "qwen2.5-7b"),
        ("deepseek-v3:671b", "deepseek-v3"),
        ("qwen3:30b", "qwen3-30b-a3b"),  # all of a mixture's parameters
        ("gemma4:26b", "gemma-4-26b-a4b"),
        ("llava:13b", "llava-1.6-vicuna-13b"),
        ("llama3.2-vision:11b", "llama-3.2-11b-vision"),
        ("qwen3-coder:30b", "qwen3-30b-a3b"),
        ("phi3:14b", "phi-3-medium"),
        ("llama3", "llama-3-8b"),  # a size that Ollama has for it
        ("qwen3:latest", "qwen3-8b"),
        ("llama3.2:latest", "llama-3.2-3b"),
        ("zai-org/GLM-Z1-32B-0414", "glm-4-32b-0414"),
        ("huihui-ai/Qwen2.5-72B-Instruct-abliterated", "qwen2.5-72b"),
        ("google/gemma-3-4b-it-qat-int4-unquantized", "gemma-3-4b"),  # trained for few bits, kept in 16
        ("gemma3:12b-it-qat", "gemma-3-12b"),
        ("moonshotai/Kimi-K2-Thinking", "kimi-k2-thinking-int4"),
        ("deepseek-ai/DeepSeek-Prover-V2-7B", "deepseek-llm-7b"),
        ("internlm2_5-7b-chat", "internlm2-7b"),
        ("togethercomputer/RedPajama-INCITE-Base-3B-v1", "redpajama-incite-3b"),
        ("Salesforce/codegen-350M-mono", "codegen-350m"),
        ("baichuan-inc/Baichuan2-13B-Chat", "baichuan2-13b"),
        ("ai21labs/AI21-Jamba-1.5-Mini", "jamba-v0.1"),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "nemotron-nano-9b-v2"),
    ],
)
def test_names_of_the_hub(told, name):
    assert preset.look_up(told)[0] == name


@pytest.mark.parametrize("told", table.load("ollama.json")["latest"])
def test_a_name_of_ollama_without_a_size_is_of_a_preset(told):
    """And as it is written there alone: `Llama 3` may be any size."""
    meant = preset.look_up(table.load("ollama.json")["latest"][told])
    assert preset.look_up(f"{told}:latest") == meant
    hub = told == "deepseek-r1"  # without the tag it is the hub's, of 671B
    assert (preset.look_up(told) == meant) is not hub
    assert hub or preset.known(told.capitalize()) is None


@pytest.mark.parametrize("told", ["pythia-1.2b", "opt-1.25m", "llama-3-18b", "mamba-27.90m"])
def test_digits_are_never_run_together(told):
    """As a name without its marks, each is another preset's."""
    with pytest.raises(InputError):
        preset.look_up(told)


@pytest.mark.parametrize(
    ("told", "way"),
    [
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "qwen2.5-7b --quantize awq"),
        ("unsloth/Llama-3.2-1B-Instruct-bnb-4bit", "llama-3.2-1b --quantize nf4"),
        ("unsloth/qwen2.5-7b-instruct-unsloth-bnb-4bit", "qwen2.5-7b --quantize nf4"),
        ("RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16", "llama-3.3-70b --quantize w4a16"),
        ("mlx-community/Llama-3.2-3B-Instruct-4bit", "llama-3.2-3b --quantize mlx-4bit"),
        ("nvidia/DeepSeek-R1-NVFP4", "deepseek-v3 --quantize nvfp4"),
        ("Qwen3-8B-GGUF", "qwen3-8b --quantize q4_k_m"),
        ("bartowski/Qwen_Qwen3-30B-A3B-GGUF", "qwen3-30b-a3b --quantize q4_k_m"),
        ("llama3.1:8b-instruct-q4_K_M", "llama-3.1-8b --quantize q4_k_m"),  # ollama's
        ("hf.co/bartowski/Qwen3-8B-GGUF:Q8_0", "qwen3-8b --quantize q8_0"),
        ("unsloth/Qwen3-8B-GGUF:UD-Q4_K_XL", "qwen3-8b --quantize q4_k_m"),
        ("Qwen3-8B-UD-Q2_K_XL", "qwen3-8b --quantize q2_k"),
        ("Qwen/Qwen3-32B-MLX-4bit", "qwen3-32b --quantize mlx-4bit"),
        ("google/gemma-3-27b-it-qat-q4_0-gguf", "gemma-3-27b --quantize q4_0"),
        ("mlx-community/gemma-3-27b-it-qat-4bit", "gemma-3-27b --quantize mlx-4bit"),
        ("Intel/Qwen3-8B-int4-AutoRound", "qwen3-8b --quantize w4a16"),
        ("ggml-org/gpt-oss-20b-GGUF", "gpt-oss-20b --quantize mxfp4"),  # as its weights are published
    ],
)
def test_weights_in_few_bits_are_not_taken_for_others(told, way):
    with pytest.raises(InputError, match=f"`{way}` has such weights"):
        source.resolve(told, {})


@pytest.mark.parametrize(
    ("told", "held"),
    [
        ("somebody/Llama-3-ELYZA-JP-8B-v2", "llama-3-8b"),
        ("somebody/Dolphin9-Llama3.1-8B", "llama-3.1-8b"),
        ("somebody/Llama-3.1-Tulu-3-8B", "llama-3.1-8b"),  # of two, the one whose words stand together
        ("somebody/dolphin-2.5-mixtral-8x7b", "mixtral-8x7b"),
        ("somebody/Llama-3_3-Nemotron-Super-49B", None),  # no size of Llama's
        ("somebody/InternVL3_9-8B", None),  # another version
        ("somebody/Qwen2.5-Omni-7B-v2", None),  # more than the network whose name it has
    ],
)
def test_a_name_that_has_a_presets_in_it_is_answered_with_that(told, held):
    with pytest.raises(InputError) as error:
        source.resolve(told, {})
    assert (f"has {held!r} in its name" in str(error.value)) == (held is not None)
    assert held or "in its name" not in str(error.value)


def test_a_model_type_of_code_elsewhere_is_its_class():
    """Kimi K2's config.json names DeepSeek's class, and a model_type that transformers has not."""
    own = {**preset.find("kimi-k2-fp8"), "architectures": ["DeepseekV3ForCausalLM"]}
    told = {k: v for k, v in own.items() if k not in preset.ABOUT}
    as_there, here = ({**told, "model_type": kind} for kind in ("kimi_k2", "deepseek_v3"))
    assert source.resolve(as_there, {})[1:] == source.resolve(here, {})[1:]


@pytest.mark.parametrize("name", [n for n in preset.names() if "published" in preset.find(n)])
def test_what_is_published_in_few_bits_is_named(name):
    """Its preset holds the same parameters in fewer bytes; in training, and in few bits, nothing is said."""
    wide = estimate(name, mode="decode", batch=1, seq=64)
    published = wide.to_dict()["provenance"]["published"]
    few = estimate(published, mode="decode", batch=1, seq=64)
    assert few.params.total == wide.params.total
    assert few.memory.parameters < 0.6 * wide.memory.parameters
    line = f"published in few bits: {published}"
    assert line in str(wide)
    assert line not in str(few)
    assert line not in str(estimate(name, mode="train", batch=1, seq=16))


def test_a_tag_of_ollama_names_the_bits_that_it_has():
    line = "published in few bits: qwen3-8b --quantize q4_k_m"
    assert line in str(estimate("qwen3:8b", mode="decode", batch=1, seq=64))
    assert line not in str(estimate("qwen3:8b", mode="decode", batch=1, seq=64, quantize="q8_0"))
    assert line in str(estimate("qwen3", mode="decode", batch=1, seq=64))
    assert "published" not in estimate("mxbai-embed-large", mode="forward").to_dict()["provenance"]
    assert "published" not in estimate("bge-m3:567m", mode="forward").to_dict()["provenance"]
    assert "gpt-oss-20b-mxfp4" in str(estimate("gpt-oss:20b", mode="decode", batch=1, seq=64))
    assert "few bits" not in str(estimate("qwen3-8b", mode="decode", batch=1, seq=64))


def test_every_form_of_the_hub_in_few_bits_is_named():
    """A name of the hub that means a form in few bits: the plain preset tells that form."""
    names = (told["same_as"] for told in table.load(preset.FOLDER, "hub.json").values())
    few = {name for name in names if preset.plain(name) != name}
    assert few == {preset.find(n)["published"] for n in preset.names() if "published" in preset.find(n)}


def test_beit_is_as_timm_counts_it():
    """timm's results: beit_base_patch16_224 has 86.53 M parameters and 17.58 GMACs."""
    found = estimate("microsoft/beit-base-patch16-224", mode="forward", batch=2)
    assert found.params.total / 1e6 == pytest.approx(86.53, abs=0.01)
    assert found.flops.forward / 4e9 == pytest.approx(17.58, rel=0.01)
