"""ms-swift's command line, `swift sft` and `swift pt`: transformers' Trainer with defaults of its own.

Source: ms-swift.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from . import training_arguments
from ._shared import ALL, in_16_bits, saved, several, targets, whole

STACK = "transformers"
TYPES = ("full", "lora")
QUANTIZED = {4: "nf4-dq", 8: "int8"}  # bitsandbytes', with the double quantization that is its default here
ZERO = {"zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}


def _zero(value: Any) -> Mapping[str, Any]:
    if value not in ZERO:
        raise wrong("deepspeed", value, ", ".join(ZERO))
    offload = {"offload": "optimizer"} if str(value).endswith("_offload") else {}
    return {"deepspeed": True, "layout.zero": ZERO[value], **offload}


FIELDS = {
    **training_arguments.FIELDS,
    "rlhf_type": several, "model": "model", "tuner_type": "kind", "train_type": "kind", "sft_type": "kind",
    "lora_rank": whole("lora_rank"), "target_modules": targets, "modules_to_save": saved,
    "max_length": whole("seq"), "torch_dtype": "dtype", "quant_bits": "bits", "deepspeed": _zero,
    "gradient_checkpointing": lambda v: {"recompute": "full" if v is True else "none"},
}  # fmt: skip
SILENT = (
    *(name for name in training_arguments.SILENT if name != "torch_dtype"), "load_from_cache",
    "split_dataset", "attn_impl", "model_name", "model_author", "model_type", "template", "system",
    "save_only", "task_type", "train_dataloader", "num_labels", "load_data_args", "use_hf", "quant_method",
    "bnb_4bit", "add_version", "create_checkpoint", "lazy_tokenize", "truncation", "ignore_args", "strict",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """Arguments with a batch a device and the words of this program alone."""
    return "per_device_train_batch_size" in table and bool(
        {"tuner_type", "train_type", "sft_type"} & set(table)
    )


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """By default LoRA on all linear layers, with recomputation. Where all weights train, they do so in the 16
    bits in which they are loaded, with float32 copies under DeepSpeed. Raises InputError.
    """
    kind, bits = settings.pop("kind", "lora"), settings.pop("bits", None)
    deepspeed = settings.pop("deepspeed", False)
    if kind not in TYPES:
        raise wrong("tuner_type", kind, ", ".join(TYPES))
    usual = {"batch": 1, "optimizer": "adamw_fused", "recompute": "full"}
    if kind == "full":
        weights = usual | {name: v for name, v in settings.items() if name not in training_arguments.LORA}
        return in_16_bits(weights, deepspeed)
    if bits is not None:
        if bits not in QUANTIZED:
            raise wrong("quant_bits", bits, "4, 8")
        settings["quantize"] = QUANTIZED[bits]
    adapter = {"lora_rank": 8, "lora_dropout": 0.05, "lora_targets": ALL, "lora_dtype": "fp32"}
    return {**usual, **adapter, **settings}
