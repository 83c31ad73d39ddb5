"""What the words of a row of memory mean: settings, passes, and which size was measured."""

import pytest
from budget.bench.published import memory
from budget.bench.published.predict import run
from budget.bench.published.rows import NotCoveredError
from published_tables import memory_asked


def settings_of(**more):
    """The settings of the first part of a row of transformers with these columns."""
    return asked(**more).parts[0].settings


def asked(**more):
    """What a row of transformers with these columns asks."""
    row = {"source": "a page (transformers)", "micro_batch": "1", "seq": "64", "measured_gb": "1"}
    return memory_asked(**{**row, **more})


def test_a_word_that_is_not_known_is_no_guess():
    row = {"scenario": "finetune", "model": "gpt2", "method": "lora", "precision": "bf16", "n_gpus": "1"}
    assert settings_of(**row, optimizer="AdamW")["lora_rank"]
    words = {"optimizer": "LOMO", "method": "GaLore", "quant": "int3", "precision": "int7"}
    for column, word in words.items():
        with pytest.raises(NotCoveredError, match=rf"^{column} "):
            settings_of(**{**row, "optimizer": "AdamW", column: word})


def test_what_generates_nothing_is_one_pass():
    bert = settings_of(
        scenario="inference", model="bert-base", precision="fp16", input_len="128", output_len="1"
    )
    assert (bert["mode"], bert["seq"]) == ("forward", 128)
    assert "attention" not in bert
    written = settings_of(
        scenario="inference", model="bert-base", precision="fp16", notes="eager, no flash kernel"
    )
    assert written["attention"] == "eager"
    resnet = settings_of(
        scenario="inference", model="resnet50", precision="fp16", source="a page (PyTorch eager 2.5)"
    )
    assert resnet["mode"] == "forward"
    assert "seq" not in resnet
    four = settings_of(scenario="inference", model="llama-2-7b", quant="fp4")
    assert (four["mode"], four["quantize"]) == ("decode", "nf4")


def test_weights_of_16_bits_are_a_row_s_words_or_its_program_s():
    full = {"scenario": "finetune", "model": "gpt2", "precision": "bf16", "n_gpus": "1", "optimizer": "AdamW"}
    assert settings_of(**full).get("precision") != "pure"  # a flag of the Trainer
    assert settings_of(**full, notes="weights in bf16")["precision"] == "pure"
    swift = "scripts (transformers, ms-swift)"
    assert settings_of(**full, source=swift)["precision"] == "pure"
    assert settings_of(**full, source=swift, zero_stage="zero2").get("precision") != "pure"


def test_words_of_a_precision():
    """Before training a bare dtype is mixed precision; products in 8 bits keep what they read in 16."""
    row = {"scenario": "pretrain", "model": "llama-3-8b", "n_gpus": "1", "optimizer": "AdamW"}
    titan = {**row, "source": "a page (torchtitan)"}
    for word in ("bf16", "fp8", "mxfp8"):
        assert "precision" not in settings_of(**titan, precision=word), word  # the stack's own
    eager = {**row, "source": "a page (PyTorch eager 2.5)"}
    for word in ("bf16 pure", "full bf16"):
        assert settings_of(**eager, precision=word)["precision"] == "pure", word
    assert settings_of(**eager, precision="bf16").get("precision") != "pure"


def test_without_autocast_prepared_weights_make_activations_float32():
    row = {
        "scenario": "finetune",
        "n_gpus": "1",
        "precision": "bf16",
        "optimizer": "AdamW",
        "method": "qlora",
    }
    kbit = "QLoRA; prepare_model_for_kbit_training; no autocast"
    new = settings_of(**row, model="qwen2.5-1.5b", notes=kbit)
    assert (new["dtype"], new["precision"], new["attention"]) == ("fp32", "pure", "eager")
    of_4_51 = settings_of(**row, model="qwen2.5-1.5b", notes=kbit, source="a page (transformers 4.51)")
    assert of_4_51["attention"] == "sdpa"
    assert "attention" not in settings_of(
        **row, model="llama-2-7b", notes=kbit
    )  # a key head for each query head
    plain = settings_of(**row, model="qwen2.5-1.5b", notes="QLoRA; no autocast")
    assert (plain["dtype"], plain["precision"]) == ("bf16", "pure")


