"""torchtune's YAML: fine-tuning of all weights, and LoRA with and without NF4, in one dtype throughout.

The program and the number of devices are on the command line, not in the file; the file's degrees are read.
Source: torchtune-launch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import wrong
from ..named import Any
from ._shared import degree, one_of, several, targets, when, whole

STACK = "torch-eager"
PRESETS = {  # torchtune's builders
    "llama2_7b": "llama-2-7b", "llama2_13b": "llama-2-13b", "llama2_70b": "llama-2-70b",
    "code_llama2_7b": "codellama-7b", "code_llama2_13b": "codellama-13b", "code_llama2_70b": "codellama-70b",
    "llama3_8b": "llama-3-8b", "llama3_70b": "llama-3-70b", "llama3_1_8b": "llama-3.1-8b",
    "llama3_1_70b": "llama-3.1-70b", "llama3_1_405b": "llama-3.1-405b", "llama3_2_1b": "llama-3.2-1b",
    "llama3_2_3b": "llama-3.2-3b", "llama3_3_70b": "llama-3.3-70b", "mistral_7b": "mistral-7b",
    "gemma_2b": "gemma-2b", "gemma_7b": "gemma-7b", "gemma2_2b": "gemma-2-2b", "gemma2_9b": "gemma-2-9b",
    "gemma2_27b": "gemma-2-27b", "phi3_mini": "phi-3-mini", "phi4_14b": "phi-4",
    "qwen2_0_5b": "qwen2-0.5b", "qwen2_1_5b": "qwen2-1.5b", "qwen2_7b": "qwen2-7b",
    "qwen2_5_0_5b": "qwen2.5-0.5b", "qwen2_5_1_5b": "qwen2.5-1.5b", "qwen2_5_3b": "qwen2.5-3b",
    "qwen2_5_7b": "qwen2.5-7b", "qwen2_5_14b": "qwen2.5-14b", "qwen2_5_32b": "qwen2.5-32b",
    "qwen2_5_72b": "qwen2.5-72b", "qwen3_0_6b": "qwen3-0.6b", "qwen3_1_7b": "qwen3-1.7b",
    "qwen3_4b": "qwen3-4b", "qwen3_8b": "qwen3-8b", "qwen3_14b": "qwen3-14b", "qwen3_32b": "qwen3-32b",
}  # fmt: skip
OPTIMIZERS = {
    "torch.optim.AdamW": "adamw", "torch.optim.Adam": "adam", "torch.optim.SGD": "sgd",
    "bitsandbytes.optim.PagedAdamW": "adamw_32bit", "bitsandbytes.optim.PagedAdamW8bit": "adamw_8bit",
    "bitsandbytes.optim.AdamW": "adamw_32bit", "bitsandbytes.optim.AdamW8bit": "adamw_8bit",
}  # fmt: skip
LOSSES = {  # by class: a fused loss, or the number of chunks of tokens in which logits are made
    "torchtune.modules.loss.LinearCrossEntropyLoss": 8, "torchtune.modules.loss.CEWithChunkedOutputLoss": 8,
    "torch.nn.CrossEntropyLoss": 1,
}  # fmt: skip
ATTENTION = {"output_proj": "o_proj"}  # where a name is not transformers' own


def _model(value: Any) -> Mapping[str, Any]:
    """A builder's preset; `lora_` or `qlora_` before its name means such adapters."""
    name = str(value).rpartition(".")[2]
    kind = next((kind for kind in ("qlora", "lora") if name.startswith(f"{kind}_")), "")
    name = name.removeprefix(f"{kind}_").removesuffix("_instruct").removesuffix("_base")
    if name not in PRESETS:
        raise wrong("model._component_", value, ", ".join(PRESETS))
    return {"model": PRESETS[name], "kind": kind}


FIELDS = {
    "teacher_model._component_": several, "ref_checkpointer._component_": several,
    "model._component_": _model, "model.lora_attn_modules": "attention", "model.apply_lora_to_mlp": "mlp",
    "model.apply_lora_to_output": "output", "model.lora_rank": whole("lora_rank"),
    "model.lora_dropout": "lora_dropout", "model.use_dora": when({"use_dora": True}),
    "model.quantize_base": when({"quantize": "nf4-dq"}),
    "batch_size": whole("batch"), "gradient_accumulation_steps": whole("accumulate"),
    "tokenizer.max_seq_len": whole("seq"), "dtype": "dtype",
    "optimizer._component_": one_of("optimizer._component_", OPTIMIZERS, "optimizer"),
    "optimizer.fused": "fused", "loss._component_": one_of("loss._component_", LOSSES, "chunks"),
    "loss.num_output_chunks": whole("chunks"),
    "enable_activation_checkpointing": when({"recompute": "full"}),
    "enable_activation_offloading": when({"offload": "activations"}),
    "compile": when({"stack": "torch-compile"}),
    "tensor_parallel_dim": degree("tp"), "context_parallel_dim": degree("cp"),
    "data_parallel_shard_dim": degree("fsdp"), "data_parallel_replicate_dim": degree("dp"),
}  # fmt: skip
SILENT = (
    "output_dir", "tokenizer.", "dataset", "seed", "shuffle", "checkpointer", "resume", "epochs", "max_steps",
    "optimizer.lr", "optimizer.weight_decay", "optimizer.betas", "optimizer.eps", "lr_scheduler", "clip_grad",
    "device", "metric_logger", "log_", "profiler", "save_", "model.lora_alpha", "run_val", "batch_size_val",
    "custom_sharded_layers", "collate_fn", "fsdp_reshard", "model.normalize_lora", "cudnn_", "low_cpu_ram",
    "tensor_parallel_plan",
)  # fmt: skip


def is_mine(table: Mapping[str, Any]) -> bool:
    """A file whose model is a component of it."""
    model = table.get("model")
    return isinstance(model, Mapping) and str(model.get("_component_")).startswith("torchtune.")


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """All in one dtype. The loss is chunked where a length is set; without one, its chunks are named in the
    answer.
    """
    kind, fused, chunks = settings.pop("kind", ""), settings.pop("fused", False), settings.pop("chunks", 1)
    attention, mlp = settings.pop("attention", ()), settings.pop("mlp", False)
    head = settings.pop("output", False)
    if fused is True and settings.get("optimizer") == "adamw":
        settings["optimizer"] = "adamw_fused"
    if chunks > 1 and "seq" in settings:
        settings["loss_chunk"] = -(-settings["seq"] // chunks)
    elif chunks > 1:
        settings["unsaid"] = (f"loss in {chunks} chunks (--loss-chunk: tokens of one)",)
    if not kind:
        return {"precision": "pure", **settings}
    names = [ATTENTION.get(name, name) for name in attention]
    names += ["gate_proj", "up_proj", "down_proj"] if mlp is True else []
    names += ["lm_head"] if head is True else []
    if kind == "qlora":
        settings["quantize"] = "nf4-dq"
    return {"precision": "pure", "lora_rank": 8, **targets(names), **settings}
