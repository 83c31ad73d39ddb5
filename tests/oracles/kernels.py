"""Kernels that torch starts for a step of transformers' networks: the calls of aten, views aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers as hf
from differential_counts import ends
from differential_inputs import SAMPLES
from differential_inputs import inputs as heard
from oracles.networks import Call, built
from oracles.technique_families import Family
from oracles.techniques import Stepped, as_asked, casts
from small_configs import base
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from budget.read import hf_families

hf.logging.set_verbosity_error()

Counts = dict[str, int]  # of kernels, by phase
BATCH, SEQ, SIDE = 2, 32, 32
# Fields that count layers, which are doubled, so that what runs once weighs less.
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers",
          "layer_types", "attention_types")  # fmt: skip
# Widths of experts whose rows are not of whole 16 bytes, as torch's grouped products want them.
WIDTHS = ("moe_intermediate_size", "intermediate_size", "shared_expert_intermediate_size")
# Calls that make no kernel run: they reserve memory, or look at what is there already.
NONE = set(
    """
    alias detach empty empty_like empty_strided is_same_size lift_fresh _local_scalar_dense new_empty
    new_empty_strided _reshape_alias sym_size _unsafe_view
    """.split()  # noqa: SIM905
)


class Calls(TorchDispatchMode):
    """Counts calls of aten that are no views, by name; steps: numbers of steps lie on the host."""

    def __init__(self, *, steps: bool = False) -> None:
        super().__init__()
        self.steps = steps
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func._schema.name.partition("::")
        aliases = [r.alias_info for r in func._schema.returns]
        view = bool(aliases) and all(a is not None and not a.is_write for a in aliases)
        self.found[name] += space == "aten" and not view and not self.on_host(name, args) and name not in NONE
        return func(*args, **(kwargs or {}))

    def on_host(self, name: str, args: Any) -> bool:
        """Numbers of steps, of which there is one for each weight, and whether a layer is dropped."""
        if name == "lt" or (self.steps and (name == "add_" or name.startswith("_foreach"))):
            first = args[0] if isinstance(args[0], list | tuple) else args[:1]
            return all(t.dim() == 0 for t in first)
        return name == "rand" and list(args[0]) == []


def config_of(kind: str) -> Any:
    """A small config of a family: about six layers, no dropout."""
    fields = _runnable(base(kind))
    if "text_config" in fields:
        fields["text_config"] = _runnable(fields["text_config"])
    config = hf.AutoConfig.for_model(kind, **fields)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    if config.is_encoder_decoder:
        config.decoder_start_token_id = config.pad_token_id = 0
    return config


def _runnable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Twice the layers, and experts of widths that torch's grouped products take."""
    found = {k: 2 * v if k in LAYERS and v else v for k, v in fields.items()}
    experts = "moe_intermediate_size" in fields or "n_routed_experts" in fields
    return {**found, **{name: 16 for name in WIDTHS if experts and found.get(name)}}


def step(kind: str, cls: str, attention: str) -> tuple[dict[str, Any], dict[str, int], Counts]:
    """A small network's config, its batch and length or side, and the kernels of AdamW's second step."""
    config, before = config_of(kind), torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        module = getattr(hf, cls)._from_config(config, attn_implementation=attention)
    finally:
        torch.set_default_dtype(before)
    config.architectures = [cls]
    given, sizes = _inputs(kind, cls, config)
    # Batch norms have other kernels in training.
    module.train(any(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules()))

    def forward() -> torch.Tensor:
        out = module(**given)
        made = (v for k, v in out.items() if k.endswith(ends(kind, cls)) and v.requires_grad)
        return out.loss if "loss" in out else sum(t.sum() for t in made)

    optimizer = torch.optim.AdamW(module.parameters(), foreach=True)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return config.to_dict(), sizes, _second(forward, update)


def technique(family: Family, config: Mapping[str, Any], call: Call) -> Counts:
    """The kernels of the second step with techniques, on fake tensors."""
    with as_asked(family, call), torch.backends.mkldnn.flags(enabled=False), FakeTensorMode():
        module, inputs = built(family, config, call)
        optimize = Stepped([p for p in module.parameters() if p.requires_grad], call)

        def forward() -> torch.Tensor:
            with casts(call):
                return module(**inputs).loss

        fused = call.get("optimizer") == "adamw_fused"
        return _second(forward, optimize, call.get("accumulate", 1), steps=not fused)


def _second(
    forward: Callable[[], Any], update: Callable[[], None], micro: int = 1, *, steps: bool = True
) -> Counts:
    found: Counter[str] = Counter()
    for _ in range(2):
        found = Counter()
        for _ in range(micro):
            with Calls() as calls:
                loss = forward()
            found["forward"] += calls.found.total()
            with Calls() as calls:
                loss.backward()
            found["backward"] += calls.found.total()
        with Calls(steps=steps) as calls:
            update()
        found["optimizer"] = calls.found.total()
    return dict(found)


def _inputs(kind: str, cls: str, config: Any) -> tuple[dict[str, Any], dict[str, int]]:
    ids = torch.ones(BATCH, SEQ, dtype=torch.int64)
    arch = hf_families.load(kind)["arch"]
    given: dict[str, Any] = {"input_ids": ids}
    sizes = {"batch": BATCH, "seq": SEQ}
    if arch == "whisper":
        mel = torch.zeros(BATCH, config.num_mel_bins, 2 * config.max_source_positions, dtype=torch.bfloat16)
        given = {"input_features": mel, "decoder_input_ids": ids}
    elif arch == "encoder_decoder":
        given["decoder_input_ids"] = ids
    elif arch == "audio_encoder":
        given, sizes = heard(kind, cls, config), {"batch": BATCH}
        given["input_features"] = given["input_features"].zero_().bfloat16()
    elif arch == "wav2vec2":
        given = {"input_values": torch.zeros(BATCH, SAMPLES, dtype=torch.bfloat16)}
        sizes = {"batch": BATCH, "seq": SAMPLES}
    elif arch not in ("transformer", "hybrid", "gemma4", "mllama", "mamba", "deberta"):
        side = getattr(config, "image_size", SIDE)
        sizes = {"batch": BATCH, "image": side if isinstance(side, int) else side[0]}
        shape = BATCH, config.num_channels, sizes["image"], sizes["image"]
        given = {"pixel_values": torch.zeros(shape, dtype=torch.bfloat16)}
    if "input_ids" in given or arch == "whisper":
        given |= {"use_cache": False} if hasattr(config, "use_cache") else {}
    if cls.endswith(("ConditionalGeneration", "CausalLM", "LMHeadModel", "MTModel")):
        given["labels"] = ids
    elif cls.endswith("ImageClassification"):
        given["labels"] = torch.zeros(BATCH, dtype=torch.int64)
    return given, sizes
