"""Networks with techniques as transformers and peft make them, for fake tensors."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import peft
import transformers as hf
from accelerate.utils import convert_outputs_to_fp32
from oracles.proposed_changes import in_four_bits
from oracles.technique_families import Family
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.checkpoint import checkpoint

Call = Mapping[str, Any]  # settings of budget.estimate


def built(
    family: Family, config: Mapping[str, Any], call: Call, experts: str = ""
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its techniques, and its inputs."""
    wanted = {"attn_implementation": "eager" if call["attention"] == "eager" else "sdpa"}
    if experts and "num_experts_per_tok" in family.config_class().to_dict():
        wanted["experts_implementation"] = experts
    made = family.config_class(**config)
    rates = patch.multiple(FakeTensor, tolist=lambda t: [0.0] * len(t), item=lambda t: 0.0)
    with patch.object(hf.PreTrainedModel, "initialize_weights"), rates:
        module = getattr(hf, family.cls)._from_config(made, **(wanted if family.attention else {})).train()
    embeds = [module.get_output_embeddings(), *(m for m in module.modules() if isinstance(m, nn.Embedding))]
    for part in filter(None, embeds):
        part.weight.embeds = True
    freeze(module, family, call)
    if call.get("frozen_dtype") and not call.get("lora_rank"):
        for p in (p for p in module.parameters() if p.requires_grad):
            p.data = p.data.float()
    layers = [layer for path in family.stacks for layer in module.get_submodule(path)]
    base: Any = module
    if call.get("quantize"):
        in_four_bits(module, module.get_output_embeddings())
    if call.get("lora_rank"):
        module = adapted(module, family, call)
    if call.get("recompute") == "full":
        full(base, family, layers, call)
    if call.get("recompute") == "full" and not call.get("input_gradients"):
        base.disable_input_require_grads()
    if call.get("output_dtype") == "fp32":
        module.forward = convert_outputs_to_fp32(module.forward)
    inputs = family.inputs(made, call["batch"], call[family.size])
    return module, inputs


def matches(family: Family, names: str) -> str:
    """A regular expression for the paths of all modules with one of these names of ours."""
    return rf"(.*\.)?({'|'.join(family.parts[name] for name in names.split(','))})"


def freeze(module: nn.Module, family: Family, call: Call) -> None:
    if call.get("freeze"):
        pattern = matches(family, call["freeze"])
        found = [part for path, part in module.named_modules() if re.fullmatch(pattern, path)]
        assert found, pattern
        for part in found:
            part.requires_grad_(False)
    if call.get("freeze_layers"):
        layers = [layer for path in family.stacks for layer in module.get_submodule(path)]
        for part in (*map(module.get_submodule, family.below), *layers[: call["freeze_layers"]]):
            part.requires_grad_(False)


def adapted(module: nn.Module, family: Family, call: Call) -> nn.Module:
    config = peft.LoraConfig(
        r=call["lora_rank"],
        target_modules=matches(family, call["lora_targets"]) if "lora_targets" in call else None,
        lora_dropout=call.get("lora_dropout", 0.0),
    )
    wide = call.get("lora_dtype") == "fp32" or bool(call.get("frozen_dtype"))
    return peft.get_peft_model(module, config, autocast_adapter_dtype=wide)


def selective(family: Family) -> Any:
    """Attention's scores and probabilities run again: a checkpoint around transformers' own function."""
    file = sys.modules[getattr(hf, family.cls).__module__]
    own = file.eager_attention_forward

    def again(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(own, *args, use_reentrant=False, **kwargs)

    return patch.object(file, "eager_attention_forward", again)


class Group(nn.Module):
    """Neighbouring layers in one reentrant checkpoint."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Any, *args: Any, **given: Any) -> Any:
        def run(x: Any) -> Any:
            for layer in self.layers:
                x = layer(x, *args, **given)
            return x

        return checkpoint(run, x, use_reentrant=True)


def full(module: Any, family: Family, layers: list[Any], call: Call) -> None:
    """Checkpoints of whole layers, of the first ones, or of groups."""
    module.gradient_checkpointing_enable({"use_reentrant": False})
    every = call.get("recompute_every", 1)
    for layer in layers[call["recompute_layers"] :] if call.get("recompute_layers") else ():
        layer.gradient_checkpointing = False
    if every > 1:
        (path,) = family.stacks
        above, _, name = path.rpartition(".")
        # A reentrant checkpoint has gradients for its weights only if its input has one.
        for below in map(module.get_submodule, family.below):
            below.register_forward_hook(lambda _, __, out: out.requires_grad_())
        groups = [Group(layers[i : i + every]) for i in range(0, len(layers), every)]
        for layer in layers:
            layer.gradient_checkpointing = False
        setattr(module.get_submodule(above), name, nn.ModuleList(groups))
