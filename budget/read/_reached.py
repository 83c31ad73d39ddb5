"""All that a module's forward pass can reach and change, and putting it back.

A walk over attributes, containers, closures, classes and the globals that the module's own code names.
Every container is copied (its contents are not), so that caches which a forward pass fills, counters and
hooks are as they were before. What torch keeps for the whole process is put back as well.
"""

from __future__ import annotations

import gc
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import _lru_cache_wrapper, partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..named import Any
from ._known import Held, most_known

# What holds no tensor of a pass; Held, the values that a factory's own input is known by, is among them.
PLAIN = (
    str, bytes, int, float, complex, type(None), torch.dtype, torch.device, torch.Size, ModuleType, type, Held
)  # fmt: skip
CONTAINERS = (dict, list, set, deque)
SHARED = (*CONTAINERS, torch.Tensor, torch.nn.Module, _lru_cache_wrapper)  # globals that code writes to
OTHERS = ("torch", "builtins", "typing", "collections", "abc", "functools", "enum", "logging")
NAMED = (FunctionType, BuiltinFunctionType)
MISSING = object()


class Reached:
    """The tensors that can be reached from some objects, and the present contents of all containers on the
    way.
    """

    def __init__(self, *roots: Any):
        self.tensors: list[torch.Tensor] = []
        self.seen: dict[int, Any] = {}  # also keeps each alive, so that its id stays its own
        self.order: dict[int, int] = {}
        self.undo: list[Callable[[], None]] = [_process()]
        self.facts: list[Any] = []  # all that is found, in order: a call depends on it
        collects = gc.isenabled()
        gc.disable()  # tens of thousands of small objects, none of them garbage
        try:
            self._walk(list(roots))
        finally:
            if collects:
                gc.enable()

    def _walk(self, left: list[Any]) -> None:
        while left:
            x = left.pop()
            if isinstance(x, PLAIN):
                self.facts.append(id(x) if isinstance(x, ModuleType) else x)
            elif id(x) in self.seen:
                self.facts.append(self.order[id(x)])
            else:
                self.seen[id(x)] = x
                self.order[id(x)] = len(self.order)
                self.facts += (type(x), x.__name__ if isinstance(x, NAMED) else "")
                left += self._visit(x)

    def signature(self) -> int:
        """The same number as long as nothing that is reached has changed, nor the process's own state."""
        switches = (
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.backends.cuda.math_sdp_enabled(),
        )
        state = (torch.get_rng_state().numpy().tobytes(), random.getstate(), *map(id, vars(F).values()))
        return hash((*self.facts, *switches, *state))

    def _look(self, t: torch.Tensor) -> None:
        """The properties of a tensor that a capture sees: its form, its storage, and its values where
        known.
        """
        self.facts += (t.dtype, t.layout, t.requires_grad, t.is_leaf)
        if t.layout != torch.strided or t.is_nested or is_traceable_wrapper_subclass(t):
            self.facts += (id(t), t._version)
            return
        storage = t.untyped_storage()._cdata
        self.facts += (t.shape, t.stride(), self.order.setdefault(-storage, len(self.order)))
        if isinstance(t, FakeTensor):
            self.facts.append(id(vars(t).get("known")))
        elif t.device.type == "cpu" and not t.is_quantized and t.numel() <= most_known(t):
            few = t.numel() <= 2**16
            plain = t.detach().contiguous().flatten()
            self.facts += (plain.view(torch.uint8).numpy().tobytes(),) if few else (t.data_ptr(), t._version)

    def restore(self) -> None:
        """Put back what has changed since."""
        for back in self.undo:
            back()

    def _visit(self, x: Any) -> Iterable[Any]:
        if isinstance(x, torch.Tensor):
            self.tensors.append(x)
            self._look(x)
            return (vars(x), x._backward_hooks, getattr(x, "_post_accumulate_grad_hooks", None))
        if isinstance(x, CONTAINERS):
            self.undo.append(_contents(x))
            self.facts.append(len(x))
            return (*x.keys(), *x.values()) if isinstance(x, dict) else tuple(x)
        if isinstance(x, tuple | frozenset):
            return x
        if isinstance(x, FunctionType):
            self.facts.append(x.__code__)
            return self._function(x)
        if isinstance(x, MethodType):
            return (x.__self__, x.__func__)
        if isinstance(x, partial):
            return (x.func, x.args, x.keywords)
        if isinstance(x, _lru_cache_wrapper):
            self.undo.append(_cache(x))
            return (x.__wrapped__,)
        if isinstance(x, torch.Generator):
            self.undo.append(_call(x.set_state, x.get_state()))
            return ()
        return self._object(x)

    def _object(self, x: Any) -> Iterator[Any]:
        """Attributes of an object, in a dictionary or in slots; for a module those of its class too."""
        if hasattr(x, "__dict__"):
            yield vars(x)
        for cls in type(x).__mro__:
            slots = vars(cls).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and not isinstance(x, torch.Tensor):
                    value = getattr(x, name, MISSING)
                    self.undo.append(_attribute(x, name, value))
                    yield value
            if isinstance(x, torch.nn.Module) and id(cls) not in self.order and not _foreign(cls):
                self.seen[id(cls)], self.order[id(cls)] = cls, -1
                yield from self._class(cls)

    def _class(self, cls: type) -> Iterator[Any]:
        for name, value in list(vars(cls).items()):
            if isinstance(value, (*SHARED, bool, int, float, type(None))):
                self.undo.append(_attribute(cls, name, value))
            if isinstance(value, property):
                yield value.fget
            yield getattr(value, "__func__", value)

    def _function(self, f: FunctionType) -> Iterator[Any]:
        """What a function holds: its closure, its defaults, the globals that it names."""
        for cell in f.__closure__ or ():
            value = _content(cell)
            self.undo.append(_attribute(cell, "cell_contents", value))
            yield value
        yield from (f.__defaults__, f.__kwdefaults__, vars(f))
        if _foreign(f):
            return
        for name in _names(f.__code__):
            value = f.__globals__.get(name, MISSING)
            own = isinstance(value, FunctionType) and value.__globals__ is f.__globals__
            if own or isinstance(value, SHARED):
                yield value
            if value is not MISSING and not isinstance(value, (ModuleType, type, FunctionType)):
                self.undo.append(_item(f.__globals__, name, value))


