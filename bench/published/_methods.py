"""What words of a table of memory mean in `estimate`: units, methods, numbers of few bits.

A word that is not known is no guess: the row is not covered, and says which word it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from budget import stack as stacks
from budget.named import Any
from budget.plan.gguf import FORMATS as GGUF

from . import _versions as versions
from .formats import weights
from .rows import NotCoveredError, number
from .software import differs, programs
from .table import Row, text_of

UNITS = {"gib": 2**30, "mib": 2**20, "gb": 1e9, "mb": 1e6}
# What torch's compiler makes of a network with its loss, which may return its logits beside that. torchtune
# compiles each layer where it is told to, and the loss since that reads logits in chunks.
# Sources: torch-aot-autograd, torch-partitioner, torchtune.
COMPILED = {"fuse": "norm,gate,loss"}
RETURNED = {**COMPILED, "hold_logits": "compiled"}
SAID = r"weights in (bf16|fp16|bfloat16|float16|16 bits)"
METHODS = ("", "full", "pretrain", "lora", "qlora")
QUANT = ("nf4", "fp4", "bnb.nf4", "gptq", "int8", "none")  # of frozen weights beside adapters
BITSANDBYTES = ("nf4", "fp4", "int8", "4", "8")
FROZEN = {
    "nf4-dq": "nf4-dq",
    "nf4+dq": "nf4-dq",
    "nf4": "nf4",
    "fp4": "nf4",
    "int8": "int8",
}  # fp4 is as large


def unit(metric: str) -> float:
    """The bytes of a metric's unit: of the first that it names; a metric without one has decimal GB."""
    found = re.search(r"\b([gm]i?b)\b", metric.lower())
    return UNITS[found[1]] if found else UNITS["gb"]


def beside(row: Row, software: str) -> dict[str, Any]:
    """Settings of software that has a stack of another name, or of a network that torch compiles with its
    loss: its notes say that it returns its logits beside that, or it is transformers' own.
    """
    source, text = row["source"].lower(), text_of(row, "source", "notes")
    compiled = re.search(r"(?<!not )(?<!torch\.)\bcompil|(?<!without )torch\.compile", text)
    if compiled and "logits beside its loss" in text:
        return RETURNED
    if compiled and (differs(software).get("trainer") or "transformers" in source):
        return COMPILED
    if "torchtune" in source:
        reads = versions.changed("memory", row, "torchtune", "train")
        return reads | ({"fuse": "norm,gate" if reads else "norm,gate,loss"} if compiled else {})
    return next(iter(programs("compiles", source)), {})


def loss(row: Row, software: str) -> dict[str, Any]:
    """Settings of the kernels of a loss, where software has several: by a row's notes, else by what it does
    where no program over it fuses its loss. A plain loop's is torch's own.
    """
    notes, source = text_of(row, "notes"), text_of(row, "source")
    if differs(software).get("own_loss") or programs("own_loss", source):
        return {"loss_logits": "own"}
    said = "unfused" if "loss not fused" in notes else "fused" if "loss fused" in notes else "usual"
    kernels = differs(software).get("loss", {}).get(said)
    if not kernels or (said != "unfused" and programs("fuses_loss", source)):
        return {}
    return {"fuse": "norm,gate", "loss_parallel": kernels}


