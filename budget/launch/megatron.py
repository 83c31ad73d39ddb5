"""Megatron-LM's arguments, from a shell's line or a YAML file. Source: megatron-lm."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from ..plan.recompute_modules import NAMES
from ._shared import degree, one_of, optimizer, padded, recompute, when, whole


def usual(name: str) -> Any:
    """A decoder's own default of a setting."""
    from ..arch.transformer import Config

    return Config.fields[name].default


CORE = "core_attn"  # --recompute selective
NORMS = {"LayerNorm": "layer_norm", "RMSNorm": "rms_norm"}
FLEX = {backend: {"layout.ep_kind": "tokens"} for backend in ("deepep", "hybridep", "ncclep")}
POSITIONS = {
    "learned_absolute": "learned",
    "rope": "rotary",
    "none": "none",
    "rotary": "rotary",
    "alibi": "alibi",
}


def _script(value: Any) -> Mapping[str, Any]:
    """No settings for the program that trains a decoder. Raises InputError for Megatron-LM's others."""
    others = [name for name in str(value).split(" or ") if name.startswith("pretrain_")]
    if others and others != ["pretrain_gpt.py"]:
        raise wrong("script", others[0], "pretrain_gpt.py")
    return {}


def _modules(value: Any) -> Mapping[str, Any]:
    """The modules that run again, a list or words."""
    return {"modules": tuple(value.split() if isinstance(value, str) else value)}


STACK = "megatron"
FIELDS = {
    "script": _script,
    "num_layers": whole("config.layers"), "hidden_size": whole("config.d_model"),
    "num_attention_heads": whole("config.heads"), "ffn_hidden_size": whole("config.d_ff"),
    "kv_channels": whole("config.head_dim"), "num_query_groups": whole("groups"),
    "group_query_attention": "grouped", "max_position_embeddings": whole("config.context"),
    "padded_vocab_size": whole("config.vocab"), "vocab_size": whole("vocab"),
    "make_vocab_size_divisible_by": whole("multiple"),
    "seq_length": whole("seq"), "micro_batch_size": whole("batch"), "global_batch_size": "global",
    "swiglu": when({"config.gated": True, "config.activation": "silu"}),
    "squared_relu": when({"config.activation": "squared_relu"}),
    "normalization": one_of("norm", NORMS, "config.norm"),
    "position_embedding_type": one_of("positions", POSITIONS, "config.positions"),
    "use_rotary_position_embeddings": when({"config.positions": "rotary"}),
    "untie_embeddings_and_output_weights": when({"config.tied": False}),
    "disable_bias_linear": when(
        {"config.qkv_bias": False, "config.out_bias": False, "config.mlp_bias": False}
    ),
    "add_qkv_bias": when({"config.qkv_bias": True}), "qk_layernorm": when({"config.qk_norm": True}),
    "num_experts": whole("config.experts"), "moe_router_topk": whole("config.active_experts"),
    "moe_ffn_hidden_size": whole("config.expert_d_ff"),
    "moe_enable_deepep": when({"layout.ep_kind": "tokens"}),
    "moe_flex_dispatcher_backend": one_of("moe_flex_dispatcher_backend", FLEX),
    "tp_comm_overlap": when({"layout.tp_overlap": 1}),
    "overlap_moe_expert_parallel_comm": when({"layout.ep_overlap": 1}),
    "bf16": when({"dtype": "bfloat16", "precision": "master"}),
    "fp16": when({"dtype": "float16", "precision": "master"}),
    "optimizer": optimizer, "recompute_granularity": recompute,
    "recompute_activations": when({"recompute": "selective"}), "recompute_modules": _modules,
    "activation_func_fp8_input_store": when({"activation_inputs": "fp8"}),
    "tensor_model_parallel_size": degree("tp"), "pipeline_model_parallel_size": degree("pp"),
    "context_parallel_size": degree("cp"), "expert_model_parallel_size": degree("ep"),
    "use_distributed_optimizer": when({"layout.zero": 1}), "sequence_parallel": when({"layout.sp": 1}),
    "expert_tensor_parallel_size": degree("etp"), "num_layers_per_virtual_pipeline_stage": whole("virtual"),
    "embed_layernorm": when({"config.embed_norm": True}), "zero_stage": "layout.zero",
    "checkpoint_activations": when({"recompute": "full"}),
    "cross_entropy_loss_fusion": "fused_loss", "cross_entropy_fusion_impl": "fused_by",
    "nproc_per_node": whole("each"), "nnodes": whole("nodes"),
}  # fmt: skip
SILENT = (
    "lr", "min_lr", "weight_decay", "adam_", "clip_grad", "init_method_std", "log_", "save", "load",
    "eval_", "data_path", "tokenizer_", "vocab_file", "merge_file", "split", "train_iters", "train_samples",
    "seed", "distributed_backend", "exit_", "tensorboard", "wandb", "num_workers", "attention_dropout",
    "hidden_dropout", "override_opt", "no_load", "no_save", "use_flash_attn", "deepspeed_activation",
    "node_rank", "master_", "norm_epsilon", "rotary_base", "ckpt_", "dataloader_type", "mock_data",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """Arguments with the number of layers and the width."""
    return {"num_layers", "hidden_size"} <= set(table)


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """A decoder. The vocabulary is padded so that tp divides it."""
    groups, grouped = settings.pop("groups", None), settings.pop("grouped", False)
    nodes, each, virtual = settings.pop("nodes", 1), settings.pop("each", None), settings.pop("virtual", None)
    if each:
        settings["layout.devices"] = nodes * each
    if virtual and "config.layers" in settings:
        settings["layout.vpp"] = max(settings["config.layers"] // (virtual * settings.get("layout.pp", 1)), 1)
    fused, by = settings.pop("fused_loss", False), settings.pop("fused_by", "native")
    if not fused or by == "native":  # Source: megatron-cross-entropy
        settings |= {"fuse": "norm,gate", "loss_parallel": "native" if fused else "in_place"}
    if settings.get("layout.tp", 1) > 1:
        settings.setdefault("layout.sp", 0)  # where it is not asked for
    vocab, multiple = settings.pop("vocab", None), settings.pop("multiple", 128)
    if vocab and "config.vocab" not in settings:
        settings["config.vocab"] = padded(vocab, multiple, settings.get("layout.tp", 1))
    modules = settings.pop("modules", (CORE,))
    if settings.get("recompute") == "selective":
        settings["recompute"] = "selective" if CORE in modules else "none"
        others = [name for name in modules if name != CORE]
        if others:
            settings["recompute_modules"] = ",".join(name for name in others if name in NAMES)
        settings["unsaid"] = tuple(f"recompute_modules {name}" for name in others if name not in NAMES)
    if "config.vocab" not in settings:
        unsaid = f"vocab_size (the tokenizer's: {usual('vocab'):,} taken)"
        settings["unsaid"] = (*settings.get("unsaid", ()), unsaid)
    if grouped and groups:
        settings["config.kv_heads"] = groups
    width = settings.get("config.d_model")
    if settings.get("config.gated") and width and "config.d_ff" not in settings:
        settings["config.d_ff"] = int(4 * width * 2 / 3) // 64 * 64  # Source: megatron-lm
    bias = {"config.activation": "gelu", "config.fused_qkv": True}
    return {"model": "transformer", "dtype": "float32", "optimizer": "adamw", **bias, **settings}
