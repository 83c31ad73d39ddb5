"""Megatron Bridge's YAML of overrides of a recipe: degrees, batches, lengths. The model is the recipe's.

Source: megatron-bridge-launch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..named import Any
from . import megatron
from ._shared import whole

STACK = "megatron-bridge"
SHARED = (
    "seq_length", "recompute_granularity", "sequence_parallel", "tensor_model_parallel_size",
    "pipeline_model_parallel_size", "context_parallel_size", "expert_model_parallel_size",
    "expert_tensor_parallel_size",
)  # fmt: skip
FIELDS = {
    **{f"model.{field}": megatron.FIELDS[field] for field in SHARED},
    "dataset.seq_length": whole("seq"),
    "train.micro_batch_size": whole("batch"), "train.global_batch_size": "global",
}  # fmt: skip
SILENT = (
    "train.train_iters", "train.eval", "optimizer.lr", "optimizer.min_lr", "scheduler", "checkpoint.",
    "rng.", "logger.", "dataset.", "profiling", "tokenizer",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file whose table `train` has both batches, beside a scheduler or a checkpoint."""
    train = table.get("train")
    both = isinstance(train, Mapping) and {"micro_batch_size", "global_batch_size"} <= set(train)
    return both and bool({"scheduler", "checkpoint", "ddp"} & set(table)) and "out_dir" not in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Mixed precision in bfloat16, as in all recipes."""
    if settings.get("layout.tp", 1) > 1:
        settings.setdefault("layout.sp", 0)
    return {"dtype": "bfloat16", "precision": "master", **settings}
