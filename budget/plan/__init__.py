"""Techniques: one file each, Model -> Model, found by their file names.

A technique's file has
- SETTINGS: its settings by name, which become flags and keyword arguments of `estimate`
- STAGES: by the names of techniques.py's stages, what is done there: (model, task) -> model

and if needed
- NEEDS: by setting, the settings without which it means nothing; a tuple means any one of its settings,
  "train" the mode, "adapter" any adapter
- EXCLUDES: by setting, the settings that it contradicts
- ADAPTER: the setting that makes it an adapter, of which there is one, and the setting of its targets
- check(task, device): raises an InputError for what else does not go together
- UNNAMED = True: a torch module, whose dimensions have no names, can have it too

- KEEPS_WEIGHTS = True: the network's own weights stay as they are stored (adapters, sparse products), so that
  nothing casts them to float32 unless requested

Where files are called like their settings, only those whose settings differ from their defaults are imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

from ..config import Field, Task, Techniques, make
from ..errors import InputError, wrong
from ..found import modules
from ..ir import Model
from ..named import TYPE_CHECKING, Any
from ..size import any_of

if TYPE_CHECKING:
    from ..device import Device


@cache
def files() -> tuple[ModuleType, ...]:
    """All techniques, sorted by name."""
    techniques = (import_module(f"{__name__}.{name}") for name in modules(__path__[0]))
    return tuple(module for module in techniques if hasattr(module, "SETTINGS"))


@cache
def fields() -> Mapping[str, Field]:
    """The settings of all techniques by name."""
    return _class(files()).fields


@cache
def _having(names: frozenset[str]) -> tuple[ModuleType, ...]:
    """The files with these settings: where each is called like its setting no other one is imported."""
    there = modules(__path__[0])
    found: dict[str, ModuleType] = {}
    for name in names:
        file = name if name in there else name.partition("_")[0]
        if file not in there:
            return files()
        found[file] = import_module(f"{__name__}.{file}")
        if name not in getattr(found[file], "SETTINGS", ()):
            return files()
    return tuple(found[file] for file in sorted(found))


@cache
def _class(having: tuple[ModuleType, ...]) -> type[Techniques]:
    settings = {name: field for module in having for name, field in module.SETTINGS.items()}
    types = {name: type(field.default).__name__ for name, field in settings.items()}
    methods = {
        "__reduce__": lambda self: (chosen, (self.used,)),
        "__eq__": lambda self, other: isinstance(other, Techniques) and self.used == other.used,
        "__hash__": lambda self: hash(tuple(sorted(self.used.items()))),
        "__getattr__": _default,  # of a setting whose file was not needed
    }
    return type("All", (Techniques,), {**settings, **methods, "__annotations__": types})


def _default(_: Techniques, name: str) -> Any:
    if name not in fields():
        raise AttributeError(name)
    return fields()[name].default


def chosen(values: Mapping[str, Any]) -> Techniques:
    """Checked settings of all techniques, or of none if all are off. Raises InputError."""
    if not values:
        return Techniques()
    settings = make(_class(_having(frozenset(values))), values)
    for name, value in vars(settings).items():
        if not isinstance(value, str | int | float):
            raise wrong(name, value, "one whole number")
    return settings if settings.used else Techniques()


def keeps_weights(values: Mapping[str, Any]) -> bool:
    """Whether one of these settings leaves the network's own weights as they are stored."""
    kept = (m for m in _having(frozenset(values)) if hasattr(m, "KEEPS_WEIGHTS"))
    fields_of = (field for m in kept for field in m.SETTINGS.items())
    return any(any_of(values.get(name, f.default) != f.default) for name, f in fields_of)


def on(task: Task) -> Iterator[ModuleType]:
    """The techniques with a setting that differs from its default."""
    used = task.techniques.used
    return (module for module in _having(frozenset(used)) if used.keys() & module.SETTINGS)


def run(model: Model, task: Task, *stages: str) -> Model:
    """The model after the techniques that are on have been applied at these stages, in this order."""
    if task.techniques.used:
        for stage in stages:
            for module in on(task):
                if stage in module.STAGES:
                    model = module.STAGES[stage](model, task)
    return model


def check(task: Task, device: Device) -> None:
    """Raise an InputError for techniques that contradict each other, the mode, the dtype or the device."""
    used, mode = task.techniques.used, task.workload.mode
    if mode != "train" and task.recompute != "none":
        raise only_trains("recompute", mode)
    if mode == "train" and task.dtype in ("float8", "int8"):
        narrow = "fp8" if task.dtype == "float8" else "int8"
        wide = "bf16, with precision fp8 for its products"
        raise InputError("dtype", f"got {narrow}; allowed in training: {wide}; {narrow} itself: mode forward")
    found = tuple(on(task))
    needs = _merged(found, "NEEDS")
    for name in used:
        if mode != "train" and "train" in needs.get(name, ()):
            raise only_trains(name, mode)
    for module in found:
        if hasattr(module, "check"):
            module.check(task, device)
    _together(
        [name for name in _merged(found, "ADAPTER") if name in used], used, needs, _merged(found, "EXCLUDES")
    )


def _merged(modules: Iterable[ModuleType], table: str) -> dict[str, Any]:
    """The tables of one name in all modules, as one table by setting."""
    return {name: value for module in modules for name, value in getattr(module, table, {}).items()}


def _together(
    adapters: Sequence[str], used: Mapping[str, Any], needs: Mapping[str, Any], excludes: Mapping[str, Any]
) -> None:
    """Raise an InputError for settings that contradict each other, or lack one."""
    for name, other in zip(adapters[1:], adapters, strict=False):
        raise InputError(other, f"given together with {name}; allowed: one of the two")
    for name in used:
        for other in needs.get(name, ()):
            if other != "train" and not any(one in used for one in _alternatives(other)):
                raise _missing(name, other)
        for other in excludes.get(name, ()):
            if other in used:
                raise InputError(name, f"given together with {other}; allowed: one of the two")


def adapter_settings() -> dict[str, str]:
    """Settings that turn an adapter on, with the setting of its targets."""
    return _merged(files(), "ADAPTER")


def _alternatives(need: str | tuple[str, ...]) -> tuple[str, ...]:
    """The settings of which another one needs any one."""
    return need if isinstance(need, tuple) else tuple(adapter_settings()) if need == "adapter" else (need,)


def _missing(name: str, need: str | tuple[str, ...]) -> InputError:
    known = _alternatives(need)
    with_it = f"with {'one of ' * (len(known) > 1)}{', '.join(known)}"
    return InputError(name, f"there is no {need if isinstance(need, str) else known[0]}; allowed: {with_it}")


def only_trains(name: str, mode: str) -> InputError:
    """The error of a setting that only training has."""
    return InputError(name, f"there is no backward pass in mode {mode}; allowed: in mode train")


def unnamed() -> frozenset[str]:
    """Settings of techniques that do not refer to dimensions by name."""
    return frozenset(name for module in files() if hasattr(module, "UNNAMED") for name in module.SETTINGS)
