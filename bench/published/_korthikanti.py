"""Memory of activations in Korthikanti et al.: shares of tensor parallelism alone (figure 7), and bytes of a
pipeline's first stage (figure 1). Sizes, and the stages that a device has, are those of the paper's table 3.
Source: korthikanti-2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from budget.answer import Estimate
from budget.named import Any

from .layouts import DROPOUT, words
from .rows import NotCoveredError, Part, stack, whole

# Layers, d_model, heads, stages of a pipeline on a device (m).
NETWORKS = {
    "megatron-22B": (48, 6144, 64, 1), "gpt3-175B": (96, 12288, 96, 3),
    "turing-530B": (105, 20480, 128, 3), "megatron-1T": (128, 25600, 160, 1),
}  # fmt: skip
SCENARIOS = ("activation memory ratio", "pretrain (fig)")


def parts(row: Mapping[str, str]) -> tuple[tuple[Part, ...], Any]:
    """What runs, and what is asked of it. Raises NotCoveredError for a network that is not the paper's."""
    if row["model"] not in NETWORKS:
        raise NotCoveredError(f"{row['model'][:20]!r} is not in the paper's table 3")
    again, sp = words(row)
    if row["scenario"] == "pretrain (fig)":
        return (_part(row, again, sp),), states if "weights" in row["metric"] else activations
    one = {**row, "pp": "1"}
    return tuple(_part(one, *how, layers) for how in ((again, sp), ("none", 0)) for layers in (1, 2)), share


def _part(row: Mapping[str, str], again: str, sp: int, few: int = 0) -> Part:
    layers, d_model, heads, vpp = NETWORKS[row["model"]]
    if few:
        layers, vpp = few, 1
    tp, pp, batch = (whole(row, name) for name in ("tp", "pp", "micro_batch"))
    config = {"layers": layers, "d_model": d_model, "heads": heads, "vocab": 51200, "tied": True}
    config |= dict.fromkeys(DROPOUT, 0.1)
    settings = {
        "stack": stack(row), "dtype": "fp16", "device": "a100-80gb",
        "batch": batch, "seq": whole(row, "seq"),
        "global_batch": 2 * batch * pp, "recompute": again,
        "layout": {"tp": tp, "pp": pp, "vpp": vpp, "sp": sp},
        "config": {**config, "activation": "gelu_tanh", "context": whole(row, "seq")},
    }  # fmt: skip
    return Part("transformer", settings)


def share(estimates: Sequence[Estimate]) -> float:
    """What a layer keeps, over what it keeps with tensor parallelism alone: two depths of each."""
    a, b, c, d = (float(e.memory.activations) for e in estimates)
    return (b - a) / (d - c)


def activations(estimates: Sequence[Estimate]) -> float:
    """What the device that holds most keeps for its backward passes."""
    return float(estimates[0].memory.activations)


def states(estimates: Sequence[Estimate]) -> float:
    """Its weights, gradients and optimizer's states."""
    m = estimates[0].memory
    return float(m.parameters + m.gradients + m.optimizer)
