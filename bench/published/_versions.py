"""What software did before some version (versions.toml), for rows of that time.

A row without a version means the one that was new in the month that it states, or when its torch was new.
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
    """Settings of a mode that a row's software had before a later version changed them. rows: a list of the
    file, beside that of all rows.
    """
    settings: dict[str, Any] = {}
    for ways in (*_known()["all"], *_known()[rows]):
        concerned = ways["software"] in (software, "torch") and _concerns(ways, model)
        if concerned and _is_older(row, ways["software"], ways["version"], ways.get("released", ())):
            settings |= ways.get(mode, {})
    return settings


def older(row: Row, software: str, mode: str, model: Any = "") -> dict[str, Any]:
    """Settings of a row of memory by its software's version; its attention as the row states it."""
    text, settings = text_of(row), changed("memory", row, software, mode, model)
    if "last logits alone" in text:  # a network's own code
        settings.pop("prompt_logits", None)
    if "no flash" in text:
        return settings | EAGER
    if re.search(r"\bsdpa\b", text):
        settings.pop("attention", None)
    return settings | ({"attention": "flash"} if "flash attention" in text else {})


def adamw(row: Row, software: str) -> str:
    """torch's AdamW where no kernel is named: it steps all weights at once, with a temporary list of them;
    before torch 2.0, and in a Trainer until 2023-08 (#25109), one after the other. Sources: torch-optim,
    transformers.
    """
    old = month(row) < (2023, 8) if differs(software).get("trainer") else before_2(row)
    return "adamw_loop" if old else "adamw"


def before_2(row: Row) -> bool:
    """Whether a row states a torch before 2.0, or a month before its release."""
    return before(row, "torch", (2, 0)) or month(row) < (2023, 3)


def held(row: Row, software: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What FSDP1 keeps of recomputed layers whose weights are frozen."""
    frozen = "lora_rank" in settings and row.get("zero_stage", "").startswith("fsdp")
    return changed("fsdp", row, software, "train") if frozen and settings["recompute"] == "full" else {}


def ungrouped(row: Row, software: str, settings: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Attention with grouped heads in float32: transformers hands them to SDPA as they are, and no kernel of
    it takes them. Sources: transformers-families, torch-sdpa-cuda.
    """
    wide = settings["dtype"] == "fp32" and settings.get("precision") != "autocast"
    if not differs(software).get("as_grouped") or not wide:
        return {}
    own = vars(resolve(model, settings["config"])[2])
    grouped = 0 < own.get("kv_heads", 0) < own.get("heads", 0)
    return (changed("grouped", row, software, "train") or EAGER) if grouped else {}


def _concerns(ways: Mapping[str, Any], model: Any) -> bool:
    """Whether an entry of the file concerns a network: it names no families, or the network's."""
    return "families" not in ways or _family(model) in _known()["families"][ways["families"]]


def _is_older(row: Row, software: str, version: Iterable[int], released: Iterable[int]) -> bool:
    """Whether a row's software is from before a version, by its own or by the month of its release."""
    return before(row, software, tuple(version)) or _when(row, software) < tuple(released)


def _when(row: Row, software: str) -> tuple[int, ...]:
    """The month of a row's software, where the row states no version of it; LATER where nothing tells it."""
    text = text_of(row, "engine", "engine_version", "source", "notes")
    if re.search(rf"\b{software} v?\d+\.\d", text) or row.get("engine_version"):
        return LATER
    match = re.search(r"torch v?(\d+\.\d+)", text)
    torch = tuple(_known()["torch"].get(match[1], LATER)) if match else LATER
    return min(month(row), torch)


def _family(model: Any) -> str:
    """A preset's `model_type`, or nothing."""
    table = preset.known(model) if isinstance(model, str) else None
    return table[1].get("model_type", "") if table else ""
