"""transformers' TrainingArguments, and TRL's ModelConfig beside them. Sources: transformers, trl."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..named import Any
from ._shared import LIGER, Beside, Told, one_network, optimizer, saved, several, targets, when, whole

STACK = "transformers"
# Fields that training on preferences or rewards alone has, where a file says no other word of it.
REWARDS = (
    "beta", "dpo_beta", "max_prompt_length", "max_completion_length", "num_generations", "reward_funcs",
    "reward_model_path", "reference_model_name_or_path",
)  # fmt: skip
PEFT = when({"peft": True})
SHARDED = {"full_shard": 3, "shard_grad_op": 2, "no_shard": 0}  # transformers' words, to a stage of ZeRO
BESIDE = ("deepspeed", "config_file", "use_fsdp", "use_deepspeed")  # what says elsewhere how devices share


def _processes(name: str) -> Callable[[Any], Told]:
    """So many of a launcher's processes; a range (1:4) or a word (gpu) is left to it."""
    return lambda value: {f"count {name}": value} if type(value) is int and value > 0 else {"beside": name}


def _beside(name: str) -> Callable[[Any], Told]:
    """What says elsewhere how devices share: a file that is here with what it says, or only its name."""

    def told(value: Any) -> Told:
        if isinstance(value, Beside):
            return {f"file {name}": value}
        return {"beside": name} if value is not False else {}

    return told


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
    """A file with its batch a device or, of TRL's, a model and its data; none of others' own fields."""
    mine = "per_device_train_batch_size" in table or {"model_name_or_path", "dataset_name"} <= set(table)
    return mine and not {"finetuning_type", "tuner_type", "train_type", "sft_type"} & set(table)


def finish(told: dict[str, Any]) -> dict[str, Any]:
    """Weights are loaded in the dtype of their files; the batch is 8 by default, the rank of adapters 16.

    TRL's SFT recomputes since 0.22, and takes 1,024 tokens at most, unless it is told otherwise.
    """
    told = _spread(told)
    four, eight, nested = (told.pop(name, False) for name in ("four", "eight", "nested"))
    if told.pop("sft", False):
        told = {"recompute": "full", "seq": 1024, **told}
    if not told.pop("peft", False):
        told = {name: value for name, value in told.items() if name not in LORA}
        return {"batch": 8, "optimizer": "adamw_fused", **told}
    if four or eight:
        told["quantize"] = "int8" if eight else "nf4-dq" if nested else "nf4"
    adapters = {"lora_rank": 16, "lora_dropout": 0.05, "lora_dtype": "fp32"}
    return {"batch": 8, "optimizer": "adamw_fused", **adapters, **told}


def _spread(told: dict[str, Any]) -> dict[str, Any]:
    """The launcher's processes as devices: copies of the network, or FSDP's parts of it, whose gradients are
    added up in the dtype of the pass. What a file beside says of them is not known.
    Source: accelerate-config.
    """
    nodes, each, all_of_them = (
        told.pop(f"count {name}", 0) for name in ("nnodes", "nproc_per_node", "num_processes")
    )
    devices, beside = all_of_them or max(nodes, 1) * max(each, 1), told.pop("beside", "")
    words = set(str(told.pop("fsdp", "")).lower().split()) - {"auto_wrap"}
    zero = SHARDED.get(*words) if len(words) == 1 else None
    if files := [told.pop(name) for name in [*told] if name.startswith("file ")]:
        return _as_files_say(told, files, devices)
    if beside or (words and (zero is None or devices == 1)):
        return {**told, "unsaid": [beside or "fsdp"]}
    if devices == 1:
        return told
    told = {**told, "layout.devices": devices, "layout.zero": zero or 0}
    few = None if told.get("peft") else told.get("dtype")
    return {**told, "precision": "fsdp", "reduce_dtype": few} if zero and few else told


def _as_files_say(told: dict[str, Any], files: list[Beside], devices: int) -> dict[str, Any]:
    """The same with what accelerate's or DeepSpeed's files say. What the program is told itself wins, and
    adapters have a precision of their own.
    """
    said = {name: value for file in files for name, value in file.told.items()}
    sixteen = told.get("dtype", "float32") != "float32"
    if sixteen and any(file.form == "deepspeed" for file in files):
        said["precision"] = "master"  # also where its own field is left to the Trainer (auto)
    if told.get("peft"):
        said = {name: value for name, value in said.items() if name not in ("precision", "reduce_dtype")}
    if devices > 1:
        said["layout.devices"] = devices
    return {**said, **told}