def _foreign(x: Any) -> bool:
    return str(x.__module__).partition(".")[0] in OTHERS


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return MISSING


def _call(do: Callable[[Any], object], value: Any) -> Callable[[], None]:
    return lambda: (do(value), None)[1]


def _cache(f: Any) -> Callable[[], None]:
    before = f.cache_info().misses

    def back() -> None:
        if f.cache_info().misses != before:
            f.cache_clear()

    return back


def _item(table: dict[str, Any], name: str, value: Any) -> Callable[[], None]:
    def back() -> None:
        if table.get(name, MISSING) is not value:
            table[name] = value

    return back


def _attribute(x: Any, name: str, value: Any) -> Callable[[], None]:
    def back() -> None:
        now = _content(x) if isinstance(x, CellType) else getattr(x, name, MISSING)
        if now is value:
            return
        if value is MISSING:
            delattr(x, name)
        else:
            setattr(x, name, value)

    return back


def _contents(x: Any) -> Callable[[], None]:
    """Puts a container's contents back, in their order, if others are there."""
    if isinstance(x, dict):
        before = list(x.items())

        def back() -> None:
            now = list(x.items())
            if len(now) != len(before) or any(
                a is not c or b is not d for (a, b), (c, d) in zip(now, before, strict=True)
            ):
                x.clear()
                x.update(before)

        return back
    held = list(x)

    def refill() -> None:
        if len(x) != len(held) or any(a is not b for a, b in zip(x, held, strict=True)):
            x.clear()
            (x.update if isinstance(x, set) else x.extend)(held)

    return refill


def _process() -> Callable[[], None]:
    """Puts back the state of the whole process: random states, the default dtype."""
    dtype, state, own = torch.get_default_dtype(), torch.get_rng_state(), random.getstate()
    numpy = sys.modules.get("numpy")
    arrays = numpy.random.get_state() if numpy else None

    def back() -> None:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(state)
        random.setstate(own)
        if numpy:
            numpy.random.set_state(arrays)

    return back
