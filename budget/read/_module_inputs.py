"""Inputs of a torch module: the tensors in them, ones of given sizes, and those that its forward names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature

import torch
from torch.utils._pytree import tree_leaves, tree_map

from ..config import Workload, at_most
from ..dtype import SHORT
from ..errors import InputError
from ..named import Any
from ._aten import dtype_name
from ._shapes import CASTS, Shape


def tensors_in(x: Any) -> Iterator[torch.Tensor]:
    """The tensors of a nest of mappings, sequences and objects, as those of a dataclass, in their order."""
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, Mapping):
        for value in x.values():
            yield from tensors_in(value)
    elif isinstance(x, list | tuple | set):
        for value in x:
            yield from tensors_in(value)
    elif hasattr(x, "__dataclass_fields__"):
        for name in x.__dataclass_fields__:
            yield from tensors_in(getattr(x, name, None))
    elif hasattr(x, "__dict__") and not isinstance(x, type | torch.nn.Module) and not callable(x):
        yield from tensors_in(vars(x))


def flat(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of the inputs by the names that forward gives them."""
    takes = [*signature(module.forward).parameters, *(f"input {i}" for i in range(len(args)))]
    leaves = [(name, list(tensors_in(v))) for name, v in (*zip(takes, args, strict=False), *kwargs.items())]
    return {f"{name}.{i}" if i else name: t for name, tensors in leaves for i, t in enumerate(tensors)}


def own_dtype(module: Any) -> str:
    """The dtype of most of the parameters."""
    sums: dict[str, int] = {}
    for p in module.parameters():
        name = dtype_name(p.dtype.to_real() if p.dtype.is_complex else p.dtype)
        if name in CASTS or name == "float8":
            sums[name] = sums.get(name, 0) + p.numel()
    return max(sums, key=lambda name: sums[name], default="float32")


def of_sizes(module: Any, shapes: Any, batch: int | None) -> Any:
    """Inputs without data. A batch replaces the first dimension of the first input, and of all others that
    have the same one. Raises InputError.
    """
    if isinstance(shapes, Mapping):
        return dict(zip(shapes, of_sizes(module, list(shapes.values()), batch), strict=True))
    if isinstance(shapes, Shape):
        shapes = [shapes]
    own = own_dtype(module)
    inputs = []
    for shape in shapes:
        dtype = getattr(torch, SHORT.get(shape.dtype, shape.dtype) or own, None)
        if not isinstance(dtype, torch.dtype):
            raise InputError(
                "inputs", f"got dtype {shape.dtype[:40]!r}; allowed: int64, bool, bf16, float32, ..."
            )
        with_batch = batch is not None and shape.sizes[0] == shapes[0].sizes[0]
        sizes = (batch, *shape.sizes[1:]) if with_batch else shape.sizes
        inputs.append(_empty(sizes, dtype))
    return tuple(inputs)


def of_batch(inputs: Any, batch: int) -> Any:
    """Given inputs, without their data, for another batch: it replaces the first dimension of the first
    tensor, and of all others that have the same one. For their own batch they are as they were given.
    Raises InputError for tensors in objects.
    """
    tensors = list(tensors_in(inputs))
    first = next((t for t in tensors if t.dim()), None)
    flat = tree_leaves(inputs)
    if first is None or any(all(t is not leaf for leaf in flat) for t in tensors):
        raise InputError("batch", "allowed: of inputs that are a tensor, or a dict, list or tuple of tensors")

    if first.size(0) == batch:
        return inputs

    def sized(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.dim() or x.size(0) != first.size(0):
            return x
        return _empty((batch, *x.shape[1:]), x.dtype).requires_grad_(x.requires_grad)

    return tree_map(sized, inputs)


def _empty(sizes: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without data. Raises InputError for more elements than torch counts."""
    try:
        return torch.empty(tuple(sizes), dtype=dtype, device="meta")
    except RuntimeError:
        raise InputError("inputs", f"got {'x'.join(map(str, sizes))}: too large for a tensor") from None


def default_inputs(module: Any, workload: Workload) -> dict[str, Any]:
    """Inputs of a workload's size where forward takes input_ids or pixel_values. Raises InputError."""
    takes = signature(module.forward).parameters
    config = getattr(module, "config", None)
    with torch.device("meta"):
        if "input_ids" in takes:
            _no_size("image", workload.image, "input_ids; allowed: batch, seq")
            limit = getattr(config, "max_position_embeddings", None)
            if limit:
                at_most("seq", workload.seq, "max_position_embeddings", limit)
            ids = torch.zeros(workload.batch, workload.seq or min(1024, limit or 1024), dtype=torch.int64)
            head = getattr(module, "get_output_embeddings", lambda: None)() is not None
            return {"input_ids": ids, "labels": ids} if head and "labels" in takes else {"input_ids": ids}
        if "pixel_values" in takes:
            _no_size("seq", workload.seq, "pixel_values; allowed: batch, image")
            side = workload.image or getattr(config, "image_size", None) or 224
            channels = getattr(config, "num_channels", None) or 3
            return {"pixel_values": torch.zeros(workload.batch, channels, side, side)}
    allowed = "inputs (--input 8x3x224x224), or a file's factory that returns (module, inputs)"
    raise InputError("inputs", f"forward takes no input_ids or pixel_values; allowed: {allowed}")


def _no_size(name: str, size: int, takes: str) -> None:
    """Raise an InputError for a size that no input has."""
    if size:
        raise InputError(name, f"forward takes {takes}")
