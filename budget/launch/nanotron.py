"""nanotron's YAML: sizes of a Llama or Qwen 2, and how it is trained. Source: nanotron-launch."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError
from ..named import Any
from ._shared import degree, one_of, optimizer, padded, when, whole

STACK = "torch-eager"
SIZES = "model.model_config."


def _only_llama(value: Any) -> Mapping[str, Any]:
    if value:
        raise InputError(f"{SIZES}is_starcoder_config", "allowed: configs of Llama and Qwen 2")
    return {}


FIELDS = {
    f"{SIZES}num_hidden_layers": whole("config.layers"), f"{SIZES}hidden_size": whole("config.d_model"),
    f"{SIZES}num_attention_heads": whole("config.heads"), f"{SIZES}intermediate_size": whole("config.d_ff"),
    f"{SIZES}num_key_value_heads": whole("config.kv_heads"), f"{SIZES}vocab_size": whole("vocab"),
    f"{SIZES}max_position_embeddings": whole("config.context"),
    f"{SIZES}hidden_act": one_of(f"{SIZES}hidden_act", {"silu": {}}),
    f"{SIZES}tie_word_embeddings": lambda v: {"config.tied": v is True},
    f"{SIZES}attention_bias": when({"config.qkv_bias": True}), f"{SIZES}is_starcoder_config": _only_llama,
    "model.make_vocab_size_divisible_by": whole("divisor"), "model.dtype": "dtype",
    "optimizer.accumulate_grad_in_fp32": "summed", "optimizer.zero_stage": "layout.zero",
    "optimizer.optimizer_factory.name": optimizer, "optimizer.optimizer_factory.torch_adam_is_fused": "fused",
    "optimizer.torch_adam_is_fused": "fused",
    "parallelism.dp": degree("dp"), "parallelism.tp": degree("tp"), "parallelism.pp": degree("pp"),
    "parallelism.context_parallel_size": degree("cp"), "parallelism.expert_parallel_size": degree("ep"),
    "parallelism.tp_mode": lambda v: {"layout.sp": int(v == "REDUCE_SCATTER")},
    "parallelism.recompute_layer": when({"recompute": "full"}),
    "tokens.micro_batch_size": whole("batch"), "tokens.sequence_length": whole("seq"),
    "tokens.batch_accumulation_per_replica": whole("accumulate"),
}  # fmt: skip
SILENT = (
    "checkpoints.", "data_stages", "general.", "lighteval", "logging.", "profiler", "tokenizer.",
    "s3_upload", "model.init_method", "model.ddp_bucket", "metrics_logging", "optimizer.clip_grad",
    "optimizer.learning_rate", "optimizer.weight_decay", "optimizer.optimizer_factory.adam_",
    "optimizer.adam_", "parallelism.pp_engine", "parallelism.tp_linear_async", "tokens.limit_",
    "tokens.train_steps", "tokens.val_check", f"{SIZES}bos_", f"{SIZES}eos_", f"{SIZES}pad_",
    f"{SIZES}initializer", f"{SIZES}is_llama", f"{SIZES}is_qwen2", f"{SIZES}pretraining_tp",
    f"{SIZES}rms_norm", f"{SIZES}rope_", f"{SIZES}use_cache", f"{SIZES}_attn_implementation", "slurm",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file with tables of tokens, of parallelism and of a model's own config."""
    model = table.get("model")
    return {"tokens", "parallelism"} <= set(table) and isinstance(model, Mapping) and "model_config" in model


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Llama's decoder; float32 copies of 16-bit weights where gradients are added up in float32."""
    tp, divisor, vocab = settings.get("layout.tp", 1), settings.pop("divisor", 1), settings.pop("vocab", None)
    if vocab is None:
        raise InputError(f"{SIZES}vocab_size", "missing; allowed: the vocabulary")
    settings["config.vocab"] = padded(vocab, divisor, tp)
    if tp == 1:
        settings.pop("layout.sp", None)
    if settings.pop("summed", False) and settings.get("dtype", "float32") != "float32":
        settings |= {"precision": "master", "grad_dtype": "fp32"}
    if settings.pop("fused", False) is True and settings.get("optimizer") == "adamw":
        settings["optimizer"] = "adamw_fused"
    llama = {
        "config.norm": "rms_norm", "config.positions": "rotary", "config.gated": True,
        "config.activation": "silu", "config.qkv_bias": False, "config.out_bias": False,
        "config.mlp_bias": False, "config.fused_qkv": True, "config.fused_gate": True,
    }  # fmt: skip
    return {"model": "transformer", "dtype": "float32", "optimizer": "adamw", **llama, **settings}
