"""Axolotl's YAML. Sources: axolotl, axolotl-lora."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from ._shared import ALL, degree, in_16_bits, one_of, optimizer, saved, several, staged, targets, when, whole

STACK = "transformers"


# FSDP's sharding by its strategy's name.
_strategy = one_of("sharding_strategy", {"FULL_SHARD": 3, "SHARD_GRAD_OP": 2, "NO_SHARD": 0}, "layout.zero")


def _resharded(value: Any) -> Mapping[str, Any]:
    """Without resharding, weights stay gathered after the forward pass: zero 2."""
    return {"layout.zero": 2} if value is False else {}


FIELDS = {
    "base_model": "model", "sequence_len": whole("seq"), "micro_batch_size": whole("batch"),
    "gradient_accumulation_steps": whole("accumulate"), "optimizer": optimizer,
    "torch_compile": when({"execution": "compiled"}),
    "bf16": lambda v: {"dtype": "bfloat16"} if v else {"wide": True}, "fp16": when({"dtype": "float16"}),
    "rl": several, "deepspeed": staged, "fsdp_version": lambda v: {"layout.zero": 3},
    "fsdp": lambda v: {"layout.zero": 3} if v else {}, "dp_shard_size": degree("fsdp"),
    "dp_replicate_size": degree("dp"),
    "fsdp_config.reshard_after_forward": _resharded, "fsdp_config.fsdp_reshard_after_forward": _resharded,
    "fsdp_config.sharding_strategy": _strategy, "fsdp_config.fsdp_sharding_strategy": _strategy,
    "fsdp_config.activation_checkpointing": when({"recompute": "full"}),
    "fsdp_config.fsdp_activation_checkpointing": when({"recompute": "full"}),
    "adapter": "adapter", "load_in_4bit": when({"four": True}), "load_in_8bit": when({"eight": True}),
    "lora_r": whole("lora_rank"), "lora_dropout": "lora_dropout", "lora_target_modules": targets,
    "peft_use_dora": when({"use_dora": True}), "peft_use_rslora": when({"use_rslora": True}),
    "lora_modules_to_save": saved,
    "peft_autocast_adapter_dtype": lambda v: {"lora_dtype": ""} if v is False else {},
    "lora_target_linear": when({"lora_targets": ALL}),
    "gradient_checkpointing": when({"recompute": "full"}),
    "liger_rms_norm": when({"fuse": "norm"}), "liger_glu_activation": when({"fuse": "gate"}),
    "liger_swiglu": when({"fuse": "gate"}), "liger_cross_entropy": when({"fuse": "loss"}),
    "liger_fused_linear_cross_entropy": when({"fuse": "chunked_cross_entropy"}),
    "lora_mlp_kernel": when({"fuse": "mlp,adapters"}), "lora_qkv_kernel": when({"fuse": "adapters"}),
    "lora_o_kernel": when({"fuse": "adapters"}),
    "cut_cross_entropy": when({"fuse": "cross_entropy"}),
    "tensor_parallel_size": lambda v: {"layout.tp": v}, "context_parallel_size": lambda v: {"layout.cp": v},
}  # fmt: skip
SILENT = (
    "datasets", "dataset_", "output_dir", "val_set", "wandb", "learning_rate", "lr_", "warmup",
    "num_epochs", "logging", "save", "eval", "weight_decay", "special_tokens", "model_type",
    "tokenizer_type", "hub_", "chat_template", "lora_alpha", "max_steps", "debug", "saves_per", "evals_per",
    "train_on_inputs", "pad_to", "flash_attention", "tf32", "seed", "resume", "plugins", "strict",
    "group_by", "attn_implementation", "trust_remote_code", "fsdp_config.state_dict",
    "fsdp_config.auto_wrap", "fsdp_config.transformer_layer", "fsdp_config.fsdp_state",
    "fsdp_config.fsdp_auto", "fsdp_config.fsdp_sync", "fsdp_config.fsdp_trans", "fsdp_config.fsdp_limit",
    "fsdp_config.limit", "fsdp_config.cpu_ram", "fsdp_config.fsdp_cpu_ram", "fsdp_config.sync",
    "loss_watchdog", "gradient_checkpointing_kwargs", "xformers", "lora_model_dir", "test_datasets",
)  # fmt: skip


LORA = (
    "lora_rank", "lora_dropout", "lora_targets", "lora_dtype", "modules_to_save", "use_dora", "use_rslora",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with a base model."""
    return "base_model" in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """LoRA or QLoRA, or all weights, in the 16 bits in which they are loaded. Raises InputError."""
    copies = settings.pop("deepspeed", False)
    if "mlp" in (parts := settings.get("fuse", "").split(",")):  # takes the place of another kernel's gate
        settings["fuse"] = ",".join(part for part in dict.fromkeys(parts) if part != "gate")
    if settings.pop("wide", False):  # neither bf16 nor, unless the file says so, fp16
        settings.setdefault("dtype", "float32")
    adapter = settings.pop("adapter", None)
    four, eight = settings.pop("four", False), settings.pop("eight", False)
    if adapter not in (None, "lora", "qlora"):
        raise wrong("adapter", adapter, "lora, qlora")
    if adapter is None:
        return in_16_bits({name: value for name, value in settings.items() if name not in LORA}, copies)
    if four or eight or adapter == "qlora":
        settings["quantize"] = "int8" if eight else "nf4-dq"
    return {"lora_rank": 8, "lora_dtype": "fp32", **settings}
