"""LitGPT's YAML: fine-tuning with and without LoRA, and pre-training. Source: litgpt-launch."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import shown
from ..named import Any
from ._shared import one_of, optimizer, when, whole

STACK = "litgpt"
PRECISIONS = {
    "bf16-true": {"dtype": "bfloat16", "precision": "pure"},
    "16-true": {"dtype": "float16", "precision": "pure"},
    "32-true": {"dtype": "float32", "precision": "pure"},
    "bf16-mixed": {"dtype": "bfloat16", "precision": "autocast"},
    "16-mixed": {"dtype": "float16", "precision": "autocast"},
}
QUANTIZED = {"bnb.nf4": "nf4", "bnb.nf4-dq": "nf4-dq", "bnb.fp4": "fp4", "bnb.int8-training": "int8"}
# Whether a product has an adapter by default, and its names here.
TARGETS = {
    "lora_query": (True, "q"), "lora_key": (False, "k"), "lora_value": (True, "v"),
    "lora_projection": (False, "attn.o"), "lora_mlp": (False, "mlp"), "lora_head": (False, "head"),
}  # fmt: skip


def _hub(folder: Any) -> Mapping[str, Any]:
    """The model of a checkpoint's folder, whose path ends in the hub's name: the owner and the model."""
    return {"model": "/".join(str(folder).rstrip("/").split("/")[-2:]), "tuned": True}


FIELDS = {
    "checkpoint_dir": _hub, "model_name": "model",
    "precision": one_of("precision", PRECISIONS), "quantize": one_of("quantize", QUANTIZED, "quantize"),
    "devices": "each", "num_nodes": whole("nodes"), "lora_r": whole("rank"), "lora_dropout": "lora_dropout",
    **{name: name for name in TARGETS},
    "train.micro_batch_size": whole("batch"), "train.global_batch_size": whole("whole"),
    "train.max_seq_length": whole("seq"), "train.tie_embeddings": when({"config.tied": True}),
    "optimizer": optimizer, "optimizer.class_path": lambda v: optimizer(str(v).rpartition(".")[2]),
}  # fmt: skip
SILENT = (
    "out_dir", "lora_alpha", "data", "train.save", "train.log", "train.lr_", "train.epochs",
    "train.max_tokens", "train.max_steps", "train.max_norm", "train.min_lr", "train.max_time", "eval",
    "logger", "seed", "optimizer.init_args", "resume", "tokenizer_dir", "initial_", "access_token", "log",
    "optimizer_state",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with a folder for its output, whose table `train` has a batch of one device."""
    train = table.get("train")
    return isinstance(train, Mapping) and "micro_batch_size" in train and "out_dir" in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """LoRA where the file names its rank; on several devices FSDP, with checkpoints but for pre-training."""
    tuned, rank, total = settings.pop("tuned", False), settings.pop("rank", None), settings.pop("whole", None)
    chosen = {name: settings.pop(name, usual) for name, (usual, _) in TARGETS.items()}
    each, nodes = settings.pop("each", 1), settings.pop("nodes", 1)
    if rank is not None:
        names = ",".join(TARGETS[name][1] for name, on in chosen.items() if on)
        settings |= {"lora_rank": rank, "lora_targets": names}
    if isinstance(each, bool) or not isinstance(each, int):
        each, settings["unsaid"] = 1, (f"devices {shown(each)} (one taken)",)
    if each * nodes > 1:
        recompute = {"recompute": "full"} if tuned else {}
        settings |= {"layout.devices": each * nodes, "layout.zero": 3, **recompute}
        settings |= {"global": total} if total else {}
    elif total:
        settings["accumulate"] = max(total // settings.get("batch", 1), 1)
    return {"optimizer": "adamw" if tuned else "adamw_fused", **settings}
