"""Rows of engines: number formats, caches and first tokens as servers have them."""

import pytest
from budget.bench.published import formats, inference, predict, rows, table
from published_tables import DATA, some, written

from budget import estimate


@pytest.mark.parametrize(
    ("word", "same"),
    [("bfloat16", "bf16"), ("float16", "fp16"), ("Half", "fp16"), ("float32", "fp32"), ("FLOAT8", "fp8")],
)
def test_torch_s_names_of_number_formats_are_those_of_others(word, same):
    assert formats.weights(word, "weight_precision", "vllm") == formats.weights(same, "", "vllm")


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("INT8 (W8A8)", "W8A8"), ("SmoothQuant INT8", "W8A8"), ("W8A8-FP8", "fp8"), ("INT8 W8A16", "W8A16"),
        ("weight-only int8", "int8"), ("bnb-4bit", "nf4"), ("BitsAndBytes 8-bit", "int8"), ("none", ""),
        ("AutoRound", "W4A16"), ("unquantized", ""), ("16-bit", ""), ("UD-Q4_K_XL", "ud_q4_k_xl"),
        ("UD-Q2_K_XL", "ud_q2_k_xl"), ("UD-IQ4_XS", "ud_iq4_xs"), ("Q4_K - Medium", "Q4_K_M"),
    ],
)  # fmt: skip
def test_what_is_multiplied_in_eight_bits_is_said_by_any_word_of_several(word, same):
    assert formats.weights(word, "", "vllm") == formats.weights(same, "", "vllm")


@pytest.mark.parametrize(
    ("word", "bits"),
    [
        ("GPTQ Int8", 8),
        ("GPTQ-Int8", 8),
        ("int8 (GPTQ)", 8),
        ("8bit GPTQ", 8),
        ("GPTQ 4 bit 128g", 4),
        ("GPTQ", 4),
    ],
)
def test_gptq_has_as_many_bits_as_are_said(word, bits):
    settings = {"device": "h100-sxm", "stack": "vllm", "mode": "decode", "seq": 512}
    e = estimate("llama-2-7b", **formats.weights(word, "", "vllm"), **settings)
    linear, wide = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 2 * (32000 * 4096 * 2 + 65 * 4096)
    assert e.memory.parameters - wide == pytest.approx(linear * bits / 8, rel=0.06)  # with scales of groups


@pytest.mark.parametrize(
    ("engine", "stack"),
    [
        ("TensorRT LLM 1.0", "tensorrt-llm"), ("TensorRT LLM 0.5", "tensorrt-llm-2023"),
        ("Text Generation Inference 3.0", "vllm"), ("ExLlamaV3 0.0.5", "exllamav2"),
        ("AutoGPTQ 0.4 (exllama kernel)", "transformers"), ("transformers, ExLlamaV2", "transformers"),
        ("Aphrodite Engine 0.6", "vllm"), ("TensorRT 8.4", "tensorrt"),
        ("TensorRT Edge-LLM 0.10.0", "tensorrt-edge-llm"), ("TRT-LLM (Edge-LLM)", "tensorrt-edge-llm"),
    ],
)  # fmt: skip
def test_an_engine_is_known_by_its_other_spellings(engine, stack):
    assert rows.stack(row_of(engine=engine)) == stack


def row_of(**told):
    row = {"id": "a", "source": "", "model": "qwen2.5-7b", "gpu": "RTX 3090", "n_gpus": "1", "batch": "1"}
    row |= {"engine": "vLLM 0.11", "weight_precision": "bf16"}
    return dict.fromkeys((*inference.NUMBERS, "notes"), "") | row | told


def test_tokens_behind_a_prompt_of_no_stated_length_are_those_behind_a_question():
    def parts(**told):
        (asked,) = inference.asked(row_of(output_len="100", **told))
        return asked.quantity, [(p.settings["mode"], p.settings["seq"]) for p in asked.parts]

    assert parts(decode_tok_s_total="50") == ("tpot_s", [("decode", 64 + 50)])
    assert parts(output_tok_s_total="50") == parts(output_tok_s_total="50", input_len="64")


