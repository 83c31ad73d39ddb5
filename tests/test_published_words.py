"""What words of published tables mean: networks, devices, software, versions, number formats."""

import pytest
from budget.bench.published import _versions as versions
from budget.bench.published import inference, training
from budget.bench.published.networks import pictures
from budget.bench.published.rows import NotCoveredError, before, month, precision, stack
from budget.bench.published.table import read

from budget import estimate


@pytest.mark.parametrize(
    ("row", "software"),
    [
        ({"engine": "TensorRT-LLM 0.7.1"}, "tensorrt-llm-2023"),
        ({"source": "NVIDIA/TensorRT-LLM release/0.5.0 performance.md"}, "tensorrt-llm-2023"),
        ({"source": "TensorRT-LLM performance.md (v0.6.1 peak)"}, "tensorrt-llm-2023"),
        ({"engine": "TensorRT-LLM", "engine_version": "1.0.0rc3", "source": "as in v0.5"}, "tensorrt-llm"),
        ({"engine": "TensorRT-LLM", "source": "v0.8.0, 2 x H100, 0.7 s"}, "tensorrt-llm"),
        ({"engine": "TensorRT-LLM", "source": "arXiv 2312.0001"}, "tensorrt-llm"),
        ({"engine": "vLLM 0.2.1"}, "vllm-2024"),
        ({"engine": "vLLM (2024-04)"}, "vllm-2024"),
        ({"engine": "vLLM 0.9.1", "source": "a page of 2024-04"}, "vllm"),
        ({"engine": "vLLM 0.23.0"}, "vllm"),
        ({"engine": "PyTorch eager"}, "torch-eager"),
        ({"engine": "PyTorch eager 1.12"}, "torch-1"),
        ({"engine": "rapid-mlx 0.7.9 (MLX)"}, "mlx"),
        ({"engine": "transformers, torch.compile"}, "torch-compile"),
        ({"source": "issue 1364 (litgpt's network, thunder)"}, "torch-compile"),
        ({"source": "benchmarks/llama3_h100_202412_torchtitan.md"}, "torchtitan-2024"),
        ({"source": "benchmarks/asyncTP_llama3_h100_2025-06_torchtitan.md"}, "torchtitan"),
        ({"source": "README.md (torchtitan 0.0.2)"}, "torchtitan-2024"),
        ({"source": "README.md (torchtitan 0.2)"}, "torchtitan"),
        ({"source": "README.md (torchtitan, December 2024)"}, "torchtitan-2024"),
        ({"source": "README.md (megatron 0.7)"}, "megatron"),
        ({"engine": "llama.cpp b3622", "source": "issue 12, 2024-08-26"}, "llama.cpp"),
        (
            {"engine": "llama.cpp (layer split)", "source": "README.md (llama-bench, May 2024)"},
            "llama.cpp-2024",
        ),
        ({"engine": "llama.cpp", "source": "Mistral-7B-Instruct-v0.3 GGUF"}, "llama.cpp"),
        ({"engine": "llama.cpp 8797 (ROCm)", "gpu": "MI50"}, "llama.cpp-2026-07"),
        ({"engine": "llama.cpp (2026-08, ROCm)", "gpu": "MI50"}, "llama.cpp"),
        ({"engine": "llama.cpp 8797 (ROCm)", "gpu": "Radeon AI PRO R9700"}, "llama.cpp-2026-07"),
        ({"engine": "llama.cpp 8797 (ROCm)", "gpu": "Radeon 8060S"}, "llama.cpp"),
        ({"engine": "llama.cpp 6918", "gpu": "GB10"}, "llama.cpp-2025"),
        ({"engine": "llama.cpp 8396", "gpu": "RTX 5090"}, "llama.cpp"),
        ({"engine": "llama.cpp 6918", "gpu": "RTX 4090"}, "llama.cpp"),
        ({"engine": "llamafile 0.9 (llama.cpp)"}, "llama.cpp-2024"),
        ({"engine": "TorchScript", "source": "NVIDIA/FasterTransformer"}, "torch-1"),
        ({"engine": "PyTorch (21.03)", "source": "NVIDIA/DeepLearningExamples"}, "dle"),
        ({"engine": "another engine", "source": "InternLM/lmdeploy"}, "torch-eager"),
        ({"source": "NVIDIA/NeMo performance_summary.md (24.07, FP8, DGX-H100)"}, "megatron"),
        ({"source": "llama3_70b/nemo-gke/nemo2407/recipe/README.md"}, "megatron"),
        ({"source": "a launcher's README.md (NeMo 24.05, FP8)"}, "megatron"),
        ({"source": "a README.md (NeMo 24.12)"}, "megatron-bridge"),
        ({"source": "NeMo Framework user guide, performance summary (25.02)"}, "megatron-bridge"),
        ({"source": "NVIDIA/dgxc-benchmarking@v25.05 llama3.1/README.md"}, "megatron-bridge"),
        ({"source": "NVIDIA/dgxc-benchmarking@v25.02 maxtext/README_70b.md"}, "maxtext"),
        ({"engine": "TensorFlow 2.12"}, "tensorflow"),
        ({"engine": "TensorFlow 2.12, XLA"}, "tensorflow-xla"),
        ({"source": "a page (TensorFlow 1.15)", "notes": "without XLA"}, "tensorflow"),
        ({"source": "NVIDIA/DeepLearningExamples TensorFlow2/BERT", "notes": "XLA"}, "tensorflow-xla"),
        ({"engine": "PyTorch/XLA 2.0"}, "torch-eager"),
    ],
)
def test_a_row_s_version_tells_which_kernels_its_software_had(row, software):
    assert stack(row, "torch-eager") == software


