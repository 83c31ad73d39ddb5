"""MaxText's YAML, or the words behind its program: `python3 -m MaxText.train base.yml model_name=llama3-8b`.

All other settings are base.yml's: 12 sequences a device of 2,048 tokens, all of a layer recomputed, float32
weights, FSDP over the devices of a slice. Each device of tp, cp and pp counts as a device with its sequences,
so a copy of the network takes as many times more. Source: maxtext-defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from ..errors import InputError, shown, wrong
from ..named import Any
from ._shared import Settings, degree, eager_if, one_of, several, when, whole

STACK = "maxtext"
NAMES = {
    **{f"llama2-{n}": f"llama-2-{n}" for n in ("7b", "13b", "70b")},
    **{f"llama3-{n}": f"llama-3-{n}" for n in ("8b", "70b", "405b")},
    **{f"llama3.1-{n}": f"llama-3.1-{n}" for n in ("8b", "70b", "405b")},
    "llama3.3-70b": "llama-3.3-70b", "llama4-17b-16e": "llama-4-scout", "llama4-17b-128e": "llama-4-maverick",
    "mistral-7b": "mistral-7b", "mixtral-8x7b": "mixtral-8x7b", "mixtral-8x22b": "mixtral-8x22b",
    **{f"gemma-{n}": f"gemma-{n}" for n in ("2b", "7b")},
    **{f"gemma2-{n}": f"gemma-2-{n}" for n in ("2b", "9b", "27b")},
    "deepseek2-16b": "deepseek-v2-lite", "deepseek2-236b": "deepseek-v2", "deepseek3-671b": "deepseek-v3",
    "gpt-oss-20b": "gpt-oss-20b", "gpt-oss-120b": "gpt-oss-120b", "gpt3-175b": "gpt3-175b",
}  # fmt: skip
REMAT: Mapping[str, Settings] = (
    {"full": {"recompute": "full"}}
    | {word: {"recompute": "keep_products"} for word in ("minimal", "minimal_with_context")}
    | {
        word: {"recompute": "none", "recompute_modules": "layernorm,mlp"}
        for word in ("save_dot_except_mlp", "save_dot_except_mlpwi", "save_dot_with_context_except_mlp")
    }
)
# Axes of its mesh, within a slice (ici) and between slices (dcn).
AXES = {
    "data": "dp", "fsdp": "fsdp", "fsdp_transpose": "fsdp", "tensor": "tp", "tensor_sequence": "tp",
    "context": "cp", "context_usp_ulysses": "cp", "sequence": "cp", "pipeline": "pp", "expert": "ep",
}  # fmt: skip


def _axis(name: str) -> Callable[[Any], Settings]:
    """A degree, by the axis and the kind of its links; -1 stands for all devices that are left."""
    return lambda value: {f"degree {name}": degree(name)(value)[f"layout.{name}"]}


def _batch(value: Any) -> Settings:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise wrong("batch", value, "numbers above 0")
    return {"each": value}


def _remat(value: Any) -> Settings:
    return REMAT.get(value) or {"unsaid": (f"remat_policy {shown(value, 30)} (taken for full)",)}


FIELDS = {
    "model_name": one_of("model_name", NAMES, "model"), "per_device_batch_size": _batch,
    "max_target_length": whole("seq"), "gradient_accumulation_steps": whole("accumulate"),
    "remat_policy": _remat, "dtype": "dtype", "weight_dtype": "weights",
    "opt_type": one_of("opt_type", {"adamw": "adamw", "adam_pax": "adamw", "sgd": "sgd"}, "optimizer"),
    "attention": eager_if("dot_product"), "optimizer_memory_host_offload": when({"offload": "optimizer"}),
    "shard_optimizer_over_data": when({"over data": True}), "use_dpo": lambda v: several("dpo") if v else {},
    "num_pipeline_microbatches": whole("micro"),
    **{f"{links}_{axis}_parallelism": _axis(f"{links}_{axis}") for links in ("ici", "dcn") for axis in AXES},
}  # fmt: skip
SILENT = (
    "base_config", "base_output", "run_name", "steps", "dataset", "hf_", "grain", "tokenizer", "tokenize_",
    "train_split", "train_data", "eval", "load_", "save_", "checkpoint", "enable_", "async_", "max_num_check",
    "learning_rate", "cosine_", "warmup_", "adam_", "gradient_clipping", "profiler", "profile_", "skip_",
    "upload_", "monitor_", "metrics", "gcs_", "log_", "hardware", "jax_", "compile", "dump_", "scan_layers",
    "reuse_example", "packing", "init_weights", "data_shuffle", "num_slices", "sa_", "use_sft", "add_",
    "use_iota", "vertex", "use_vertex", "num_epoch", "goodput", "override_", "sharding_tolerance", "target_",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file, or a program's words, with a field of its own."""
    own = {"per_device_batch_size", "max_target_length", "remat_policy"} & set(table)
    return bool(own) or any(str(name).startswith("ici_") for name in table)


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Degrees of both kinds of links together, and the batch of a copy of the network. Raises InputError."""
    if "model" not in settings:
        raise InputError("model_name", f"missing; allowed: {', '.join(NAMES)}")
    named = [name for name in settings if name.startswith("degree ")]
    degrees = {name.removeprefix("degree "): settings.pop(name) for name in named}
    if degrees.get("dcn_data") == -1:  # as many as there are slices: one, where nothing says more
        degrees.pop("dcn_data")
    degrees = {"ici_fsdp": -1, **degrees}
    by_axis = {axis: [n for name, n in degrees.items() if AXES[name[4:]] == axis] for axis in AXES.values()}
    whole_of = {axis: -1 if -1 in lengths else prod(lengths) for axis, lengths in by_axis.items()}
    copies, experts = whole_of.pop("fsdp"), whole_of["ep"]
    layout = {f"layout.{axis}": n for axis, n in whole_of.items() if n != 1}
    if copies != 1 or experts != 1:  # experts' devices have sequences and parts of the weights, too
        layout["layout.fsdp"] = copies if copies < 0 else copies * max(experts, 1)
    elif settings.pop("over data", False) and whole_of["dp"] > 1:
        layout["layout.zero"] = 1
    settings.pop("over data", None)
    micro = settings.pop("micro", whole_of["pp"])
    batch = settings.pop("each", 12) * whole_of["tp"] * whole_of["cp"] * whole_of["pp"] / micro
    if batch != int(batch) or batch < 1:
        raise InputError(
            "per_device_batch_size",
            f"a copy of the network takes {batch:g} sequences; allowed: whole numbers",
        )
    if micro > 1:
        settings["accumulate"] = settings.get("accumulate", 1) * micro
    if settings.pop("weights", "float32") in ("bfloat16", "bf16"):
        settings["precision"] = "pure"
    return {"seq": 2048, "recompute": "full", "optimizer": "adamw", **settings, "batch": int(batch), **layout}
