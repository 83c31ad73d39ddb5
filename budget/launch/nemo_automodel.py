"""NVIDIA NeMo Automodel's recipes: FSDP2 over a model of transformers. Source: nemo-automodel."""

from __future__ import annotations

from collections.abc import Mapping

from ..named import Any
from ._shared import ALL, LIGER, Settings, degree, optimizer, several, targets, when, whole

STACK = "transformers"
LOSSES = {"FusedLinearCrossEntropy": {"fuse": "cross_entropy"}}  # cut_cross_entropy's
RECOMPUTED = {"true": "full", "selective": "selective", "full": "full", "false": "none"}


def _last(meaning: Any) -> Any:
    """The meaning of a class, by its name without its module's."""
    return lambda path: meaning(str(path).rpartition(".")[2])


def _optimizer(name: str) -> Settings:
    return optimizer("adamw_fused" if name == "FusedAdam" else name)


def _targets(value: Any) -> Settings:
    """Modules by patterns: all linear ones, or those named behind the star."""
    names = [value] if isinstance(value, str) else list(value)
    if names in (["*_proj"], ["*"]):
        return {"lora_targets": ALL}
    return targets([name.lstrip("*.").rpartition(".")[2] for name in names])


FIELDS: dict[str, Any] = {
    "recipe": lambda name: several(name) if "Distillation" in str(name) else {},
    **{f"model.{part}pretrained_model_name_or_path": "model" for part in ("", "config.")},
    "model.torch_dtype": lambda dtype: {"weights": str(dtype).removeprefix("torch.")},
    "model.use_liger_kernel": LIGER,
    "step_scheduler.local_batch_size": whole("batch"),
    "step_scheduler.global_batch_size": whole("global"),
    "optimizer._target_": _last(_optimizer), "loss_fn._target_": _last(lambda name: LOSSES.get(name, {})),
    **{f"distributed.{axis}_size": degree(axis) for axis in ("tp", "pp", "cp", "ep")},
    "distributed.dp_size": degree("fsdp"), "distributed.dp_replicate_size": degree("dp"),
    "distributed.sequence_parallel": when({"layout.sp": 1}),
    "distributed.activation_checkpointing": lambda v: {"recompute": RECOMPUTED.get(str(v).lower(), v)},
    "packed_sequence.packed_sequence_size": lambda n: whole("seq")(n) if n else {},
    "dataset.seq_len": whole("seq"), "dataset.seq_length": whole("seq"),
    "compile.enabled": when({"stack": "torch-compile"}),
    "peft.dim": whole("lora_rank"), "peft.dropout": "lora_dropout", "peft.target_modules": _targets,
    "peft.match_all_linear": when({"lora_targets": ALL}),
    "quantization.load_in_4bit": when({"quantize": "nf4"}),
}  # fmt: skip
SILENT = (
    "benchmark", "checkpoint", "ci.", "clip_grad", "compile.", "dataloader", "dataset", "dist_env",
    "distributed._target_", "distributed.moe", "distributed.pipeline", "distributed.strategy", "eval",
    "logging", "lr_scheduler", "mlflow", "model._target_", "model.attn_implementation", "model.backend",
    "model.config", "model.trust_remote_code", "model.use_cache", "model.text_config.use_cache",
    "optimizer.", "peft._target_", "peft.alpha", "peft.use_triton", "processor", "quantization.bnb_4bit",
    "rng", "seed", "step_scheduler", "tokenizer", "validation", "wandb",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A recipe with a table of steps, and with one of this program's classes."""
    return isinstance(table.get("step_scheduler"), Mapping) and "local_batch_size" in table["step_scheduler"]


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Weights train in the dtype in which they are loaded, by default bfloat16; FSDP2 takes the devices that
    are left.
    """
    weights = settings.pop("weights", "bfloat16")
    how = {} if weights in ("float32", "fp32") else {"precision": "pure"}
    return {"layout.fsdp": -1, "dtype": "bfloat16", "recompute": "none", **how, **settings}
