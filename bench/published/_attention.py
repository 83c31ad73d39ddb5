"""What computes a row's attention: a kernel, or operators whose scores reach memory."""

from __future__ import annotations

import re

from budget import stack as stacks

from . import _versions as versions
from .networks import has_sinks
from .software import differs
from .table import Row, text_of

KERNEL = re.compile(r"flash|(?<!no )(?<!without )xformers|memory.efficient attention|\bsdpa\b")
PACKAGE = re.compile(r"\bflash.?attention[ -]?2\b|\bflash kernel\b")
# SDPA has no place for a learned score of each head (sinks), these have. Source: transformers.
SINKS = re.compile(r"\bflash.?attention[ -]?[34]\b")
# Megatron's own layers, of single operators, and T5X's have no kernel for attention. Source: megatron-local.
LOCAL = r"\b(local layers|transformer.impl local|without transformer ?engine)\b"
PLAIN = rf"{LOCAL}|\bt5x\b|\beager attention\b"


def written_out(row: Row, software: str, mode: str) -> bool:
    """Whether attention's scores reach memory: where notes say so and, unless they name a kernel, in layers
    that have none, in torch before 2.0 and in software that chose none of its kernels then (versions.toml).
    Sources: torch-sdpa, megatron-local, t5x.
    """
    text = text_of(row)
    if KERNEL.search(text):
        return "no flash" in text
    return bool(re.search(PLAIN, text)) or "attention" in versions.changed("times", row, software, mode)


def by_package(row: Row, software: str, model: str) -> bool:
    """Whether notes name FlashAttention's kernel, where the software's usual one is SDPA's choice: its
    package, or SDPA told to choose no other; its later ones where SDPA has none. In transformers `flash
    attention` is the package. Sources: transformers, torch-sdpa-cuda.
    """
    text = text_of(row, "notes")
    named = PACKAGE.search(text) or (differs(software).get("trainer") and "flash attention" in text)
    named = named or (SINKS.search(text) and has_sinks(model))
    return bool(named) and stacks.load(software).trains_by_sdpa
