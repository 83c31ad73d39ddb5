"""The name of every storage, and how long it lives.

Names belong to storages, not to tensors: a view has the name of its storage, a write in place keeps the name,
and a storage that grows gets a new one.
"""

from __future__ import annotations

import itertools
import weakref

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..ir import INPUT, Op, Tensor
from ..named import Any, NamedTuple
from ._aten import shaped

Tensors = tuple[Tensor, ...]
PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor)


class Storage(NamedTuple):
    """A storage's name, its role, its bytes, and a weak reference that shows when it is freed."""

    name: str
    role: str
    bytes: int
    ref: Any


class Storages:
    """All storages that are alive, by address, and after which operator each of the others was freed."""

    def __init__(self, ops: list[Op]):
        self.ops = ops
        self.alive: dict[int, Storage] = {}
        self.freed: dict[int, list[str]] = {}  # index of an operator -> what is freed after it
        self.numbers = itertools.count()

    def of(self, t: torch.Tensor) -> Storage:
        """The storage of a tensor that has been seen before."""
        return self.alive[address(t)]

    def new(self, t: torch.Tensor, name: str = "", role: str = "activation") -> bool:
        """Whether a storage is seen for the first time; it then gets that name, or a number."""
        storage = t.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return False
        ref = weakref.ref(storage, lambda _: self._let_go(key))
        self.alive[key] = Storage(name or self._number(), role, storage.nbytes(), ref)
        return True

    def grown(self, t: torch.Tensor) -> bool:
        """Whether a storage has another size after a write: then it is another storage, with another name."""
        storage = t.untyped_storage()
        before = self.alive.get(storage._cdata)
        if before is None or before.bytes == storage.nbytes():
            return False
        self._free(before.name)
        other = before._replace(name=self._number(), role="activation", bytes=storage.nbytes())
        self.alive[storage._cdata] = other
        return True

    def _number(self) -> str:
        return f"t{next(self.numbers)}"

    def _let_go(self, key: int) -> None:
        self._free(self.alive.pop(key).name)

    def _free(self, name: str) -> None:
        self.freed.setdefault(len(self.ops) - 1, []).append(name)

    def named(self, t: torch.Tensor) -> Tensor:
        """A torch tensor by its storage's name; one from outside of the module is an input."""
        if len(strided := parts(t)) > 1:
            t = strided[-1]
        self.new(t, f"outside{next(self.numbers)}", INPUT)
        storage = self.of(t)
        return shaped(storage.name, t, storage.role)

    def whole(self, t: torch.Tensor) -> Tensor:
        """A tensor with all of its storage."""
        named, size = self.named(t), t.untyped_storage().nbytes()
        if size == t.numel() * t.itemsize:
            return named
        return named._replace(dims=(str(size),), dtype="uint8")


def address(t: torch.Tensor) -> int:
    """Where a tensor's storage is, by which it is known while it is alive."""
    return int(t.untyped_storage()._cdata)


def parts(t: Any) -> list[torch.Tensor]:
    """The strided tensors of which a tensor is made: itself, or indices and values."""
    if not isinstance(t, torch.Tensor):
        return []
    if type(t) not in PLAIN and is_traceable_wrapper_subclass(t):
        return [part for name in t.__tensor_flatten__()[0] for part in parts(getattr(t, name))]
    if t.layout == torch.strided:
        return [t]
    if t.layout == torch.sparse_coo:
        return [t._indices(), t._values()]
    rows = t.layout in (torch.sparse_csr, torch.sparse_bsr)
    indices = (t.crow_indices(), t.col_indices()) if rows else (t.ccol_indices(), t.row_indices())
    return [*indices, t.values()]
