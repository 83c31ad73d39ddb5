"""ArcticTraining's YAML: a network of transformers with DeepSpeed. Source: arctic-training."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from . import deepspeed
from ._shared import LIGER, eager_if, one_of, several, targets, when, whole

STACK = "transformers"
OPTIMIZERS = {"fused_adam": "adamw_fused", "fusedadam": "adamw_fused", "cpu_adam": "adamw"}
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
TYPES = ("sft", "causal")
FIELDS = {
    "type": "kind", "model.name_or_path": "model", "model.dtype": one_of("model.dtype", DTYPES, "dtype"),
    "model.type": lambda v: LIGER(v == "liger"),
    "model.disable_activation_checkpoint": when({"recompute": "none"}),
    "model.attn_implementation": eager_if("eager"),
    "model.peft_config.r": whole("lora_rank"), "model.peft_config.lora_dropout": "lora_dropout",
    "model.peft_config.target_modules": targets,
    "micro_batch_size": whole("batch"), "gradient_accumulation_steps": whole("accumulate"),
    "data.max_length": whole("seq"), "sequence_parallel_size": whole("heads"),
    "activation_checkpoint_cpu_offload": when({"activations": True}),
    "optimizer.type": one_of("optimizer.type", OPTIMIZERS, "optimizer"),
    "deepspeed.zero_optimization.stage": deepspeed.FIELDS["zero_optimization.stage"],
    "deepspeed.zero_optimization.offload_optimizer.device": lambda v: {"optimizers": v == "cpu"},
    "ref_model": several, "teacher_model": several,
}  # fmt: skip
SILENT = (
    "code", "skip_validation", "tokenizer", "data.", "logger", "wandb", "scheduler", "optimizer.", "epochs",
    "loss_log", "train_log", "seed", "checkpoint", "train_iters", "eval", "exit_iteration", "min_iterations",
    "overfit", "mem_profiler", "kill_switch", "model.save_name", "model.peft_config.peft_type",
    "model.peft_config.lora_alpha", "model.peft_config.task_type", "deepspeed.seq_parallel_communication",
    *(f"deepspeed.{name}" for name in deepspeed.SILENT),
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file whose model has a name or path, with data, and a type, DeepSpeed's settings or a batch."""
    model = table.get("model")
    named = isinstance(model, Mapping) and "name_or_path" in model
    return named and "data" in table and bool({"deepspeed", "micro_batch_size", "type"} & set(table))


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed's stage 2 and bfloat16 by default, and full recomputation. Raises InputError."""
    kind, heads = settings.pop("kind", "sft"), settings.pop("heads", 1)
    if kind not in TYPES:
        raise wrong("type", kind, ", ".join(TYPES))
    away = [name for name in ("activations", "optimizers") if settings.pop(name, False)]
    if away:
        settings["offload"] = ",".join(away).replace("optimizers", "optimizer")
    if heads > 1:  # DeepSpeed's Ulysses
        settings |= {"layout.cp": heads, "layout.cp_kind": "ulysses"}
    usual: dict[str, Any] = {"batch": 1, "dtype": "bfloat16", "recompute": "full", "layout.zero": 2}
    usual["optimizer"] = "adamw_fused"
    if "lora_rank" not in settings and settings.get("dtype") != "float32":
        usual["precision"] = "master"
    return usual | settings
