"""Fake tensors in place of the user's own ones, which are as they were afterwards.

A tensor object that a module, a list, a closure or an optimizer holds stays the same object, but its contents
are swapped with those of a fake: no data, whatever the size. The original contents lie aside, untouched, with
gradient, hooks and graph, and come back whatever happens. Tensors that share a storage share one as fakes,
too.
Derived: torch.utils.swap_tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..errors import InputError
from ..named import Any
from ._known import know

SPARSE = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


@contextmanager
def stand_ins(tensors: list[torch.Tensor], cast: torch.dtype | None) -> Iterator[None]:
    """Within, each of these tensors is a fake; one of floating point has the dtype to which a cast is asked
    for.
    Raises InputError. To be entered in a FakeTensorMode.
    """
    maker = _Maker(cast)
    made: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        with torch.no_grad(), _uncached():
            pairs = [(t, maker.like(t)) for t in tensors if not _is_bare(t)]
        maker.storages.clear()  # each lives as long as the user's tensors of it
        for mine, fake in pairs:
            made.append((mine, fake))
            _swap(mine, fake)
            if mine._backward_hooks and mine.requires_grad:
                mine._backward_hooks = mine._backward_hooks  # what was registered, for this one too
            if getattr(mine, "_post_accumulate_grad_hooks", None) and mine.requires_grad:
                mine._post_accumulate_grad_hooks = mine._post_accumulate_grad_hooks
        yield
    finally:
        for mine, fake in reversed(made):
            _swap(mine, fake)


@contextmanager
def _uncached() -> Iterator[None]:
    """The fake mode caches no calls: its cache would keep their storages alive."""
    mode = active_fake_mode()
    before, mode.cache_enabled = mode.cache_enabled, False
    try:
        yield
    finally:
        mode.cache_enabled = before


def _is_bare(t: torch.Tensor) -> bool:
    return isinstance(t, torch.nn.parameter.UninitializedTensorMixin)


def _swap(a: Any, b: Any) -> None:
    a.__class__, b.__class__ = b.__class__, a.__class__
    mine, others = vars(a), vars(b)
    kept = dict(mine)
    mine.clear()
    mine.update(others)
    others.clear()
    others.update(kept)
    torch._C._swap_tensor_impl(a, b)


class _Maker:
    """Makes fakes; those of one storage share one."""

    def __init__(self, cast: torch.dtype | None):
        self.cast = cast
        self.storages: dict[int, Any] = {}

    def dtype(self, t: torch.Tensor) -> torch.dtype:
        return self.cast if self.cast and t.dtype.is_floating_point and t.itemsize > 1 else t.dtype

    def like(self, t: torch.Tensor) -> torch.Tensor:
        """A fake of the same shape, strides and storage, a parameter where it is one."""
        fake = self.plain(t)
        for name, x in vars(t).items():
            if name not in vars(fake) and not isinstance(t, FakeTensor):
                vars(fake)[name] = x
        if isinstance(t, torch.nn.Parameter):
            fake._is_param = True
        elif isinstance(t, torch.nn.Buffer):
            fake._is_buffer = True
        know(fake, t)
        if t.requires_grad:
            fake.requires_grad_()
        if not t.is_leaf:  # its gradient goes on to the operator that made it
            with torch.enable_grad():
                fake = torch.ops.aten.alias(fake)
        return fake

    def plain(self, t: torch.Tensor) -> torch.Tensor:
        if is_traceable_wrapper_subclass(t) and not isinstance(t, FakeTensor):
            names, context = t.__tensor_flatten__()
            inner = {name: self.like(getattr(t, name)) for name in names}
            return type(t).__tensor_unflatten__(inner, context, t.size(), t.stride())
        if t.layout == torch.sparse_coo:
            with nullcontext() if isinstance(t, FakeTensor) else unset_fake_temporarily():
                indices, values = t._indices(), t._values()
            return torch.sparse_coo_tensor(
                self.plain(indices),
                self.plain(values),
                t.size(),
                is_coalesced=t.is_coalesced(),
                check_invariants=False,
            )
        if t.layout in SPARSE:
            with nullcontext() if isinstance(t, FakeTensor) else unset_fake_temporarily():
                parts = [getattr(t, name)() for name in (*SPARSE[t.layout], "values")]
            return self.compressed(t, *parts)
        if t.layout != torch.strided or t.is_quantized or t.is_nested:
            what = "quantized" if t.is_quantized else "nested" if t.is_nested else str(t.layout)
            text = f"a {what} tensor, {list(t.size()) if not t.is_nested else 'of strided layout'}"
            raise InputError("inputs", f"{text}; allowed: dense, sparse or jagged ones")
        return self.strided(t)

    def strided(self, t: torch.Tensor) -> torch.Tensor:
        storage, dtype = t.untyped_storage(), self.dtype(t)
        if storage._cdata not in self.storages:
            self.storages[storage._cdata] = torch.empty(
                -(-storage.nbytes() // t.itemsize), dtype=dtype, device="cpu"
            )
        base = self.storages[storage._cdata].untyped_storage()
        fake = torch.empty(0, dtype=dtype, device="cpu")
        return fake.set_(base, t.storage_offset(), t.size(), t.stride())

    def compressed(self, t: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        """A compressed sparse tensor; torch accepts its parts on the meta device only."""
        mode = active_fake_mode()
        with unset_fake_temporarily():
            dtypes = map(self.dtype, parts)
            bare = [torch.empty(p.size(), dtype=d, device="meta") for p, d in zip(parts, dtypes, strict=True)]
            sparse = torch.sparse_compressed_tensor(*bare, t.size(), layout=t.layout, check_invariants=False)
        return FakeTensor(mode, sparse, torch.device("cpu"))
