"""DeepSpeed's JSON: 16-bit weights with float32 copies, and where they lie. Source: deepspeed-config."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from ._shared import optimizer, when, whole

STACK = "transformers"  # most of its launch files go to transformers' Trainer
FIELDS = {
    "train_micro_batch_size_per_gpu": whole("batch"),
    "gradient_accumulation_steps": whole("accumulate"),
    "bf16.enabled": when({"dtype": "bfloat16", "precision": "master"}),
    "fp16.enabled": when({"dtype": "float16", "precision": "master"}),
    "optimizer.type": optimizer,
    "zero_optimization.stage": lambda v: {"layout.zero": _stage(v)},
    "zero_optimization.offload_optimizer.device": lambda v: {"offload": "optimizer"} if v == "cpu" else {},
    "tensor_parallel.autotp_size": lambda v: {"layout.tp": v},
    "train_batch_size": lambda v: {"global": v} if isinstance(v, int) else {},
}
SILENT = (
    "optimizer.params", "scheduler", "gradient_clipping", "steps_per_print", "wall_clock", "tensorboard",
    "wandb", "csv_monitor", "comms_logger", "flops_profiler", "fp16.", "bf16.", "zero_allow_untested",
    "zero_optimization.overlap_comm", "zero_optimization.contiguous_gradients", "dump_state",
    "prescale_gradients", "zero_optimization.gather_16bit", "zero_optimization.stage3_gather",
)  # fmt: skip
OWN = ("zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size")


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with one of DeepSpeed's own fields at the top, and without the network or the program around
    it.
    """
    return any(name in table for name in OWN) and not {"num_layers", "script"} & set(table)


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Float32 where neither fp16 nor bf16 is enabled."""
    return {"dtype": "float32", **settings} if "precision" not in settings else settings


def _stage(value: Any) -> int:
    if isinstance(value, bool) or value not in (0, 1, 2, 3):
        raise wrong("zero_optimization.stage", value, "0, 1, 2, 3")
    return int(value)
