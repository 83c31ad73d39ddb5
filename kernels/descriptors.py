"""Tensor descriptors: tiles that the hardware (Hopper's TMA) copies by itself."""

import torch
from triton.tools.tensor_descriptor import TensorDescriptor


def describe(tensor: torch.Tensor, block: list[int]) -> TensorDescriptor | None:
    """A descriptor of tensor in tiles of block, or None where the hardware takes none.

    It wants a contiguous last dimension, and 16-byte aligned addresses and strides.
    """
    if tensor.numel() == 0 or tensor.data_ptr() % 16 or tensor.stride(-1) != 1:
        return None
    # The stride of a dimension of size 1 means nothing, but has to be aligned.
    aligned = 16 * ((tensor.shape[-1] + 15) // 16)
    strides = [
        aligned if size == 1 else stride
        for size, stride in zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True)
    ]
    if any(stride == 0 or stride * tensor.itemsize % 16 for stride in strides):
        return None
    return TensorDescriptor(tensor, list(tensor.shape), [*strides, 1], block)
