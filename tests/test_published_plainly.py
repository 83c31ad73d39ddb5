"""Words of a stranger's columns of memory mean what the tables' own do."""

import pytest
from budget.bench.published import memory
from budget.bench.published.rows import NotCoveredError

ROW = {
    **dict.fromkeys((*memory.COLUMNS, *memory.NUMBERS, "notes"), ""),
    "source": "a page (transformers)", "scenario": "finetune", "model": "llama-3.1-8b", "gpu": "H100",
    "n_gpus": "1", "micro_batch": "1", "seq": "2048", "precision": "bf16", "optimizer": "AdamW",
    "recompute": "none", "method": "full", "measured_gb": "50", "metric": "GB",
}  # fmt: skip
EIGHT = {"n_gpus": "8", "zero_stage": "none"}
NF4 = {"method": "qlora", "quant": "nf4"}


def settings_of(**more):
    """The settings of a row with these columns."""
    (found,) = memory.asked({**ROW, **more})
    return found.parts[0].settings


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        *(
            ({"recompute": w}, {"recompute": "full"})
            for w in ("on", "True", "AC", "activation checkpointing")
        ),
        *(({"precision": w}, {"precision": "bf16"}) for w in ("BF16", "bfloat16")),
        ({"precision": "mixed bf16"}, {"precision": "bf16 amp"}),
        ({"precision": "pure bf16"}, {"precision": "bf16 pure"}),
        *(({"method": w}, {"method": "full"}) for w in ("Full fine-tuning", "FFT", "SFT")),
        ({"method": "LoRA r=16"}, {"method": "lora", "notes": "rank 16"}),
        ({"method": "DoRA"}, {"method": "lora", "notes": "DoRA"}),
        *(({"method": "QLoRA", "quant": w}, NF4) for w in ("4bit", "bnb 4-bit", "int4", "4-bit NF4", "")),
        ({"method": "LoRA", "quant": "4-bit"}, NF4),
        ({"method": "LoRA", "quant": "8bit"}, {"method": "qlora", "quant": "int8"}),
        ({"method": "QLoRA", "quant": "NF4 + double quantization"}, {"method": "qlora", "quant": "nf4-dq"}),
        ({"method": "LoRA", "quant": "-"}, {"method": "lora"}),
        *(({"scenario": w}, {"scenario": "finetune"}) for w in ("training", "sft", "fine-tuning")),
        ({"scenario": "LoRA", "method": ""}, {"method": "lora"}),
        ({"scenario": "pre-training"}, {"scenario": "pretrain"}),
    ],
)
def test_words_of_columns(words, ours):
    assert settings_of(**words) == settings_of(**ours)


@pytest.mark.parametrize(
    ("word", "stage"),
    [
        ("DeepSpeed ZeRO-3", 3), ("Stage 3", 3), ("3", 3), ("zero_3", 3), ("ZeRO 2", 2),
        ("deepspeed zero2", 2), ("SHARD_GRAD_OP", 2), ("PyTorch FSDP", 3), ("fully_shard", 3),
        ("DDP", 0), ("-", 0),
    ],
)  # fmt: skip
def test_stages_of_zero(word, stage):
    assert settings_of(**{**EIGHT, "zero_stage": word})["layout"]["zero"] == stage


@pytest.mark.parametrize(
    ("word", "form"), [("bnb 4-bit", "nf4"), ("bitsandbytes int8", "int8"), ("bnb nf4", "nf4")]
)
def test_weights_of_few_bits_that_generate(word, form):
    assert settings_of(scenario="generation", method="", quant=word)["quantize"] == form


def test_a_stage_that_is_not_known_is_no_guess():
    with pytest.raises(NotCoveredError, match="zero_stage 'deepspeed'"):
        settings_of(**{**EIGHT, "zero_stage": "DeepSpeed"})
