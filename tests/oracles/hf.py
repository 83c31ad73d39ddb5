"""Hugging Face's own models on the meta device, with eager attention and top-k experts."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from oracles.flops import count_flops, count_params
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

transformers.logging.set_verbosity_error()

AUTO = {"lm": AutoModelForCausalLM, "mlm": AutoModelForMaskedLM, "none": AutoModel}


def build(model_type: str, fields: dict[str, Any], head: str = "lm") -> nn.Module:
    """The real model of a config, without weights."""
    config = AutoConfig.for_model(model_type, **fields)
    # The loop over experts needs to know which are hit; batched_mm does the same work without.
    experts = {"experts_implementation": "batched_mm"} if hasattr(config, "num_experts_per_tok") else {}
    with torch.device("meta"):
        return AUTO[head].from_config(config, attn_implementation="eager", **experts).eval()


def step(module: nn.Module, batch: int, seq: int, head: str = "lm") -> tuple[int, int, int]:
    """Parameters, and FLOPs of the forward and of the backward pass of a training step."""
    ids = torch.zeros(batch, seq, dtype=torch.long, device="meta")
    labels = {} if head == "none" else {"labels": ids}
    return (count_params(module), *count_flops(module, input_ids=ids, **labels))
