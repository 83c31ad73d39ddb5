"""The arguments that all attention launches share: who sees whom (Rules), packed sequences (Packing)."""

import math
from typing import Any, NamedTuple

import torch
import triton

from . import settings
from .descriptors import aligned, describe
from .launch import remembered


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


# Extra elements after each head's row of numbers: as many as the largest block of queries, so that a block is
# read without a mask. The mask costs dK and dV up to 2.6 KB of spilled registers where a length is not
# divisible by 16.
ROOM = 256


def row_numbers(q: torch.Tensor) -> torch.Tensor:
    """An empty float32 [batch, heads, seq] of q's rows, with ROOM after each row."""
    seq = q.shape[2]
    return q.new_empty((*q.shape[:2], (seq + 15) // 16 * 16 + ROOM), dtype=torch.float32)[..., :seq]


def with_room(numbers: torch.Tensor) -> torch.Tensor:
    """numbers, copied where they have no ROOM, for instance after a hook that packs saved tensors."""
    last = sum((size - 1) * stride for size, stride in zip(numbers.shape, numbers.stride(), strict=True))
    end = (numbers.storage_offset() + last + 1 + ROOM) * numbers.itemsize
    if numbers.stride(-1) == 1 and end <= numbers.untyped_storage().nbytes():
        return numbers
    return row_numbers(numbers).copy_(numbers)


def sink_gradient(sinks: torch.Tensor, log_sum: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """The gradient of sinks [heads] from a row's base-2 logarithm of its sum and sum(out * dout): [heads].

    A sink has a share of the sum, and no value: its logit's gradient is share * (0 - delta).
    """
    share = torch.exp2(sinks.to(log_sum.dtype)[:, None] * math.log2(math.e) - log_sum)
    return -(share * delta.masked_fill(share == 0, 0.0)).sum((0, 2))


def longest(packing: Packing | None) -> tuple[int, int]:
    """The longest sequences of queries and keys; zeros without packing."""
    return (0, 0) if packing is None else (packing.longest_q, packing.longest_k)


def strides(*tensors: torch.Tensor | None) -> list[tuple[int, ...]]:
    """The strides of the tensors; zeros for None."""
    return [(0, 0, 0, 0) if t is None else t.stride() for t in tensors]


def find_settings(
    kernel: str, q: torch.Tensor, packing: Packing | None = None, rich: bool = False
) -> dict[str, Any]:
    """The kernel's settings, block and precision arguments; not to be changed.

    Their class follows from q's head dimension and dtype; packed sequences and rich logits (a bias, a soft
    cap) may have classes of their own.
    """
    return _find_settings(kernel, q.device, q.dtype, q.shape[-1], packing is not None, rich)


@remembered
def _find_settings(
    kernel: str, device: torch.device, dtype: torch.dtype, head_dim: int, packed: bool, rich: bool
) -> dict[str, Any]:
    block_d = max(16, triton.next_power_of_2(head_dim))
    is_float32 = dtype == torch.float32
    base = f"{'fp32_' if is_float32 else ''}d{max(block_d, 64)}"
    variants = [f"{base}_{name}" for name, holds in (("packed", packed), ("rich", rich)) if holds]
    general = ["fp32"] if is_float32 else []
    chosen = settings.find(kernel, device, settings.first_class(kernel, device, *variants, base, *general))
    # IEEE only matters for float32, where the default would be TF32.
    return chosen | {"HEAD_DIM": head_dim, "BLOCK_D": block_d, "PRECISION": "ieee"}


def loadable(
    chosen: dict[str, Any], packing: Packing | None, *tensors: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """tensors, copied where the settings want descriptors and their memory allows none."""
    return tuple(map(aligned, tensors)) if chosen["DESCRIPTORS"] and packing is None else tensors


def sources(
    chosen: dict[str, Any], packing: Packing | None, *tensors: tuple[torch.Tensor, str]
) -> tuple[bool, list[Any]]:
    """(whether they are descriptors, the arguments) for tensors, each with the block that it is loaded in.

    No descriptors of packed sequences: one would read past a sequence's end into the next, and a NaN
    there times a zero is a NaN.
    """
    if chosen["DESCRIPTORS"] and packing is None:
        described = [describe(t, [1, 1, chosen[block], chosen["BLOCK_D"]]) for t, block in tensors]
        if None not in described:
            return True, described
    return False, [t for t, _ in tensors]
