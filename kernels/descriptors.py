"""Tensor descriptors: tiles that the hardware (Hopper's TMA) copies by itself."""

import torch
from triton.tools.tensor_descriptor import TensorDescriptor


def describe(tensor: torch.Tensor, block: list[int]) -> TensorDescriptor | None:
    """A descriptor of tensor in tiles of block, or None where the hardware cannot have one.

    It needs a contiguous last dimension, and 16-byte aligned addresses and strides.
    """
    if tensor.numel() == 0 or tensor.data_ptr() % 16 or tensor.stride(-1) != 1:
        return None
    # The stride of a dimension of size 1 has no meaning, but must be aligned.
    aligned = 16 * ((tensor.shape[-1] + 15) // 16)
    strides = [
        aligned if size == 1 else stride
        for size, stride in zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True)
    ]
    if any(stride == 0 or stride * tensor.itemsize % 16 for stride in strides):
        return None
    return TensorDescriptor(tensor, list(tensor.shape), [*strides, 1], block)


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """tensor where it or its transpose can be described, else a copy whose rows start at 16 bytes.

    The copy is one more read and write; without it, every tile would be loaded element by element.
    """
    unit = 16 // tensor.itemsize
    sizes, strides = tensor.shape, tensor.stride()
    transposed = strides[-1] != 1 and strides[-2] == 1
    contiguous = len(sizes) - 2 if transposed else len(sizes) - 1
    fits = tensor.data_ptr() % 16 == 0 and strides[contiguous] == 1
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        fits &= axis == contiguous or size == 1 or (stride != 0 and stride % unit == 0)
    if fits or tensor.numel() == 0:
        return tensor
    source = tensor.mT if transposed else tensor
    width = (source.shape[-1] + unit - 1) // unit * unit
    copy = source.new_empty((*source.shape[:-1], width))[..., : source.shape[-1]]
    copy.copy_(source)
    return copy.mT if transposed else copy