@pytest.mark.parametrize(
    ("metric", "scenario", "of"),
    [
        ("GB, GPU memory usage (8*64GB)", "finetune", memory.process),
        ("GB GPU memory usage", "inference", memory.peak),
        ("GB peak memory usage", "finetune", memory.peak),
        ("GiB max reserved", "pretrain", memory.reserved),
        ("GB torch.cuda.max_memory_reserved", "finetune", memory.reserved),
        ("GB max allocated (of what is reserved)", "finetune", memory.peak),
        ("MiB, nvidia-smi", "inference", memory.process),
        ("MB GPU memory consumption", "inference", memory.process),
        ("MiB max allocated, of the last rank", "pretrain", memory.last),
        ("MB peak, with the CUDA context", "inference", memory.process),
        ("GB used, rocm-smi", "inference", memory.process),
        ("GB", "finetune", memory.process),
        ("", "finetune", memory.process),
        ("GiB", "finetune", memory.peak),
        ("GB", "inference", memory.peak),
        ("GB VRAM", "finetune", memory.process),
        ("GB VRAM", "inference", memory.process),
        ("GiB VRAM", "finetune", memory.peak),
        ("MiB, VRAM as reported by PyTorch", "inference", memory.peak),
        ("MiB, GPU memory", "inference", memory.process),
        ("MiB", "inference", memory.process),
        ("MiB memory", "inference", memory.peak),
    ],
)
def test_which_size_a_row_s_words_mean(metric, scenario, of):
    row = {"scenario": scenario, "model": "gpt2", "precision": "bf16", "gpu": "A100-80GB", "metric": metric}
    assert asked(**row, n_gpus="1", optimizer="AdamW").of is of


def test_a_program_s_log_and_a_stack_without_a_count_tell_which_size():
    row = {"model": "gpt2", "precision": "bf16", "gpu": "A100-80GB", "n_gpus": "1"}
    train = {**row, "scenario": "finetune", "optimizer": "AdamW"}
    assert asked(**train, metric="GiB", source="scripts (transformers, ms-swift)").of is memory.reserved
    serve = {**row, "scenario": "inference", "source": "a page (CTranslate2)"}
    assert asked(**serve, metric="MB max GPU memory").of is memory.process
    assert asked(**serve, metric="MB of weights").of is memory.peak


def test_encoders_had_attention_written_out():
    row = {"scenario": "inference", "model": "bert-base", "precision": "fp32"}
    assert settings_of(**row, source="a page (transformers 4.40)")["attention"] == "eager"
    assert "attention" not in settings_of(**row, source="a page (transformers 4.41)")
    assert "attention" not in settings_of(**row, source="a page (transformers 4.40)", notes="SDPA")


def test_passes_of_a_row_that_generates():
    row = {"scenario": "inference", "model": "llama-2-7b", "precision": "fp16", "input_len": "512"}
    modes = [[part.settings["mode"] for part in asked(**row, output_len=n).parts] for n in ("1", "2")]
    assert modes == [["prefill"], ["decode", "prefill"]]
    token, prompt = asked(**row, output_len="9", micro_batch="2", notes="beam size 5").parts
    assert (token.settings["batch"], prompt.settings["batch"]) == (10, 2)
    assert settings_of(**row, notes="cache in 8 bits")["kv_dtype"] == "fp8"
    assert settings_of(**{**row, "precision": "q4_0"}, quant="q4_0")["quantize"] == "q4_0"


def test_openai_s_whisper_holds_weights_in_float32():
    row = {"scenario": "inference", "model": "whisper-small", "precision": "fp16"}
    assert settings_of(**row, source="a page (openai/whisper, PyTorch eager)")["dtype"] == "fp32"
    assert settings_of(**row, source="a page (PyTorch eager)")["dtype"] == "fp16"


