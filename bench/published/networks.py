"""The network of a row of a published table: a preset, or a decoder with the sizes that the row states."""

from __future__ import annotations

import re
from collections.abc import Mapping

from budget.arch import takes_of
from budget.errors import InputError
from budget.named import Any
from budget.read import preset
from budget.read.source import resolve

from .names import likely, named
from .rows import NotCoveredError
from .software import differs
from .table import Row, text_of


def network(row: Row, software: str, seq: int) -> tuple[Any, dict[str, Any]]:
    """(preset's or architecture's name, settings of it). Raises NotCoveredError.

    A preset counts where its sizes are those of the row's columns; else the columns make a decoder.
    """
    sizes = _sizes(row)
    name = row.get("model", "").strip()
    for theirs, ours in differs(software).get("networks", {}).items():
        name = re.sub(rf"^{theirs}", ours, name, flags=re.IGNORECASE)
    complete = {"layers", "d_model", "heads", "vocab"} <= sizes.keys()
    # Where a name has a size behind it, `phi-1.5 1.3 B`, the columns say whether it is that network.
    preset_name = (
        named(name) or named(re.sub(r" [\d.]+ [mb]$", "", name.lower())) if complete else likely(name)
    )
    if captured(preset_name):
        return preset_name, {}
    if preset_name:
        own = vars(resolve(preset_name, {})[2])
        stated = {k: v for k, v in sizes.items() if k in ("layers", "d_model", "d_ff") and own.get(k)}
        if all(abs(own[k] - v) <= 0.02 * v for k, v in stated.items()):
            long = "context" in own and own.get("positions") == "learned" and seq > own["context"]
            return preset_name, {**({"context": seq} if long else {}), **_windows(name, own)}
    if not complete:
        raise NotCoveredError(f"no preset is called {name[:40]!r}, and its sizes are not stated")
    return "transformer", {**sizes, **_style(row, sizes), "context": max(seq, 1)}


def has_sequence(row: Row) -> bool:
    """Whether a row's network may read a sequence; a network of unknown name may, and a captured class whose
    row has no side of pictures.
    """
    name = likely(row.get("model", "").strip())
    if captured(name):
        return not side(row)
    return not name or "seq" in takes_of(resolve(name, {})[1])


def captured(model: Any) -> bool:
    """Whether a model is a preset of a class that no architecture covers."""
    known = preset.known(model) if isinstance(model, str) else None
    return known is not None and preset.captured(known[1])


def has_sinks(model: str) -> bool:
    """Whether each head of a network has a learned score that only takes part in the softmax."""
    return not captured(model) and bool(vars(resolve(model, {})[2]).get("sinks"))


def _windows(name: str, own: Mapping[str, Any]) -> dict[str, int]:
    """The window of attention, where timm's name for a network says another one than the preset has. Source:
    timm.
    """
    match = re.search(r"_window(\d+)_", name) if "window" in own else None
    return {"window": int(match[1])} if match else {}


def pictures(row: Row) -> dict[str, str]:
    """The memory format of pictures, where a table's name or the notes say it (`NHWC`)."""
    match = re.search(r"\bn(hwc|chw)\b", text_of(row))
    return {"memory_format": "channels_last" if match[1] == "hwc" else "channels_first"} if match else {}


def side(row: Row) -> int:
    """The side of a row's pictures: as the row states it, or as the end of timm's name for the network; 0
    where that means the network's width (regnety_032), or nothing.
    """
    name, noted = row["model"], re.search(r"\b(?:of side|pictures of) (\d+)\b(?! x)", text_of(row, "notes"))
    match = noted or re.search(r"_(\d{3})(\.|$)", name)
    try:
        preset.look_up(name)
    except InputError:
        return int(match[1]) if match else 0
    return int(noted[1]) if noted else 0


SIZES = {
    "layers": "layers", "hidden": "d_model", "heads": "heads", "kv_heads": "kv_heads",
    "head_dim": "head_dim", "ffn": "d_ff", "vocab": "vocab", "n_experts": "experts",
    "topk": "active_experts", "moe_ffn": "expert_d_ff",
}  # fmt: skip


def _sizes(row: Row) -> dict[str, int]:
    return {ours: int(float(row[theirs])) for theirs, ours in SIZES.items() if row.get(theirs)}


# What the sizes do not say: decoders with a gated MLP are made as Llama, the others as GPT-2, whose GELU
# is one kernel in all software but transformers.
LLAMA = {
    "positions": "rotary", "norm": "rms_norm", "activation": "silu", "gated": True, "qkv_bias": False,
    "out_bias": False, "mlp_bias": False, "fused_qkv": False, "tied": False,
}  # fmt: skip


def _style(row: Row, sizes: Mapping[str, int]) -> dict[str, Any]:
    glu, notes = row.get("glu", ""), text_of(row, "notes")
    few = sizes.get("kv_heads", sizes["heads"]) < sizes["heads"]
    gated = glu == "1" if glu else few or sizes.get("d_ff", 0) % sizes["d_model"] != 0
    if not glu and (activation := re.search(r"\b(swiglu|geglu|gelu)\b", notes)):
        gated = "glu" in activation[1]
    style = {**LLAMA} if gated else {"tied": True, "activation": "gelu_tanh"}
    if tied := re.search(r"\b(un)?tied (head|embeddings)", notes):
        style["tied"] = not tied[1]
    return style
