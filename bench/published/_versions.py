"""What software did before a version, for a row of that time: versions.toml has it.

A row that states no version means the one that was new in the month that it states, or when its torch was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from budget.named import Any
from budget.read import preset
from budget.read.source import resolve

from .rows import before, month
from .software import differs, toml
from .table import Row, text_of

EAGER = {"attention": "eager"}
LATER = (9999,)


@cache
def _known() -> Mapping[str, Any]:
    return toml("versions.toml")


def changed(rows: str, row: Row, software: str, mode: str, model: Any = "") -> dict[str, Any]:
    """Settings of a mode that a row's software had, and later changed. rows: a list of the file."""
    found: dict[str, Any] = {}
    for ways in _known()[rows]:
        concerned = ways["software"] in (software, "torch") and _concerns(ways, model)
        if concerned and _is_older(row, ways["software"], ways["version"], ways.get("released", ())):
            found |= ways.get(mode, {})
    return found


def older(row: Row, software: str, mode: str, model: Any = "") -> dict[str, Any]:
    """Settings that a row of memory has by its software's version; its attention if it states one."""
    text, found = text_of(row), changed("memory", row, software, mode, model)
    if "last logits alone" in text:  # a network's own code
        found.pop("prompt_logits", None)
    if "no flash" in text:
        return found | EAGER
    if re.search(r"\bsdpa\b", text):
        found.pop("attention", None)
    return found | ({"attention": "flash"} if "flash attention" in text else {})


def adamw(row: Row, software: str) -> str:
    """How torch's AdamW steps where no kernel is named: all weights at once, with a list of them besides, or
    one after the other before torch 2.0, and in a Trainer until 2023-08 (#25109). Sources: torch-optim,
    transformers.
    """
    old = month(row) < (2023, 8) if differs(software).get("trainer") else before_2(row)
    return "adamw_loop" if old else "adamw"


def before_2(row: Row) -> bool:
    """Whether a row states a torch before 2.0, or a month before its release."""
    return before(row, "torch", (2, 0)) or month(row) < (2023, 3)


def held(row: Row, software: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What FSDP1 keeps of layers that do not train, and are recomputed."""
    frozen = "lora_rank" in settings and row.get("zero_stage", "").startswith("fsdp")
    return changed("fsdp", row, software, "train") if frozen and settings["recompute"] == "full" else {}


def ungrouped(row: Row, software: str, settings: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Attention of grouped heads in float32, which transformers hands to SDPA as they are: none of its
    kernels takes them. Sources: transformers-families, torch-sdpa-cuda.
    """
    wide = settings["dtype"] == "fp32" and settings.get("precision") != "autocast"
    if not differs(software).get("as_grouped") or not wide:
        return {}
    own = vars(resolve(model, settings["config"])[2])
    grouped = 0 < own.get("kv_heads", 0) < own.get("heads", 0)
    return (changed("grouped", row, software, "train") or EAGER) if grouped else {}


def _concerns(ways: Mapping[str, Any], model: Any) -> bool:
    """Whether a network is of the families that something is said of."""
    return "families" not in ways or _family(model) in _known()["families"][ways["families"]]


def _is_older(row: Row, software: str, version: Iterable[int], released: Iterable[int]) -> bool:
    """Whether a row's software is from before a version, by its own or by the month of its release."""
    return before(row, software, tuple(version)) or _when(row, software) < tuple(released)


def _when(row: Row, software: str) -> tuple[int, ...]:
    """The month that a row's software is from, if it states no version of it; LATER where nothing tells."""
    text = text_of(row, "engine", "engine_version", "source", "notes")
    if re.search(rf"\b{software} v?\d+\.\d", text) or row.get("engine_version"):
        return LATER
    told = re.search(r"torch v?(\d+\.\d+)", text)
    torch = tuple(_known()["torch"].get(told[1], LATER)) if told else LATER
    return min(month(row), torch)


def _family(model: Any) -> str:
    """A preset's `model_type`, or nothing."""
    found = preset.known(model) if isinstance(model, str) else None
    return found[1].get("model_type", "") if found else ""
