"""Tables of training steps of one node with step time and peak memory (b200_training.csv)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from budget.answer import Estimate
from budget.read.source import resolve

from .networks import network
from .rows import Asked, Part, device, measured, stack, whole
from .table import Row

COLUMNS = ("id", "source", "model", "layers", "tp", "cp", "ep", "pp", "dp", "micro_batches", "seq", "step_ms")
TELLS = ("step_ms", "micro_batches")
NUMBERS = (
    "layers", "kv_heads", "tp", "cp", "ep", "pp", "dp", "micro_batches", "seq", "step_ms",
    "peak_allocated_gib",
)  # fmt: skip
WORDS = ()


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError.

    Micro-batches of one sequence, Megatron's distributed optimizer, one dense layer where a cut network has
    experts, and context parallelism by all-to-all, as the source's scripts have it; the device stands
    in the source.
    """
    software = stack(row, "megatron")
    model, config = network({**row, "layers": ""}, software, whole(row, "seq"))
    axes = {axis: whole(row, axis, 1) for axis in ("tp", "cp", "pp", "dp", "ep")}
    apart = {"etp": 1} if axes["ep"] > 1 else {}
    micro = whole(row, "micro_batches")
    # Cut to fewer layers, and to other heads where the source's model file has others than its namesake.
    few = {"layers": whole(row, "layers")}
    if row["kv_heads"]:
        few["kv_heads"] = whole(row, "kv_heads")
    if resolve(model, config)[2].dense_layers:
        few["dense_layers"] = 1
    settings = {
        "device": device("B200"),
        "stack": software,
        "batch": 1,
        "seq": whole(row, "seq"),
        "config": {**config, **few},
        "optimizer": "adamw_fused",
        "layout": {**axes, **apart, "cp_kind": "ulysses", "zero": 1 if axes["dp"] * axes["cp"] > 1 else 0},
        "global_batch": micro * axes["dp"],
    }
    part = Part(model, settings)
    yield Asked("step_s", "s", measured(row, "step_ms", 1e-3), (part,))
    yield Asked("peak_bytes", "bytes", measured(row, "peak_allocated_gib", 2**30), (part,), of=peak)


def peak(estimates: Sequence[Estimate]) -> float:
    """The peak of the device that holds most."""
    return float(estimates[0].memory.peak)
