"""Prompts of published tables: how many tokens run at once, what they attend to, and in which kernel."""

import re

import pytest
from budget.bench.published import inference, predict
from published_tables import inference_row


def test_a_prompt_in_pieces_attends_to_all_before():
    row = inference_row()
    row |= {"model": "llama-3.2-1b", "engine": "llama.cpp", "weight_precision": "F16"}
    row |= {"input_len": "8192", "prefill_tok_s": "5"}
    (asked,) = inference.asked(row)
    pieces, whole, own = asked.parts
    assert [(p.settings["seq"], p.times, p.kind) for p in asked.parts] == [
        (512, 16, ""), (8192, 1, "attention"), (512, -16, "attention")
    ]  # fmt: skip
    both = predict.seconds(whole, predict.run(whole)) + predict.seconds(own, predict.run(own))
    assert 0 < both < predict.seconds(pieces, predict.run(pieces))


@pytest.mark.parametrize(
    "words", [{"engine": "llama.cpp (llama-bench -d 1024)"}, {"notes": "pp2048 @ d1024"}]
)
def test_a_prompt_attends_to_what_llama_bench_has_in_the_cache(words):
    """Counted pair by pair: the i-th of 2,048 tokens behind 1,024 has 1,024 + i keys."""
    row = inference_row()
    row |= {"model": "llama-3.2-1b", "engine": "llama.cpp", "weight_precision": "F16"} | words
    (asked,) = inference.asked(row | {"input_len": "2048", "prefill_tok_s": "5"})
    own = sum(p.times for p in asked.parts if not p.kind)
    pairs = sum(p.times * p.settings["seq"] * (p.settings["seq"] + 1) / 2 for p in asked.parts)
    assert own == 4
    assert pairs == sum(1024 + i for i in range(1, 2049))
    (asked,) = inference.asked(row | {"output_len": "128", "tpot_ms": "5"})
    assert asked.parts[0].settings["seq"] == 1024 + 64


def test_what_a_server_kept_of_a_prompt_is_attended_to_and_not_run_again():
    """Counted pair by pair, as above; tokens come behind all of the prompt."""
    row = inference_row(model="llama-3.2-1b", engine="vLLM (2025-07)", weight_precision="bf16")
    row |= {"notes": "1,024 of its tokens are kept from the row before", "input_len": "3072"}
    first, token = inference.asked(row | {"output_len": "128", "ttft_ms": "5", "tpot_ms": "5"})
    assert [p.times for p in first.parts if not p.kind] == [1]
    pairs = sum(p.times * p.settings["seq"] * (p.settings["seq"] + 1) / 2 for p in first.parts)
    assert pairs == sum(1024 + i for i in range(1, 2049))
    assert token.parts[0].settings["seq"] == 3072 + 64


def test_boards_of_which_a_row_says_that_a_bridge_joins_them_are_so_joined():
    row = inference_row(model="llama-3.2-1b", engine="vLLM (2025-07)", weight_precision="bf16")
    row |= {"gpu": "RTX 3090", "n_gpus": "2", "tp": "2", "input_len": "8192", "prefill_tok_s": "5"}
    (plain,), (joined,) = inference.asked(row), inference.asked(row | {"notes": "NVLink bridge"})
    assert [part.settings["cluster"] for part in (plain.parts[0], joined.parts[0])] == [None, "nvlink-bridge"]
    host, bridge = (sum(predict.seconds(p, predict.run(p)) for p in a.parts) for a in (plain, joined))
    assert bridge < 0.9 * host


@pytest.mark.parametrize(
    ("engine", "written"),
    [
        ("llama.cpp (2025-08, CUDA)", True),
        ("llama.cpp (2025-08, CUDA, fa 1)", False),
        ("llama.cpp 7340 (2025-12, CUDA)", False),
        ("llama.cpp 7340 (2025-12, CUDA, fa 0)", True),
        ("llama.cpp (2024-07, CUDA, fa 1)", False),
        ("llama.cpp (2024-07, CUDA, --flash-attn on)", False),
        ("llama.cpp 7340 (2025-12, CUDA, fa=0)", True),
        ("llama.cpp (2024-07, CUDA)", True),
        ("llama.cpp", False),
    ],
)
def test_a_prompt_writes_its_scores_where_attention_s_kernel_is_off(engine, written):
    """llama-bench's --flash-attn was 0 until b6325 (2025-08-30). What is before a piece takes the kernel's
    time: counted as written, prompts of 4,096 tokens are up to 1.15 times too slow.
    """
    row = inference_row(gpu="RTX 3090")
    row |= {"model": "llama-3.2-1b", "engine": engine, "weight_precision": "Q4_0"}
    row |= {"input_len": "2048", "prefill_tok_s": "5"}
    (asked,) = inference.asked(row)
    eager = [p for p in asked.parts if p.settings.get("attention") == "eager"]
    assert [(p.settings["seq"], p.times) for p in eager] == [(512, 4)] * written
    squares = {p.settings["seq"] // 512: p.times for p in asked.parts if p.kind}
    assert squares == {4: 1, 1: -4}
    seconds = sum(predict.seconds(p, predict.run(p)) for p in asked.parts)
    kernel_on = re.sub(", fa[ =][01]|$", ", fa 1", engine, count=1)
    (kernel,) = inference.asked(row | {"engine": kernel_on})
    fused = sum(predict.seconds(p, predict.run(p)) for p in kernel.parts)
    assert seconds > 1.03 * fused if written else seconds == pytest.approx(fused)


@pytest.mark.parametrize(
    ("engine", "model", "written"),
    [
        ("ONNX Runtime 1.15 (CUDA)", "bert-base", True),
        ("ONNX Runtime 1.15 (CUDA, optimized)", "bert-base", False),
        ("ONNX Runtime 1.15 CUDA (O4)", "bert-base", False),
        ("ONNX Runtime 1.15 (CUDA)", "vit_base_patch16_224", True),
        ("ONNX Runtime 1.15 (CUDA)", "sam-vit-base", False),  # captured, whose code says it
        ("TensorRT 8.2", "bert-base", True),
        ("TensorRT 8 (demoBERT)", "bert-base", False),
        ("TensorRT 10.9", "bert-base", False),
        ("PyTorch eager 2.2", "bert-base", False),
        ("transformers, torch 2.4 (eager attention)", "bert-base", True),
        ("transformers 4.34 (torch 2.1)", "bert-base", True),
        ("transformers, PyTorch 1.10", "bert-base", True),
        ("transformers, torch 2.5", "bert-base", False),
        ("timm, torch 1.8", "vit_base_patch16_224", True),
        ("timm, torch 2.1", "vit_base_patch16_224", False),
    ],
)
def test_attention_is_as_software_of_its_time_had_it(engine, model, written):
    """ONNX Runtime's optimizer has to have fused it, or TensorRT's plugin; TensorRT 10 finds it. torch has a
    kernel since 2.0, and transformers leaves BERT's to it since 4.41.
    """
    row = inference_row(batch="16")
    row |= {"model": model, "engine": engine, "weight_precision": "fp16", "e2e_latency_ms": "5"}
    row |= {"input_len": "384"} if model == "bert-base" else {}
    (asked,) = inference.asked(row)
    assert asked.parts[0].settings.get("attention") == ("eager" if written else None)
