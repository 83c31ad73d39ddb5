"""LLM Foundry's YAML: MPT by its sizes, or a network of transformers, which Composer trains with FSDP.

A file does not have the number of devices that run it. Source: llm-foundry-yamls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import wrong
from ..named import Any
from ._shared import eager_if, one_of, several, targets, when, whole

STACK = "llm-foundry"
OURS, THEIRS = "mpt_causal_lm", "hf_causal_lm"
# Composer's own steps update one weight after the other. Source: composer-optim
OPTIMIZERS = {
    "decoupled_adamw": "adamw_loop", "adamw": "adamw", "decoupled_lionw": "lion",
    "decoupled_lionw_8b": "lion_8bit",
}  # fmt: skip
PRECISIONS = {
    "amp_bf16": {"dtype": "bfloat16", "precision": "autocast"},
    "amp_fp16": {"dtype": "float16", "precision": "autocast"},
    "amp_fp8": {"dtype": "bfloat16", "precision": "fp8"},
    "fp32": {"dtype": "float32"},
}
STRATEGIES = {"FULL_SHARD": 3, "SHARD_GRAD_OP": 2, "NO_SHARD": 0}
# The dtype in which gradients are added up.
MIXED = {"PURE": "bfloat16", "DEFAULT": "float32", "FULL": "float32"}


def _size(ours: str) -> Callable[[Any], Mapping[str, Any]]:
    """The setting for a whole number; none for a reference to another field, which has it too."""
    return lambda value: {} if str(value).startswith("${") else whole(ours)(value)


FIELDS = {
    "model.name": "kind",
    "model.pretrained_model_name_or_path": "model",
    "model.n_layers": whole("config.layers"), "model.d_model": whole("config.d_model"),
    "model.n_heads": whole("config.heads"), "model.vocab_size": whole("config.vocab"),
    "model.expansion_ratio": "expansion", "model.ffn_config.ffn_hidden_size": whole("config.d_ff"),
    "model.ffn_config.ffn_type": one_of("ffn_type", {"mptmlp": {}, "mptglu": {"config.gated": True}}),
    "model.no_bias": when({
        f"config.{name}": False for name in ("norm_bias", "qkv_bias", "out_bias", "mlp_bias")
    }),
    "model.learned_pos_emb": lambda v: {} if v else {"learned": False},
    "model.tie_word_embeddings": lambda v: {} if v else {"config.tied": False},
    "model.attn_config.alibi": when({"config.positions": "alibi"}),
    "model.attn_config.rope": when({"config.positions": "rotary"}),
    "model.attn_config.kv_n_heads": whole("config.kv_heads"),
    "model.attn_config.attn_impl": eager_if("torch"),
    "model.config_overrides.attn_config.attn_impl": eager_if("torch"),
    "model.peft_config.r": whole("lora_rank"), "model.peft_config.lora_dropout": "lora_dropout",
    "model.peft_config.target_modules": targets,
    "variables.max_seq_len": _size("seq"), "max_seq_len": _size("seq"),
    "variables.global_train_batch_size": _size("global"), "global_train_batch_size": _size("global"),
    "variables.device_train_microbatch_size": _size("batch"), "device_train_microbatch_size": _size("batch"),
    "optimizer.name": one_of("optimizer.name", OPTIMIZERS, "optimizer"),
    "precision": one_of("precision", PRECISIONS),
    "fsdp_config.sharding_strategy": one_of("sharding_strategy", STRATEGIES, "layout.zero"),
    "fsdp_config.mixed_precision": one_of("mixed_precision", MIXED, "sums"),
    "fsdp_config.activation_checkpointing": when({"recompute": "full"}),
    "fsdp_config.activation_cpu_offload": when({"offload": "activations"}),
    "reference_model": several,
}  # fmt: skip
SILENT = (
    "data", "seed", "global_seed", "run_name", "variables.", "tokenizer", "train_loader", "eval", "scheduler",
    "optimizer.", "algorithms.gradient_clipping", "max_duration", "device_eval", "icl", "progress_bar", "log",
    "console", "python_log", "callbacks", "save_", "load_", "autoresume", "dist_timeout", "model.pretrained",
    "model.init_", "model.use_auth_token", "model.max_seq_len", "model.use_flash_attention_2",
    "model.config_overrides.max_seq_len", "model.peft_config.peft_type", "model.peft_config.task_type",
    "model.peft_config.lora_alpha", "fsdp_config.activation_checkpointing_", "fsdp_config.limit",
    "fsdp_config.state_dict", "fsdp_config.verbose", "fsdp_config.use_orig", "fsdp_config.sync_module",
    "model.loss_fn", "model.config_overrides.attn_config.attn_uses_sequence_id",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with a kind of model and the samples of all devices in a step."""
    model = table.get("model")
    return isinstance(model, Mapping) and "name" in model and "device_train_microbatch_size" in table


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """MPT of these sizes, by default with learned positions. FSDP's weights lie in float32, and are cast
    before they are gathered. Raises InputError.
    """
    kind, sums = settings.pop("kind", ""), settings.pop("sums", "")
    ratio, learned = settings.pop("expansion", 4), settings.pop("learned", True)
    if "layout.zero" in settings and settings.get("precision") == "autocast":
        settings |= {"precision": "fsdp", **({"reduce_dtype": sums} if sums == "bfloat16" else {})}
    if kind == THEIRS:
        return {"stack": "transformers", **settings}
    if kind != OURS:
        raise wrong("model.name", kind, f"{OURS}, {THEIRS}")
    if "config.d_model" in settings and ratio != 4:
        settings = {"config.d_ff": int(ratio * settings["config.d_model"]), **settings}
    usual = {"config.activation": "gelu", "config.positions": "learned" if learned else "none"}
    usual |= {"config.context": settings["seq"]} if "seq" in settings else {}
    return {"model": "transformer", **usual, **settings}
