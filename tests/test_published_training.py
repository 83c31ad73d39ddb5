"""What rows of published training runs say of kernels, by their words and their software's versions."""

import pytest
from budget.bench.published import training
from budget.bench.published.rows import NotCoveredError, precision, stack
from budget.bench.published.techniques import fused, optimizer
from budget.bench.published.usual import filled

ROW = {"model": "GPT-2 124M", "gpu": "A100", "n_gpus": "1", "micro_batch": "16", "seq": "1024"}
ROW |= {"id": "a", "precision": "bf16-amp", "kind": "llm_train", "tokens_per_s_per_gpu": "1"}


@pytest.mark.parametrize(
    ("notes", "software", "parts"),
    [
        ("fused layernorm, swiglu, cross entropy, rotary", "litgpt", "norm,gate,loss"),
        ("fused dropout + add + norm, MLP; flash attention", "torch-eager", "norm,gate"),
        ("apex's fused Adam; loss scaled", "torch-eager", None),
        ("fused AdamW, flash attention", "torch-eager", None),
        ("fused cross entropy", "megatron", None),
    ],
)
def test_layers_that_a_row_calls_fused_are(notes, software, parts):
    """Of software that runs one operator after the other; a stack that fuses has its own."""
    assert fused({"notes": notes}, software).get("fuse") == parts


@pytest.mark.parametrize(
    ("source", "notes", "eager"),
    [
        ("notebook (transformers, torch 1.13, 2022-09)", "", True),
        ("README (transformers 4.30)", "", True),
        ("README (transformers 4.48)", "", False),
        ("README (transformers, 2023-04)", "flash attention", False),
        ("README (PyTorch eager 1.8)", "", True),
        ("README (PyTorch eager 2.3)", "", False),
        ("README (PyTorch eager 2.3)", "no flash attention", True),
        ("README (transformers, 2023-09)", "memory-efficient attention of xformers", False),
        ("post (torch.compile, 2023-03)", "", False),
        ("post (Megatron-LM core, 2026-03)", "transformer-impl local", True),
        ("post (Megatron-LM core, 2026-03)", "", False),
        ("projects/t5x/README.md (T5X, JAX 0.4.11)", "", True),
    ],
)
def test_attention_is_written_out_before_there_were_kernels(source, notes, eager):
    [asked] = training.asked({**ROW, "source": source, "notes": notes})
    assert (asked.parts[0].settings.get("attention") == "eager") == eager


@pytest.mark.parametrize(("notes", "single"), [("local layers", True), ("", False)])
def test_megatron_s_own_layers_run_one_operator_after_the_other(notes, single):
    row = {**ROW, "source": "post (Megatron-LM core, 2026-03)", "notes": notes}
    [asked] = training.asked(row)
    assert (asked.parts[0].settings.get("execution") == "eager") == single


@pytest.mark.parametrize(
    ("notes", "eager"),
    [("", True), ("eager attention, no flash kernel", True), ("SDPA", False), ("flash attention", False)],
)
def test_an_encoder_writes_its_scores_unless_its_row_names_a_kernel(notes, eager):
    row = {**ROW, "model": "bert-base-uncased", "kind": "bert_train", "seq": "512"}
    [asked] = training.asked({**row, "source": "docs (transformers, torch 2.4)", "notes": notes})
    assert (asked.parts[0].settings.get("attention") == "eager") == eager


@pytest.mark.parametrize(
    ("source", "software"),
    [
        ("a/litgpt extensions/thunder/README.md (litgpt, torch 2.4)", "litgpt"),
        ("a/litgpt extensions/thunder/README.md (litgpt, thunder)", "torch-compile"),
        ("a/litgpt extensions/thunder/README.md", "torch-compile"),
    ],
)
def test_the_words_that_a_page_is_told_by_go_before_those_of_its_path(source, software):
    assert stack({**ROW, "source": source}, "torch-compile", "train") == software


def test_what_adds_up_its_logits_has_no_loss():
    notes = "forward and backward, no optimizer; the loss is the sum of its logits"
    assert fused({"notes": notes}, "transformers") == {"fuse": "loss"}


@pytest.mark.parametrize(
    ("source", "notes", "software"),
    [
        ("a blog's table (PyTorch 2.5, FSDP)", "", "torch-eager"),
        ("a blog's table (PyTorch 1.13)", "", "torch-eager"),
        ("a blog's table (PyTorch 2.5)", "compiled", "torch-compile"),
        ("a blog's table (a trainer of its own)", "", "torch-compile"),
    ],
)
def test_torch_runs_as_it_is_unless_a_row_names_its_compiler(source, notes, software):
    [asked] = training.asked({**ROW, "source": source, "notes": notes})
    assert asked.parts[0].settings["stack"] == software


