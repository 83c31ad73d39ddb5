"""LLaMA-Factory's YAML. Source: llama-factory."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError, wrong
from ..named import Any
from ._shared import ALL, LIGER, in_16_bits, optimizer, saved, staged, targets, when, whole

QUANTIZED = {4: "nf4-dq", 8: "int8"}
STACK = "transformers"
FIELDS = {
    "model_name_or_path": "model", "stage": "stage", "finetuning_type": "kind", "cutoff_len": whole("seq"),
    "per_device_train_batch_size": whole("batch"), "gradient_accumulation_steps": whole("accumulate"),
    "torch_compile": when({"execution": "compiled"}),
    "bf16": when({"dtype": "bfloat16"}), "fp16": when({"dtype": "float16"}), "optim": optimizer,
    "lora_rank": whole("lora_rank"), "lora_dropout": "lora_dropout", "lora_target": targets,
    "additional_target": saved, "oft_block_size": "oft_block_size", "oft_rank": "oft_rank",
    "oft_target": lambda v: {"target_modules": targets(v)["lora_targets"]},
    "use_dora": when({"use_dora": True}), "use_rslora": when({"use_rslora": True}),
    "quantization_bit": "bits", "deepspeed": staged,
    "enable_liger_kernel": LIGER,
    "disable_gradient_checkpointing": lambda v: {"recompute": "none"} if v else {},
}  # fmt: skip
SILENT = (
    "dataset", "template", "output_dir", "logging", "save", "plot_loss", "overwrite", "learning_rate",
    "lr_", "num_train_epochs", "warmup", "do_", "max_samples", "preprocessing", "val_size",
    "per_device_eval", "eval", "report_to", "lora_alpha", "ddp_timeout", "trust_remote_code", "resume",
    "max_grad_norm", "flash_attn", "dataloader", "seed", "weight_decay", "max_steps",
)  # fmt: skip


LORA = ("lora_rank", "lora_dropout", "lora_targets", "use_dora", "use_rslora")
OFT = ("oft_block_size", "oft_rank", "target_modules")


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with a type of fine-tuning."""
    return "finetuning_type" in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """By default it recomputes, and adapts all linear layers. Raises InputError."""
    kind, stage, bits = settings.pop("kind"), settings.pop("stage", "sft"), settings.pop("bits", None)
    if kind not in ("full", "lora", "oft"):
        raise wrong("finetuning_type", kind, "full, lora, oft")
    if stage not in ("pt", "sft"):
        raise wrong("stage", stage, "pt, sft")
    others = {"lora": OFT, "oft": LORA}.get(kind, (*LORA, *OFT, "modules_to_save"))
    settings = {"recompute": "full", "optimizer": "adamw_fused"} | {
        name: value for name, value in settings.items() if name not in others
    }
    if settings.pop("deepspeed", False) and kind == "full":
        return in_16_bits(settings, deepspeed=True)
    if kind == "full":
        return settings
    if bits is not None:
        if bits not in QUANTIZED:
            raise wrong("quantization_bit", bits, "4, 8")
        settings["quantize"] = QUANTIZED[bits]
    if kind == "lora":
        return {"lora_rank": 8, "lora_targets": ALL, "lora_dtype": "fp32", **settings}
    if settings.pop("oft_rank", 0):
        raise InputError("oft_rank", "blocks of a number are not modelled; allowed: 0, with oft_block_size")
    return {"oft_block_size": 32, "target_modules": ALL, "adapter_dtype": "fp32", **settings}
