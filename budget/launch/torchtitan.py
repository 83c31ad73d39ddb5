"""torchtitan's TOML. FSDP keeps float32 weights and computes in bfloat16; without it, autocast does.

Source: torchtitan.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from ._shared import degree, optimizer, recompute, whole

FLAVORS = {
    ("llama3", "8B"): "llama-3-8b", ("llama3", "70B"): "llama-3-70b", ("llama3", "405B"): "llama-3-405b",
    ("qwen3", "0.6B"): "qwen3-0.6b", ("qwen3", "1.7B"): "qwen3-1.7b", ("qwen3", "4B"): "qwen3-4b",
    ("qwen3", "8B"): "qwen3-8b", ("qwen3", "14B"): "qwen3-14b", ("qwen3", "32B"): "qwen3-32b",
    ("deepseek_v3", "671B"): "deepseek-v3",
}  # fmt: skip
STACK = "torchtitan"
COMPILED = ("model", "loss")  # what it compiles where compilation is on; it is off by default
FIELDS = {
    "model.name": "name", "model.flavor": "flavor",
    "training.local_batch_size": whole("batch"), "training.batch_size": whole("batch"),
    "training.seq_len": whole("seq"), "training.global_batch_size": "global",
    "training.mixed_precision_param": lambda v: {
        "dtype": v, **({"precision": "pure"} if v == "float32" else {}),
    },
    "training.mixed_precision_reduce": "reduce_dtype",
    "training.dtype": "weights",
    "optimizer.name": optimizer,
    "optimizer.implementation": lambda v: {"fused": v == "fused"},
    "activation_checkpoint.mode": recompute, "activation_checkpoint.selective_ac_option": "option",
    "compile.enable": "compiled", "training.compile": "compiled", "compile.components": "components",
    "parallelism.data_parallel_replicate_degree": degree("dp"),
    "parallelism.data_parallel_shard_degree": degree("fsdp"),
    "parallelism.tensor_parallel_degree": degree("tp"),
    "parallelism.pipeline_parallel_degree": degree("pp"),
    "parallelism.context_parallel_degree": degree("cp"),
    "parallelism.expert_parallel_degree": degree("ep"),
}  # fmt: skip
SILENT = (
    "job.", "profiling.", "metrics.", "comm.", "checkpoint.", "lr_scheduler.", "optimizer.lr",
    "optimizer.eps", "optimizer.beta", "optimizer.weight_decay", "training.steps", "training.dataset",
    "training.max_norm", "training.seed", "training.deterministic", "validation.", "model.hf_assets_path",
    "model.tokenizer_path", "model.print_after", "fault_tolerance.", "memory_estimation.",
    "training.gc_freq",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with tables `model` and `training`, of which the first has a flavor."""
    model = table.get("model")
    return isinstance(model, Mapping) and "flavor" in model and "training" in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """The model of a name and a flavor; bfloat16 by default. Raises InputError."""
    name, flavor = settings.pop("name", ""), settings.pop("flavor", "")
    if (name, flavor) not in FLAVORS:
        known = ", ".join(f"{a} {b}" for a, b in FLAVORS)
        raise wrong("model.flavor", f"{name} {flavor}", known)
    option = settings.pop("option", None)
    if settings.get("recompute") == "selective" and option is not None:
        if option not in ("op", "1"):
            raise wrong("selective_ac_option", option, "op, 1")
        settings["recompute"] = "keep_second_products" if option == "op" else "full"
    weights, fused = settings.pop("weights", "float32"), settings.pop("fused", True)
    sharded, summed = settings.get("layout.fsdp", -1) != 1, settings.pop("reduce_dtype", "float32")
    mixed = {"dtype": "bfloat16", "precision": "fsdp" if sharded else "autocast"}
    if weights == "bfloat16":
        mixed = {"dtype": "bfloat16", "precision": "pure"}
        settings.pop("precision", None)
    if fused and settings.get("optimizer", "adamw") == "adamw":
        settings["optimizer"] = "adamw_fused"
    parts = settings.pop("components", COMPILED) if settings.pop("compiled", False) is True else ()
    settings["execution"] = "compiled" if "model" in parts else "eager"
    if "loss" not in parts:
        settings["unsaid"] = ("a loss that is not compiled",)
    all_of = {**mixed, **settings}
    sums = {"reduce_dtype": summed} if all_of["precision"] == "fsdp" else {}
    return {"model": FLAVORS[name, flavor], **all_of, **sums}
