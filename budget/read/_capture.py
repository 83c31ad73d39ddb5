"""Every call that torch makes, recorded with what it reads and writes.

A dispatch mode sees the calls below autograd, forward and backward; its operands are storages
(_storages.py). Derived: torch.utils._python_dispatch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from threading import get_ident

import torch
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..dtype import BYTES
from ..errors import InputError
from ..ir import INPUT, STATE, WEIGHTS, Op, Tensor, elements
from ..named import Any
from ..progress import Progress
from ._aten import ADDED, NUMBERS, Sizes, counted, operators, shaped
from ._kinds import UNKNOWN, is_arithmetic, kind_of, plain
from ._storages import PLAIN, Storages, parts
from ._values import Values

Tensors = tuple[Tensor, ...]
DEVICE = torch.ops.prim.device.default


class Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed here
    """The operators so far, and the name of each storage."""

    supports_higher_order_operators = True

    def __init__(self, paths: Mapping[int, str], even: bool = False):
        super().__init__()
        self.paths = paths  # id of a module -> its name
        parents = {path.rpartition(".")[0] for path in paths.values()} | {""}
        self.leaves = frozenset(paths.values()) - parents  # their calls carry the module's name alone
        self.stack: list[str] = [""]
        self.phase = "forward"
        self.ops: list[Op] = []
        self.calls = 0
        self.storages = Storages(self.ops)
        self.made_by: dict[int, str] = {}  # sequence number of an autograd node -> its operator
        self.trained: dict[str, str] = {}  # parameters that got a gradient -> their dtype
        self.arithmetic: dict[str, float] = {}  # calls whose work is not counted, and the bytes they move
        self.values = Values(even)
        self.thread = get_ident()
        self.elsewhere = ""  # a module that another thread runs, whose calls are not seen
        self.progress = Progress()

    def declare(self, path: str, tensors: Mapping[str, torch.Tensor], role: str) -> None:
        """Tensors that exist before anything runs: a module's own, the inputs.

        A weight takes no memory of its own where its storage is counted already, or is smaller than the
        weight.
        """
        named: list[Tensor] = []
        for name, tensor in tensors.items():
            for i, t in enumerate(parts(tensor)):
                own = f"{name}.{i}" if i else name
                new = self.storages.new(t, own, role)
                if role not in WEIGHTS:
                    named += [self.storages.whole(t)] if new else []
                    continue
                size, whole = t.numel() * t.itemsize, t.untyped_storage().nbytes()
                named.append(shaped(own, t, role)._replace(on_chip=size > whole if new else True))
                if new and size > whole:
                    named.append(Tensor(f"{own}.storage", (str(whole),), INPUT, "uint8"))
        if named:
            self.ops.append(Op(path, "resident", tuple(named), (), NUMBERS))

    def enter(self, module: torch.nn.Module, _args: object) -> None:
        """A hook before a module's forward pass."""
        if get_ident() == self.thread:
            self.stack.append(self.paths.get(id(module), self.stack[-1]))
        elif id(module) in self.paths:
            self.elsewhere = self.paths[id(module)] or "the module"

    def leave(self, _module: torch.nn.Module, _args: object, _out: object) -> None:
        """A hook behind a module's forward pass."""
        if get_ident() == self.thread:
            self.stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call and record it."""
        if func is DEVICE and type(args[0]) is FakeTensor:
            return args[0].fake_device  # a third of all calls, and no work
        if any(t not in PLAIN and hasattr(t, "__tensor_flatten__") for t in types):
            return NotImplemented  # it says itself what it is made of
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self._higher_order(func, args, kwargs)
        if _is_composite(func):
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        result = self.values.run(func, args, kwargs)
        outs = [t for x in _leaves(result) for t in parts(x)]
        written = _written(func)
        if outs or written:
            self.calls += 1
            self._record(
                func, args, kwargs, outs, [t for x in _given(written, args, kwargs) for t in parts(x)]
            )
            if self.calls % 64 == 0:
                where = f"{self.phase} {self.stack[-1]:.40}"
                self.progress(f"capture: {where}, {self.calls:,} calls")
        return result

    def _higher_order(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Flexible attention. Raises InputError for what hides its calls."""
        if func.__name__ not in ("flex_attention", "flex_attention_backward"):
            raise InputError("module", f"{func.__name__} hides its calls; allowed: the same without it")
        result = func(*args, **kwargs)
        self.calls += 1
        outs = [t for x in _leaves(result) for t in parts(x)]
        self._record(func, args, kwargs, outs, [])
        return result

    def _record(self, func: Any, args: Any, kwargs: Any, outs: list[Any], written: list[Any]) -> None:
        full = func.__name__ if isinstance(func, HigherOrderOperator) else func._schema.name
        name = plain(full.removeprefix("aten::"))
        storages = self.storages
        grown = [t for t in written if storages.grown(t)]
        fresh = {id(t): t for t in outs if storages.new(t)}
        fresh.update((id(t), t) for t in grown)
        op_name, forward = self._who(name)
        if not fresh and (not written or torch.Tag.inplace_view in func.tags):
            return  # a view
        made = {id(t): t for t in fresh.values()} or {id(t): t for t in written}

        def make(kind: str, ins: Tensors, outs: Tensors, sizes: Sizes = NUMBERS, kernel: str = "") -> Op:
            outs = outs if fresh else tuple(t._replace(role=STATE) for t in outs)  # written in place
            return Op(op_name, kind, ins, outs, sizes, self.phase, forward, kernel=kernel)

        if kwargs.get("beta", 1) == 0 and name in ADDED:
            args = (None, *args[1:])
        flat = (*args, *(v for v in kwargs.values() if isinstance(v, torch.Tensor)))
        if ops := list(operators(name, flat, outs or list(made.values()), storages.named, make)):
            self.ops += ops
            return
        reads = [t for x in (*args, *kwargs.values()) for y in _leaves(x) for t in parts(y)]
        reads = [t for t in reads if id(t) not in fresh]
        kind = "copy" if _is_view(func) else kind_of(func, kwargs.get("approximate", ""))
        ins = () if kind == "empty" else tuple(map(storages.named, reads))
        out = tuple(map(storages.whole, made.values()))
        if kind == UNKNOWN:
            formula = flop_registry.get(func._overloadpacket)
            if formula is not None:
                work = formula(*args, **kwargs, out_val=outs[0] if len(outs) == 1 else tuple(outs))
                self.ops.append(make("contract", *counted(work, ins, out)))
                return
            if not is_arithmetic(full):
                raise InputError(
                    "module", f"{full} may hold products, and nobody knows their FLOPs; {WAY_OUT}"
                )
            moved = sum(t.numel() * t.itemsize for t in (*reads, *made.values()))
            self.arithmetic[name] = self.arithmetic.get(name, 0) + moved
        self.ops.append(make(kind, ins, out))

    def _who(self, name: str) -> tuple[str, str]:
        """An operator's name, and the forward operator to which it belongs."""
        if self.phase == "forward":
            path = self.stack[-1]
            op_name = path if path in self.leaves else f"{path}.{name}".lstrip(".")
            # autograd has already made its node for this call, if it makes one
            self.made_by.setdefault(torch._C._autograd._get_sequence_nr() - 1, op_name)
            return op_name, ""
        node = torch._C._current_autograd_node()
        if node is None:  # what the backward pass starts from: the gradient of what came last, the loss
            forward = next((o.name for o in reversed(self.ops) if o.phase == "forward"), "")
        else:
            forward = self.made_by.get(node._sequence_nr(), "")
        return f"d:{forward or name}", forward

    def uncounted(self) -> tuple[str, ...]:
        """Calls whose arithmetic is not counted, with their share of all bytes that are moved."""
        moved = sum(
            elements(t, o.sizes) * BYTES[t.dtype]
            for o in self.ops
            if o.outs
            for t in (*o.ins, *o.outs)
            if not t.on_chip
        )
        shares = ((name, size / moved) for name, size in sorted(self.arithmetic.items()))
        return tuple(f"FLOPs of {name} ({share:.1%} of the bytes)" for name, share in shares)


WAY_OUT = "allowed: a formula for it, by torch.utils.flop_counter.register_flop_formula"


def _leaves(x: Any) -> Iterator[Any]:
    """A call's result or argument as a list: itself, or its elements."""
    if isinstance(x, list | tuple):
        for y in x:
            yield from _leaves(y)
    elif x is not None:
        yield x


@cache
def _is_composite(func: Any) -> bool:
    """Whether a call is made of others. Autograd shows those by itself; torch.inference_mode does not."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return bool(has(func.name(), "CompositeImplicitAutograd")) and not has(func.name(), "CPU")


@cache
def _is_view(func: Any) -> bool:
    """Whether a call's result shares its argument's storage; a sparse tensor's result has new indices."""
    infos = [r.alias_info for r in func._schema.returns]
    return any(info is not None and not info.is_write for info in infos)


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """The arguments that a call writes to, by place and by name."""
    arguments = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)


def _given(which: tuple[tuple[int, str], ...], args: Any, kwargs: Any) -> Iterator[Any]:
    for i, name in which:
        yield from _leaves(args[i] if i < len(args) else kwargs.get(name))
