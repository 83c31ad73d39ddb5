"""GPT-NeoX's YAML: Megatron-LM's sizes beside DeepSpeed's training. Source: gpt-neox-launch."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from . import deepspeed
from ._shared import degree, one_of, padded, when, whole
from .megatron import usual

STACK = "megatron-deepspeed"
NORMS = {"layernorm": "layer_norm", "rmsnorm": "rms_norm"}
POSITIONS = {"learned": "learned", "rotary": "rotary", "alibi": "alibi", "none": "none"}
GATED = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}
PLAIN = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "mish": "mish"}
ACTIVATIONS = {
    name: {"config.activation": ours, "config.gated": gated}
    for names, gated in ((GATED, True), (PLAIN, False))
    for name, ours in names.items()
}
PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "fp16": {"dtype": "float16", "precision": "master"}, "fp32": {},
    "bfloat16": {"dtype": "bfloat16", "precision": "master"},
}  # fmt: skip
PLAIN_ATTENTION = ("global", "flash")


def _attention(value: Any) -> Mapping[str, Any]:
    kinds = [kind for kinds, _ in value for kind in kinds]
    for kind in kinds:
        if kind not in PLAIN_ATTENTION:
            raise wrong("attention_config", kind, ", ".join(PLAIN_ATTENTION))
    return {}


def _without(*biases: str) -> Any:
    return lambda value: {f"config.{bias}": False for bias in biases} if value is False else {}


FIELDS = {
    **{field: meaning for field, meaning in deepspeed.FIELDS.items() if "autotp" not in field},
    "precision": one_of("precision", PRECISIONS),
    "num_layers": whole("config.layers"), "hidden_size": whole("config.d_model"),
    "num_attention_heads": whole("config.heads"), "num_kv_heads": whole("config.kv_heads"),
    "intermediate_size": whole("wide"), "mlp_multiple_of": whole("multiple"),
    "max_position_embeddings": whole("config.context"), "seq_length": whole("seq"),
    "make_vocab_size_divisible_by": whole("divisor"), "vocab_size": whole("vocab"),
    "norm": one_of("norm", NORMS, "config.norm"),
    "pos_emb": one_of("positions", POSITIONS, "config.positions"),
    "rotary_pct": "config.rotary_fraction", "no_weight_tying": lambda v: {"config.tied": v is not True},
    "gpt_j_residual": when({"config.residual": "parallel_two_norms"}),
    "gpt_j_tied": when({"one": True}), "attention_config": _attention,
    "activation": one_of("activation", ACTIVATIONS),
    "use_bias_in_norms": _without("norm_bias"), "use_bias_in_attn_linear": _without("qkv_bias", "out_bias"),
    "use_bias_in_mlp": _without("mlp_bias"), "use_qk_layernorm": when({"config.qk_norm": True}),
    "hidden_dropout": "config.dropout", "attention_dropout": "config.attention_dropout",
    "model_parallel_size": degree("tp"), "pipe_parallel_size": degree("pp"),
    "sequence_parallel": when({"layout.sp": 1}), "checkpoint_activations": when({"recompute": "full"}),
}  # fmt: skip
SILENT = (
    *deepspeed.SILENT, "zero_optimization.allgather", "zero_optimization.reduce", "zero_optimization.load",
    "output_layer_parallelism", "scaled_", "bias_gelu_fusion", "bias_dropout_fusion", "init_method",
    "output_layer_init", "min_lr", "lr_", "warmup", "train_iters", "train_epochs", "eval_", "log_", "data_",
    "num_workers", "checkpoint_factor", "checkpoint_num_layers", "extra_save", "distributed_backend",
    "keep_last", "save", "load", "tokenizer_type", "vocab_file", "merge_file", "weight_decay",
    "rms_norm_epsilon", "layernorm_epsilon", "rotary_emb_base", "synchronize_each_layer", "launcher",
    "deepspeed", "split", "tensorboard", "use_wandb", "train_data", "valid_data", "test_data", "hostfile",
    "seed",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with sizes of a network and GPT-NeoX's own words for parallelism or positions."""
    return {"num_layers", "hidden_size"} <= set(table) and bool(
        {"pipe_parallel_size", "model_parallel_size", "pos_emb"} & set(table)
    )


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """A decoder; a gated feed-forward is two thirds as wide, and the vocabulary is padded as Megatron's."""
    tp, multiple = settings.get("layout.tp", 1), settings.pop("multiple", 1)
    wide = settings.pop("wide", 4 * settings.get("config.d_model", usual("d_model")))
    if settings.get("config.gated"):
        wide = int(wide * 2 / 3) // 2
    settings["config.d_ff"] = multiple * -(-wide // multiple)
    if settings.pop("one", False) and settings.get("config.residual"):
        settings["config.residual"] = "parallel"
    divisor, vocab = settings.pop("divisor", 128), settings.pop("vocab", None)
    if vocab is None:
        vocab = usual("vocab")
        settings["unsaid"] = (f"vocab_size (the tokenizer's: {vocab:,} taken)",)
    if tp > 1:
        settings.setdefault("layout.sp", 0)
    decoder = {"config.activation": "gelu", "config.fused_qkv": True, "config.rotary_fraction": 1.0}
    settings["config.vocab"] = padded(vocab, divisor, tp)
    return {"model": "transformer", "optimizer": "adam", **decoder, **deepspeed.finish(settings)}
