"""Which settings a kernel runs with: settings.toml, by architecture and shape class."""

import contextlib
import contextvars
import functools
import os
import tomllib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton

PATH = Path(__file__).with_name("settings.toml")

# Triton fixes the mode of a kernel when @triton.jit runs, so it is read once, here.
INTERPRETED = bool(triton.knobs.runtime.interpret)
if INTERPRETED:
    from .interpreter import repair

    repair()

Setting = dict[str, Any]
Key = tuple[str, str]  # a kernel and a shape class

_compiled_for: contextvars.ContextVar[str | None] = contextvars.ContextVar("architecture", default=None)
# No context variable: on a GPU, autograd runs backward in a thread of its own, which has another context.
_overrides: list[tuple[Key, tuple[tuple[str, Any], ...]]] = []


def runs_triton(tensor: torch.Tensor) -> bool:
    """Whether tensor goes to a Triton kernel: on a GPU, or on the CPU in the interpreter."""
    return tensor.is_cuda or (INTERPRETED and tensor.device.type == "cpu")


@contextlib.contextmanager
def compiling_for(architecture: str) -> Iterator[None]:
    """Choose the settings of architecture, whatever the machine is (for the lint)."""
    token = _compiled_for.set(architecture)
    try:
        yield
    finally:
        _compiled_for.reset(token)


@contextlib.contextmanager
def overridden(key: Key, setting: Setting) -> Iterator[None]:
    """Let find() give setting in the place of key's entry (to try it)."""
    _overrides.append((key, tuple(setting.items())))
    try:
        yield
    finally:
        _overrides.pop()


def state() -> Hashable:
    """The state on which settings depend besides kernel, device and class; part of the key of every cache."""
    return _compiled_for.get(), tuple(_overrides)


def architecture(device: torch.device) -> str:
    """The table of settings.toml that device uses."""
    forced = _compiled_for.get()
    if forced is not None:
        return forced
    if device.type != "cuda":
        return "interpreter"
    return _gpu_architecture(device)


@functools.cache
def _gpu_architecture(device: torch.device) -> str:
    if torch.version.hip:
        name = torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
        return name if name == "gfx942" else "generic"
    capability = torch.cuda.get_device_capability(device)
    # Only the data-center chips have as much shared memory as these tables assume.
    return {(8, 0): "sm80", (9, 0): "sm90", (10, 0): "sm100"}.get(capability, "generic")


@functools.cache
def processors(device: torch.device) -> int:
    """How many programs of a persistent kernel run side by side."""
    if device.type != "cuda":
        return 3  # the interpreter: few, so that one program has several tiles
    return torch.cuda.get_device_properties(device).multi_processor_count


def load(path: Path = PATH) -> dict[str, Any]:
    """All settings, as {kernel: {architecture: {shape class: setting}}}."""
    return tomllib.loads(path.read_text())


_load_once = functools.cache(load)


def _tables(kernel: str) -> Any:
    return _load_once(Path(os.environ.get("BUDGET_KERNEL_SETTINGS", PATH)))[kernel]


def first_class(kernel: str, device: torch.device, *shape_classes: str) -> str:
    """The first of shape_classes that has settings on device."""
    table = _tables(kernel)[architecture(device)]
    return next(name for name in shape_classes if name in table)


def find(kernel: str, device: torch.device, shape_class: str) -> Setting:
    """The settings of kernel on device for a shape class, without their provenance."""
    for key, changed in reversed(_overrides):
        if key == (kernel, shape_class):
            return dict(changed)
    setting = _tables(kernel)[architecture(device)][shape_class]
    return {name: value for name, value in setting.items() if name != "chosen_by"}
