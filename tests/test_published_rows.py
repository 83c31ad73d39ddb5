"""Rows of published tables: what each asks of `estimate`."""

import csv
import random

import pytest
from budget.bench.published import formats, predict, table
from published_tables import DATA, inference_row, some, written

from budget import estimate
from budget.serving.requests import serve


def test_a_row_of_an_unknown_device_says_so(tmp_path):
    row = {**some("inference.csv", 50)[0], "gpu": "Abacus 9"}
    kind, rows = table.read(str(written(tmp_path / "a.csv", [row])))
    (found,) = predict.predict(kind, rows[0])
    assert found.why_not == "no data on the device 'Abacus 9'"


def test_a_served_token_takes_its_step_and_its_share_of_others_prompts(tmp_path):
    """The closed form of budget serve, of the same engine with as many places as users."""
    row = {**some("serving.csv", 1000)[0], "engine": "vLLM", "concurrency": "16", "tp": "2"}
    row |= {"input_len": "1024"}
    kind, rows = table.read(str(written(tmp_path / "a.csv", [{**row, "output_len": "256"}])))
    (found,) = predict.predict(kind, rows[0])
    settings = {"device": "h100", "stack": found.stack, "layout": {"tp": 2, "sp": 0}, "dtype": "bf16"}
    served = serve(row["model"].split("/")[1], context=1024, output_tokens=256, users=[16], **settings)
    assert served.places >= 16
    assert found.predicted == pytest.approx(served.points[0].tpot_s, rel=1e-9)
    for change, why in (
        ({"concurrency": "saturated"}, "users without end"),
        ({"mode": "disagg"}, "prompts on devices of their own"),
        ({"precision": "fp6"}, "products in fp6 are not timed"),
        ({"moe_tp": "2", "moe_ep": "4"}, "experts on more devices than attention"),
        ({"attention_dp": "8"}, "attention divided by requests"),
    ):
        kind, rows = table.read(str(written(tmp_path / "b.csv", [{**row, **change}])))
        (found,) = predict.predict(kind, rows[0])
        assert found.why_not.startswith(why)


