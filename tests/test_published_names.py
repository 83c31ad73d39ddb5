"""Names in published tables: networks, devices, boards."""

import pytest
from budget.bench.published.names import likely, named
from budget.bench.published.networks import network, side
from budget.bench.published.rows import NotCoveredError, device

from budget import estimate


@pytest.mark.parametrize(
    ("name", "notes", "pixels"),
    [
        ("vit_base_patch16_384", "", 384),
        ("vit_base_patch16_224", "", 0),
        ("regnety_032", "", 0),
        ("mobilenetv2_100", "", 0),
        ("resnet50", "images/s of side 288", 288),
        ("resnet50", "made-up pictures of 256", 256),
        ("resnet50", "pictures of 1024 x 768", 0),
    ],
)
def test_a_networks_width_is_no_pictures_side(name, notes, pixels):
    assert side({"model": name, "notes": notes}) == pixels


@pytest.mark.parametrize(
    ("name", "plain"),
    [("deepseek-ai/DeepSeek-R1", "deepseek-v3"), ("openai/gpt-oss-120b", "gpt-oss-120b")],
)
def test_a_table_says_what_the_weights_are_in_not_the_hub_s_name(name, plain):
    assert network({"model": name}, "vllm", 0)[0] == plain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Llama3.1 70B FP8", "llama-3.1-70b"),
        ("llama 7B Q4_0", "llama-7b"),
        ("llama 8B Q4_K - Medium", "llama-3-8b"),
        ("qwen3moe 30B.A3B Q4_K - Medium", "qwen3-30b-a3b"),
        ("gpt-oss 20B MXFP4 MoE", "gpt-oss-20b"),
        ("llama2-70b-99.9", "llama-2-70b"),
        ("deepseek r1 671b", "deepseek-v3"),
        ("GPT-2 1.5B", "gpt2-xl"),
        ("BERT (Large)", "bert-large"),
        ("ViT-L/16", "vit-l-16"),
        ("resnet50.a1_in1k", "resnet50"),
        ("swin_base_patch4_window12_384", "swin-base"),
        ("qwen2.5:14b", "qwen2.5-14b"),  # as ollama
        ("deepseek-r1:14b", "qwen2.5-14b"),  # distilled
        ("deepseek-r1:8b", ""),  # of Llama or of Qwen
        ("bge-large-en-v1.5", "bert-large"),
        ("llama 70B", ""),  # Llama 2 or 3
        ("Nemotron-3-8B", ""),
        ("Qwen1.5 14B", "qwen1.5-14b"),  # no qwen1.5-moe-a2.7b, which has 14 B parameters
        ("Qwen-1.8B", "qwen1.5-1.8b"),  # of the same sizes, no qwen3-1.7b
        ("Llama-3.3-Nemotron-Super-49B-v1", ""),  # no Llama-3
        ("microsoft/Phi-3.5-vision-instruct", ""),
        ("Baichuan2 13B", "baichuan2-13b"),
        ("BLIP", "blip-base"),  # no BLIP-2
        ("GPT 2.7B", ""),  # no GPT-2
        ("GPT-3.6B", ""),
        ("Qwen 14B", "qwen1.5-14b"),  # of the same sizes
        ("Qwen-VL", ""),
        ("DeepSeek-V2-Chat", "deepseek-v2"),
        ("GLM-4-9B", "glm-4-9b"),
        ("InternLM-XComposer2-7B", ""),
        ("GPT3 5B", ""),
        ("whisper", ""),
    ],
)
def test_names_of_tables_are_presets(told, name):
    """As llama-bench, MLPerf, NVIDIA's and timm's tables write them."""
    assert likely(told) == name


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("A100 40GB PCIe", "a100-pcie-40gb"),
        ("A100 80GB PCIe", "a100-pcie-80gb"),
        ("H100 80GB PCIe Gen5", "h100-pcie"),
        ("H100-SXM-80GB (A3 Mega)", "h100-sxm"),
        ("V100 16GB", "v100-sxm-16gb"),
        ("RTX PRO 6000 Blackwell", "rtx-pro-6000"),
        ("RTX PRO 4000 Blackwell", "rtx-pro-4000-blackwell"),
        ("RTX 8000", "quadro-rtx-8000"),
        ("8xH100", "h100-sxm"),
        ("2\u00d7RTX 4090", "rtx-4090"),
        ("A100-80GB x8", "a100-80gb"),
        ("M4 Max 40", "m4-max"),
    ],
)
def test_a_board_s_memory_and_slot_are_read(told, name):
    assert device(told).id == name


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("RTX 3080 Ti Laptop GPU", "rtx-3080-ti-mobile"),
        ("RTX 2080 Super Max-Q", "rtx-2080-super-max-q"),
        ("GTX 1060 3GB", "gtx-1060-3gb"),
        ("Titan X (Pascal)", "titan-x-pascal"),
        ("Jetson Orin NX 16GB", "jetson-orin-nx"),
        ("RTX 5090 D", ""),  # slower than the board without the letter
        ("RTX 4080 Ti", ""),
        ("A100-SXM-80GB (330W cap)", "a100-80gb"),
    ],
)
def test_a_word_that_tells_a_device_is_never_left_out(told, found):
    """Datasheets: what NVIDIA sells under a longer name is another processor."""
    try:
        assert device(told).id == found
    except NotCoveredError:
        assert not found


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "llama-3.1-8b"),
        ("unsloth/Qwen3-14B-unsloth-bnb-4bit", "qwen3-14b"),
        ("mlx-community/Qwen3-30B-A3B-4bit", "qwen3-30b-a3b"),
        ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "llama-3.1-8b"),
        ("RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16", "llama-3.3-70b"),
        ("microsoft/MiniLM-L12-H384-uncased", "minilm-l12"),
        ("DINOv2 ViT-S/14", "dinov2-small"),
        ("ResNet50_v1.5", "resnet50"),
        ("Wide & Deep", "wide-deep"),
    ],
)
def test_names_of_the_hub_and_of_papers(told, name):
    assert named(told) == name


@pytest.mark.parametrize(("name", "millions"), [("minilm-l12-h384-uncased", 33.4), ("distilbert", 66.4)])
def test_another_name_has_the_parameters_that_its_page_states(name, millions):
    """Model cards: 33 M and 66 M, without a head."""
    assert float(estimate(name, mode="forward").params.total) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(
    ("notes", "more", "gated", "tied"),
    [
        ("GELU; untied head", {"kv_heads": "2"}, False, False),
        ("SwiGLU; tied head", {}, True, True),
        ("", {"kv_heads": "2"}, True, False),
        ("", {}, False, True),
        ("GELU", {"glu": "1"}, True, False),
    ],
)
def test_a_network_of_stated_sizes_is_as_its_words_say(notes, more, gated, tied):
    sizes = {"layers": "2", "hidden": "64", "heads": "4", "ffn": "256", "vocab": "100"}
    _, found = network({"model": "GPT, from scratch", "notes": notes, **sizes, **more}, "megatron", 16)
    assert (found.get("gated", False), found["tied"]) == (gated, tied)