@pytest.mark.parametrize(("engine", "queues"), [("vLLM 0.6.1", True), ("FasterTransformer", False)])
def test_requests_without_room_wait_for_others(engine, queues):
    """Llama-2 7B on 40 GB: its weights, and a cache of half a megabyte for each of 2,048 tokens."""
    row = row_of(model="llama-2-7b", gpu="A100-SXM4-40GB", engine=engine, batch="64", weight_precision="fp16")
    (asked,) = inference.asked(row | {"input_len": "1024", "output_len": "1024", "e2e_latency_ms": "9"})
    *_, token = asked.parts
    held = token.settings["batch"]
    assert token.times * held == pytest.approx(1024 * 64)
    room = (40e9 - 2 * 6.74e9) / (2 * 2 * 32 * 4096 * 2048)
    assert held == pytest.approx(room, rel=0.1) if queues else held == 64


@pytest.mark.parametrize("column", ["ttft_ms", "prefill_tok_s"])
def test_a_prompt_of_no_stated_length_has_no_time(column):
    with pytest.raises(rows.NotCoveredError, match="input_len is not stated"):
        list(inference.asked(row_of(output_len="100", **{column: "50"})))


def test_an_engine_loads_a_checkpoint_s_own_dtype_where_nobody_says_one():
    (plain,), (told,) = (inference.asked(row_of(tpot_ms="20", weight_precision=w)) for w in ("", "bf16"))
    each = [estimate(a.parts[0].model, **a.parts[0].settings).times.step for a in (plain, told)]
    assert each[0] == each[1]
    with pytest.raises(rows.NotCoveredError, match="weight_precision is not stated"):
        list(inference.asked(row_of(tpot_ms="20", weight_precision="", engine="llama.cpp 7000")))


def test_eight_bits_of_weights_alone_are_not_those_of_what_they_multiply():
    both, alone = (formats.weights(word, "", "vllm")["quantize"] for word in ("W8A8", "W8A16"))
    settings = {"device": "a100-sxm-80gb", "stack": "vllm", "mode": "decode", "seq": 512}
    small, large = (estimate("llama-3-8b", quantize=q, **settings).memory.parameters for q in (both, alone))
    assert both != alone and small == pytest.approx(large, rel=0.03)  # but for scales of groups


@pytest.mark.parametrize(
    ("engine", "more", "kept"),
    [
        ("vLLM 0.9", {}, "bfloat16"),  # --kv-cache-dtype auto
        ("vLLM 0.9", {"kv_precision": "fp8"}, "float8"),
        ("vLLM 0.9 --kv-cache-dtype fp8", {}, "float8"),
        ("vLLM 0.9", {"notes": "kv_cache_dtype=fp8_e5m2"}, "float8"),
        ("vLLM 0.9", {"notes": "KV cache: FP8"}, "float8"),
        ("vLLM 0.9", {"notes": "no fp8 kv_cache"}, "bfloat16"),
        ("vLLM 0.9", {"kv_precision": "FP8 (E4M3)"}, "float8"),
        ("SGLang 0.5", {"notes": "fp8 cache"}, "float8"),
        ("TensorRT-LLM 0.9", {}, "float8"),  # as its quantizer's checkpoints say
        ("TensorRT-LLM 0.9", {"kv_precision": "fp16"}, "bfloat16"),
    ],
)
def test_a_cache_is_in_eight_bits_where_somebody_says_so(engine, more, kept):
    row = {"id": "a", "source": "", "model": "llama-3-8b", "gpu": "H100", "n_gpus": "1", "engine": engine}
    row |= {"weight_precision": "fp8", "batch": "1", "input_len": "64", "output_len": "64", "tpot_ms": "9"}
    row = dict.fromkeys((*inference.NUMBERS, "notes"), "") | row | more
    (asked,) = inference.asked(row)
    (part,) = asked.parts
    e = estimate(part.model, **part.settings)
    bytes_of = {"bfloat16": 2, "float8": 1}[kept]
    assert e.memory.kv_cache == 2 * 32 * 8 * 128 * (64 + 32) * bytes_of
    assert part.settings["quantize"] == "fp8-dynamic"  # linear layers alone: the head stays wide


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"kv_precision": "q4_0"}, "q4_0"),
        ({"notes": "8-bit cache (q8_0)"}, "q8_0"),
        ({"notes": "by layers; cache in q4_1"}, "q4_1"),
        ({"notes": "flash attention, q8_0 cache"}, "q8_0"),
        ({"notes": "8-bit cache"}, "fp8"),
    ],
)
def test_a_cache_is_in_blocks_where_somebody_says_so(more, kept):
    row = dict.fromkeys((*inference.NUMBERS, "notes"), "") | {
        "source": "",
        "engine": "llama.cpp",
        "batch": "1",
    }
    row |= {"model": "llama-3-8b", "gpu": "RTX 4090", "weight_precision": "Q4_K_M", "tpot_ms": "9"}
    (asked,) = inference.asked(row | {"n_gpus": "1", "input_len": "64", "output_len": "64"} | more)
    assert asked.parts[0].settings["kv_dtype"] == kept