def test_litgpt_s_own_network_on_other_pages_than_its_tables():
    row = {"model": "tiny-llama", "precision": "bf16", "source": "a page (litgpt)"}
    served = settings_of(**row, scenario="inference", quant="nf4")
    assert served["config"]["tied"] is False
    assert served["quantize_head"]
    train = {**row, "scenario": "finetune", "n_gpus": "1", "optimizer": "AdamW"}
    tuned = settings_of(**{**train, "precision": "bf16 pure"}, method="qlora", notes="QLoRA (nf4), rank 8")
    assert tuned["config"]["norm"] == "rms_norm_float32"
    assert (tuned["attention"], tuned["loss_chunk"], tuned["offload"]) == ("causal", 128, "optimizer")
    plain = settings_of(**{**train, "optimizer": "SGD"}, method="full")
    assert not {"offload", "loss_chunk", "quantize_head"} & plain.keys()


def test_what_ran_is_in_brackets_behind_a_page_that_may_have_another_name():
    row = {"scenario": "finetune", "model": "llama-3-8b", "precision": "bf16", "n_gpus": "1"}
    row |= {"optimizer": "AdamW", "method": "qlora", "quant": "nf4"}
    page = "docs.unsloth.ai/basics/benchmarks ({})"
    assert "fuse" not in settings_of(**row, source=page.format("transformers, peft"))
    assert settings_of(**row, source=page.format("unsloth, transformers"))["fuse"]
    assert settings_of(**row, source="thunder/README.md (litgpt)")["stack"] == "litgpt"


def test_torchs_compiler_keeps_nothing_between_operators_of_norms_and_gates():
    row = {
        "scenario": "pretrain",
        "model": "llama-3-8b",
        "precision": "bf16",
        "n_gpus": "1",
        "gpu": "A100-80GB",
    }
    assert settings_of(**row, source="a page (torch.compile, torch 2.8)")["fuse"] == "norm,gate"
    assert settings_of(**row, source="nanochat (torch.compile)")["fuse"] == "norm,gate,loss"
    assert "fuse" not in settings_of(**row, source="a page (ColossalAI)")  # not said to be compiled


def test_a_network_that_is_compiled_with_its_loss_is_known_by_its_program_or_a_page_s_words():
    row = {
        "scenario": "finetune",
        "model": "gpt2",
        "precision": "bf16 amp",
        "n_gpus": "1",
        "gpu": "A100-80GB",
    }
    row |= {"method": "full", "optimizer": "AdamW"}
    returned = settings_of(**row, source="a page (nanoGPT, torch.compile)")
    assert (returned["fuse"], returned["hold_logits"]) == ("norm,gate,loss", "compiled")
    beside = settings_of(**row, source="a page (torch.compile)", notes="returns its logits beside its loss")
    assert beside == {**returned, "stack": beside["stack"]}
    assert "hold_logits" not in settings_of(**row, source="a page (modded-nanogpt, torch.compile)")
    assert (
        settings_of(**row, source="a page (transformers)", notes="torch.compile")["fuse"] == "norm,gate,loss"
    )
    mixed = settings_of(**{**row, "method": "lora", "precision": "fp16 amp"}, source="a page (litgpt)")
    assert mixed["precision"] == "autocast"  # Fabric's leaves frozen weights in float32
    eager = ("", "not compiled", "without torch.compile")
    assert all("fuse" not in settings_of(**row, source="a page (transformers)", notes=n) for n in eager)


def test_torchtune_compiles_what_it_is_told_to():
    row = {"scenario": "finetune", "model": "llama-3-8b", "precision": "bf16 pure", "n_gpus": "1"}
    row |= {"optimizer": "AdamW", "method": "lora", "notes": "not compiled"}
    new, old = "a page (torchtune 0.4)", "a page of 2024-05 (torchtune)"
    assert not {"fuse", "loss_logits"} & settings_of(**row, source=new).keys()
    assert settings_of(**row, source=old)["loss_logits"] == "replaced"
    row |= {"notes": "compile; packed"}
    assert settings_of(**row, source=new)["fuse"] == "norm,gate,loss"
    assert settings_of(**row, source=old)["fuse"] == "norm,gate"