@pytest.mark.parametrize(
    ("source", "zero", "copies"),
    [
        ("post (transformers, DeepSpeed)", "zero3", "master"),
        ("DeepSpeed and FSDP (transformers)", "fsdp", "autocast"),
        ("post (transformers)", "zero3", "autocast"),
    ],
)
def test_deepspeed_holds_weights_in_16_bits_whatever_that_is_called(source, zero, copies):
    [asked] = training.asked({**ROW, "source": source, "zero_stage": zero})
    assert asked.parts[0].settings["precision"] == copies


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("float16", "fp16"),
        ("bfloat16-amp", "bf16-amp"),
        ("Half", "fp16"),
        ("AMP", "fp16-amp"),
        ("float8", "fp8"),
    ],
)
def test_number_formats_of_training_have_torch_s_names_too(word, same):
    assert precision(word) == precision(same)


def test_what_adapters_drop_is_no_dropout_of_their_network():
    [asked] = training.asked({**ROW, "dropout": "0.05", "notes": "LoRA, rank 16"})
    assert asked.parts[0].settings["lora_dropout"] == 0.05
    assert "dropout" not in asked.parts[0].settings["config"]


@pytest.mark.parametrize("told", [{"dropout": "0.05"}, {"notes": "flash attention; dropout 0.05"}])
def test_a_network_drops_what_its_row_or_its_notes_say(told):
    [asked] = training.asked({**ROW, **told})
    assert asked.parts[0].settings["config"]["dropout"] == 0.05


def test_gelu_is_written_out_where_notes_say_so():
    for notes, form in (("", "gelu_tanh"), ("norms and GELU written out", "gelu_new")):
        [asked] = training.asked({**ROW, "source": "a page (PyTorch 2.6)", "notes": notes})
        assert asked.parts[0].settings["config"]["activation"] == form


def test_a_network_of_pictures_needs_no_sequence_nor_to_be_called_one():
    row = {**ROW, "model": "resnet50", "seq": "", "kind": "", "micro_batch": "8", "source": "a page"}
    table = {"global_batch": "", "tokens_per_s_per_gpu": "", "samples_per_s_total": "9"}
    [asked] = training.asked({**row, **table})
    assert (asked.quantity, asked.work) == ("samples_per_s", 8)
    with pytest.raises(NotCoveredError, match="seq"):
        list(training.asked({**row, "model": "llama-3-8b"}))


@pytest.mark.parametrize("notes", ["SDPA; torch.compile", "SDPA", "without torch.compile"])
def test_transformers_networks_are_compiled_where_notes_say_so(notes):
    [asked] = training.asked({**ROW, "source": "a page (transformers, Trainer)", "notes": notes})
    assert (asked.parts[0].settings.get("execution") == "compiled") == notes.startswith("SDPA; ")


def test_pictures_have_the_side_that_notes_state():
    """EfficientNet-V2's own recipe trains with smaller pictures than it is tested with."""
    row = {**ROW, "model": "efficientnet_v2_s", "seq": "", "kind": "cnn_train", "source": "a page (PyTorch)"}
    for notes, side in (("pictures of side 300", 300), ("", None)):
        [asked] = training.asked({**row, "notes": notes})
        assert asked.parts[0].settings.get("image") == side


@pytest.mark.parametrize(("when", "software"), [("2022-09", "megatron-2021"), ("2023-06", "megatron")])
def test_megatron_before_flash_attention_is_the_stack_of_its_paper(when, software):
    assert stack({"source": f"notebook (Megatron-LM, {when})"}, mode="train") == software


def test_experts_of_automodel_go_through_deepep():
    row = {**ROW, "source": "NVIDIA-NeMo/Automodel docs/performance-summary.md", "ep": "8"}
    assert stack(row, mode="train") == "megatron"  # Transformer Engine's layers
    assert filled(row, "megatron", "h100-sxm")["ep_kind"] == "tokens"


@pytest.mark.parametrize(
    ("notes", "name"),
    [("forward and backward, no optimizer", "none"), ("tf_cnn_benchmarks, SGD", "sgd"), ("", "adamw_fused")],
)
def test_pages_of_pictures_say_what_updates_the_weights(notes, name):
    assert optimizer({**ROW, "source": "README (PyTorch eager 1.7)", "notes": notes}, "torch-eager") == {
        "optimizer": name
    }


def test_an_encoder_reads_the_column_s_length_where_notes_say_how_long_targets_are():
    row = ROW | {"model": "T5-v1.1-base", "seq": "512", "notes": "inputs of 512 tokens, targets of 114"}
    row |= {"source": "README (PyTorch eager 2.0)", "tokens_per_s_per_gpu": "", "iter_time_s": "1"}
    (found,) = training.asked(row)
    settings = found.parts[0].settings
    assert (settings["seq"], settings["config"]["source_seq"]) == (114, 512)
