"""How litgpt runs a row of its tables, as budget's settings: what the row, its yaml and litgpt's code say.

Nothing here was chosen by a measured figure. Read in Lightning-AI/litgpt at commits 0cc02afa
(tutorials/resource-tables.md: bitsandbytes 0.41.1) and 00af8b0d (config_hub/finetune: bitsandbytes
0.42.0), and in Lightning 2.1's Fabric:

    network   model.py: queries, keys and values are one projection; torch.cat lays rotated queries out by
              heads; keys and values are expanded; SDPA is told `is_causal`, a softcap is written out;
              lm_head and wte are two weights; GELU is torch's; an RMS norm's weight comes before the cast
    adapters  finetune/lora.py: rank 8 on queries and values, dropout 0.05; the hub's ranks and targets are
              in its yaml files (litgpt.toml); lora.py: LoRAQKVLinear.zero_pad; adapter.py: 10 prompts from
              layer 2 on
    loss      with LoRA lm_head_chunk_size=128; Fabric casts logits to float32; the loop's `logits` and
              `loss` live until they are assigned again. The tables' first batch has the longest sample,
              so none as long comes before it; the hub's steps are taken to be alike
    few bits  BitsandbytesPrecision; PagedAdamW, whose states torch's allocator does not see
"""

from __future__ import annotations

from collections.abc import Mapping

from budget.named import Any
from budget.read.source import resolve

from .software import toml

TABLES, HUB = "Lightning-AI/litgpt tutorials/resource-tables.md", "Lightning-AI/litgpt config_hub"
METHODS = ("lora", "qlora", "full", "adapter", "adapter_v2")
NETWORK = {"fused_qkv": True, "heads_first": True, "tied": False, "broadcast_keys": False}
ACTIVATIONS, NORMS = {"gelu_new": "gelu_tanh"}, {"rms_norm": "rms_norm_float32"}
SOME, ALL = "attn.q,attn.v", "attn.qkv,attn.o,mlp,head.logits"
BITSANDBYTES = ("nf4", "nf4-dq", "int8")
FEW = {"quantize_head": True, "quantize_half": True}
FULL = {"accumulate": 2}  # the yaml's global batches are of 2 to 16 micro-batches: one peak from 2 on
YAML = toml("litgpt.toml")


def is_one(row: Mapping[str, str]) -> bool:
    """Whether a row is of litgpt's tables."""
    return row["source"].startswith((TABLES, HUB))


def devices(row: Mapping[str, str]) -> int:
    """How many devices a row was run on."""
    if row["source"].startswith(TABLES):
        return int(row["n_gpus"])
    return YAML["devices"].get(row["model"], 1) if row["method"] == "full" else 1


def _network(model: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A network's settings as litgpt has it, and its attention in training."""
    own = resolve(model, given)[2]
    activation, norm = ACTIVATIONS.get(own.activation, own.activation), NORMS.get(own.norm, own.norm)
    config = {**given, **NETWORK, "activation": activation, "norm": norm}
    return config, "eager" if own.softcap else "causal"


def beside(software: str, model: Any, given: Mapping[str, Any], trains: bool = False) -> dict[str, Any]:
    """What litgpt, if it is the software, does besides the settings that a row of another page tells."""
    if software != "litgpt":
        return {}
    config, attention = _network(model, given["config"])
    few = FEW if given.get("quantize") in BITSANDBYTES else {}
    if not trains:
        return {"config": config, **few}
    besides: dict[str, Any] = {"config": config, "attention": attention, "hold_logits": "next", **few}
    if "lora_rank" in given:
        besides |= {"loss_chunk": 128, "lora_dropout": given.get("lora_dropout", 0.05)}
    if few:
        besides |= {"quantize_keeps": "loss"}
    if few and given["optimizer"].startswith("adam"):
        besides |= {"offload": "optimizer"}  # PagedAdamW
    return besides


def settings(row: Mapping[str, str], model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `budget.estimate`."""
    config, attention = _network(model, given)
    form = row["quant"].removeprefix("bnb.")
    few = {} if form == "None" else {"quantize": form, **FEW}
    if row["scenario"] == "inference":
        return {"stack": "litgpt", "config": config, **few}
    hub = row["source"].startswith(HUB)
    return {
        "config": config, "stack": "litgpt", "precision": "pure",
        "attention": attention,
        "batch": int(row["micro_batch"]), "seq": int(row["seq"]), "hold_logits": "next" if hub else "step",
        **(few and {**few, "quantize_keeps": "loss" if hub else "pass", "offload": "optimizer"}),
        **(FULL if row["method"] == "full" else _trained(hub, row["model"], row["method"])),
    }  # fmt: skip


def _trained(hub: bool, model: str, method: str) -> dict[str, Any]:
    ranks = YAML["ranks"].get(model)
    if method.startswith("adapter"):
        return {"prompts": 10, "prompts_from": 2, "rescale": method == "adapter_v2", "loss_chunk": 128}
    rank, targets = (8, SOME) if not hub else (ranks[method], ALL) if ranks else (32, SOME)
    return {"lora_rank": rank, "lora_targets": targets, "lora_dropout": 0.05, "loss_chunk": 128}
