"""What the words of a row of memory mean in `estimate`: its units, methods, formats of few bits and notes.

An unknown word is never guessed at: the row is then not covered, and says which word it was.
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
# What torch.compile fuses in a network together with its loss; the network may also return its logits.
# torchtune compiles each layer if told to, and the loss since the version that reads logits in chunks.
# Sources: torch-aot-autograd, torch-partitioner, torchtune.
COMPILED = {"fuse": "norm,gate,loss"}
RETURNED = {**COMPILED, "hold_logits": "compiled"}
SAID = r"weights in (bf16|fp16|bfloat16|float16|16 bits)"
METHODS = ("", "full", "pretrain", "lora", "qlora")
QUANT = ("nf4", "fp4", "bnb.nf4", "gptq", "int8", "none")  # formats of frozen weights beside adapters
BITSANDBYTES = ("nf4", "fp4", "int8", "4", "8")
# fp4 is as large as nf4.
FROZEN = {"nf4-dq": "nf4-dq", "nf4+dq": "nf4-dq", "nf4": "nf4", "fp4": "nf4", "int8": "int8"}


def unit(metric: str) -> float:
    """The bytes of the first unit that a metric names; decimal GB where it names none."""
    match = re.search(r"\b([gm]i?b)\b", metric.lower())
    return UNITS[match[1]] if match else UNITS["gb"]


def beside(row: Row, software: str) -> dict[str, Any]:
    """Settings that a row's program adds to those of its stack, or that torch.compile gives a network which
    it compiles together with its loss (transformers' own, or one whose notes say that it also returns its
    logits).
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
    """Settings of the kernels of a loss, where software has several: as the row's notes say, else as usual,
    unless a program that runs on it fuses the loss. A plain loop's loss is torch's own.
    """
    notes, source = text_of(row, "notes"), text_of(row, "source")
    if differs(software).get("own_loss") or programs("own_loss", source):
        return {"loss_logits": "own"}
    loss_is = "unfused" if "loss not fused" in notes else "fused" if "loss fused" in notes else "usual"
    kernels = differs(software).get("loss", {}).get(loss_is)
    if not kernels or (loss_is != "unfused" and programs("fuses_loss", source)):
        return {}
    return {"fuse": "norm,gate", "loss_parallel": kernels}


