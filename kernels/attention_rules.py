"""What every attention launch is told: who sees whom (Rules), packed sequences (Packing)."""

import math
from typing import Any, NamedTuple

import torch
import triton

from . import settings
from .descriptors import describe


class Rules(NamedTuple):
    """causal, window (0: none), softcap (0: none) and scale, as attention() documents them."""

    causal: bool
    window: int
    softcap: float
    scale: float

    def arguments(self) -> dict[str, Any]:
        """The kernels' arguments; logits are in base 2 there."""
        log2_e = math.log2(math.e)
        return {
            "scale": self.scale * log2_e,
            "softcap": self.softcap * log2_e,
            "window": self.window,
            "CAUSAL": self.causal,
            "WINDOW": self.window > 0,
            "SOFTCAP": self.softcap > 0,
        }


class Packing(NamedTuple):
    """Sequence i is the rows cu_seqlens[i] to cu_seqlens[i + 1] of the only batch entry."""

    cu_seqlens_q: torch.Tensor
    cu_seqlens_k: torch.Tensor
    longest_q: int
    longest_k: int

    @property
    def sequences(self) -> int:
        """How many sequences there are."""
        return self.cu_seqlens_q.numel() - 1


def cu_seqlens(packing: Packing | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The kernels' arguments for packing."""
    return (None, None) if packing is None else (packing.cu_seqlens_q, packing.cu_seqlens_k)


def strides(*tensors: torch.Tensor | None) -> list[tuple[int, ...]]:
    """The strides of the tensors, of zeros where there is none."""
    return [(0, 0, 0, 0) if t is None else t.stride() for t in tensors]


def find_settings(kernel: str, q: torch.Tensor) -> dict[str, Any]:
    """The kernel's settings, block and precision arguments for q's head dimension and dtype."""
    head_dim = q.shape[-1]
    block_d = max(16, triton.next_power_of_2(head_dim))
    shape_class = "fp32" if q.dtype == torch.float32 else f"d{max(block_d, 64)}"
    # IEEE only matters for float32, where the default would be TF32.
    shape = {"HEAD_DIM": head_dim, "BLOCK_D": block_d, "PRECISION": "ieee"}
    return settings.find(kernel, q.device, shape_class) | shape


def sources(
    chosen: dict[str, Any], packing: Packing | None, **tensors: tuple[torch.Tensor, str]
) -> dict[str, Any]:
    """The kernel's arguments for tensors, each given with the block size it is loaded in.

    Replaces DESCRIPTORS among the chosen settings by whether they are descriptors. Not for
    packed sequences: a descriptor would read past a sequence's end into the next, and a NaN
    there times a zero is a NaN.
    """
    loaded = {name: tensor for name, (tensor, _) in tensors.items()}
    if chosen["DESCRIPTORS"] and packing is None:
        described = {
            name: describe(tensor, [1, 1, chosen[block], chosen["BLOCK_D"]])
            for name, (tensor, block) in tensors.items()
        }
        if None not in described.values():
            return described
    chosen["DESCRIPTORS"] = False
    return loaded
