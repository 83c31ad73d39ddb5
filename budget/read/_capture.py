"""Every call that torch makes, recorded with what it reads and writes and with how long that lives.

A dispatch mode sees the calls below autograd, forward and backward. Tensors are named after
their storages: views are nothing, and what is written in place stays what it was. When Python
and autograd let a storage go, the operator before that holds it until then (Op.holds), so the
memory walk has true lifetimes. Derived: torch.utils._python_dispatch.
"""

from __future__ import annotations

import itertools
import sys
import time
import weakref
from collections.abc import Mapping

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..dtype import BYTES
from ..ir import FROZEN, GRADIENT, INPUT, WEIGHT, Op, Tensor, elements
from ..named import Any
from ._aten import NUMBERS, UNKNOWN, Sizes, kind_of, operators, shaped

Tensors = tuple[Tensor, ...]
DEVICE = torch.ops.prim.device.default
PROGRESS_S = 0.2  # seconds between two lines of progress


class Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed here
    """The operators so far, and what each storage is called."""

    def __init__(self, paths: Mapping[int, str]):
        super().__init__()
        self.paths = paths  # id of a module -> its name
        parents = {path.rpartition(".")[0] for path in paths.values()} | {""}
        self.leaves = frozenset(paths.values()) - parents  # their calls carry the module's name alone
        self.stack: list[str] = [""]
        self.phase = "forward"
        self.ops: list[Op] = []
        self.calls = 0
        self.numbers = itertools.count()
        self.freed: dict[int, list[str]] = {}  # index of an operator -> what is let go behind it
        self.storages: dict[int, tuple[str, str, Any]] = {}  # address -> name, role, a reference
        self.made_by: dict[int, str] = {}  # sequence number of an autograd node -> its operator
        self.unknown: dict[str, float] = {}  # calls that nobody knows, and the bytes they move
        self.reported = 0.0

    def declare(self, path: str, tensors: Mapping[str, torch.Tensor], role: str) -> None:
        """Tensors that are there before anything runs: a module's own, the inputs."""
        named = [shaped(name, t, role) for name, t in tensors.items() if self._new(t, name, role)]
        if named:
            self.ops.append(Op(path, "resident", tuple(named), (), NUMBERS))

    def enter(self, module: torch.nn.Module, _args: object) -> None:
        """A hook before a module's forward pass."""
        path = self.paths.get(id(module), self.stack[-1])
        self.stack.append(path)

    def leave(self, _module: torch.nn.Module, _args: object, _out: object) -> None:
        """A hook behind a module's forward pass."""
        self.stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call and record it."""
        if func is DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # a third of all calls, and no work
        result = func(*args, **(kwargs or {}))
        outs = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        if outs:
            self.calls += 1
            named = (v for v in (kwargs or {}).values() if isinstance(v, torch.Tensor))
            self._record(func, (*args, *named), outs)
            if self.calls % 64 == 0:
                self._progress()
        return result

    def _record(self, func: Any, args: tuple[Any, ...], outs: list[Any]) -> None:
        name, inplace = func._schema.name.removeprefix("aten::"), func._schema.is_mutable
        fresh = {id(t): t for t in outs if self._new(t, f"t{next(self.numbers)}")}
        op_name, of = self._who(name)
        if not fresh and (not inplace or torch.Tag.inplace_view in func.tags):
            return  # a view

        def make(kind: str, ins: Tensors, outs: Tensors, sizes: Sizes = NUMBERS, kernel: str = "") -> Op:
            return Op(op_name, kind, ins, outs, sizes, self.phase, of, kernel=kernel)

        if found := list(operators(name, args, outs, self._named, make)):
            self.ops += found
            return
        reads = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
        kind = kind_of(name, [tag.name for tag in func.tags], inplace and not fresh)
        ins = tuple(map(self._named, reads))
        made = tuple(map(self._whole, fresh.values())) or (ins[0]._replace(name=f"{ins[0].name}'"),)
        self.ops.append(make(kind, ins, made))
        if kind == UNKNOWN:
            moved = sum(t.numel() * t.itemsize for t in (*reads, *fresh.values()))
            self.unknown[name] = self.unknown.get(name, 0) + moved

    def _who(self, name: str) -> tuple[str, str]:
        """An operator's name, and the forward operator that it belongs to."""
        if self.phase == "forward":
            path = self.stack[-1]
            op_name = path if path in self.leaves else f"{path}.{name}".lstrip(".")
            # autograd has already made its node for this call, if it makes one
            self.made_by.setdefault(torch._C._autograd._get_sequence_nr() - 1, op_name)
            return op_name, ""
        node = torch._C._current_autograd_node()
        of = self.made_by.get(node._sequence_nr(), "") if node is not None else ""
        return f"d:{of or name}", of

    def _new(self, t: torch.Tensor, name: str, role: str = "activation") -> bool:
        """Whether a storage is seen for the first time; it then gets that name."""
        storage = t.untyped_storage()
        key = storage._cdata
        if key in self.storages:
            return False
        self.storages[key] = name, role, weakref.ref(storage, lambda _: self._let_go(key))
        return True

    def _let_go(self, key: int) -> None:
        name, _, _ = self.storages.pop(key)
        self.freed.setdefault(len(self.ops) - 1, []).append(name)

    def _named(self, t: torch.Tensor) -> Tensor:
        """A torch tensor by its storage's name; one from outside of the module is an input."""
        self._new(t, f"outside{next(self.numbers)}", INPUT)
        name, role, _ = self.storages[t.untyped_storage()._cdata]
        return shaped(name, t, role)

    def _whole(self, t: torch.Tensor) -> Tensor:
        """A new tensor with all of its storage."""
        named, size = self._named(t), t.untyped_storage().nbytes()
        if size == t.numel() * t.itemsize:
            return named
        return named._replace(dims=(str(size),), dtype="uint8")

    def _progress(self) -> None:
        if time.monotonic() - self.reported > PROGRESS_S and sys.stderr.isatty():
            self.reported = time.monotonic()
            sys.stderr.write(f"\rcapture: {self.phase} {self.stack[-1]:.40}, {self.calls:,} calls\033[K")

    def program(self, gradients: Mapping[str, torch.Tensor]) -> tuple[tuple[Op, ...], tuple[str, ...]]:
        """The operators with lifetimes and gradients marked, and what outlives them."""
        if self.reported:
            sys.stderr.write("\r\033[K")
        grads = {self.storages[g.untyped_storage()._cdata][0]: name for name, g in gradients.items()}
        alive = {name for name, role, _ in self.storages.values() if role not in (WEIGHT, FROZEN, INPUT)}
        ops = []
        for i, o in enumerate(self.ops):
            named = ((t, grads.get(t.name)) for t in o.outs)
            outs = tuple(_gradient(t, name, WEIGHT) if name else t for t, name in named)
            ins = tuple(_gradient(t, grads[t.name], t.role) if t.name in grads else t for t in o.ins)
            ops.append(o._replace(ins=ins, outs=outs, holds=tuple(self.freed.get(i, ()))))
        return tuple(ops), tuple(sorted(alive - set(grads)))

    def uncounted(self) -> tuple[str, ...]:
        """Calls that are not counted, with their share of all bytes that are moved."""
        moved = sum(
            elements(t, o.sizes) * BYTES[t.dtype]
            for o in self.ops
            if o.outs
            for t in (*o.ins, *o.outs)
            if not t.on_chip
        )
        shares = ((name, size / moved) for name, size in sorted(self.unknown.items()))
        return tuple(f"{name} ({share:.1%} of the bytes)" for name, share in shares)


def _gradient(t: Tensor, name: str, role: str) -> Tensor:
    return t._replace(name=f"d:{name}", role=role, part=GRADIENT, of=name)