def test_equal_requests_of_an_engine_that_runs_prompts_first_stay_together(tmp_path):
    """Simulated: 32 users at once, prompts of 1,024 in pieces of 8,192 tokens, all before any decodes."""
    row = {**some("serving.csv", 1000)[0], "engine": "SGLang", "concurrency": "32", "tp": "2"}
    kind, rows = table.read(str(written(tmp_path / "a.csv", [{**row, "input_len": "1024"}])))
    decode, prompts = next(iter(kind.asked(rows[0]))).parts
    pieces = [i // 8 for i in range(32)]  # in which piece each prompt runs
    behind = [sum(8 for piece in range(4) if piece > own) for own in pieces]
    assert prompts.times == pytest.approx(sum(behind) / 32 / int(row["output_len"]))
    assert decode.settings["batch"] == 32


def test_requests_whose_lengths_vary_are_spread(tmp_path):
    """Simulated: 32 places, each taken by the next request at once; all others wait for its prompt."""
    draw, left, waited, done = random.Random(5), [0] * 32, [0] * 32, []
    lengths = [draw.randint(1, 1000) for _ in range(4000)]
    own = [0] * 32
    while lengths:
        for place in range(32):
            if left[place] == 0 and lengths:
                done.append((own[place], waited[place]))
                own[place] = left[place] = lengths.pop()
                waited = [n + (other != place) for other, n in enumerate(waited)]
                waited[place] = 0
        left = [max(n - 1, 0) for n in left]
    tokens, prompts = (sum(of) for of in zip(*done[64:], strict=True))
    row = {**some("serving.csv", 1000)[0], "engine": "SGLang", "concurrency": "32", "output_len": "500"}
    rows = [{**row, "source": "a; lengths vary"}]
    kind, rows = table.read(str(written(tmp_path / "a.csv", rows)))
    _, others = next(iter(kind.asked(rows[0]))).parts
    assert others.times == pytest.approx(prompts / tokens, rel=0.05)


def test_bert_that_puts_sequences_into_bins_has_no_length(tmp_path):
    """Its pre-training pads to a bin; its fine-tuning to the length that is stated, without a vocabulary."""
    rows = [r for r in some("training_throughput.csv", 1) if r["model"] == "BERT-large"]
    kind, rows = table.read(written(tmp_path / "bert.csv", rows))
    for row in rows:
        (found,) = predict.predict(kind, row)
        in_bins = row["kind"] == "bert_train" and "NVIDIA/" in row["source"]
        assert ("bins" in found.why_not) == (in_bins and "TensorFlow" not in row["source"])
        if in_bins and found.why_not:
            (found,) = predict.predict(kind, {**row, "notes": f"{row['notes']}; no bins"})
            assert "bins" not in found.why_not
        if row["kind"] == "bert_qa_train":
            assert found.asked.parts[0].settings["config"]["head"] == "tokens"
            assert found.asked.parts[0].settings["precision"] == "master"


def test_devices_that_a_source_counts_twice_are_counted_once(tmp_path):
    """Four devices, whole experts on each: tp 4, ep 4 stand there as tp 16, experts 4 by 4."""
    row = {**some("serving.csv", 1000)[0], "moe_tp": "4", "moe_ep": "4", "tp": "16"}
    kind, rows = table.read(str(written(tmp_path / "a.csv", [row, {**row, "tp": "4", "moe_tp": "1"}])))
    twice, once = (next(iter(kind.asked(r))).parts[0].settings["layout"]["tp"] for r in rows)
    assert twice == once == 4


def test_an_encoder_runs_forward_and_weights_have_their_format(tmp_path):
    base = inference_row(batch="2")
    rows = [
        base | {"model": "bert-base", "engine": "PyTorch eager 1.12", "weight_precision": "fp16"}
        | {"input_len": "128", "e2e_latency_ms": "8"},
        base | {"model": "Llama-2-7B", "engine": "ExLlamaV2", "weight_precision": "int4 (GPTQ)"}
        | {"input_len": "8", "output_len": "8", "tpot_ms": "5"},
        base | {"model": "Llama-3-8B", "engine": "transformers 4.51.3", "weight_precision": "bf16"}
        | {"input_len": "8", "output_len": "8", "tpot_ms": "5"},
    ]  # fmt: skip
    kind, read = table.read(str(written(tmp_path / "a.csv", rows)))
    encoder, packed, older = (next(iter(kind.asked(r))).parts[0].settings for r in read)
    assert (encoder["mode"], encoder["seq"]) == ("forward", 128)
    assert packed["quantize"] == "gptq"
    assert older["attention"] == "causal"  # keys and values had copies before version 4.53


@pytest.mark.parametrize(
    ("told", "settings"),
    [
        ({"weight_precision": "Q4_K - Small"}, {"quantize": "q4_k_s"}),
        ({"weight_precision": "IQ4_XS - 4.25 bpw"}, {"quantize": "iq4_xs"}),
        ({"engine": "mlx-lm", "weight_precision": "8-bit"}, {"quantize": "mlx-8bit"}),
        ({"engine": "mlx-lm", "weight_precision": "int6 (groups of 64)"}, {"quantize": "mlx-6bit"}),
        ({"engine": "torchao", "weight_precision": "int4 (groups of 64)"}, {"quantize": "mlx-4bit"}),
        ({"engine": "gpt-fast (torch.compile)"}, {"stack": "gpt-fast"}),
        ({"engine": "gpt-fast", "weight_precision": "int8"}, {"quantize": "int8", "quantize_head": True}),
        ({"engine": "vLLM", "weight_precision": "int4 (weights only)"}, {"quantize": "w4a16"}),
        ({"engine": "vLLM", "weight_precision": "GPTQ-Int8"}, {"quantize": "gptq-8bit"}),
        ({"weight_precision": "MXFP4"}, {"quantize": "mxfp4_moe"}),
        ({"weight_precision": "MXFP4", "engine": "Ollama 0.12"}, {"quantize": "mxfp4"}),
        ({"output_len": "64"}, {"seq": 32}),  # as llama-bench, from an empty context
        ({"output_len": "64", "engine": "ollama 0.12"}, {"seq": 544}),
        ({"output_len": "64", "engine": "llama.cpp (llama-bench -d 512)"}, {"seq": 544}),
        ({"engine": "LM Studio (Vulkan)"}, {"stack": "llama.cpp-vulkan"}),
        ({"engine": "llama.cpp 7340 (Vulkan)"}, {"stack": "llama.cpp-vulkan"}),
        ({"engine": "llama.cpp (2024-03, Vulkan)"}, {"stack": "llama.cpp-vulkan-2024"}),
        ({"engine": "llama.cpp (2025-09, Vulkan, int dot: 0)"}, {"stack": "llama.cpp-vulkan-2024"}),
        ({"engine": "llama.cpp (2025-01, Vulkan, matrix cores: none)"}, {"stack": "llama.cpp-vulkan-2024"}),
        ({"engine": "llama.cpp (Vulkan, int dot: 1, matrix cores: none)"}, {"stack": "llama.cpp-vulkan"}),
        (
            {"engine": "llama.cpp (2026-01, Vulkan, matrix cores: KHR_coopmat)"},
            {"stack": "llama.cpp-vulkan-khr"},
        ),
        ({"engine": "llama.cpp (2024-05)"}, {"stack": "llama.cpp-2024"}),
        ({"engine": "llama.cpp (2024-06)"}, {"stack": "llama.cpp-2024-07"}),
        ({"engine": "llama.cpp b3012"}, {"stack": "llama.cpp-2024"}),
        ({"engine": "llama.cpp (CUDA, build 3078, ubatch 2048)"}, {"stack": "llama.cpp-2024-07"}),
        ({"engine": "llama.cpp 3484 (CUDA)"}, {"stack": "llama.cpp-2024-07"}),
        ({"engine": "llama-bench b3504"}, {"stack": "llama.cpp"}),
        ({"engine": "llama.cpp (b4222, Vulkan)"}, {"stack": "llama.cpp-vulkan-2024"}),
        ({"engine": "llama.cpp b4240 (Vulkan)"}, {"stack": "llama.cpp-vulkan"}),
        ({"engine": "llama.cpp (ubatch 2048)"}, {"stack": "llama.cpp"}),
        ({"engine": "llama.cpp (2024-01)", "gpu": "P40"}, {"stack": "llama.cpp"}),
        ({"engine": "llama.cpp 1550 (2023-11, Metal)", "gpu": "M1 Max"}, {"stack": "llama.cpp"}),
        ({"engine": "llama.cpp (2024-08)"}, {"stack": "llama.cpp"}),
        ({"engine": "llama.cpp 9672 (2026-06, SYCL)"}, {"stack": "llama.cpp-sycl"}),
        ({"engine": "llama.cpp 8833 (2026-04, SYCL, F16)"}, {"stack": "llama.cpp"}),
        ({"engine": "llama.cpp (2025-03, IPEX-LLM's SYCL)"}, {"stack": "llama.cpp"}),
        ({"tpot_ms": "", "decode_tok_s_total": "50"}, {"mode": "decode"}),
        ({"tpot_ms": "", "prefill_tok_s": "50"}, {"mode": "prefill", "seq": 512}),
        ({"tpot_ms": "", "prefill_tok_s": "50", "engine": "llama.cpp (ubatch 256)"}, {"seq": 256}),
        ({"model": "resnet50", "input_len": "", "e2e_latency_ms": "9"}, {"mode": "forward"}),
        ({"engine": "vLLM 0.9.1 (enforce-eager)"}, {"execution": "fused"}),
        ({"engine": "SGLang, --disable-cuda-graph"}, {"execution": "fused"}),
        ({"engine": "torch.compile (mode=reduce-overhead)"}, {"stack": "gpt-fast"}),
        ({"engine": "torch.compile, CUDA graphs"}, {"stack": "gpt-fast"}),
        ({"engine": "DS-inference"}, {"stack": "deepspeed-mii"}),
        ({"engine": "transformers", "weight_precision": "4bits"}, {"quantize": "nf4"}),
        ({"engine": "transformers", "weight_precision": "8-bit"}, {"quantize": "int8"}),
        ({"engine": "vLLM", "weight_precision": "4-bit (GPTQ)"}, {"quantize": "gptq"}),
        ({"engine": "AutoAWQ 0.1.8", "weight_precision": "int4 (AWQ)"}, {"quantize": "awq-2023"}),
        (
            {"engine": "AutoAWQ 0.2.6", "weight_precision": "int4 (AWQ)"},
            {"quantize": "awq", "attention": "flash"},
        ),
        ({"engine": "AutoAWQ (2024-11)", "weight_precision": "int4 (AWQ)"}, {"attention": "causal"}),
        ({"engine": "transformers 5.8", "batch": "8", "notes": "left-padded"}, {"attention": "fused"}),
        (
            {"engine": "AutoAWQ (2024-11)", "weight_precision": "AWQ", "tpot_ms": "", "prefill_tok_s": "50"},
            {"attention": "sdpa"},
        ),
        ({"engine": "vLLM 0.4.2", "weight_precision": "AWQ"}, {"quantize": "awq", "quantize_own": True}),
        ({"engine": "vLLM 0.9.1, quantization=awq", "weight_precision": "AWQ"}, {"quantize_own": True}),
        ({"engine": "transformers 4.36.0", "weight_precision": "AWQ"}, {"quantize": "awq-2023"}),
        (
            {"engine": "transformers (AutoGPTQ)", "weight_precision": "gptq (its first kernel)"},
            {"quantize": "gptq-2023"},
        ),
        ({"engine": "transformers (AutoGPTQ, Marlin)", "weight_precision": "gptq"}, {"quantize": "w4a16"}),
        ({"engine": "AutoAWQ (llm-awq's kernels)", "weight_precision": "AWQ"}, {"quantize_own": False}),
    ],
)
def test_a_row_s_words_are_settings(tmp_path, told, settings):
    row = inference_row()
    row |= {"model": "Llama-3-8B", "engine": "llama.cpp", "weight_precision": "F16", "input_len": "512"}
    kind, read = table.read(str(written(tmp_path / "a.csv", [row | {"tpot_ms": "5"} | told])))
    (asked,) = kind.asked(read[0])
    assert asked.measured
    assert asked.parts[0].settings | settings == asked.parts[0].settings


@pytest.mark.parametrize("engine", ["torch.compile", "torch.compile (max-autotune-no-cudagraphs)", "vLLM"])
def test_what_runs_in_its_own_way_is_told_nothing(tmp_path, engine):
    row = inference_row()
    row |= {"model": "Llama-3-8B", "engine": engine, "weight_precision": "F16", "input_len": "512"}
    kind, read = table.read(str(written(tmp_path / "a.csv", [row | {"tpot_ms": "5"}])))
    (asked,) = kind.asked(read[0])
    assert "execution" not in asked.parts[0].settings


@pytest.mark.parametrize("kind", ["inference", "memory", "serving", "training"])
def test_rows_have_the_columns_of_their_table(kind):
    for path in DATA.glob(f"*{kind}*.csv"):
        with path.open(encoding="utf-8", newline="") as lines:
            columns = {len(row) for row in csv.reader(line for line in lines if line[0] != "#")}
        assert len(columns) == 1, path.name


@pytest.mark.parametrize(("model", "size"), [("gpt-oss-20b", 13.8e9), ("gpt-oss-120b", 65e9)])
def test_gpt_oss_in_ollama_s_library_is_as_large_as_it_says(model, size):
    told = formats.weights("MXFP4", "weight_precision", "llama.cpp", "Ollama 0.12")
    assert estimate(model, mode="decode", **told).memory.parameters == pytest.approx(size, rel=0.005)
