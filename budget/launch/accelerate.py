"""accelerate's config YAML: how a program is launched; the program has its own settings.

FSDP keeps float32 weights and adds gradients up in the dtype of the pass, DDP computes under autocast, and
DeepSpeed keeps float32 copies of 16-bit weights. Source: accelerate-config.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from ._shared import degree, whole

STACK = "transformers"
SHARDED = {  # FSDP's strategies by name and by number, to a stage of ZeRO
    "FULL_SHARD": 3, "SHARD_GRAD_OP": 2, "NO_SHARD": 0, "HYBRID_SHARD": "hybrid",
    "1": 3, "2": 2, "3": 0, "4": "hybrid",
}  # fmt: skip
DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
TYPES = ("NO", "MULTI_GPU", "MULTI_XPU", "MULTI_HPU", "FSDP", "DEEPSPEED")


def _set(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


FIELDS = {
    "distributed_type": "type", "mixed_precision": "mixed", "num_processes": whole("layout.devices"),
    "gradient_accumulation_steps": whole("accumulate"),
    "deepspeed_config.gradient_accumulation_steps": whole("accumulate"),
    "deepspeed_config.zero_stage": "stage",
    "deepspeed_config.offload_optimizer_device": lambda v: {"offload": "optimizer"} if v == "cpu" else {},
    "fsdp_config.fsdp_sharding_strategy": "strategy",
    "fsdp_config.fsdp_reshard_after_forward": "reshard",
    "fsdp_config.fsdp_version": "version",
    "parallelism_config.parallelism_config_dp_replicate_size": degree("dp"),
    "parallelism_config.parallelism_config_dp_shard_size": degree("fsdp"),
    "parallelism_config.parallelism_config_tp_size": degree("tp"),
    "parallelism_config.parallelism_config_cp_size": degree("cp"),
    "fsdp_config.fsdp_activation_checkpointing": lambda v: {"recompute": "full"} if _set(v) else {},
}  # fmt: skip
SILENT = (
    "compute_environment", "debug", "downcast_bf16", "machine_rank", "main_", "num_machines", "rdzv_backend",
    "same_network", "tpu_", "use_cpu", "gpu_ids", "enable_cpu_affinity", "fsdp_config.fsdp_auto_wrap_policy",
    "fsdp_config.fsdp_backward_prefetch", "fsdp_config.fsdp_cpu_ram", "fsdp_config.fsdp_forward_prefetch",
    "fsdp_config.fsdp_state_dict_type", "fsdp_config.fsdp_sync_module", "fsdp_config.fsdp_use_orig_params",
    "fsdp_config.fsdp_transformer_layer_cls", "fsdp_config.fsdp_min_num_params", "fsdp_config.fsdp_limit",
    "deepspeed_config.zero3_", "deepspeed_config.gradient_clipping", "deepspeed_config.deepspeed_multinode",
    "deepspeed_config.offload_param_nvme", "deepspeed_config.deepspeed_hostfile",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with a type of distribution."""
    return "distributed_type" in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """How weights are sharded, and in which precision. Raises InputError."""
    kind, mixed = settings.pop("type", "NO"), settings.pop("mixed", "no")
    mixed = "no" if mixed is False else mixed  # YAML's own reading of an unquoted no
    strategy, reshard = str(settings.pop("strategy", "FULL_SHARD")), settings.pop("reshard", True)
    stage, version = settings.pop("stage", 2), settings.pop("version", 1)
    if kind is False:
        kind = "NO"
    if kind not in TYPES:
        raise wrong("distributed_type", kind, ", ".join(TYPES))
    if mixed not in DTYPES:
        raise wrong("mixed_precision", mixed, ", ".join(DTYPES))
    few = {"dtype": DTYPES[mixed]}
    if kind == "DEEPSPEED":
        if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
            raise wrong("zero_stage", stage, "0, 1, 2, 3")
        master = {} if mixed == "no" else {**few, "precision": "master"}
        return {**settings, **master, "layout.zero": stage}
    settings = settings if mixed == "no" else {**settings, **few, "precision": "autocast"}
    if kind != "FSDP":
        return settings
    if strategy.rpartition(".")[2] not in SHARDED:
        raise wrong("fsdp_sharding_strategy", strategy, ", ".join(list(SHARDED)[:4]))
    zero: Any = SHARDED[strategy.rpartition(".")[2]]
    if version == 2:  # a flag in place of a strategy's name
        zero = 3 if _set(reshard) else 2
    if zero == "hybrid":
        zero, settings["unsaid"] = 3, ("fsdp_sharding_strategy HYBRID_SHARD (taken for FULL_SHARD)",)
    summed = {"precision": "fsdp", "reduce_dtype": DTYPES[mixed]} if mixed != "no" and zero else {}
    return {**settings, **summed, "layout.zero": zero}