def stepped(row: Row, software: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """torch's own AdamW where a plain loop calls it and no kernel is named."""
    named = settings["optimizer"] != "adamw_fused" or "fused" in text_of(row, "optimizer", "notes")
    loops = differs(software).get("plain_loop") and not named
    return {"optimizer": versions.adamw(row, software)} if loops else {}


def left(row: Row, software: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for gradients of the last step that are still there during the forward pass, as they are for a
    second micro-batch: zero_grad is called after the forward pass (notes say so, or the program is known to
    do it), or it sets them to zero instead of None, as before torch 2.0. For ZeRO's and FSDP's parts of
    gradients neither is known. Source: torch-zero-grad.
    """
    layout, notes = settings["layout"], text_of(row, "notes")
    if settings["optimizer"] == "none" or layout["zero"] or layout["pp"] > 1 or "sets to none" in notes:
        return {}
    behind = programs("behind", text_of(row, "source", "engine")) or "zero_grad behind" in notes
    own = differs(software)
    kept = (own.get("plain_loop") or own.get("trainer")) and versions.before_2(row)
    return {"global_batch": 2 * settings["global_batch"]} if behind or kept else {}


def looped(row: Row, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The logits that a row's own training loop, where its notes tell of one, holds until the step ends."""
    own = "a loop of its own" in text_of(row, "notes")
    return {"hold_logits": "step", "output_dtype": settings["dtype"]} if own else {}


def away(row: Row, settings: Mapping[str, Any]) -> dict[str, str]:
    """What layers keep for the backward pass is on the host, beside what is there already."""
    said = "offloaded" in row["recompute"].lower() or "activations offloaded" in text_of(row, "notes")
    there = settings.get("offload", "none")
    return {"offload": "activations" if there == "none" else f"activations,{there}"} if said else {}


def chunked(row: Row) -> dict[str, int]:
    """The tokens that a loss takes at a time, as a row's notes say."""
    match = re.search(r"\bloss in chunks of (\d+) tokens", text_of(row, "notes"))
    return {"loss_chunk": int(match[1])} if match else {}


def around(row: Row, settings: Mapping[str, Any]) -> bool:
    """Whether a row says that autocast runs over weights that are all float32, frozen ones too, as Lightning
    Fabric's 16-mixed does. Source: lightning-fabric.
    """
    return "lora_rank" in settings and "precision" not in settings and "amp" in row["precision"]


def fused_loss(row: Row, settings: Mapping[str, Any]) -> bool:
    """Whether a fused loss reads the network's logits. A kernel that transformers' own loss calls instead of
    torch's, as notes may say, reads copies of them. Source: fms-acceleration.
    """
    parts = settings.get("fuse", "").split(",")
    in_place = "unsloth's loss" in text_of(row, "notes")
    return bool({"cross_entropy", "chunked_cross_entropy"} & {*parts}) or ("loss" in parts and not in_place)


def in_16_bits(row: Row) -> bool:
    """Whether all weights train in 16 bits without float32 copies: notes say so, or the program loads them so
    and neither DeepSpeed nor FSDP, which make copies, runs.
    """
    alone = row.get("zero_stage", "").lower() in ("", "none", "ddp")
    loaded = programs("loaded", text_of(row, "source", "engine"))
    return bool(re.search(SAID, text_of(row, "notes")) or (loaded and alone))


def prepared(row: Row) -> bool:
    """Whether peft's prepare_model_for_kbit_training made all weights float32 that are not in few bits: notes
    say so, or TRL or peft alone runs bitsandbytes' weights, with all of them on each device. Sources: trl,
    peft.
    """
    text, whole = text_of(row), row.get("zero_stage", "").lower() in ("", "none", "ddp")
    of_few = row["method"] == "qlora" and row["quant"].lower().startswith(BITSANDBYTES)
    usual = whole and bool(re.search(r"\b(trl|peft)\b", text)) and not programs("few_bits", text)
    return "prepare_model_for_kbit_training" in text or (of_few and usual)


def again(row: Row) -> str:
    """What is recomputed where a row does not say: all, as peft's function asks for, unless TRL runs it."""
    return "full" if prepared(row) and not re.search(r"\btrl\b", text_of(row)) else ""


def unwrapped(row: Row, word: str) -> str:
    """A row's precision, corrected where its notes say that the network runs without autocast: it is pure, or
    float32 where peft's function has prepared the weights.
    """
    if "no autocast" not in text_of(row, "notes"):
        return word
    return "fp32" if prepared(row) else f"{word} pure"


def checked(row: Row) -> None:
    """Raise a NotCoveredError for a method, or a format of few bits, that techniques.py does not know."""
    if row["method"].lower() not in METHODS:
        raise NotCoveredError(f"method {row['method'][:20]!r}")
    if row["quant"] and not row["quant"].lower().startswith(QUANT):
        raise NotCoveredError(f"quant {row['quant'][:20]!r}")


def frozen(row: Row, software: str = "") -> dict[str, Any]:
    """The format of a row's frozen weights, in the words of `estimate`. Raises NotCoveredError."""
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
    """A row's precision: fp32 for a program that holds weights in float32 and casts each when it is read."""
    return "fp32" if programs("widened", text_of(row, "source")) else word


def beams(row: Row) -> int:
    """The number of beams, as a row's notes say."""
    match = re.search(r"\b(?:beam(?:s| size| width)?|num_beams)\W{0,3}(\d+)", text_of(row, "notes"))
    return int(match[1]) if match else 1


def cache(row: Row) -> dict[str, str]:
    """The dtype of the cache, where a row says it, llama.cpp's formats by name. int8 is as large as fp8."""
    if row["scenario"] == "kv cache per token" and row["precision"] in GGUF:
        return {"kv_dtype": row["precision"]}
    match = re.search(r"\b(cache|kv) in (8 bits|int8|fp8)", text_of(row, "notes"))
    return {"kv_dtype": "fp8"} if match or row["precision"] == "1 byte" else {}


def share(row: Row, software: str) -> float:
    """The part of a device's memory that an engine takes, as notes say or by default; 0 for other
    software.
    """
    usual = stacks.load(software).share
    match = re.search(
        r"(?:gpu_memory_utilization|mem[-_]fraction[-_]static)\W{0,3}(0\.\d+)", text_of(row, "notes")
    )
    return 0 if usual == 1 else float(match[1]) if match else usual


def lengths(row: Row, usual: int) -> tuple[int, int]:
    """(tokens of the prompt, tokens in the cache at the end): `seq` where a row has no lengths of its own."""
    start, new = (int(number(row, c, 0)) for c in ("input_len", "output_len"))
    return start, start + new or int(number(row, "seq", usual))
