"""Launches, planned once: everything that follows from shapes, strides, dtypes and flags is decided only
once.

Below about 100 us of work for the GPU the host's time dominates, and Triton's own launch takes 15 to 25 us:
it binds and specializes every argument anew. A plan keeps the compiled kernel with all arguments but the
tensors.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
import triton
from triton.runtime import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from . import settings
from .descriptors import aligned

# A tensor, a descriptor of one, or None where the kernel has none.
Source = Any
# (grid, the sources in the order of the tensors, the other arguments and options by name).
Prepared = tuple[tuple[int, ...], tuple[Source, ...], dict[str, Any]]

MOST = 4096  # plans that are kept


class Plan(NamedTuple):
    """A compiled kernel and its arguments; a source is None, a descriptor to copy, or True: the tensor.

    copied: the tensors that are aligned() first, by their number.
    """

    kernel: Any
    grid: tuple[int, int, int]
    sources: tuple[Source, ...]
    rest: tuple[Any, ...]
    copied: tuple[int, ...]


_plans: dict[Hashable, Plan] = {}
_remembered: list[Any] = []


def remembered(function: Any) -> Any:
    """functools.lru_cache for a function of its arguments and of the settings in force."""

    @functools.lru_cache(MOST)
    def cached(_state: Hashable, *args: Any) -> Any:
        return function(*args)

    @functools.wraps(function)
    def looked_up(*args: Any) -> Any:
        return cached(settings.state(), *args)

    _remembered.append(cached)
    return looked_up


def forget() -> None:
    """Drop all plans and choices, so that they are made again."""
    _plans.clear()
    for cached in _remembered:
        cached.cache_clear()


def keeps_plans(tensor: torch.Tensor) -> bool:
    """Whether launches on tensor are planned: only where kernels run, not on meta tensors."""
    return tensor.is_cuda


def launch(
    kernel: Any,
    tensors: tuple[torch.Tensor | None, ...],
    flags: Hashable,
    prepare: Callable[[], Prepared],
) -> None:
    """Launch kernel, whose first arguments are tensors.

    prepare is called where there is no plan yet for these shapes, strides, dtypes, alignments and flags, and
    may depend on nothing else. Its sources belong to the tensors, or to their aligned() copies.
    """
    first: Any = tensors[0]
    if not keeps_plans(first):
        grid, sources, rest = prepare()
        kernel[grid](*sources, **rest)
        return
    device = first.get_device()
    key = (
        id(kernel),
        device,
        settings.state(),
        flags,
        *[None if t is None else _signature(t) for t in tensors],
    )
    plan = _plans.get(key)
    if plan is not None and not _hooked() and driver.active.get_current_device() == device:
        _run(plan, tensors, device)
        return
    with torch.cuda.device_of(first):
        grid, sources, rest = prepare()
        compiled = kernel[grid](*sources, **rest)
    if len(_plans) >= MOST:
        _plans.clear()
    names = kernel.arg_names[len(tensors) :]
    templates = tuple(_template(source) for source in sources)
    copied = tuple(i for i, pair in enumerate(zip(tensors, sources, strict=True)) if _is_copy(*pair))
    _plans[key] = Plan(compiled, (*grid, 1, 1)[:3], templates, tuple(rest[name] for name in names), copied)


def _is_copy(tensor: torch.Tensor | None, source: Source) -> bool:
    base = source.base if isinstance(source, TensorDescriptor) else source
    return tensor is not None and base is not None and base.data_ptr() != tensor.data_ptr()


def _template(source: Source) -> Any:
    if isinstance(source, TensorDescriptor):
        return _copied(source, None)  # without the tensor: a plan keeps none alive
    return None if source is None else True


def _signature(t: torch.Tensor) -> Hashable:
    return t.dtype, t.shape, t.stride(), t.data_ptr() % 16 == 0


def _hooked() -> bool:
    """Whether a profiler has hooks on launches."""
    runtime = triton.knobs.runtime
    return bool(runtime.launch_enter_hook.calls or runtime.launch_exit_hook.calls)


def _run(plan: Plan, tensors: tuple[torch.Tensor | None, ...], device: int) -> None:
    if plan.copied:
        tensors = tuple(
            aligned(t) if i in plan.copied and t is not None else t for i, t in enumerate(tensors)
        )
    sources = [
        tensor if source is True else None if source is None else _copied(source, tensor)
        for source, tensor in zip(plan.sources, tensors, strict=True)
    ]
    kernel = plan.kernel
    stream = driver.active.get_current_stream(device)
    kernel.run(
        *plan.grid, stream, kernel.function, kernel.packed_metadata, None, None, None, *sources, *plan.rest
    )


def _copied(descriptor: TensorDescriptor, base: torch.Tensor | None) -> TensorDescriptor:
    """A descriptor of another tensor of the same layout; the constructor would check it all again."""
    new = object.__new__(TensorDescriptor)
    new.__dict__.update(descriptor.__dict__)
    new.base = base
    return new