def test_a_version_counts_before_a_date():
    row = {"source": "a page of 2023-09 (transformers 4.33)"}
    assert before(row, "transformers", (4, 36))
    assert not before({"source": "a page of 2023-09"}, "transformers", (4, 36))


@pytest.mark.parametrize(
    ("source", "mode", "model", "found"),
    [
        ("a page (transformers 4.41)", "prefill", "llama-2-7b", {"prompt_logits": "fp32"}),
        ("a page (transformers 4.41)", "prefill", "opt-350m", {"prompt_logits": "all"}),
        ("a page (transformers 4.52)", "prefill", "gpt2", {"prompt_logits": "all"}),
        ("a page (transformers 4.52)", "prefill", "pythia-410m", {}),
        ("a page (transformers, torch 2.4)", "prefill", "llama-2-7b", {"prompt_logits": "fp32"}),
        ("a page of 2024-05 (transformers)", "train", "llama-2-7b", {"loss_logits": "replaced"}),
        ("a page of 2024-05 (transformers)", "train", "gpt2", {"loss_logits": "own_shifted"}),
        ("a page of 2024-05 (transformers)", "train", "bert-base", {"loss_logits": "own"}),
        ("a page of 2023-05 (transformers 4.52)", "train", "llama-2-7b", {}),
        ("a page (transformers)", "train", "llama-2-7b", {}),
    ],
)
def test_what_a_row_s_version_did_by_family(source, mode, model, found):
    assert versions.older({"source": source}, "transformers", mode, model) == found


@pytest.mark.parametrize(
    ("version", "mode", "found"),
    [
        ("0.1.8", "prefill", "eager"),
        ("0.2.6", "decode", "flash"),
        ("0.2.7", "prefill", "sdpa"),
        ("0.2.7", "decode", "causal"),
        ("0.2.8", "prefill", ""),
    ],
)
@pytest.mark.parametrize("rows", ["times", "memory"])
def test_a_version_of_three_numbers_counts_in_rows_of_times_and_of_memory(rows, version, mode, found):
    row = {"source": f"a page of 2024 (AutoAWQ {version})"}
    assert versions.changed(rows, row, "autoawq", mode) == ({"attention": found} if found else {})


def test_a_year_alone_is_its_middle():
    assert month({"source": "a page of 2023 (transformers)", "notes": "cut at 2048"}) == (2023, 7)
    assert month({"source": "a page of 2023", "notes": "run of 2024-02"}) == (2024, 2)
    assert month({"source": "benchmark.csv, 2023 (transformers)"}) == (2023, 7)
    assert month({"source": "a page, 2023-09 (transformers)"}) == (2023, 9)
    assert month({"source": "a page", "notes": "shapes of 64, 2048 tokens"}) > (2026, 12)