def stepped(row: Row, software: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """torch's own AdamW where a plain loop calls it and no kernel is named."""
    named = settings["optimizer"] != "adamw_fused" or "fused" in text_of(row, "optimizer", "notes")
    loops = differs(software).get("plain_loop") and not named
    return {"optimizer": versions.adamw(row, software)} if loops else {}


def left(row: Row, software: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Gradients of the last step that a forward pass finds, as a second micro-batch's does: zero_grad comes
    behind it, as notes say or a program has it, or has set them to zero, as it did before torch 2.0. Whether
    ZeRO's and FSDP's parts are left is not known. Source: torch-zero-grad.
    """
    layout, notes = settings["layout"], text_of(row, "notes")
    if settings["optimizer"] == "none" or layout["zero"] or layout["pp"] > 1 or "sets to none" in notes:
        return {}
    behind = programs("behind", text_of(row, "source", "engine")) or "zero_grad behind" in notes
    own = differs(software)
    kept = (own.get("plain_loop") or own.get("trainer")) and versions.before_2(row)
    return {"global_batch": 2 * settings["global_batch"]} if behind or kept else {}


def looped(row: Row, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a loop of a row's own, where its notes say so, holds until its step ends: the network's logits, in
    its dtype.
    """
    own = "a loop of its own" in text_of(row, "notes")
    return {"hold_logits": "step", "output_dtype": settings["dtype"]} if own else {}


def chunked(row: Row) -> dict[str, int]:
    """The tokens that a loss takes at a time, as a row's notes say."""
    told = re.search(r"\bloss in chunks of (\d+) tokens", text_of(row, "notes"))
    return {"loss_chunk": int(told[1])} if told else {}


def around(row: Row, settings: Mapping[str, Any]) -> bool:
    """Whether autocast is around weights of float32, the frozen ones too: of software that does nothing else
    in mixed precision, as Lightning Fabric's 16-mixed, where a row says so. Source: lightning-fabric.
    """
    return "lora_rank" in settings and "precision" not in settings and "amp" in row["precision"]


def fused_loss(row: Row, settings: Mapping[str, Any]) -> bool:
    """Whether a kernel of a row's loss reads the network's logits; one that transformers' own loss calls in
    place of torch's, as notes say it, reads that loss's copies. Source: fms-acceleration.
    """
    parts = settings.get("fuse", "").split(",")
    in_place = "unsloth's loss" in text_of(row, "notes")
    return bool({"cross_entropy", "chunked_cross_entropy"} & {*parts}) or ("loss" in parts and not in_place)


def in_16_bits(row: Row) -> bool:
    """Whether all weights train in 16 bits, with none in float32 beside them: as notes say, or as the program
    loads them, where neither DeepSpeed nor FSDP runs, which make such copies.
    """
    alone = row.get("zero_stage", "").lower() in ("", "none", "ddp")
    loaded = programs("loaded", text_of(row, "source", "engine"))
    return bool(re.search(SAID, text_of(row, "notes")) or (loaded and alone))


def prepared(row: Row) -> bool:
    """Whether peft's function made all weights float32 that are not of few bits: notes say so, or TRL or peft
    alone runs bitsandbytes' weights, whole on each device. Sources: trl, peft.
    """
    text, whole = text_of(row), row.get("zero_stage", "").lower() in ("", "none", "ddp")
    of_few = row["method"] == "qlora" and row["quant"].lower().startswith(BITSANDBYTES)
    usual = whole and bool(re.search(r"\b(trl|peft)\b", text)) and not programs("few_bits", text)
    return "prepare_model_for_kbit_training" in text or (of_few and usual)


def again(row: Row) -> str:
    """What is computed again where a row does not say: peft's function asks for it, but by TRL."""
    return "full" if prepared(row) and not re.search(r"\btrl\b", text_of(row)) else ""


def unwrapped(row: Row, word: str) -> str:
    """A row's precision, where its notes say that no autocast is around the network: weights that peft's
    function has prepared make what runs between products float32.
    """
    if "no autocast" not in text_of(row, "notes"):
        return word
    return "fp32" if prepared(row) else f"{word} pure"


def checked(row: Row) -> None:
    """Raise a NotCoveredError for a method, or for numbers of few bits, that techniques.py does not read."""
    if row["method"].lower() not in METHODS:
        raise NotCoveredError(f"method {row['method'][:20]!r}")
    if row["quant"] and not row["quant"].lower().startswith(QUANT):
        raise NotCoveredError(f"quant {row['quant'][:20]!r}")


def frozen(row: Row, software: str = "") -> dict[str, Any]:
    """What frozen weights of a row are, in its software's own format. Raises NotCoveredError."""
    quant = row["quant"].lower().removeprefix("bnb.")
    if quant in FROZEN:
        return {"quantize": FROZEN[quant]}
    if quant in ("int8wo", "int8 weight only"):
        return {"quantize": "int8", "quantize_head": True}
    if quant in GGUF:
        return {"quantize": quant}
    if "int4wo" in quant or re.match(r"i?q\d", quant):  # of llama.cpp's those that are not modelled
        raise NotCoveredError(f"weights in {quant}")
    if quant in ("fp8", "w8a8"):
        return {"quantize": {"fp8": "fp8-dynamic"}.get(quant, quant)}
    return weights(quant, "quant", software)


def widened(row: Row, word: str) -> str:
    """A row's precision, of a program that holds weights in float32 and casts each as it is read."""
    return "fp32" if programs("widened", text_of(row, "source")) else word


def beams(row: Row) -> int:
    """The hypotheses of each sequence that a row's notes say are followed."""
    told = re.search(r"\b(?:beam(?:s| size| width)?|num_beams)\W{0,3}(\d+)", text_of(row, "notes"))
    return int(told[1]) if told else 1


def cache(row: Row) -> dict[str, str]:
    """The dtype of a cache that a row's notes say is of 8 bits; integers are as large as fp8."""
    told = re.search(r"\b(cache|kv) in (8 bits|int8|fp8)", text_of(row, "notes"))
    return {"kv_dtype": "fp8"} if told else {}


def share(row: Row, software: str) -> float:
    """The part of a device's memory that an engine takes, as notes say or by itself; 0 where none is one."""
    usual = stacks.load(software).share
    told = re.search(
        r"(?:gpu_memory_utilization|mem[-_]fraction[-_]static)\W{0,3}(0\.\d+)", text_of(row, "notes")
    )
    return 0 if usual == 1 else float(told[1]) if told else usual


def lengths(row: Row, usual: int) -> tuple[int, int]:
    """(tokens of the prompt, tokens in the cache at the end): `seq` where a row has no lengths of its own."""
    start, new = (int(number(row, c, 0)) for c in ("input_len", "output_len"))
    return start, start + new or int(number(row, "seq", usual))