def test_an_encoder_in_float8_keeps_no_cache():
    row = {"id": "a", "source": "", "model": "bert-base", "gpu": "H100", "engine": "TensorRT-LLM 0.9"}
    row |= {"weight_precision": "fp8", "batch": "8", "input_len": "128", "n_gpus": "1"}
    (asked,) = inference.asked(dict.fromkeys((*inference.NUMBERS, "notes"), "") | row)
    e = estimate(asked.parts[0].model, **asked.parts[0].settings)
    assert e.memory.kv_cache == 0
    assert asked.parts[0].settings["quantize"] == "fp8-dynamic"


@pytest.mark.parametrize(
    ("engine", "steps", "requests"),
    [
        ("vLLM 0.9", 0, 1),
        ("vLLM 0.7.3", 1, 1),
        ("vLLM 0.5.4", 0, 1),
        ("SGLang 0.5.2", 1, 1),
        ("SGLang 0.3", 0, 1),
        ("SGLang 0.5.2 bench_one_batch", 0, 0),
        ("SGLang 0.5.2 bench_one_batch_server", 1, 1),
        ("TensorRT-LLM 0.16", 0, 0),
    ],
)
def test_a_server_s_first_token_waits_for_the_step_that_hands_it_out(tmp_path, engine, steps, requests):
    """The prompt, what a request takes besides, and a whole step where the host is one behind."""
    row = {**some("inference.csv", 50)[0], "model": "Llama-3-8B", "gpu": "H100", "engine": engine}
    row |= dict.fromkeys(("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab"), "")
    row |= dict.fromkeys((*table.read(str(DATA / "inference.csv"))[0].MEASURED, "notes"), "")
    row |= {"weight_precision": "bf16", "batch": "1", "input_len": "200", "output_len": "64", "n_gpus": "1"}
    row |= {"tp": "1", "source": "a page", "ttft_ms": "20", "tpot_ms": "8"}
    kind, rows = table.read(str(written(tmp_path / "a.csv", [row])))
    first, token = predict.predict(kind, rows[0])
    alone = estimate(
        "llama-3-8b", device="h100", stack=first.stack, dtype="bf16", mode="prefill", seq=200, batch=1
    )
    request = requests * alone.stack.request_ms / 1e3
    assert first.predicted == pytest.approx(alone.times.step + steps * token.predicted + request, rel=1e-6)


@pytest.mark.parametrize(
    ("engine", "notes", "stack"),
    [
        ("transformers 4.45", "static cache, torch.compile (CUDA graphs)", "gpt-fast"),
        ("transformers, torch.compile reduce-overhead", "", "gpt-fast"),
        ("transformers 4.45", "", "transformers"),
        ("transformers 4.45", "without CUDA graphs", "transformers"),
    ],
)
def test_a_token_of_transformers_that_is_one_graph_is_as_in_gpt_fast(engine, notes, stack):
    (asked,) = inference.asked(row_of(engine=engine, notes=notes, tpot_ms="9"))
    assert {part.settings["stack"] for part in asked.parts} == {stack}


@pytest.mark.parametrize(
    ("engine", "stack"), [("TinyChat (2023-08)", "autoawq"), ("TinyChat 2.0", "tinychat")]
)
def test_tinychat_ran_as_the_modules_that_came_of_it_before_its_second_version(engine, stack):
    assert rows.stack(row_of(engine=engine)) == stack


@pytest.mark.parametrize(("said", "bits"), [("", 4.25), ("bf16", 16)])
def test_an_engine_loads_a_network_as_it_is_published_where_nobody_says_otherwise(said, bits):
    row = row_of(model="gpt-oss-20b", weight_precision=said, tpot_ms="9")
    (asked,) = inference.asked(row)
    (part,) = asked.parts
    experts = 24 * 32 * 3 * 2880**2  # in four bits, with a scale of eight for 32
    e = estimate(part.model, **part.settings)
    assert e.memory.parameters == pytest.approx(experts * bits / 8 + (20.9e9 - experts) * 2, rel=0.03)
