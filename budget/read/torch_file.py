"""`path/file.py:factory` -> a torch module, made on fake tensors: no memory, whatever its size.

Runs the user's own file, because the user named it; nothing else here ever runs code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location

import torch
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode

from ..errors import InputError, as_path, shown
from ..named import Any
from ._as_gpu import one_device
from ._values import BY_DATA, Knowing
from .torch_module import explained, silent


def load(spec: str) -> tuple[Any, Any]:
    """(module, inputs) from `path/file.py:factory`, which is run on fake tensors. Raises InputError.

    The factory returns a module, or a module and its inputs, which are None where it does not.
    """
    path, _, name = spec.rpartition(":")
    if not path or not name.isidentifier():
        raise InputError("--module", f"got {as_path(spec)}; allowed: path/file.py:factory")
    if not os.path.isfile(path):
        way = "" if path.endswith(".py") else "; allowed: path/file.py:factory, which returns the module"
        raise InputError("--module", f"no file {as_path(path)}{way}")
    factory = _attribute(path, name)
    network = factory if isinstance(factory, torch.nn.Module) else _make(factory, f"{name} in {path}")
    module, inputs = network if isinstance(network, tuple) and len(network) == 2 else (network, None)
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            "--module", f"{name} returned {shown(network)}; allowed: a module, or (module, inputs)"
        )
    return module, inputs


def _make(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise InputError("--module", f"{name} is {shown(factory)}; allowed: a function or class")
    process = os.getpid()
    with explained("--module", f"in {name}"), silent():
        try:
            with constructing():
                module = factory()
        except (*BY_DATA, RuntimeError) as error:  # it takes no fakes; what it puts on the CPU is real here
            try:
                with constructing(torch.device("meta")):
                    module = factory()
            except Exception:  # noqa: BLE001 - the first one says more
                raise error from None
    if os.getpid() != process:
        os._exit(0)  # it forked: one process answers
    return module


@contextmanager
def constructing(where: Any = None) -> Iterator[None]:
    """Within, modules are made with fake parameters; an initializer that looks at numbers leaves them as they
    are.
    """
    own = torch.nn.init._no_grad_trunc_normal_
    torch.nn.init._no_grad_trunc_normal_ = lambda tensor, *_, **__: tensor
    try:
        fakes = where or active_fake_mode() or FakeTensorMode(allow_non_fake_inputs=True)
        with fakes, Knowing(), one_device():
            yield
    finally:
        torch.nn.init._no_grad_trunc_normal_ = own


def _attribute(path: str, name: str) -> Any:
    """An attribute of a Python file, which is run: the user named it."""
    spec = spec_from_file_location("budget_user_module", path)
    if spec is None or spec.loader is None:
        raise InputError("--module", f"{as_path(path)} is no Python file")
    code = module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    sys.modules[spec.name] = code
    with explained("--module", f"{path} is run"), silent():
        spec.loader.exec_module(code)
    if not hasattr(code, name):
        public = [k for k, v in vars(code).items() if callable(v) and not k.startswith("_")]
        has = ", ".join(public[:20]) or "nothing to call"
        raise InputError("--module", f"{path} has no {name!r}; it has {has}")
    return getattr(code, name)
