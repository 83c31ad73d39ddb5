"""Parameters, forward and backward FLOPs of a config's class, in transformers and here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import torch
import transformers
from differential_inputs import (
    BATCH,
    GRID,
    SAMPLES,
    SECONDS,
    SEQ,
    SIDE,
    SIZE,
    among_words,
    hears,
    image_field,
    inputs,
    sees,
    sounds,
    towered,
    with_sound,
)
from oracles.flops import _convolution_backward
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, masking_utils

from budget import arch as architectures
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import hf_config, hf_families
from budget.read.hf_towers import wholes

ROTARY = ("rotary_emb", "patch_positional_embedding")  # whose outer product of frequencies is not counted
REAL = ("idefics3_vision", "pixtral")  # look for patches that are there


def reference(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[int, int, int]:
    """Parameters, forward and backward FLOPs of the real class; -1 for what does not run.

    On the processor, which is twice as fast on small tensors as the meta device, and takes what looks at
    numbers; on the meta device what does not run there, such as large pictures.
    """
    found = _reference(kind, name, fields, train, "cpu")
    if found[1] < 0 and not towered(kind) and kind not in REAL:
        found = _reference(kind, name, fields, train, "meta")
    return found


def _reference(kind: str, name: str, fields: dict[str, Any], train: bool, where: str) -> tuple[int, int, int]:
    config = AutoConfig.for_model(kind, **deepcopy(fields))
    if train:
        config.use_cache = config.get_text_config().use_cache = False  # in training there is none
    text = config.get_text_config() if towered(kind) else config
    routed = any(hasattr(text, name) for name in ("num_experts_per_tok", "top_k_experts"))
    experts = {"experts_implementation": "batched_mm"} if routed else {}
    with torch.device(where) if where == "meta" else nullcontext(), without_looks():
        cls = getattr(transformers, name)
        module = cls._from_config(config, attn_implementation="eager", **experts).eval()
        module.tie_weights()
        total = sum(p.numel() for p in module.parameters())
        try:
            if hears(kind):
                given = with_sound(module)
            else:
                given = among_words(module) if sees(kind) else inputs(kind, name, config)
            forward, back = counted(module, given, train, ends(kind, name))
        except Exception:  # noqa: BLE001 - whatever it is, the class does not run
            return total, -1, -1
    return total, forward, back


@contextmanager
def without_looks() -> Iterator[None]:
    """Nothing looks into positions for packed sequences, or into tokens for padding: they have no data."""
    packed = patch.object(masking_utils, "find_packed_sequence_indices", lambda *_, **__: None)
    padded = patch.object(
        transformers.PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_, **__: None
    )
    with packed, padded:
        yield


def ends(kind: str, name: str) -> tuple[str, ...]:
    """The names of outputs that are trained; a pooled one is among them where a family has no other."""
    family = hf_families.load(kind)
    pooled = "pooling" in family.get("set", {}) or family.get("classes", {}).get(name) == "projected"
    return ("logits", "embeds", "last_hidden_state", *(("pooler_output",) if pooled else ()))


def counted(module: Any, given: dict[str, Any], train: bool, ends: tuple[str, ...]) -> tuple[int, int]:
    """FLOPs of a forward pass and of the backward pass from the sum of its outputs."""
    grouped = {torch.ops.aten.convolution_backward: _convolution_backward}
    counter = FlopCounterMode(display=False, custom_mapping=grouped)
    counter.mod_tracker = Nowhere()
    rotary = 0

    def enter(*_: Any) -> None:
        nonlocal rotary
        rotary -= counter.get_total_flops()

    def leave(*_: Any) -> None:
        nonlocal rotary
        rotary += counter.get_total_flops()

    for path, part in module.named_modules():
        if path.endswith(ROTARY):
            part.register_forward_pre_hook(enter)
            part.register_forward_hook(leave)
    with counter, torch.set_grad_enabled(train):
        out = module(**given)
        forward = counter.get_total_flops()
        if train:
            tensors = [v for k, v in out.items() if isinstance(v, torch.Tensor) and v.requires_grad
                       and k.endswith(ends)]  # fmt: skip
            sum(t.sum() for t in tensors).backward()
    return forward - rotary, counter.get_total_flops() - forward


class Nowhere:
    """In place of the counter's tracker of modules, whose hooks take a sixth of the time."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def ours(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[int, int, int]:
    """This package's counts. Raises InputError."""
    table = {"model_type": kind, **fields, **({"architectures": [name]} if name else {})}
    arch, config = hf_config.read(table)
    if towered(kind) and arch not in wholes(hf_families.load(kind)).values():
        raise InputError("config", "its tower is named as not counted")
    takes = architectures.takes_of(architectures.load(arch))
    images = "seq" not in takes and "sound" not in takes
    side = SIDE if images and "image" not in image_field(kind) else 0
    if sees(kind):
        rotates = getattr(config, "tower_positions", "") == "rotary" and not config.tower_packed
        patched = arch == "patch_language"
        if rotates or patched:
            side = GRID * (config.patch if patched else config.merge * config.pool * config.tower_patch)
        else:
            side = config.tower_image
        side = SIZE * side // 8 if getattr(config, "newline", False) else side
    seq = 0 if images else SAMPLES if arch == "wav2vec2" else SEQ
    sound = SECONDS if sounds(kind) else 0
    workload = Workload("train" if train else "forward", BATCH, seq, side, sound)
    model = architectures.load(arch).build(config, workload)
    total = flops(backward(model) if train else model)
    return params(model).total, total.forward, total.backward
