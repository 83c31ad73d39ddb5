"""The names that people call presets by, and what a name says of the bits of weights."""

import pytest

from budget import estimate, table
from budget.errors import InputError
from budget.read import preset, source


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
        ("unsloth/Qwen3-8B-GGUF:UD-Q4_K_XL", "qwen3-8b --quantize ud_q4_k_xl"),
        ("Qwen3-8B-UD-Q2_K_XL", "qwen3-8b --quantize ud_q2_k_xl"),
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
        ("somebody/Olmo-Hybrid-7B", None),
        ("somebody/Qwen3-TTS-1.7B", None),
        ("somebody/Qwen2.5-OCR-7B", None),
    ],
)
def test_a_name_that_has_a_presets_in_it_is_answered_with_that(told, held):
    with pytest.raises(InputError) as error:
        source.resolve(told, {})
    assert (f"has {held!r} in its name" in str(error.value)) == (held is not None)
    assert held or "in its name" not in str(error.value)


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
    assert "few bits" not in str(estimate("deepseek-r1", mode="decode", batch=1, seq=64))  # is in fp8


def test_every_form_of_the_hub_in_few_bits_is_named():
    """A name of the hub that means a form in few bits: the plain preset tells that form."""
    names = (told["same_as"] for told in table.load(preset.FOLDER, "hub.json").values())
    few = {name for name in names if preset.plain(name) != name}
    assert few == {preset.find(n)["published"] for n in preset.names() if "published" in preset.find(n)}


def test_a_name_of_the_hub_is_the_preset_that_is_called_so():
    """Or what it is published as, in few bits: Qwen3-Embedding-8B was answered as Qwen3-8B, with its head."""
    own = set(preset.names())
    for name, row in table.load("presets/hub.json").items():
        last = name.rpartition("/")[2].lower()
        if last in own and isinstance(row, dict) and "same_as" in row:
            assert row["same_as"].startswith(last), name