def test_peft_prepares_weights_of_few_bits_and_recomputes_unless_trl_or_sharding_says_no():
    row = {"scenario": "finetune", "model": "llama-2-7b", "precision": "bf16", "optimizer": "AdamW"}
    row |= {"method": "qlora", "quant": "nf4", "n_gpus": "1", "source": "a page (transformers, peft)"}

    def of(**more):
        settings = settings_of(**{**row, **more})
        return settings.get("frozen_dtype"), settings["recompute"]

    assert of() == (None, "full")
    assert of(recompute="none") == (None, "none")
    assert of(source="a page (transformers, axolotl, peft)") == ("bf16", "none")
    assert of(source="a page (transformers, peft, trl 0.12)") == (None, "none")
    assert of(n_gpus="2", zero_stage="zero3", gpu="A100-80GB") == ("bf16", "none")
    assert of(method="lora", quant="") == ("bf16", "none")


def test_a_plain_loops_adamw_makes_a_list_of_all_weights_since_torch_2():
    row = {"scenario": "pretrain", "model": "resnet50", "seq": "", "n_gpus": "1", "precision": "fp32"}

    def steps(optimizer="AdamW", **changed):
        return settings_of(**row, optimizer=optimizer, **changed)["optimizer"]

    assert steps(source="a page of 2024-05 (PyTorch eager 2.3)") == "adamw"
    assert steps(source="a page (PyTorch eager 1.10)") == "adamw_loop"
    assert steps(source="a page of 2022-11 (PyTorch eager)") == "adamw_loop"
    assert steps(source="a page (PyTorch eager 2.3)", notes="fused AdamW") == "adamw_fused"
    assert steps(source="a page (PyTorch eager 2.3)", optimizer="no optimizer") == "none"


def test_all_of_many_devices_are_data_parallel_where_a_row_says_so():
    row = {"scenario": "pretrain", "model": "llama-3.1-8b", "gpu": "H100", "n_gpus": "64"}
    row |= {"zero_stage": "fsdp2", "precision": "bf16", "optimizer": "AdamW", "recompute": "full"}
    assert settings_of(**row, dp="64", source="a page (torchtitan)")["layout"]["dp"] == 64
    with pytest.raises(NotCoveredError, match=r"^tp is not stated"):
        settings_of(**row, source="a page (torchtitan)")


def test_a_network_of_diffusers_has_one_pass():
    flux = {"scenario": "inference", "model": "FLUX.1-dev", "precision": "bf16", "seq": "", "notes": "alone"}
    parts = asked(**flux, source="a page (diffusers 0.33)").parts
    assert [part.settings["mode"] for part in parts] == ["forward"]


def test_words_of_a_layout():
    row = {"scenario": "pretrain", "model": "mixtral-8x7b", "precision": "bf16", "optimizer": "AdamW"}
    row |= {"n_gpus": "8", "gpu": "H100-SXM", "recompute": "none", "source": "a page (Megatron-LM core)"}
    assert settings_of(**row, zero_stage="FSDP2")["layout"]["zero"] == 3
    assert settings_of(**row, zero_stage="FSDP2 (zero2)")["layout"]["zero"] == 2
    assert settings_of(**row, notes="expert parallelism 4")["layout"]["ep"] == 4
    assert settings_of(**row, notes="loss fused")["loss_parallel"] == "native"
    assert settings_of(**row)["loss_parallel"] == "in_place"


def test_the_last_stage_of_a_pipeline_has_a_peak_of_its_own():
    row = {
        "scenario": "pretrain",
        "model": "llama-2-7b",
        "precision": "bf16",
        "optimizer": "AdamW",
        "pp": "8",
    }
    row |= {"n_gpus": "8", "gpu": "H100-SXM", "recompute": "none", "source": "a page (Megatron-LM core)"}
    a = asked(**row, seq="4096", metric="GiB max allocated, of the last rank")
    found = [run(part) for part in a.parts]
    assert a.of(found) < 0.8 * memory.peak(found)


def test_autocast_without_gradients_has_copies_of_float32_weights():
    row = {"scenario": "inference", "model": "gpt2", "input_len": "128", "output_len": "1"}
    assert settings_of(**row, precision="bf16 amp")["precision"] == "autocast"
    assert "precision" not in settings_of(**row, precision="bf16")
    few = settings_of(**row, quant="int4", source="a page (transformers, bitsandbytes 0.43)")
    assert few["quantize"] == "nf4"
