"""peft's adapter_config.json: the adapter of a base model, not how it is trained. Source: peft."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from ._shared import saved, targets, when

STACK = "transformers"
# By an adapter's kind: its fields to our settings, and the field of the modules that it changes.
KINDS: Mapping[str, Mapping[str, str]] = {
    "LORA": {"r": "lora_rank", "lora_dropout": "lora_dropout"},
    "ADALORA": {"init_r": "adalora_rank", "lora_dropout": "lora_dropout"},
    "LOHA": {"r": "loha_rank", "rank_dropout": "rank_dropout", "module_dropout": "module_dropout"},
    "LOKR": {"r": "lokr_rank", "rank_dropout": "rank_dropout", "module_dropout": "module_dropout"},
    "VERA": {"r": "vera_rank", "vera_dropout": "vera_dropout"},
    "OFT": {"oft_block_size": "oft_block_size", "module_dropout": "module_dropout"},
    "BOFT": {"boft_block_size": "boft_block_size", "boft_dropout": "boft_dropout"},
    "IA3": {},
    "PROMPT_TUNING": {"num_virtual_tokens": "prompt_tuning"},
    "P_TUNING": {"num_virtual_tokens": "p_tuning", "encoder_hidden_size": "p_tuning_hidden"},
    "PREFIX_TUNING": {"num_virtual_tokens": "prefix_tuning"},
}
COUNTS = (
    "lora_rank", "adalora_rank", "loha_rank", "lokr_rank", "vera_rank", "oft_block_size", "boft_block_size",
    "prompt_tuning", "p_tuning", "prefix_tuning",
)  # fmt: skip
SETTINGS = dict.fromkeys(theirs for fields in KINDS.values() for theirs in fields)


def _kind(value: Any) -> Mapping[str, Any]:
    if value not in KINDS:
        raise wrong("peft_type", value, ", ".join(KINDS))
    return {"kind": value}


def _usual(field: str, *allowed: Any) -> Any:
    """No settings where a field has the value that is modelled. Raises InputError for others."""

    def read(value: Any) -> Mapping[str, Any]:
        if value not in allowed:
            raise wrong(field, value, ", ".join(map(str, allowed)))
        return {}

    return read


# Ways to initialize LoRA: they change neither what trains nor its size.
FIRST = (True, False, "gaussian", "eva", "olora", "pissa", "corda", "loftq", "orthogonal")

FIELDS = {
    "init_lora_weights": _usual("init_lora_weights", *FIRST), "use_bdlora": _usual("use_bdlora", False),
    "feedforward_modules": _usual("feedforward_modules", ["down_proj"], ["fc2"], ["wo"], ["dense_4h_to_h"]),
    "decompose_factor": _usual("decompose_factor", -1), "decompose_both": _usual("decompose_both", False),
    "peft_type": _kind, "base_model_name_or_path": "model", **{name: f"given_{name}" for name in SETTINGS},
    "target_modules": targets, "modules_to_save": saved, "bias": "adapter_bias",
    "use_dora": when({"use_dora": True}), "use_rslora": when({"use_rslora": True}),
}  # fmt: skip
SILENT = (
    "qalora_group_size",
    "alpha", "auto_mapping", "fan_in_fan_out", "inference_mode", "init_weights", "init_ia3",
    "lora_alpha", "megatron_core", "revision", "task_type", "peft_version", "ensure_weight_tying",
    "token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules", "beta", "tinit", "tfinal",
    "deltaT", "orth_reg_weight", "total_step", "target_r", "d_initial", "projection_prng_key",
    "save_projection", "encoder_reparameterization_type", "encoder_dropout", "prompt_tuning_init",
    "tokenizer_",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with a kind of adapter."""
    return "peft_type" in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the kind; adapters are kept in float32."""
    kind = settings.pop("kind")
    given = {name: settings.pop(f"given_{name}", None) for name in SETTINGS}
    of_kind = {ours: given[theirs] for theirs, ours in KINDS[kind].items() if given[theirs] is not None}
    for theirs, ours in KINDS[kind].items():
        if ours in COUNTS and (given[theirs] is None or isinstance(given[theirs], bool) or given[theirs] < 1):
            raise wrong(theirs, given[theirs], "whole numbers from 1")
    if settings.get("adapter_bias") == "none":
        del settings["adapter_bias"]
    if kind in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"):
        return {**settings, **of_kind}
    if kind == "LORA":
        return {"lora_rank": 8, "lora_dtype": "fp32", **settings, **of_kind}
    if "lora_targets" in settings:
        settings["target_modules"] = settings.pop("lora_targets")
    return {"adapter_dtype": "fp32", **settings, **of_kind, **({"ia3": True} if kind == "IA3" else {})}
