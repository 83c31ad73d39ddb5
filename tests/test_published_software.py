"""Which stack the words of an engine or a source mean."""

import pytest
from budget.bench.published import inference
from budget.bench.published.rows import NotCoveredError, stack
from budget.bench.published.software import facts

from budget.stack import names


def test_software_without_a_stack_is_no_other_one():
    with pytest.raises(NotCoveredError, match="no stack for the engine 'Abacus Serve 2'"):
        stack({"engine": "Abacus Serve 2"})


def test_software_that_only_serves_trains_nothing():
    row = {"source": "pytorch/ao torchao/float8/README.md, torchtitan of 2025-08"}
    assert stack(row, "") == "gpt-fast"  # torchao's
    assert stack(row, "", "train") == "torchtitan"


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("PyTorch 2.1", "torch-eager"),
        ("PyTorch 1.13", "torch-1"),
        ("PyTorch 2.3 torch.compile", "torch-compile"),
        ("Hugging Face", "transformers"),
        ("HF transformers 4.40", "transformers"),
        ("LMStudio 0.3", "llama.cpp"),
        ("faster-whisper 1.0.3", "ctranslate2"),
        ("CTranslate2 4.1.0", "ctranslate2"),
        ("TinyChat 2.0", "tinychat"),
        ("llm-awq (TinyChat)", "tinychat"),
        ("AutoAWQ (llm-awq's kernels)", "autoawq"),
        ("DeepSpeed-MII 0.2.3", "deepspeed-mii"),
        ("OpenVINO 2024.1", "openvino"),
        ("ComfyUI", "diffusers"),
        ("AUTOMATIC1111's stable-diffusion-webui", "diffusers"),
        ("InvokeAI 5", "diffusers"),
        ("DirectML 1.13", "onnxruntime"),
        ("TabbyAPI, EXL3", "exllamav2"),
        ("OpenLLM 0.6", "vllm"),
        ("torchchat", "gpt-fast"),
        ("torch.jit", "torch-1"),
        ("Keras 2.12", "tensorflow"),
        ("IPEX 2.1", "torch-eager"),
        ("NVIDIA TensorRT 8.6", "tensorrt"),
        ("Paddle Inference 2.3, TensorRT", "tensorrt"),
        ("TF-TRT", "tensorrt"),
        ("TRT-LLM 1.0", "tensorrt-llm"),
        ("vLLM v0.9.2", "vllm"),
        ("vLLM 0.9.2 (V0 engine)", "vllm-2024"),
        ("vLLM (V0)", "vllm-2024"),
        ("torchdynamo, inductor", "torch-compile"),
        ("NVIDIA Dynamo 0.4 (vLLM 0.10)", "vllm"),
        ("MLCommons' loadgen", ""),
        ("Rockchip NPU", ""),
    ],
)
def test_faces_forks_and_frameworks_of_a_stack(engine, name):
    row = {"engine": engine, "source": "https://example.org/page"}
    try:
        assert stack(row) == name
    except NotCoveredError:
        assert not name


@pytest.mark.parametrize("source", ["nvidia/Nemotron-Nano", "a Turing board", "accelerated libmamba"])
def test_a_part_of_another_word_names_no_software(source):
    assert stack({"engine": "PyTorch 2.3", "source": source}) == "torch-eager"


@pytest.mark.parametrize(
    ("engine", "page", "name"),
    [
        ("PyTorch 2.1", "a page of TensorRT", "torch-eager"),
        ("PyTorch 2.1", "onnxruntime's README", "torch-eager"),
        ("PyTorch 2.1", "timm's results", "timm"),
        ("", "onnxruntime's README", "onnxruntime"),
    ],
)
def test_a_page_of_what_is_not_of_torch_has_rows_of_torch(engine, page, name):
    assert stack({"engine": engine, "source": page}) == name


def test_tensorrt_is_its_llm_where_texts_go_on():
    row = {"id": "a", "source": "", "gpu": "A100-80GB", "n_gpus": "1", "engine": "TensorRT 10.2"}
    row |= {"weight_precision": "fp16", "batch": "1", "e2e_latency_ms": "9", "input_len": "64", "model": ""}
    row = dict.fromkeys((*inference.NUMBERS, "notes"), "") | row
    texts = ({"model": "llama-3-8b", "output_len": "64"}, {"model": "bert-base"})
    (llm,), (encoder,), (pictures,) = (
        inference.asked(row | more) for more in (*texts, {"model": "resnet50", "input_len": ""})
    )
    stacks = [asked.parts[0].settings["stack"] for asked in (llm, encoder, pictures)]
    assert stacks == ["tensorrt-llm", "tensorrt", "tensorrt"]


def test_nvidias_examples_serve_as_the_torch_that_they_run_in():
    row = dict.fromkeys((*inference.NUMBERS, "notes"), "") | {"id": "a", "n_gpus": "1", "batch": "8"}
    row |= {"source": "NVIDIA/DeepLearningExamples", "gpu": "V100", "engine": "PyTorch (21.03 container)"}
    (pictures,) = inference.asked(
        row | {"model": "resnet50", "weight_precision": "fp16", "e2e_latency_ms": "9"}
    )
    assert pictures.parts[0].settings["stack"] == "torch-1"
    assert stack(row, "", "train") == "dle"


def test_how_a_stack_differs_in_one_thing_is_said_in_one_place():
    listed = [
        (name, fact) for of in facts()["of"] for name in of["stacks"] for fact in of if fact != "stacks"
    ]
    assert len(listed) == len(set(listed)) and {name for name, _ in listed} <= set(names())