def test_when_a_row_was_first_predicted_is_not_when_it_was_measured():
    tested = {"notes": "padded; blind test of 2026-11-30; first 0.90 of measured"}
    assert month({"source": "a page of 2023 (transformers)", **tested}) == (2023, 7)
    assert month({"source": "a page, 2023-09", **tested}) == (2023, 9)
    assert month({"source": "a page", **tested}) > (2026, 12)
    assert versions.changed(
        "times", {"source": "a page, 2023 (transformers)", **tested}, "transformers", "train"
    )
    assert month({"source": "a page", "notes": "documents of 2048 tokens"}) > (2026, 12)
    assert month({"source": "a page", "notes": "pictures of ImageNet of 2012"}) > (2026, 12)
    assert month({"source": "owner/name@9e201512fc", "notes": "200000 tokens"}) > (2026, 12)


def test_a_version_of_which_no_training_is_known_is_its_successor():
    row = {"source": "vit-pytorch/README.md (PyTorch eager 1.8)", "notes": "torchvision, NHWC"}
    assert stack(row, "torch-compile", "train") == "torch-eager"
    assert pictures(row) == {"memory_format": "channels_last"}


def test_torch_trains_one_operator_after_the_other_where_no_compiler_is_named():
    row = {
        "gpu": "V100-SXM2-16GB", "n_gpus": "1", "precision": "fp32", "model": "resnet50", "kind": "cnn_train",
        "micro_batch": "128", "samples_per_s_total": "354", "seq": "",
    }  # fmt: skip
    for said, software in (
        ("1.5", "torch-eager"), ("2.1", "torch-eager"), ("2.1, torch.compile", "torch-compile"),
    ):  # fmt: skip
        (found,) = training.asked({**row, "source": f"pytorch/examples imagenet (PyTorch {said})"})
        assert found.parts[0].settings["stack"] == software


@pytest.mark.parametrize(
    ("word", "format_"),
    [("mxfp8", "fp8"), ("float8", "fp8"), ("NVFP4", "nvfp4"), ("bf16-mixed", "master"), ("bfloat16", "pure")],
)
def test_words_for_number_formats(word, format_):
    assert precision(word) == ("bf16", format_)


def test_four_bits_of_another_kind_are_not_nvidia_s():
    with pytest.raises(NotCoveredError):
        precision("mxfp4")


def test_a_bare_version_is_of_what_the_row_names():
    row = {"engine": "Megatron-LM", "source": "a simulator's runs, release v1.2"}
    assert not before(row, "torch", (2, 0))
    assert before({**row, "engine": "PyTorch", "engine_version": "1.13"}, "torch", (2, 0))


@pytest.mark.parametrize(("model", "length"), [("ResNet50", ""), ("bert-large", "384")])
def test_a_calibrated_network_in_int8_multiplies_bytes(model, length):
    """TensorRT's calibrated networks: products of int8, at twice float16's rate or more."""
    row = {"model": model, "gpu": "T4", "engine": "TensorRT 8.4, plugins", "source": "a page"}
    row |= {
        "n_gpus": "1",
        "batch": "128",
        "input_len": length,
        "weight_precision": "int8",
        "output_tok_s_total": "5000",
    }
    narrow, wide = ({**row, "weight_precision": word} for word in ("int8", "fp16"))
    times = [
        float(estimate(part.model, **part.settings).times.step)
        for each in (narrow, wide)
        for asked in inference.asked({**dict.fromkeys(inference.NUMBERS, ""), **each})
        for part in asked.parts
    ]
    assert 0.4 < times[0] / times[1] < 0.7


def test_a_tables_columns_in_other_words(tmp_path):
    (tmp_path / "a.csv").write_text(
        "Model,Hardware,num_gpus,Backend,Quantization,Batch size,ISL,OSL,TPOT (ms)\n"
        "gpt2,A100,1,vllm,fp16,1,128,8,3\n"
    )
    kind, rows = read(str(tmp_path / "a.csv"))
    assert kind is inference
    table = {"id": "1", "model": "gpt2", "gpu": "A100", "n_gpus": "1", "engine": "vllm", "batch": "1"}
    assert table | {"input_len": "128", "output_len": "8", "tpot_ms": "3"} == {
        k: rows[0][k] for k in (*table, "input_len", "output_len", "tpot_ms")
    }
