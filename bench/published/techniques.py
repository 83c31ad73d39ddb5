"""What a row of a training table says of techniques: adapters and the format of frozen weights, optimizers,
fused kernels.

`LoRA, rank 64 on q k v gate up down`, `QLoRA (nf4), rank 8 on all linear layers, dropout 0.05`.
"""

from __future__ import annotations

import re

from budget import stack as stacks
from budget.named import Any

from . import _versions as versions
from .rows import NotCoveredError
from .software import differs
from .table import Row, text_of

RANK = 16  # where a row states none: the rank is of little weight
# Words for a layer, and the products that they are in the networks here.
PRODUCTS = {
    "q": "attn.q", "query": "attn.q", "k": "attn.k", "key": "attn.k", "v": "attn.v", "value": "attn.v",
    "o": "attn.o", "gate": "mlp.gate", "up": "mlp.up", "down": "mlp.down",
}  # fmt: skip
# bitsandbytes' 4-bit floats are what QLoRA means unless another format is told. Source: qlora.
FORMATS = {"gptq": "gptq", "double": "nf4-dq", "dq": "nf4-dq", "int8": "int8", "": "nf4"}

# What a column calls optimizers, and what they are; the first word that is found counts. "": as its software
# has AdamW; None: not modelled.
OPTIMIZERS = {
    "no optimizer": "none",
    "backward": None, "4-bit": None, "fp8": None, "gradients offloaded": None, "cpu offload": None,
    "8-bit": "adamw_8bit", "8bit": "adamw_8bit", "adafactor": "adafactor", "sgd": "sgd", "lion": "lion",
    "adam": "",
}  # fmt: skip
# What notes call those that are not AdamW in one kernel; pages of pictures often time no update at all.
NOTED = {
    "adafactor": "adafactor", "8-bit adam": "adamw_8bit", "fused adamw": "adamw_fused", "sgd": "sgd",
    "adamw in a loop": "adamw_loop", "not fused": "adamw", "no optimizer": "none",
}  # fmt: skip

# Kernels by the words after `fused`, of software that runs one operator after the other.
FUSED = {r"\bnorm|layernorm": "norm", r"\bmlp|swiglu|gelu|gate": "gate", r"cross.entropy|loss": "loss"}


def adapters(row: Row) -> dict[str, Any]:
    """The settings of a row's adapters; nothing where all weights train."""
    words = text_of(row, "kind", "method", "notes", "precision", "quant")
    if "lora" not in words:
        return {}
    match = re.search(r"\brank (\d+)(?: on ([a-z_,/+ ]+))?", words)
    settings: dict[str, Any] = {"lora_rank": int(match[1]) if match else RANK}
    layers = (match and match[2]) or ""
    if layers.startswith("all linear"):
        settings["lora_targets"] = "all-linear"
    elif names := [
        PRODUCTS[w] for word in re.findall("[a-z_]+", layers) if (w := word.removesuffix("_proj")) in PRODUCTS
    ]:
        settings["lora_targets"] = ",".join(names)
    dropped = re.search(r"\bdropout (0\.\d+)", words)
    if rate := dropped[1] if dropped else row.get("dropout", ""):
        settings["lora_dropout"] = float(rate)
    if re.search(r"\bdora\b", words):
        settings["use_dora"] = True
    # Since 0.12 peft makes adapters in float32 beside weights of 16 bits. Source: peft.
    if (match := re.search(r"\bpeft 0\.(\d+)", words)) and int(match[1]) >= 12:
        settings["lora_dtype"] = "fp32"
    if "qlora" in words:
        settings["quantize"] = next(form for word, form in FORMATS.items() if word in words)
    return settings


def documents(row: Row) -> dict[str, Any]:
    """Documents that a packed sequence has, where notes say how long they are, in a kernel that stays within
    them.
    """
    match = re.search(r"\bdocuments of (\d+) tokens", text_of(row, "notes"))
    return {"documents": int(match[1]), "attention": "flash"} if match else {}


def optimizer(row: Row, software: str) -> dict[str, str]:
    """What updates the weights: what a row's column says, or its notes. Raises NotCoveredError."""
    words = row.get("optimizer", "").lower()
    named = next((ours for word, ours in OPTIMIZERS.items() if word in words), None) if words else ""
    if named is None:
        raise NotCoveredError(f"optimizer {words[:40]!r}")
    away = {"offload": "optimizer"} if "paged" in words or "offloaded" in words else {}
    return {"optimizer": named or _noted(row, software), **away}


def _noted(row: Row, software: str) -> str:
    """An optimizer that notes name, or AdamW in one kernel, unless a Trainer or a loop of its users' runs
    torch's.

    Muon steps whole matrices, which zero1 shares out: of parts of them AdamW's time is taken.
    """
    text = text_of(row)
    if named := next((ours for word, ours in NOTED.items() if word in text), ""):
        return named
    if re.search(r"\bmuon\b", text) and row.get("zero_stage", "").lower() in ("", "ddp", "zero1"):
        return "muon"
    by_trainer = differs(software).get("trainer") and "deepspeed" not in text
    return versions.adamw(row, software) if by_trainer else "adamw_fused"


def fused(row: Row, software: str) -> dict[str, str]:
    """Kernels that a row names: for transformers' networks unsloth's norms and loss, or liger's norms, gates
    and loss, and one function of an MLP and its adapters where all three products have some, without dropout;
    or a cut cross-entropy, which makes no logits; elsewhere those of `fused layernorm, swiglu, cross
    entropy`. Sources: axolotl, axolotl-lora, fms-acceleration, flash-attention-2 (its layers), liger,
    unsloth-lora.
    """
    words = text_of(row)
    unsloth, liger = "unsloth" in words, "liger" in words
    patched = differs(software).get("trainer")
    if patched and (unsloth or liger):
        lora = adapters(row)
        adapted = lora.get("lora_targets", "mlp.gate,mlp.up,mlp.down" * ("lora" in words))
        whole = adapted == "all-linear" or {"mlp.gate", "mlp.up", "mlp.down"} <= {*adapted.split(",")}
        gates = ["gate"] if whole or not unsloth else []
        if lora and whole and (unsloth or "fused lora" in words) and not lora.get("lora_dropout"):
            gates = ["mlp", "adapters"]
        loss = "chunked_cross_entropy" if liger and "unsloth's loss" not in words else "loss"
        return {"fuse": ",".join(["norm", *gates, loss])}
    if patched and re.search(r"\bcut.cross.entropy", words):
        return {"fuse": "cross_entropy"}
    if patched and "chunked_nll" in words:  # TRL's: a chunk's logits at a time, and none is kept
        return {"fuse": "chunked_cross_entropy"}
    if "sum of its logits" in words:  # in place of a loss: read once, and given a gradient once
        return {"fuse": "loss"}
    match = re.search(r"\bfused ([\w ,+-]+)", words)
    own = stacks.load(software).train or {}
    if not match or own.get("execution") != "eager" or "fuse" in own:
        return {}
    parts = [ours for word, ours in FUSED.items() if re.search(word, match[1])]
    return {"fuse": ",".join(parts)} if parts else {}
