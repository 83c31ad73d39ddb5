"""transformers' TrainingArguments, as JSON or YAML. Source: transformers."""

from __future__ import annotations

from collections.abc import Mapping

from ..named import Any
from ._shared import optimizer, when, whole

FIELDS = {
    "model_name_or_path": "model",
    "per_device_train_batch_size": whole("batch"),
    "gradient_accumulation_steps": whole("accumulate"),
    "bf16": when({"dtype": "bfloat16"}), "fp16": when({"dtype": "float16"}),
    "optim": optimizer, "gradient_checkpointing": when({"recompute": "full"}),
    "max_seq_length": whole("seq"), "max_length": whole("seq"), "model_max_length": whole("seq"),
}  # fmt: skip
SILENT = (
    "output_dir", "logging", "save", "eval", "learning_rate", "lr_", "warmup", "weight_decay", "adam_",
    "max_grad_norm", "num_train_epochs", "max_steps", "seed", "data", "report_to", "run_name",
    "push_to_hub", "hub_", "load_best", "metric_", "greater_is", "do_", "overwrite", "per_device_eval",
    "remove_unused", "label_", "disable_tqdm", "ddp_", "resume", "log_level", "group_by", "dispatch",
    "tf32",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with its batch a device, and none of LLaMA-Factory's own fields."""
    return "per_device_train_batch_size" in table and "finetuning_type" not in table


def finish(told: dict[str, Any]) -> dict[str, Any]:
    """Weights are loaded in the dtype of their files; the batch is 8 by default."""
    return {"batch": 8, "optimizer": "adamw_fused", **told}
