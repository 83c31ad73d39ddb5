"""transformers' TrainingArguments, and TRL's ModelConfig beside them. Sources: transformers, trl."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..named import Any
from ._shared import (
    LIGER,
    Beside,
    Settings,
    one_network,
    optimizer,
    saved,
    several,
    staged,
    targets,
    when,
    whole,
)

STACK = "transformers"
# Fields of training on preferences or rewards alone, for files that show it by nothing else.
REWARDS = (
    "beta", "dpo_beta", "max_prompt_length", "max_completion_length", "num_generations", "reward_funcs",
    "reward_model_path", "reference_model_name_or_path",
)  # fmt: skip
PEFT = when({"peft": True})
SHARDED = {"full_shard": 3, "shard_grad_op": 2, "no_shard": 0}  # transformers' words, to a stage of ZeRO
BESIDE = ("deepspeed", "config_file", "use_fsdp", "use_deepspeed")  # devices are then laid out elsewhere


def _processes(name: str) -> Callable[[Any], Settings]:
    """A launcher's number of processes; a range (1:4) or a word (gpu) is left to the launcher."""
    return lambda value: {f"count {name}": value} if type(value) is int and value > 0 else {"beside": name}


def _beside(name: str) -> Callable[[Any], Settings]:
    """Another file that lays devices out: with its settings where it is here, else only its name."""

    def settings(value: Any) -> Settings:
        if isinstance(value, Beside):
            return {f"file {name}": value}
        if name == "deepspeed" and "unsaid" not in (named := staged(value)):  # ds_z3_config.json
            file = Beside(value)
            file.form, file.settings = "deepspeed", {"layout.zero": named["layout.zero"]}
            file.known = file.left = ()
            return {f"file {name}": file}
        return {"beside": name} if value is not False else {}

    return settings


FIELDS = {
    "model_name_or_path": "model", "model_name": "model",
    "script": one_network, "per_device_train_batch_size": whole("batch"),
    "gradient_accumulation_steps": whole("accumulate"),
    "torch_compile": when({"execution": "compiled"}),
    "bf16": when({"dtype": "bfloat16"}), "fp16": when({"dtype": "float16"}),
    "optim": optimizer,
    "gradient_checkpointing": lambda value: when({"recompute": "full"})(value) or {"recompute": "none"},
    "trl": lambda script: {"sft": script == "sft"},
    **dict.fromkeys(REWARDS, several), **dict.fromkeys(("use_peft", "use_lora", "lora_enable"), PEFT),
    "lora_r": whole("lora_rank"), "r": lambda r: {**PEFT(True), **whole("lora_rank")(r)},  # unsloth's
    "lora_dropout": "lora_dropout",
    "lora_target_modules": targets, "lora_modules_to_save": saved,
    "use_dora": when({"use_dora": True}), "use_rslora": when({"use_rslora": True}),
    "load_in_4bit": when({"four": True}), "load_in_8bit": when({"eight": True}),
    "use_bnb_nested_quant": when({"nested": True}),
    "use_liger_kernel": LIGER, "use_liger": LIGER,
    **{name: _processes(name) for name in ("nnodes", "nproc_per_node", "num_processes")},
    "num_nodes": _processes("nnodes"), "num_gpus": _processes("nproc_per_node"),  # DeepSpeed's launcher
    "fsdp": "fsdp", **{name: _beside(name) for name in BESIDE},
    "max_seq_length": whole("seq"), "max_length": whole("seq"), "model_max_length": whole("seq"),
}  # fmt: skip
SILENT = (
    "output_dir", "logging", "save", "eval", "learning_rate", "lr_", "warmup", "weight_decay", "adam_",
    "max_grad_norm", "num_train_epochs", "max_steps", "seed", "data", "report_to", "run_name",
    "push_to_hub", "hub_", "load_best", "metric_", "greater_is", "do_", "overwrite", "per_device_eval",
    "remove_unused", "label_", "disable_tqdm", "ddp_", "resume", "log_level", "group_by", "dispatch",
    "tf32", "lora_alpha", "lora_task_type", "attn_implementation", "trust_remote_code", "model_revision",
    "torch_dtype", "bnb_4bit_quant_type",
)  # fmt: skip


LORA = ("lora_rank", "lora_dropout", "lora_targets", "modules_to_save", "use_dora", "use_rslora")


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with a device's batch or, for TRL, a model and its data, and without other programs' own
    fields.
    """
    mine = "per_device_train_batch_size" in table or {"model_name_or_path", "dataset_name"} <= set(table)
    return mine and not {"finetuning_type", "tuner_type", "train_type", "sft_type"} & set(table)


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Weights are loaded in the dtype of their files; the batch is 8 by default, the rank of adapters 16.

    TRL's SFT by default recomputes since 0.22, and takes 1,024 tokens at most.
    """
    settings = _spread(settings)
    four, eight, nested = (settings.pop(name, False) for name in ("four", "eight", "nested"))
    if settings.pop("sft", False):
        settings = {"recompute": "full", "seq": 1024, **settings}
    if not settings.pop("peft", False):
        settings = {name: value for name, value in settings.items() if name not in LORA}
        return {"batch": 8, "optimizer": "adamw_fused", **settings}
    if four or eight:
        settings["quantize"] = "int8" if eight else "nf4-dq" if nested else "nf4"
    adapters = {"lora_rank": 16, "lora_dropout": 0.05, "lora_dtype": "fp32"}
    return {"batch": 8, "optimizer": "adamw_fused", **adapters, **settings}


def _spread(settings: dict[str, Any]) -> dict[str, Any]:
    """The launcher's processes as devices: copies of the network, or FSDP's parts of it, whose gradients are
    added up in the dtype of the pass. Settings of another file that is not here are not known.
    Source: accelerate-config.
    """
    nodes, each, all_of_them = (
        settings.pop(f"count {name}", 0) for name in ("nnodes", "nproc_per_node", "num_processes")
    )
    devices, beside = all_of_them or max(nodes, 1) * max(each, 1), settings.pop("beside", "")
    words = set(str(settings.pop("fsdp", "")).lower().split()) - {"auto_wrap"}
    zero = SHARDED.get(*words) if len(words) == 1 else None
    if files := [settings.pop(name) for name in [*settings] if name.startswith("file ")]:
        return _as_files_say(settings, files, devices)
    if beside or (words and (zero is None or devices == 1)):
        return {**settings, "unsaid": [beside or "fsdp"]}
    if devices == 1:
        return settings
    settings = {**settings, "layout.devices": devices, "layout.zero": zero or 0}
    few = None if settings.get("peft") else settings.get("dtype")
    return {**settings, "precision": "fsdp", "reduce_dtype": few} if zero and few else settings


def _as_files_say(settings: dict[str, Any], files: list[Beside], devices: int) -> dict[str, Any]:
    """The settings with those of accelerate's or DeepSpeed's files. The program's own settings win, and
    adapters have a precision of their own.
    """
    from_files = {name: value for file in files for name, value in file.settings.items()}
    sixteen = settings.get("dtype", "float32") != "float32"
    if sixteen and any(file.form == "deepspeed" for file in files):
        from_files["precision"] = "master"  # also where its own field is left to the Trainer (auto)
    if settings.get("peft"):
        from_files = {
            name: value for name, value in from_files.items() if name not in ("precision", "reduce_dtype")
        }
    if devices > 1:
        from_files["layout.devices"] = devices
    return {**from_files, **settings}
